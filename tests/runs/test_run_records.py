"""Runs: every cell over every problem, samples shared, failures as data, order without effect."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import Steps, engine, exported, small

from mull.engines.replay import ReplayEngine
from mull.engines.simulated import Fault, Faults, SimulatedEngine, StepModel, run_virtual
from mull.errors import (
    ConfigChangedError,
    ConfigError,
    GradeError,
    InputError,
    NotFoundError,
    SandboxTimeoutError,
    StoreError,
    UsageError,
)
from mull.grades import Extraction, Grade, GradeOutcome
from mull.runs import Config, Progress, Records, Summary, estimate, prepare, run
from mull.runs.result import ResultRecord
from mull.store import Reader, Store
from mull.types import Problem, Usage


def go(config: Config, directory: Path, source: Any = None, **more: Any) -> Summary:
    given = {"task": Steps(), "virtual": True, **more}
    return run(config, directory, engine=source or engine(), **given)


def results(directory: Path) -> list[ResultRecord]:
    with Records(directory) as records:
        return [record for cell in records.cells for record in records.results(cell)]


def test_every_cell_has_every_problem(tmp_path: Path) -> None:
    config = small(samples=[2, 4], temperatures=[0.5, 1.0], seeds=[0, 1], problems=3)
    summary = go(config, tmp_path)
    assert (summary.done, summary.total, summary.exit_code) == (48, 48, 0)
    with Records(tmp_path) as records:
        assert len(records.cells) == 16
        assert len({cell.id for cell in records.cells}) == 16
        for cell in records.cells:
            found = list(records.results(cell))
            assert [record.position for record in found] == [0, 1, 2]
            assert {len(record.candidates) for record in found} == {cell.budget.samples}  # type: ignore[union-attr]


def test_cells_share_their_samples(tmp_path: Path) -> None:
    shared, alone = engine(), engine()
    go(small(strategies=["sample", "vote", "best-of-n"], samples=[1, 2, 4]), tmp_path / "a", shared)
    go(small(strategies=["vote"]), tmp_path / "b", alone)
    assert shared.stats.generated == alone.stats.generated
    with Reader(tmp_path / "a") as reader:
        assert len(list(reader.rows("samples"))) == 12 * 4


def test_temperatures_that_change_nothing_are_refused_but_a_run_that_has_them_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(strategies=["greedy"], temperatures=[0.5, 1.0], samples=None, problems=2)
    with pytest.raises(UsageError, match=r"^greedy: draws no samples"):
        go(config, tmp_path)
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as before:
        before.setattr(import_module("mull.runs.run"), "check_new", lambda plan: None)
        go(config, tmp_path)
    assert go(config, tmp_path).done == 2
    go(small(strategies=["greedy"], temperatures=[0.0], samples=None), tmp_path / "cold")


@pytest.mark.parametrize("folder", ["plain", "a (copy)"])
def test_a_users_strategy_is_known_by_its_content(tmp_path: Path, folder: str) -> None:
    file = tmp_path / folder / "mine.py"
    file.parent.mkdir()
    file.write_text("from mull.strategies.vote import Vote\nstrategy = Vote(n=3)\n")
    config = small(strategies=[str(file)], samples=None)
    go(config, tmp_path / "run")
    assert go(config, tmp_path / "run").exit_code == 0
    file.write_text(file.read_text().replace("n=3", "n=1"))
    with pytest.raises(ConfigChangedError, match="strategy_digests"):
        go(config, tmp_path / "run")
    assert {len(record.candidates) for record in results(tmp_path / "run")} == {3}


def test_greedy_gets_one_cell_beside_a_sweep(tmp_path: Path) -> None:
    config = small(strategies=["greedy", "vote"], samples=[2, 4], temperatures=[0.5, 1.0])
    go(config, tmp_path)
    with Records(tmp_path) as records:
        assert [cell.id for cell in records.cells if cell.strategy == "greedy"] == [
            "greedy, seed=0"
        ]


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_records_do_not_depend_on_concurrency(tmp_path: Path, slots: int) -> None:
    go(small(), tmp_path / "a", engine(slots=8))
    go(small(), tmp_path / "b", engine(slots=slots))
    assert exported(tmp_path / "a") == exported(tmp_path / "b")


def test_what_is_recorded_is_what_was_charged(tmp_path: Path) -> None:
    source = engine()
    go(small(strategies=["vote"]), tmp_path, source)
    found = results(tmp_path)
    assert sum(record.total.generated for record in found) == source.stats.generated
    for record in found:
        by_sample = sum((candidate.usage for candidate in record.candidates), Usage())
        assert by_sample.generated == record.total.generated
        assert by_sample.prompt == record.total.prompt > 0
        assert by_sample.flops == record.total.flops > 0
        assert record.total.seconds == pytest.approx(by_sample.seconds)


def test_a_record_survives_packing(tmp_path: Path) -> None:
    go(small(), tmp_path)
    for record in results(tmp_path):
        assert ResultRecord.unpack(record.pack()) == record
        assert len(record.candidates) == 4
        if record.index is not None:
            assert record.candidates[record.index].answer == record.answer


def test_a_replay_of_the_run_gives_its_records_again_without_a_model(tmp_path: Path) -> None:
    go(small(), tmp_path / "made")
    replay = ReplayEngine.open(tmp_path / "made")
    go(small(strategies=["best-of-n", "vote"], samples=[2, 4]), tmp_path / "again", replay)
    asyncio.run(replay.aclose())
    made = {(r.problem, r.answer) for r in results(tmp_path / "made") if r.samples == 4}
    again = {(r.problem, r.answer) for r in results(tmp_path / "again") if r.samples == 4}
    assert again & made


def test_failures_are_recorded_and_tried_again(tmp_path: Path) -> None:
    faulty = Faults(rates={Fault.CONNECTION: 0.2}, seed=3)
    summary = go(small(), tmp_path, engine(faults=faulty))
    assert summary.exit_code == 3 and summary.failed > 0 and summary.done == summary.total
    failed = [record for record in results(tmp_path) if record.failures]
    assert len(failed) == summary.failed
    assert all("EngineConnectionError: " in record.failures[0] for record in failed)
    assert all(len(r.candidates) + len(r.failures) == 4 for r in results(tmp_path))
    assert list(summary.failures) == ["EngineConnectionError"]
    times, example = summary.failures["EngineConnectionError"]
    assert times == sum(len(record.failures) for record in failed)
    assert f"EngineConnectionError: {example}" in {f for r in failed for f in r.failures}
    before = exported(tmp_path)
    again = go(small(), tmp_path, engine(faults=faulty))
    assert (again.failed, again.exit_code) == (summary.failed, 3)
    assert exported(tmp_path) == before
    with Records(tmp_path) as records:
        (wasted,) = [row for row in records.waste() if row.reason == "tried again"]
        lost = [row for r in failed for row in r.spent if row.purpose == "failed"]
        assert wasted.usage.generated == sum(row.usage.generated for row in lost)
        assert wasted.count == sum(row.completions for row in lost) > len(lost)
        assert [session.reason for session in records.sessions()] == ["failures", "failures"]


def test_a_problem_without_any_sample_is_a_recorded_failure(tmp_path: Path) -> None:
    chosen = dict.fromkeys(range(4), Fault.ENDPOINT)
    summary = go(small(problems=2), tmp_path, engine(faults=Faults(chosen=chosen)))
    assert summary.exit_code == 3
    for record in results(tmp_path):
        assert record.failure is not None and record.failure.startswith("EndpointError: ")
        assert (record.answer, record.correct) == (None, False)


class _Unsure(Steps):
    """Cannot judge some answers: its grader breaks in two ways, or has nothing to say."""

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        match None if answer is None else int(answer) % 4:
            case 0:
                raise GradeError("cannot be read")
            case 1:
                raise SandboxTimeoutError("killed after 1.5 s")
            case 2:
                return Grade(GradeOutcome.UNGRADED, "says nothing")
        return super().grade(problem, answer)


def test_an_answer_on_which_a_grader_broke_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    first = go(small(), tmp_path, task=_Unsure())
    records = results(tmp_path)
    outcomes = Counter(record.outcome for record in records)
    broken = {"grader_error", "grader_timeout"}
    assert broken < set(outcomes)
    assert all(r.correct is None for r in records if r.outcome in {*broken, "ungraded"})
    assert first.failed == 0 and first.exit_code == 3
    for name, said in (("grader_error", "cannot be read"), ("grader_timeout", "killed after 1.5")):
        hit = [r for r in records if name in {r.outcome, *(c.outcome for c in r.candidates)}]
        times, example = first.broke[name]
        assert times == len(hit) >= outcomes[name]
        assert said in example
    again = go(small(), tmp_path, task=_Unsure())
    assert (again.broke, again.exit_code) == (first.broke, 3), "it stays so"


class _Breaks(Steps):
    def grade(self, problem: Problem, answer: str | None) -> Grade:
        raise RuntimeError("a bug in the task")


def test_a_bug_ends_the_run_and_keeps_what_was_made(tmp_path: Path) -> None:
    source = engine()
    with pytest.raises(RuntimeError, match="a bug in the task"):
        go(small(), tmp_path, source, task=_Breaks())
    with Records(tmp_path) as records:
        assert records.sessions()[0].reason == "error: RuntimeError"
    fresh = engine()
    assert go(small(), tmp_path, fresh).exit_code == 0
    assert 0 < fresh.stats.generated < source.stats.generated + fresh.stats.generated


def test_a_failure_is_no_waste_before_another_result_is_in_its_place(tmp_path: Path) -> None:
    faulty = Faults(chosen={1: Fault.CONNECTION})
    config = small(strategies=["vote"])

    def booked() -> list[int]:
        with Records(tmp_path) as records:
            return [row.count for row in records.waste() if row.reason == "tried again"]

    assert go(config, tmp_path, engine(faults=faulty)).failed == 12
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a bug in the task"):
            go(config, tmp_path, engine(faults=faulty), task=_Breaks())
    assert booked() == []
    assert go(config, tmp_path, engine(faults=faulty)).failed == 12
    assert booked() == [12]


def test_a_session_whose_end_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless another error ended it: that one is told."""

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "end_session", full)
    with pytest.raises(StoreError, match="the disk is full"):
        go(small(), tmp_path / "whole")
    assert len(results(tmp_path / "whole")) == 24
    with pytest.raises(RuntimeError, match="a bug in the task"):
        go(small(), tmp_path / "broken", task=_Breaks())


def test_a_session_ends_in_the_middle_and_the_next_goes_on(tmp_path: Path) -> None:
    go(small(), tmp_path / "whole")

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done == 7:
            raise Enough

    source = engine()
    with pytest.raises(Enough):
        go(small(), tmp_path / "broken", source, on_progress=stop)
    fresh = engine()
    seen: list[int] = []
    go(small(), tmp_path / "broken", fresh, on_progress=lambda p: seen.append(p.done))
    assert seen == list(range(seen[0], 25)) and seen[0] >= 8
    assert exported(tmp_path / "broken") == exported(tmp_path / "whole")


def test_nothing_is_written_where_the_config_is_wrong(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    wrong: list[Config] = [
        small(strategies=["vote(n=8)"]),
        small(strategies=["vote"], samples=None),
        small(strategies=["vot"]),
        small(problems=None),
        small(file="absent.jsonl", problems=None),
    ]
    for config in wrong:
        with pytest.raises((ConfigError, InputError, ValueError)) as caught:
            go(config, directory)
        assert "\n" not in str(caught.value)
        assert not directory.exists()


def test_a_run_that_fails_before_anything_is_recorded_leaves_no_folder(tmp_path: Path) -> None:
    """Its config was wrong, and would otherwise be what the folder is held to."""

    class Nobody(SimulatedEngine):
        def generate(self, *given: Any) -> Any:
            raise NotFoundError("no such model")

    with pytest.raises(NotFoundError):
        go(small(), tmp_path / "runs" / "x", Nobody(StepModel()))
    assert list(tmp_path.iterdir()) == []
    assert go(small(), tmp_path / "runs" / "x").exit_code == 0
    before = exported(tmp_path / "runs" / "x")
    with pytest.raises(NotFoundError):
        go(small(problems=13), tmp_path / "y", Nobody(StepModel()))
    with pytest.raises(StoreError, match="another config"):
        go(small(problems=13), tmp_path / "runs" / "x", Nobody(StepModel()))
    assert exported(tmp_path / "runs" / "x") == before


def test_what_was_paid_for_before_an_error_is_kept(tmp_path: Path) -> None:
    class Odd(Steps):
        def extract(self, problem: Problem, text: str) -> Extraction:
            raise GradeError("extract: IndexError")

    with pytest.raises(GradeError):
        go(small(), tmp_path / "x", task=Odd())
    with Reader(tmp_path / "x") as reader:
        assert len(list(reader.rows("samples"))) > 0


class _Twins(Steps):
    def problems(self, split: str, count: int, seed: int = 0):  # type: ignore[no-untyped-def]
        first = next(iter(super().problems(split, 1)))
        return iter([first, first])


def test_two_problems_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two problems have the id 's0'"):
        go(small(problems=2), tmp_path / "run", task=_Twins())


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        Records(tmp_path)


def test_an_estimate_is_what_the_run_then_costs(tmp_path: Path) -> None:
    config = small(problems=60, strategies=["sample", "vote", "greedy"], samples=[4, 8])
    plan = prepare(config, task=Steps())
    guess = run_virtual(estimate(plan, engine(), completions=120))
    source = engine()
    go(config, tmp_path, source)
    with Reader(tmp_path) as reader:
        assert guess.samples == len(list(reader.rows("samples"))) == 60 * 9
    assert guess.generated_tokens == pytest.approx(source.stats.generated, rel=0.1)
    assert guess.hours is not None
    assert guess.hours * 3600 == pytest.approx(source.stats.busy / 8, rel=0.1)
    most = run_virtual(estimate(plan, engine(), completions=0))
    assert (most.measured, most.hours) == (0, None)
    assert most.generated_tokens == guess.samples * 400
