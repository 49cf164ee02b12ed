"""The ARC studies' analysis: what rows say of the claims, and that pages are made of rows alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mull.report.verdicts import CONTRADICTED, NOT_DETECTED, REPRODUCED

FOLDER = Path(__file__).parents[2] / "recipes" / "arc"
PAIRS = 60


@pytest.fixture(scope="module")
def arc() -> Iterator[dict[str, ModuleType]]:
    """The recipe's files as modules; scripts import each other by name from their own folder."""
    found: dict[str, ModuleType] = {}
    for name in ("rows", "claims", "page"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    for name in found:
        del sys.modules[name]


def row(
    arc: dict[str, ModuleType], study: str, cell: str, chances: float, seed: int = 0, n: int = 4,
    logprob: float | None = None, luck: int = 0, **facts: float,
) -> Any:  # fmt: skip
    """A cell whose predictions are right with a probability that differs from pair to pair."""
    rng = np.random.default_rng([luck, seed])
    chance = np.clip(rng.beta(1.0, 1.0 / chances - 1.0, PAIRS), 0, 1)
    right = tuple(map(int, np.random.default_rng([seed, luck + 1]).binomial(n, chance)))
    vote = tuple(1 if each > n / 2 else 2 if each > n / 3 else 0 for each in right)
    line = () if logprob is None else tuple(logprob + 0.1 * rng.random(PAIRS))
    return arc["rows"].Row(
        study, cell, seed, "m", "same", n, right, (n,) * PAIRS, (n,) * PAIRS,
        tuple(100 * each for each in right), vote, line, dict(facts),
    )  # fmt: skip


def said(findings: Sequence[tuple[str, ...]], claim: str, where: str = "") -> list[str]:
    return [each[4] for each in findings if each[0] == claim and where in each[2]]


def test_a_row_survives_its_file_and_an_older_one_of_its_cell_goes(
    arc: dict[str, ModuleType], tmp_path: Path
) -> None:
    rows = arc["rows"]
    old, new = (row(arc, "encoders", "minimal", share, luck=9) for share in (0.2, 0.5))
    for each in (old, row(arc, "encoders", "+ shape", 0.3), new):
        rows.save(each, tmp_path)
    kept = rows.load(tmp_path, "encoders")
    assert new in kept and old not in kept and len(kept) == 2
    assert rows.seen(tmp_path, "encoders") == {("minimal", 0), ("+ shape", 0)}


def test_passes_rise_from_accuracy_to_pass_n(arc: dict[str, ModuleType]) -> None:
    made = row(arc, "temperature", "T=0", 0.3, n=8)
    values = [made.passes(k).mean() for k in (1, 2, 4, 8)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(made.mean("accuracy"))
    assert values[-1] == pytest.approx(made.mean("pass_n"))


def test_claims_without_rows_are_not_run(arc: dict[str, ModuleType]) -> None:
    found = arc["claims"].findings([])
    assert {each.claim for each in found} == {f"D{n}" for n in range(1, 11)}
    assert {each.verdict for each in found if each.claim != "D6"} == {"not run"}


def test_a_gain_of_all_seeds_is_reproduced_and_one_of_some_is_not(
    arc: dict[str, ModuleType],
) -> None:
    base = [row(arc, "encoders", "minimal", 0.3, seed) for seed in range(3)]
    all_gain = [row(arc, "encoders", "+ shape", 0.6, seed) for seed in range(3)]
    shares = (0.9, 0.3, 0.25)
    some = [row(arc, "encoders", "+ both", x, seed) for seed, x in enumerate(shares)]
    found = arc["claims"].findings([*base, *all_gain, *some])
    by_cell = {each.says: each for each in found if each.claim == "D6"}
    assert by_cell["shape gains accuracy"].verdict == REPRODUCED
    # Over test pairs alone it would be: trainings differ too much.
    assert by_cell["both gains accuracy"].verdict == NOT_DETECTED
    assert "seeds [" in by_cell["both gains accuracy"].shown


def test_one_seed_has_no_interval_over_trainings(arc: dict[str, ModuleType]) -> None:
    pair = [row(arc, "sizes", size, share) for size, share in (("s", 0.2), ("m", 0.6))]
    [accuracy, *_] = [f for f in arc["claims"].findings(pair) if f.claim == "D10"]
    assert accuracy.verdict == REPRODUCED and "trainings" not in accuracy.shown


def test_rows_of_other_puzzles_are_never_paired(arc: dict[str, ModuleType]) -> None:
    here = row(arc, "encoders", "minimal", 0.3)
    there = replace(here, cell="+ shape", puzzles="others")
    with pytest.raises(ValueError, match="other puzzles"):
        arc["claims"].compared([there], [here], "accuracy")


def test_pass_n_rises_with_log_n_where_predictions_differ(arc: dict[str, ModuleType]) -> None:
    apart = row(arc, "temperature", "T=0.8", 0.3, n=16)
    assert said(arc["claims"].findings([apart]), "D1") == [REPRODUCED]
    alike = replace(apart, right=(16, 0) * (PAIRS // 2))
    assert said(arc["claims"].findings([alike]), "D1") == [NOT_DETECTED]


def test_temperature_is_judged_along_its_line(arc: dict[str, ModuleType]) -> None:
    swept = [row(arc, "temperature", f"T={t}", 0.6 - 0.4 * t, n=8) for t in (0, 0.5, 1.1)]
    found = {each.says: each.verdict for each in arc["claims"].findings(swept) if each[0] == "D3"}
    assert found["temperature: accuracy falls"] == REPRODUCED
    assert found["temperature: pass_n rises"] == CONTRADICTED
    assert found["temperature: unanswered rises"] == NOT_DETECTED


def test_a_beam_is_likelier_and_dearer(arc: dict[str, ModuleType]) -> None:
    greedy = row(arc, "beam", "greedy", 0.5, logprob=-2.0, seconds=1.0)
    beam = row(arc, "beam", "beam of 4", 0.5, logprob=-1.0, seconds=5.0)
    found = said(arc["claims"].findings([greedy, beam]), "D5")
    assert found == [REPRODUCED, NOT_DETECTED, REPRODUCED]


def test_accuracy_past_the_least_loss_needs_a_loss_that_rose(arc: dict[str, ModuleType]) -> None:
    def line(losses: Sequence[float]) -> list[Any]:
        return [
            row(arc, "along", f"training, {at}", 0.2 + 0.1 * at, share=at / 4, validation=loss)
            for at, loss in enumerate(losses, 1)
        ]

    assert said(arc["claims"].findings(line([3.0, 2.0, 1.5, 1.4])), "D7") == ["not run"]
    assert said(arc["claims"].findings(line([2.0, 1.0, 1.5, 1.8])), "D7") == [REPRODUCED]


def test_batching_is_a_ratio_on_one_machine(arc: dict[str, ModuleType]) -> None:
    nothing: tuple[tuple[int, ...], ...] = ((),) * 6
    facts = {"one prompt at a time": 10.0, "per puzzle": 30.0, "all together": 200.0}
    made = arc["rows"].Row("batching", "batching", 0, "m", "", 0, *nothing, facts)
    assert said(arc["claims"].findings([made]), "D4") == [REPRODUCED, "direction only"]


def test_more_steps_and_ranks_are_compared_one_by_one(arc: dict[str, ModuleType]) -> None:
    tuned = [row(arc, "ttft", "0 steps", 0.2, steps=0, validation=1.0)]
    for seed in (0, 1):
        for steps, share in ((50, 0.4), (400, 0.6)):
            tuned.append(
                row(arc, "ttft", f"{steps} steps", share, seed, steps=steps, validation=1.2)
            )
    ranks = [
        row(arc, "lora", f"rank {r}, rate {rate}", share, rank=r, rate=rate, validation=loss)
        for r in (4, 16, 64)
        for rate, share, loss in ((1e-2, 0.1, 9.0), (1e-3, 0.4, 0.5), (1e-4, 0.2, 0.6))
    ]
    found = arc["claims"].findings([*tuned, *ranks])
    assert [each.where for each in found if each.claim == "D8"] == ["0 → 50", "50 → 400", "0 … 400"]
    rates = ", rates 0.001, 0.001"  # those of the least validation loss
    assert [each.where for each in found if each.claim == "D9"] == [
        f"4 → 16{rates}",
        f"16 → 64{rates}",
    ]
    assert said(found, "D9") == [NOT_DETECTED, NOT_DETECTED]


def test_the_page_says_every_study_and_verdict(arc: dict[str, ModuleType], tmp_path: Path) -> None:
    rows = [row(arc, "encoders", cell, 0.4, seed, tokens=1e6, validation=0.5)
            for cell in ("minimal", "+ both") for seed in range(3)]  # fmt: skip
    rows += [row(arc, "repeats", "airv of 8", 0.4, seed) for seed in range(3)]
    text = "\n".join(arc["page"].tables(rows))
    assert "## Encoders" in text and "standard deviation" in text and "## Beam" not in text
    assert text.count("| D") == 10
    assert "| + both |" in text and text.index("| minimal |") < text.index("| + both |")
