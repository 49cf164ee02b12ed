"""AB-MCTS: the laws of every search, the posteriors, and when it goes wider or deeper."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean, pstdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, idle, job, one, problem, rows, run
from tests.strategies.test_contract import MANY_SLOTS, ONE_SLOT, SEEDS, SLOTS
from tests.strategies.worlds import BUDGETS, Unsure, engine, in_any_order

from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UsageError
from mull.strategies.ab_mcts import AbMcts, draw
from mull.strategies.base import Ended, Failure, Generate, Outcome, Room, Score, Start
from mull.trees import Fate
from mull.types import Completion, StopReason, Usage
from mull.verifiers.simulated import SimulatedVerifier

KINDS = [
    AbMcts(n=12, verifier="verifier", reviser="policy"),
    AbMcts(n=9, verifier="verifier", reviser="judge", posterior="beta", flight=3),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 50), slots=SLOTS, schedule=SEEDS, tokens=st.integers(0, 90))
def test_timing_and_slots_change_neither_result_nor_ledger(
    kind: AbMcts, world: int, slots: dict[str, int], schedule: int, tokens: int
) -> None:
    budget = Budget(tokens=tokens) if tokens else None
    expected, alone = in_any_order(kind, world, ONE_SLOT, 0, budget)
    result, driver = in_any_order(kind, world, slots, schedule, budget)
    assert result == expected
    assert driver.committed() == alone.committed()
    assert driver.ledger.total.tokens == driver.made


def test_most_worlds_have_an_answer() -> None:
    results = [in_any_order(KINDS[0], world, MANY_SLOTS, world, None)[0] for world in range(10)]
    assert sum(result.answer is not None for result in results) >= 8


@pytest.mark.parametrize("posterior", ["gaussian", "beta"])
@settings(max_examples=8, deadline=None)
@given(
    budget=BUDGETS,
    slots=st.integers(1, 9),
    token_ms=st.floats(0.1, 20.0),
    rate=st.sampled_from([0.0, 0.15]),
    nan=st.sampled_from([0.0, 0.2]),
    fails=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_any_latency_any_failure_and_any_budget_give_the_same_result(
    posterior: str,
    budget: Budget,
    slots: int,
    token_ms: float,
    rate: float,
    nan: float,
    fails: float,
) -> None:
    strategy = load_strategy(f"ab-mcts(posterior={posterior}, reviser=policy)")
    jobs = [job(strategy, budget, number, success=0.6 + 0.1 * number) for number in range(3)]
    alone = run(jobs, engine(rate, slots=1), verifiers={"prm": Unsure(nan, fails)})
    timed = engine(rate, slots, Latency(token_ms))
    crowd = run(jobs, timed, verifiers={"prm": Unsure(nan, fails, batch_ms=3.0)})
    assert [s.result for s in crowd] == [s.result for s in alone]
    if not fails:
        assert [rows(s) for s in crowd] == [rows(s) for s in alone]
    assert idle(timed)
    for solved in crowd:
        assert solved.result.ended in (Ended.COMPLETE, Ended.BUDGET)
        if budget.samples is not None:
            assert solved.samples <= budget.samples
            assert len(solved.result.tree) <= budget.samples


@given(tokens=st.integers(1, 900), flight=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_the_overrun_of_a_budget_is_at_most_what_was_in_flight(tokens: int, flight: int) -> None:
    kind = AbMcts(flight=flight, reviser="policy")
    verifiers = {"prm": SimulatedVerifier()}
    solved = one(job(kind, Budget(tokens=tokens)), engine(), verifiers=verifiers)
    assert tokens <= solved.ledger.total.generated < tokens + flight * 250
    assert solved.result.ended is Ended.BUDGET


@pytest.mark.parametrize("kind", ["gaussian", "beta"])
def test_a_posterior_narrows_to_what_was_seen(kind: str) -> None:
    def drawn(scores: list[float]) -> list[float]:
        return [draw(kind, scores, random.Random(i)) for i in range(2000)]

    many, few = drawn([0.7] * 200), drawn([0.7] * 3)
    assert fmean(many) == pytest.approx(0.7, abs=0.02)
    assert pstdev(many) < 0.5 * pstdev(few)


def test_the_gaussian_posterior_is_the_conjugate_one() -> None:
    """Scores .2 and .8: κ = 3, ν = 3, mean 1/3, Student-t of variance (.1 + .18 + 1/6)/3."""
    draws = [draw("gaussian", [0.2, 0.8], random.Random(i)) for i in range(20_000)]
    assert fmean(draws) == pytest.approx(1 / 3, abs=0.01)
    # The mean is Student-t with 3 degrees of freedom: half of it lies within .765 of its scale.
    scale = ((0.1 + 0.18 + 2 / 3 * 0.25) / 3 / 3) ** 0.5
    within = sum(abs(x - 1 / 3) < 0.7649 * scale for x in draws) / len(draws)
    assert within == pytest.approx(0.5, abs=0.015)


def widths(score: float, better: float) -> tuple[int, int]:
    """Fresh attempts and revisions when those have these scores."""
    search = AbMcts(n=40, flight=1, reviser="policy").start(Start(problem(), TASK))
    fresh = 0
    while not search.done:
        for action in search.ask(Room(1)):
            if isinstance(action, Generate):
                fresh += not action.branch.history
                text = f"{action.branch.key} {action.first}"
                made = Completion(action.first, text, StopReason.END, Usage(generated=1))
                search.tell(Outcome(action.id, action.first, made))
            else:
                (branch,) = action.branches  # type: ignore[union-attr]
                search.tell(Outcome(action.id, 0, (better if branch.history else score,)))
    return fresh, 40 - fresh


def test_it_goes_deeper_where_revisions_help_and_wider_where_they_do_not() -> None:
    assert widths(0.2, 0.9)[1] > 2 * widths(0.9, 0.1)[1]


def test_a_revision_sees_the_last_attempts_of_its_line_and_no_line_is_too_long() -> None:
    kind = AbMcts(n=40, depth=3, history=1, reviser="policy", flight=1)
    search = kind.start(Start(problem(), TASK))
    while not search.done:
        for action in search.ask(Room(1)):
            if isinstance(action, Generate):
                assert len(action.branch.history) == min(1, len(action.branch.key) // 2)
                assert len(action.branch.key) <= 4
                assert action.purpose is (
                    Purpose.REVISION if action.branch.history else Purpose.POLICY
                )
                made = Completion(action.first, str(action.id), StopReason.END, Usage())
                search.tell(Outcome(action.id, action.first, made))
            else:
                search.tell(Outcome(action.id, 0, (0.5,)))


def test_the_best_solution_answers_and_carries_its_score() -> None:
    solved = one(
        job(AbMcts(n=16, reviser="policy"), success=0.7, steps=4),
        engine(),
        verifiers={"prm": SimulatedVerifier()},
    )
    best = max(solved.result.candidates, key=lambda c: c.scores["prm"])
    assert solved.result.answer == best.answer
    assert {"prm", "mean_logprob"} <= set(best.scores)
    assert len(solved.result.tree) <= 16


def test_before_the_end_a_solution_and_a_score_that_came_before_their_turn_count() -> None:
    search = AbMcts(n=8, flight=3, reviser="policy").start(Start(problem(), TASK))
    asked = [action for action in search.ask(Room(8)) if isinstance(action, Generate)]
    late, second, third = asked
    for action, text in ((second, "answer 7"), (third, "answer 8")):
        made = Completion(action.first, text, StopReason.END, Usage(generated=1))
        search.tell(Outcome(action.id, action.first, made))
    result = search.result()
    assert result.ended is Ended.UNFINISHED
    assert [c.answer for c in result.candidates] == ["7", "8"] and result.answer == "7"
    assert [node.key for node in result.tree if node.fate is Fate.FINISHED] == [(1,), (2,)]
    search.tell(Outcome(late.id, late.first, Failure("EndpointError", "HTTP 500")))
    assert [c.answer for c in search.result().candidates] == ["7", "8"]
    scores = [action for action in search.ask(Room(8)) if isinstance(action, Score)]
    search.tell(Outcome(scores[1].id, 0, (0.9,)))
    assert [c.scores.get("prm") for c in search.result().candidates] == [None, 0.9]
    assert search.result().answer == "8"


def test_other_seeds_give_other_trees() -> None:
    results = [
        one(
            job(AbMcts(n=16, reviser="policy", seed=seed)),
            engine(),
            verifiers={"prm": SimulatedVerifier()},
        ).result
        for seed in (0, 0, 1)
    ]
    assert results[0] == results[1]
    assert [n.key for n in results[0].tree] != [n.key for n in results[2].tree]


def test_an_engine_of_which_nothing_comes_does_not_keep_it() -> None:
    dead = SimulatedEngine(StepModel(), faults=Faults(rates={Fault.CONNECTION: 1.0}))
    given = job(AbMcts(reviser="policy"), Budget(tokens=500))
    solved = one(given, dead, verifiers={"prm": SimulatedVerifier()})
    assert solved.result.answer is None
    assert solved.result.ended in (Ended.COMPLETE, Ended.BUDGET)
    assert all(node.fate == "failed" for node in solved.result.tree)


def test_a_verifier_that_never_scores_leaves_the_plain_majority() -> None:
    solved = one(
        job(AbMcts(n=12, reviser="policy"), success=0.95),
        engine(),
        verifiers={"prm": Unsure(nan=0.5, fails=0.5)},
    )
    assert solved.result.answer == solved.job.start.problem.answer
    assert {f.error for f in solved.result.failures} == {"ScoreError"}


@pytest.mark.parametrize(
    "bad", [{"flight": 0}, {"depth": 0}, {"history": 0}, {"posterior": "t"}, {"select": "last"}]
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="ab-mcts"):
        AbMcts(**bad)  # type: ignore[arg-type]


def test_its_n_the_budget_its_reviser_and_its_verifier_must_be_there() -> None:
    with pytest.raises(BudgetError, match="contradicts"):
        AbMcts(n=4).start(Start(problem(), TASK, Budget(samples=5)))
    with pytest.raises(UsageError, match="needs engine 'reviser'"):
        one(job(AbMcts(n=2)), engine(), verifiers={"prm": SimulatedVerifier()})
    with pytest.raises(UsageError, match="needs verifier 'prm'"):
        one(job(AbMcts(n=2, reviser="policy")), engine())
    assert replace(AbMcts(), depth=1).needs.engines == ("policy",)
