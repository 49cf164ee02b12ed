"""`mull arc evaluate`: checkpoints of every kind in; runs, submissions, one table, a report out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, refused
from tests.tasks.arc.world import random_puzzle, solver

from mull.engines.simulated import SimulatedEngine
from mull.report.arc import solved_of
from mull.report.load import Runs
from mull.runs import Records, Summary
from mull.tasks.arc.data import load
from mull.tasks.arc.grade import compare
from mull.tasks.arc.grids import Puzzle, as_json, as_rows
from mull.tasks.arc.task import ArcTask

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("matplotlib")

from tests.tiny_model import tiny_model  # noqa: E402

pytestmark = pytest.mark.timeout(60)
VIEWS = 2
PUZZLES = [random_puzzle(seed, side=2, tests=1 + (seed == 3)) for seed in range(5)]
SHORT = ("--max-tokens", 8, "--views", VIEWS, "--no-report")
LORA = ("--steps", 4, "--every", 2, "--batch", 2, "--rank", 2, "--rate", 0.05, "--dropout", 0,
        "--threads", 1)  # fmt: skip
QUICK = ("--steps", 9, "--batch-tokens", 128, "--examples", 2)


@pytest.fixture(autouse=True)
def puzzles(folder: Path) -> None:
    Path("p.json").write_text(json.dumps({p.id: as_json(p) for p in PUZZLES}))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimulatedEngine]:
    """Models `strong` and `weak`, which know some of the puzzles' answers."""
    engines = {}
    for seed, name in enumerate(("strong", "weak")):
        Path(name).mkdir()
        engines[name] = solver(PUZZLES, VIEWS, ArcTask(), seed=seed)

    def opened(model: str, **_: Any) -> SimulatedEngine:
        return engines[model.strip("./")]

    monkeypatch.setattr(sys.modules["mull.runs.run"], "load_policy", opened)
    return engines


def rows(name: str, out: str = "out") -> list[dict[str, str]]:
    with Path(out, "tables", f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def submitted(folder: str) -> Any:
    return json.loads(Path(folder, "submission.json").read_text())


def told(folder: str) -> dict[tuple[str, int], list[float]]:
    """How likely a model found what it wrote for each test pair: no two models say the same."""
    made: dict[tuple[str, int], list[float]] = {}
    for row in json.loads(Path(folder, "task_results.json").read_text()):
        made.setdefault((row["task_id"], row["idx"]), []).append(row["cumulative_logprob"])
    return made


def alike(these: dict[tuple[str, int], list[float]], those: Any, within: float = 1e-3) -> bool:
    return these == {key: pytest.approx(each, abs=within) for key, each in those.items()}


def test_one_table_has_all_checkpoints_with_paired_differences(
    mull: Mull, known: dict[str, SimulatedEngine]
) -> None:
    said = mull("arc", "evaluate", "strong", "weak", "--puzzles", "p.json", "--out", "out",
                "--views", VIEWS)  # fmt: skip
    assert said.code == 0, said.err
    assert "Checkpoints" in said.out and "Against strong, points" in said.out
    assert "report: out/report/report.html" in said.out
    graded = []
    for name, row in zip(("strong", "weak"), rows("arc_checkpoints"), strict=True):
        scored = mull("arc", "score", f"out/{name}/submission.json", "p.json", "--json").json
        with Runs([f"out/{name}"]) as loaded:
            (cell,) = solved_of(loaded.runs[0])
        graded.append(cell.graded)
        assert row["checkpoint"].startswith(name)
        assert float(row["vote_2 %"]) == pytest.approx(scored["score"]["value"])
        for metric, title in (("accuracy", "accuracy %"), ("random_2", "random_2 %"),
                              ("attempt_1", "attempt 1 %")):  # fmt: skip
            interval = cell.graded.summary[metric]
            assert float(row[title]) == pytest.approx(interval.value)
    (gap,) = rows("arc_differences")
    assert gap["checkpoint"].startswith("weak")
    expected = compare(graded[1], graded[0])["vote_2"]
    assert float(gap["vote_2 %"]) == pytest.approx(expected.value)
    assert {row["checkpoint"].split(",")[0] for row in rows("arc_sizes")} == {"strong", "weak"}
    for name in ("strong", "weak"):
        for file in ("submission", "predictions", "task_results", "scores"):
            assert Path("out", name, f"{file}.json").is_file()


def test_it_resumes_and_comes_to_the_same(mull: Mull, known: dict[str, SimulatedEngine]) -> None:
    asked = ("arc", "evaluate", "strong", "weak", "--puzzles", "p.json", "--out", "out", *SHORT)
    first = mull(*asked)
    made = [engine.stats.generated for engine in known.values()]
    files = {path: path.read_bytes() for path in Path("out").rglob("*.*") if path.suffix != ".db"}
    again = mull(*asked)
    assert (again.code, again.out) == (first.code, first.out) == (0, first.out)
    assert [engine.stats.generated for engine in known.values()] == made
    same = {p: p.read_bytes() for p in files if p.suffix in (".json", ".csv", ".md")}
    assert same == {p: files[p] for p in same}


def test_an_interrupt_ends_it_and_keeps_what_is_there(
    mull: Mull, known: dict[str, SimulatedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["mull.cli.arc.evaluate"]
    whole: Callable[..., Summary] = module.with_bar  # type: ignore[attr-defined]

    def cut(config: Any, directory: Path, task: Any) -> Summary:
        if directory.name == "weak":
            return Summary(directory, 0, 6, 0, 0, True, 0)
        return whole(config, directory, task)

    monkeypatch.setattr(module, "with_bar", cut)
    asked = ("arc", "evaluate", "strong", "weak", "--puzzles", "p.json", "--out", "out", *SHORT)
    said = mull(*asked)
    assert said.code == 130
    assert submitted("out/strong")
    monkeypatch.setattr(module, "with_bar", whole)
    assert mull(*asked).code == 0
    assert len(rows("arc_checkpoints")) == 2


def test_adapters_of_a_training_are_merged_into_its_base(mull: Mull) -> None:
    """Each says what the merged model says, under the task on the card of the training's folder."""
    tiny_model(Path("base"), context=256)
    trained = mull("train", "lora", "--model", "base", "--arc", "p.json", "--out", "a", "--keep",
                   "--format", "nvarc", *LORA)  # fmt: skip
    assert trained.code == 0, trained.err
    said = mull("arc", "evaluate", "base", "a/step-2", "a/step-4", "a", "--puzzles", "p.json",
                "--out", "out", *SHORT)  # fmt: skip
    assert said.code == 0, said.err
    assert [row["checkpoint"].split(",")[0] for row in rows("arc_checkpoints")] == [
        "base", "step-2", "step-4", "a",
    ]  # fmt: skip
    for name in ("step-2", "a"):
        with Records(Path("out", name)) as records:
            assert records.config["task"] == "arc(format=nvarc, max_tokens=8)"
            assert records.engines()[0].adapter.startswith(f"{name}@")
    assert alike(told("out/a"), told("out/step-4")), "the last check is the end"
    assert not alike(told("out/a"), told("out/step-2"), 0.1)
    merged = mull("train", "merge", "--model", "base", "--adapter", "a", "--out", "m")
    assert merged.code == 0, merged.err
    mull("arc", "solve", "p.json", "--model", "./m", "--out", "whole", *SHORT)
    assert alike(told("whole"), told("out/a"), 0.1), "a merged model is rounded to bfloat16"


def test_groups_answer_for_their_own_puzzles_and_are_one_row(mull: Mull) -> None:
    """What no group learned is answered by the base; the rest by the group, as it would alone."""
    tiny_model(Path("base"))
    alone = Puzzle("alone", PUZZLES[0].train[:1], PUZZLES[0].test)
    every = [PUZZLES[0], alone, *PUZZLES[1:]]
    Path("p.json").write_text(json.dumps({p.id: as_json(p) for p in every}))
    made = mull("arc", "adapt", "p.json", "--model", "./base", "--out", "g", "--groups", 2, *QUICK)
    assert made.code == 3  # one puzzle has nothing to teach
    said = mull("arc", "evaluate", "./base", "g", "--puzzles", "p.json", "--out", "out", *SHORT)
    assert said.code == 0, said.err
    base, groups = rows("arc_checkpoints")
    cards = [json.loads(Path(f"g/group-{n}/card.json").read_text())["adapted"] for n in range(2)]
    assert int(groups["training tokens"]) == sum(card["tokens"] for card in cards)
    assert float(groups["training FLOPs"]) == pytest.approx(sum(card["flops"] for card in cards))
    assert base["training FLOPs"] == ""
    assert list(submitted("out/g")) == [puzzle.id for puzzle in load("p.json")]
    owner = {id: f"g/group-{n}" for n, card in enumerate(cards) for id in card["puzzles"]}
    assert set(owner) == {puzzle.id for puzzle in PUZZLES}
    for model in ("./base", "g/group-0", "g/group-1"):
        mull("arc", "solve", "p.json", "--model", model, "--out", f"by/{model}", *SHORT)
        for key, values in told(f"by/{model}").items():
            same = alike({key: values}, {key: told("out/g")[key]})
            assert same == (owner.get(key[0], "./base") == model)
    page = mull("arc", "evaluate", "./base", "g", "--puzzles", "p.json", "--out", "out",
                *SHORT[:-1])  # fmt: skip
    assert page.code == 0, page.err
    assert len(rows("arc_checkpoints", "out/report")) == 2


def test_a_checkpoint_that_breaks_is_named_and_the_others_go_on(mull: Mull) -> None:
    tiny_model(Path("base"))
    tiny_model(Path("broken"))
    Path("broken/model.safetensors").write_bytes(b"nothing")
    said = mull("arc", "evaluate", "broken", "base", "--puzzles", "p.json", "--out", "out", *SHORT)
    assert said.code == 3
    assert "mull: broken: " in said.err
    assert [row["checkpoint"].split(",")[0] for row in rows("arc_checkpoints")] == ["base"]


def test_bad_puzzles_and_those_without_solutions_are_named(
    mull: Mull, known: dict[str, SimulatedEngine]
) -> None:
    pair = {"input": [[1]], "output": [[2]]}
    blind = {**as_json(PUZZLES[0]), "test": [{"input": as_rows(PUZZLES[0].test[0].input)}]}
    bad = {"ragged": {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [pair]}}
    whole = {p.id: as_json(p) for p in PUZZLES[1:]}
    Path("p.json").write_text(json.dumps({**whole, "blind": blind, **bad}))
    said = mull("arc", "evaluate", "strong", "--puzzles", "p.json", "--out", "out", *SHORT)
    assert said.code == 3
    assert "ragged: train 0 input: rows of 2 and 1 cells" in said.err
    assert "1 puzzles without solutions are left out" in said.err
    assert set(submitted("out/strong")) == set(whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("base", "base/"), "twice"),
        (("base", "--model", "base"), "no checkpoint is one"),
        (("nowhere",), "nowhere"),
        (("base", "--strategy", "votes"), "unknown strategy 'votes'"),
        (("lost",), "its base 'gone' is not here; name the model with --model"),
        (("mixed",), "puzzle p1 is in group-0 and in group-1"),
        (("plain",), "does not say base and puzzles"),
        (("base", "--layout", "wide"), "layout"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    folder: Path, mull: Mull, arguments: tuple[str, ...], says: str
) -> None:
    tiny_model(Path("base"))
    lost = Path("lost")
    lost.mkdir()
    (lost / "adapter_config.json").write_text('{"base_model_name_or_path": "gone"}')
    (lost / "adapter_model.safetensors").write_bytes(b"")
    for name, card in (("mixed", {"base": "base", "adapted": {"puzzles": ["p1"]}}), ("plain", {})):
        for number in range(2):
            Path(name, f"group-{number}").mkdir(parents=True)
            Path(name, f"group-{number}", "card.json").write_text(json.dumps(card))
    said = refused(folder, mull, "arc", "evaluate", *arguments, "--puzzles", "p.json",
                   "--out", "out")  # fmt: skip
    assert says in said.err


def test_without_any_solution_it_is_refused(folder: Path, mull: Mull) -> None:
    tiny_model(Path("base"))
    blind = [{**as_json(p), "test": [{"input": as_rows(t.input)} for t in p.test]} for p in PUZZLES]
    Path("p.json").write_text(json.dumps({p.id: b for p, b in zip(PUZZLES, blind, strict=True)}))
    said = refused(folder, mull, "arc", "evaluate", "base", "--puzzles", "p.json", "--out", "out")
    assert "no solutions are known to score by" in said.err
