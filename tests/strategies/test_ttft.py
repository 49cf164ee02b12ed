"""Test-time fine-tuning: adapt first, answer under it, pay for both, leave nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runs.world import small
from tests.strategies.adaptive import TOKENS, Adaptive, Teaching
from tests.strategies.common import Starts, idle, one, problem, rows, run
from tests.strategies.toys import JudgedVote, Mcts, SpeculativeBeam, StoppedVote, Toy
from tests.strategies.whole import Watch

from mull.budget import COST_MODELS, Budget, Meter, Purpose
from mull.catalog import load_strategy
from mull.engines.adapt import AdaptRecipe, Parts
from mull.engines.simulated import Latency, SimulatedEngine, StepModel, run_virtual
from mull.errors import SpecError, UnsupportedError, UsageError
from mull.runs import run as run_config
from mull.runs.records import Records
from mull.strategies.base import (
    Adapt,
    Adapted,
    Ended,
    Failure,
    Generate,
    Outcome,
    Room,
    Search,
    Start,
    Strategy,
)
from mull.strategies.drive import Job, drive
from mull.strategies.ttft import AdaptedSearch, Ttft
from mull.strategies.vote import Vote
from mull.types import Branch, Sampling
from mull.verifiers.simulated import SimulatedVerifier

STEPS = 4
TASK = Teaching()
TTFT = Ttft(then="vote", n=5, steps=STEPS)


def jobs(
    strategy: Strategy,
    count: int = 1,
    budget: Budget | None = None,
    task: Any = TASK,
    seed: int = 0,
) -> list[Job]:
    return [
        Job(Watch(strategy), Start(problem(number, 0.6), task, budget), seed)
        for number in range(count)
    ]


@dataclass(frozen=True)
class Under:
    """A toy search under adapted weights."""

    search: Any

    def start(self, start: Start) -> Search:
        texts, recipe = (Parts((("x", True),)),), AdaptRecipe(steps=STEPS)
        strategy = Starts(self.search)
        return AdaptedSearch(start, strategy, texts, recipe, strategy.start(start))


# The search ------------------------------------------------------------------------------------


def test_it_adapts_first_and_asks_for_nothing_until_that_is_told() -> None:
    search = TTFT.start(Start(problem(3), TASK))
    (action,) = search.ask(Room(8))
    assert action == Adapt(0, tuple(TASK.adaptation(problem(3), 64)), AdaptRecipe(steps=STEPS))
    assert search.ask(Room(8)) == []
    assert not search.done
    assert search.result().ended is Ended.UNFINISHED
    search.tell(Outcome(0, 0, Adapted("adapt-x")))
    (asked,) = search.ask(Room(8))
    assert isinstance(asked, Generate)
    assert (asked.id, asked.count, asked.branch.weights) == (1, 5, "adapt-x")


@pytest.mark.parametrize(
    "toy", [StoppedVote, partial(SpeculativeBeam, keep=2), Mcts, JudgedVote], ids=str
)
@settings(max_examples=5)
@given(seed=st.integers(0, 99), slots=st.integers(1, 9), token_ms=st.floats(0.1, 9.0))
def test_under_weights_that_change_nothing_a_search_comes_to_the_same(
    toy: Any, seed: int, slots: int, token_ms: float
) -> None:
    """Its scores, judges, guesses and cancellations keep their meaning."""
    found = []
    for strategy in (Starts(toy), Under(toy)):
        engine = Adaptive(latency=Latency(token_ms), slots=slots)
        judge = SimulatedEngine(StepModel())
        given_job = Job(strategy, Start(problem(1, 0.6), TASK), seed)
        engines = {"policy": engine, "judge": judge}
        verifiers = {"verifier": SimulatedVerifier()}
        found.append(one(given_job, engines, verifiers=verifiers))  # type: ignore[arg-type]
        assert not engine.held
        assert idle(engine)
    plain, under = found
    assert under.result == plain.result
    assert under.samples == plain.samples
    loose = (Purpose.ADAPTATION, Purpose.SPECULATIVE, Purpose.CANCELLED)
    wanted = [{k: r for k, r in rows(each).items() if k[0] not in loose} for each in found]
    assert wanted[0] == wanted[1]


def test_all_of_the_policys_work_is_under_the_weights_and_none_of_a_judges() -> None:
    engine, judge = Adaptive(), Adaptive()
    one(Job(Under(JudgedVote), Start(problem(1), TASK)), {"policy": engine, "judge": judge})  # type: ignore[arg-type]
    assert set(engine.asked) == set(engine.trained)
    assert set(judge.asked) == {None}
    assert not engine.held


def test_what_is_scored_is_scored_under_the_weights() -> None:
    seen: set[str | None] = set()

    class Seeing(SimulatedVerifier):
        async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
            seen.update(branch.weights for branch in branches)
            return await super().score(branches, meter)

    engine = Adaptive()
    one(Job(Under(Mcts), Start(problem(1), TASK)), engine, verifiers={"verifier": Seeing()})
    assert seen == set(engine.trained)


def test_answers_are_those_of_the_taught_weights() -> None:
    engine = Adaptive(taught=SimulatedEngine(StepModel()))
    plain = one(jobs(Vote(n=5))[0], Adaptive())
    taught = one(jobs(TTFT)[0], engine)
    assert taught.result == plain.result
    assert engine.taught is not None
    assert engine.taught.stats.generated == taught.ledger.of(Purpose.POLICY).generated > 0
    assert engine.stats.generated == 0


def test_a_problem_that_teaches_nothing_is_answered_plainly() -> None:
    engine = Adaptive()
    solved = one(jobs(TTFT, task=Teaching(texts=0))[0], engine)
    assert solved.result == one(jobs(Vote(n=5))[0], Adaptive()).result
    assert engine.trained == []
    assert rows(solved).keys() == {(Purpose.POLICY, "simulated")}


def test_a_training_that_fails_is_a_failure_and_the_search_goes_on() -> None:
    engine = Adaptive(fails=True)
    solved = one(jobs(TTFT)[0], engine)
    assert solved.result.failures == (Failure("EngineError", "the training broke"),)
    plain = one(jobs(Vote(n=5))[0], Adaptive())
    assert solved.result.candidates == plain.result.candidates
    assert set(engine.asked) == {None}
    assert solved.ledger.of(Purpose.FAILED).prompt == TOKENS
    assert not engine.held


# Cost and budgets ------------------------------------------------------------------------------


def test_training_stands_in_the_ledger_as_six_flops_a_weight_and_token() -> None:
    solved = one(jobs(TTFT)[0], Adaptive(), cost_model=COST_MODELS["2P"])
    usage = solved.ledger.of(Purpose.ADAPTATION)
    assert usage.prompt == STEPS * TOKENS
    assert usage.flops == 6.0 * 10 * STEPS * TOKENS
    assert (usage.generated, solved.samples) == (0, 5)


@pytest.mark.parametrize("budget", [Budget(samples=5), Budget(samples=5, tokens=10_000)])
def test_a_budget_in_samples_or_generated_tokens_is_not_touched(budget: Budget) -> None:
    strategy = replace(TTFT, n=None)
    solved = one(jobs(strategy, budget=budget)[0], Adaptive())
    plain = one(jobs(Vote(), budget=budget)[0], Adaptive())
    assert solved.result == plain.result
    assert solved.samples == 5


@pytest.mark.parametrize("unit", ["flops", "total_tokens", "cost"])
def test_a_budget_in_what_training_costs_covers_it(unit: str) -> None:
    training = one(jobs(TTFT)[0], Adaptive()).ledger.of(Purpose.ADAPTATION)
    used = {"flops": training.flops, "total_tokens": training.tokens, "cost": training.cost}[unit]
    whole = int if unit == "total_tokens" else float
    strategy = replace(TTFT, n=None)
    for share, samples in ((0.5, False), (1.0, False), (3.0, True)):
        engine = Adaptive()
        limit = Budget(**{unit: whole(used * share)})
        solved = one(jobs(strategy, budget=limit)[0], engine)
        assert bool(solved.result.candidates) is samples
        assert solved.result.ended is Ended.BUDGET
        assert not engine.held
    rest = Budget(**{unit: whole(used * 2)})
    plain = one(jobs(Vote(), budget=rest)[0], Adaptive())
    assert solved.result.candidates == plain.result.candidates


def test_time_that_runs_out_in_the_training_ends_it_and_counts_it() -> None:
    engine = Adaptive(step_s=1.0)
    solved = one(jobs(TTFT, budget=Budget(seconds=2.5))[0], engine)
    assert solved.result.ended is Ended.BUDGET
    assert solved.seconds == pytest.approx(2.5)
    assert solved.ledger.of(Purpose.CANCELLED).prompt == 2 * TOKENS
    assert solved.ledger.of(Purpose.ADAPTATION).prompt == 0
    assert not engine.held and not engine.training


# The drive ---------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(
    slots=st.integers(1, 20),
    token_ms=st.floats(0.1, 50.0),
    step_s=st.floats(0.0, 2.0),
    group=st.integers(1, 3),
    flops=st.none() | st.floats(1e3, 5e4),
)
def test_any_timing_and_any_slots_give_the_same_results_and_ledgers(
    slots: int, token_ms: float, step_s: float, group: int, flops: float | None
) -> None:
    budget = None if flops is None else Budget(flops=flops)
    task = Teaching(group=group)
    strategy = replace(TTFT, n=None if budget else 4)
    calm = run(jobs(strategy, 5, budget, task), Adaptive(slots=1))
    engine = Adaptive(slots=slots, latency=Latency(token_ms), step_s=step_s)
    timed = run(jobs(strategy, 5, budget, task), engine)
    assert [s.result for s in timed] == [s.result for s in calm]
    assert [rows(s) for s in timed] == [rows(s) for s in calm]
    assert not engine.held
    assert idle(engine)


def test_problems_are_opened_no_faster_than_they_are_trained_for() -> None:
    engine = Adaptive(slots=64, latency=Latency(5), step_s=0.5)
    run(jobs(TTFT, 12), engine)
    assert engine.most == 1
    assert len(engine.trained) == 12


def test_a_drive_that_is_closed_leaves_no_weights_behind() -> None:
    for step_s, latency in ((0.01, Latency(50)), (5.0, Latency(1))):
        engine = Adaptive(slots=6, step_s=step_s, latency=latency)

        async def first(engine: Adaptive = engine) -> None:
            stream = drive(jobs(TTFT, 9), {"policy": engine})
            async with aclosing(stream) as solved:
                async for _ in solved:
                    break

        run_virtual(first())
        assert not engine.held and not engine.training
        assert idle(engine)


@dataclass
class Twice(Toy):
    """Adapts twice, which no search may."""

    asked: bool = field(default=False)

    def begin(self) -> None:
        self._queue += [Adapt(self._id(), (Parts((("x", True),)),)) for _ in range(2)]

    def take(self, outcome: Outcome) -> None:
        pass


def test_a_second_adaptation_is_refused_and_the_first_is_freed() -> None:
    engine = Adaptive()
    with pytest.raises(UsageError, match="second adaptation"):
        one(Job(Starts(Twice), Start(problem(), TASK)), engine)
    assert not engine.held and not engine.training


def test_another_engine_is_refused_before_any_work() -> None:
    engine = SimulatedEngine(StepModel())
    with pytest.raises(UnsupportedError, match="trained on at test time"):
        one(jobs(TTFT)[0], engine)
    assert engine.stats.generated == 0
    # A strategy that does not say what it needs learns it as a failure.
    solved = one(Job(Under(StoppedVote), Start(problem(1), TASK)), engine)
    assert [failure.error for failure in solved.result.failures][:1] == ["UnsupportedError"]


# Runs --------------------------------------------------------------------------------------------


def test_a_run_that_is_repeated_trains_nothing_and_exports_the_same(tmp_path: Path) -> None:
    from tests.runs.world import Steps, exported

    @dataclass(frozen=True)
    class Task(Steps):
        def adaptation(self, problem: Any, count: int, seed: int = 0) -> list[Parts]:
            return [Parts(((problem.id, True),))]

    config = small(strategies=["ttft(then=vote, n=4, steps=2)"], samples=None, problems=6)
    engines = [Adaptive() for _ in range(3)]
    go = partial(run_config, config, task=Task(), virtual=True)
    go(tmp_path / "a", engine=engines[0])
    assert len(engines[0].trained) == 6
    before = exported(tmp_path / "a")
    go(tmp_path / "a", engine=engines[1])
    assert engines[1].trained == [] and engines[1].stats.generated == 0
    assert exported(tmp_path / "a") == before
    forget_results(tmp_path / "a")
    go(tmp_path / "a", engine=engines[2])
    assert engines[2].trained == [] and engines[2].stats.generated == 0
    assert exported(tmp_path / "a") == before
    with Records(tmp_path / "a") as records:
        (cell,) = records.cells
        spent = [row for each in records.results(cell) for row in each.spent]
        assert sum(row.purpose == "adaptation" for row in spent) == 6


def forget_results(directory: Path) -> None:
    """As a kill leaves a run whose samples are on the disk and whose results are not."""
    import sqlite3

    connection = sqlite3.connect(directory / "run.db")
    connection.execute("DELETE FROM results")
    connection.commit()
    connection.close()


# Specs -------------------------------------------------------------------------------------------


def test_specs_give_the_search_its_own_parameters() -> None:
    strategy = load_strategy("ttft(steps=8, n=16, rank=views, temperature=0, seed=3)")
    assert isinstance(strategy, Ttft)
    assert strategy.inner == load_strategy("airv(n=16, rank=views, temperature=0, seed=3)")
    assert strategy.needs.verifiers == ("views",)
    assert strategy.needs.capabilities == ("adapts",)
    assert strategy.recipe == AdaptRecipe(steps=8, seed=3)
    dfs = load_strategy("ttft(threshold=0.1)")
    assert isinstance(dfs, Ttft)
    assert dfs.needs.capabilities == ("threshold_dfs", "adapts")
    judged = "n=16, per_view=2, keep=likeliest, rank=verify, judge=other, questions=4"
    under = load_strategy(f"ttft(steps=8, {judged})")
    assert isinstance(under, Ttft)
    assert under.inner == load_strategy(f"airv({judged})")
    assert under.needs.engines == ("policy", "other")
    assert under.needs.capabilities == ("logprobs", "adapts")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ttft(steps=0)", "steps"),
        ("ttft(rate=0)", "rate"),
        ("ttft(examples=0)", "examples"),
        ("ttft(then=beam)", "then"),
        ("ttft(then=vote, rank=views)", "rank"),
        ("ttft(then=vote, beam=2)", "beam"),
        ("ttft(n=4, questions=3)", "questions"),
        ("ttft(then=vote, temperature=0)", "temperature"),
        ("ttft(rank=best)", "rank"),
        ("ttft(threshold=2)", "threshold"),
    ],
)
def test_specs_that_cannot_be_are_refused(spec: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        load_strategy(spec)


def test_a_task_that_teaches_nothing_is_refused() -> None:
    from tests.strategies.common import TASK as PLAIN

    with pytest.raises(UnsupportedError, match="learn from"):
        TTFT.start(Start(problem(), PLAIN, None, Sampling()))
