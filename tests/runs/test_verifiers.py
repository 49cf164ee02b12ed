"""Runs with verifiers and further engines: named in the config, part of what a run is, paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.catalog.test_equip import Asks
from tests.runs.world import Steps, engine, exported, small
from tests.strategies.common import Starts
from tests.strategies.toys import SpeculativeBeam
from tests.verifiers.common import Pick

from mull.budget import Meter, Purpose
from mull.engines.simulated import run_virtual
from mull.errors import (
    BudgetError,
    ConfigChangedError,
    ConfigError,
    EngineError,
    SpecError,
    UsageError,
)
from mull.runs import Config, Records, Summary, estimate, load_config, make_config, prepare, run
from mull.runs.result import ResultRecord
from mull.strategies.base import Strategy
from mull.types import Branch
from mull.verifiers.simulated import SimulatedVerifier

MINE: Mapping[str, Strategy] = {"pick": Pick()}


def config(**fields: Any) -> Config:
    given = {"strategies": ["pick"], "verifiers": {"prm": "simulated"}, "samples": None}
    return small(**{**given, **fields})


def go(given: Config, directory: Path, source: Any = None, **more: Any) -> Summary:
    options = {"task": Steps(), "virtual": True, "strategies": MINE, **more}
    return run(given, directory, engine=source or engine(), **options)


def results(directory: Path) -> list[ResultRecord]:
    with Records(directory) as records:
        return [record for cell in records.cells for record in records.results(cell)]


def test_scores_are_recorded_and_their_cost_stands_in_its_own_row(tmp_path: Path) -> None:
    assert go(config(), tmp_path).exit_code == 0
    for record in results(tmp_path):
        best = max(record.candidates, key=lambda c: c.scores["prm"])
        assert record.answer == best.answer
        rows = {(row.purpose, row.model): row.usage for row in record.spent}
        assert rows[Purpose.VERIFIER.value, "simulated-verifier"].prompt > 0
        assert rows[Purpose.POLICY.value, "simulated"].generated > 0


@pytest.mark.parametrize("slots", [1, 64])
def test_records_do_not_depend_on_concurrency(tmp_path: Path, slots: int) -> None:
    go(config(), tmp_path / "a", engine(slots=8))
    go(config(), tmp_path / "b", engine(slots=slots))
    assert exported(tmp_path / "a") == exported(tmp_path / "b")


def test_an_exact_checker_finds_whatever_is_right(tmp_path: Path) -> None:
    go(config(verifiers={"prm": "checker"}, problems=20), tmp_path)
    found = results(tmp_path)
    assert [r.correct for r in found] == [any(c.correct for c in r.candidates) for r in found]
    assert any(r.correct for r in found)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prm": "simulated(noise=0.1)"}, r"\(verifier_identities: .*; verifiers: "),
        ({"prm": "checker"}, "verifiers: "),
        ({"prm": "nosuch"}, "verifiers: "),
    ],
)
def test_another_verifier_is_another_run(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    go(config(), tmp_path)
    before = exported(tmp_path)
    with pytest.raises(ConfigChangedError, match=said):
        go(config(verifiers=changed), tmp_path)
    assert exported(tmp_path) == before
    assert go(config(), tmp_path).exit_code == 0


def test_a_users_verifier_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def verifier(branch):\n    return len(branch.text)\n")
    given = config(verifiers={"prm": str(file)})
    go(given, tmp_path / "run")
    assert go(given, tmp_path / "run").exit_code == 0
    file.write_text("def verifier(branch):\n    return -len(branch.text)\n")
    with pytest.raises(ConfigChangedError, match="verifier_digests"):
        go(given, tmp_path / "run")


VERIFIER = """
from mull.verifiers.simulated import SimulatedVerifier
verifier = SimulatedVerifier()
"""


def test_a_users_verifier_in_a_spec_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(VERIFIER)
    given = config(strategies=[f"best-of-n(n=2, verifier='{file}')"], verifiers={})
    go(given, tmp_path / "run", strategies={})
    assert go(given, tmp_path / "run", strategies={}).exit_code == 0
    file.write_text(f"{VERIFIER}# edited\n")
    with pytest.raises(ConfigChangedError, match="verifier_digests"):
        go(given, tmp_path / "run", strategies={})


@pytest.mark.parametrize(
    ("fields", "strategy", "error", "said"),
    [
        ({"verifiers": {"prm": "chek"}}, Pick(), SpecError, "verifiers.prm: unknown verifier"),
        ({"verifiers": {}}, Pick(), SpecError, "verifier 'prm': no prm for policy 'simulated'"),
        ({"verifiers": {"orm": "checker"}}, Pick(), SpecError, "'orm' is used by no strategy"),
        ({"verifiers": {}}, Asks(("policy", "judge")), SpecError, "asks an engine 'judge'"),
        (
            {"verifiers": {}, "engines": {"judge": "simulated"}, "flops": 1e9},
            Asks(("policy", "judge")),
            BudgetError,
            "a budget in FLOPs needs the parameters",
        ),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_written(
    tmp_path: Path, fields: dict[str, Any], strategy: Strategy, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        go(config(**fields), tmp_path / "run", strategies={"pick": strategy})
    assert not (tmp_path / "run").exists()


def test_further_engines_are_recorded_like_the_policy(tmp_path: Path) -> None:
    given = config(
        verifiers={}, engines={"judge": {"model": "simulated:echo", "slots": 2}}, problems=4
    )
    go(given, tmp_path, strategies={"pick": Asks(("policy", "judge"))})
    with pytest.raises(ConfigChangedError, match="engine_identities"):
        go(
            given.model_copy(update={"engines": {"judge": "simulated"}}),
            tmp_path,
            strategies={"pick": Asks(("policy", "judge"))},
        )


class Counting(SimulatedVerifier):
    """Counts what it charges; breaks or ends the run at chosen batches."""

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        super().__init__(batch_ms=20)
        self.errors, self.batches, self.charged, self.forgot = errors, 0, 0, 0

    def forget(self) -> None:
        self.forgot += 1

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        before = meter.total.prompt
        found = await super().score(branches, meter)
        self.charged += meter.total.prompt - before
        self.batches += 1
        if self.batches - 1 in self.errors:
            raise self.errors[self.batches - 1]
        return found


def bill(directory: Path) -> int:
    """What scores cost, in results and for nothing."""
    with Records(directory) as records:
        lost = [row for row in records.waste() if row.model == "simulated-verifier"]
    kept = [r for record in results(directory) for r in record.spent]
    kept = [row for row in kept if row.model == "simulated-verifier"]
    return sum(row.usage.prompt for row in [*lost, *kept])


def test_scores_that_are_paid_again_are_counted_again(tmp_path: Path) -> None:
    """A verifier that fails on all of a batch: the failure is data, and what it cost is kept."""
    verifier = Counting(dict.fromkeys(range(1, 4), EngineError("no")))
    summary = go(config(), tmp_path, verifiers={"prm": verifier})
    assert summary.failed > 0
    assert bill(tmp_path) == verifier.charged
    assert any("ScoreError: EngineError: no" in r.failures for r in results(tmp_path))
    assert go(config(), tmp_path, verifiers={"prm": verifier}).exit_code == 0
    assert bill(tmp_path) == verifier.charged


def test_a_cell_does_not_live_on_what_another_has_read(tmp_path: Path) -> None:
    verifier = Counting({})
    go(config(seeds=[0, 1, 2]), tmp_path, verifiers={"prm": verifier})
    assert verifier.forgot == 3


def test_scores_of_a_run_that_broke_are_not_forgotten(tmp_path: Path) -> None:
    verifier = Counting({1: UsageError("no such model")})
    with pytest.raises(UsageError, match="no such model"):
        go(config(), tmp_path, verifiers={"prm": verifier})
    verifier.errors, broke = {}, verifier.charged
    assert go(config(), tmp_path, verifiers={"prm": verifier}).exit_code == 0
    assert broke < bill(tmp_path) <= verifier.charged


# Configs ------------------------------------------------------------------------------------

TABLES = """
name = "x"
task = "words"
model = "simulated"
strategies = ["vote"]
problems = 1
samples = 2

[engine]
price = [1, 0.1, 2.0]

[engines]
judge = "simulated:echo"
reviser = {model = "models/rev", slots = 8}

[verifiers]
prm = "models/prm(aggregate=min)"
mine = "mine.py"
"""


def test_tables_name_engines_and_verifiers_beside_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models/rev", "models/prm"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mine.py").touch()
    (tmp_path / "run.toml").write_text(TABLES)
    found = load_config(tmp_path / "run.toml")
    assert found.engine == {"price": (1.0, 0.1, 2.0)}
    assert found.engines["judge"] == "simulated:echo"
    assert found.engines["reviser"] == {"model": str(tmp_path / "models/rev"), "slots": 8}
    assert found.verifiers["prm"] == f"{tmp_path}/models/prm(aggregate=min)"
    assert found.portable["verifiers"] == {"prm": "prm(aggregate=min)", "mine": "mine.py"}
    assert found.portable["engines"]["reviser"] == {"model": "rev", "slots": 8}
    monkeypatch.chdir(tmp_path)
    assert load_config("run.toml").portable == found.portable


def test_empty_tables_are_no_part_of_what_a_run_is() -> None:
    assert not {"engines", "verifiers"} & set(small().portable)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"verifiers": {"prm": 3}}, "verifiers.prm"),
        ({"verifiers": "prm"}, "verifiers = 'prm' is not valid; expected a table of verifiers"),
        ({"engines": {"judge": 3}}, "engines.judge"),
        ({"engine": {"price": [1, 2]}}, "engine.price"),
        ({"engine": {"price": ["a", 1, 1]}}, "engine.price"),
    ],
)
def test_a_bad_table_is_named(fields: dict[str, Any], said: str) -> None:
    base = {"name": "x", "task": "words", "model": "m", "strategies": ["vote"]}
    with pytest.raises(ConfigError, match=said):
        make_config({**base, **fields})


def test_a_price_is_charged_and_bounds_the_run(tmp_path: Path) -> None:
    fields = {"name": "x", "task": "words", "model": "simulated", "strategies": "vote"}
    more = {"problems": 2, "cost": 0.01, "engine": {"price": [1.0, 0.1, 20.0]}}
    assert run(make_config({**fields, **more}), tmp_path / "run").exit_code == 0
    for record in results(tmp_path / "run"):
        total = record.total
        new = total.prompt - total.cached
        expected = (new * 1.0 + total.cached * 0.1 + total.generated * 20.0) / 1e6
        assert total.cost == pytest.approx(expected)
        assert total.cost >= 0.01
    for price in ([-1, 0, 0], [float("nan"), 0, 0]):
        bad = make_config({**fields, **more, "engine": {"price": price}})
        with pytest.raises(UsageError, match="price"):
            run(bad, tmp_path / "bad")


# Estimates ----------------------------------------------------------------------------------


def test_an_estimate_says_what_it_does_not_count() -> None:
    plan = prepare(config(), task=Steps(), strategies=MINE)
    assert run_virtual(estimate(plan, engine(), 0)).left_out == ("verifier prm",)
    plan = prepare(
        config(verifiers={}), task=Steps(), strategies={"pick": Asks(("policy", "judge"))}
    )
    assert run_virtual(estimate(plan, engine(), 0)).left_out == ("engine judge",)
    assert run_virtual(estimate(prepare(small(), task=Steps()), engine(), 0)).left_out == ()


def test_a_search_by_steps_is_counted_as_whole_solutions() -> None:
    """Its first action asks for one step of each path: that is not what the path costs."""
    strategies = {"toy": Starts(SpeculativeBeam)}
    fields = {"strategies": ["toy"], "verifiers": {}, "problems": 3, "samples": [2, 4]}
    plan = prepare(small(**fields), task=Steps(), strategies=strategies)
    found = run_virtual(estimate(plan, engine(), 0))
    assert found.samples == 3 * (4 + 4)  # two cells of a beam that always asks for four paths
    assert found.generated_tokens == found.samples * plan.until.max_tokens
