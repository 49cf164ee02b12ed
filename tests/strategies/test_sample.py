"""Samples side by side: no more than asked for, none after the budget is spent."""

from __future__ import annotations

import math

import pytest
from tests.strategies.common import TASK, job, one, problem, rows, run

from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Echo, Fault, Faults, Latency, SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError
from mull.strategies.base import Ended, Failure, Generate, Outcome, Room, Start
from mull.strategies.number import FLIGHT
from mull.strategies.vote import Vote
from mull.types import Completion, StopReason, Usage

TAKES_N = ["sample", "vote", "best-of-n"]


@pytest.mark.parametrize("name", TAKES_N)
def test_n_zero_is_refused_whatever_the_budget(name: str) -> None:
    for budget in (None, Budget(tokens=9)):
        with pytest.raises(BudgetError, match="n must be at least 1"):
            load_strategy(f"{name}(n=0)").start(Start(problem(), TASK, budget))


@pytest.mark.parametrize("name", TAKES_N)
@pytest.mark.parametrize("bad", ["flight=0", "flight=-1", "quorum=1.5", "quorum=-1", "quorum=nan"])
def test_flights_and_quorums_out_of_range_are_refused(name: str, bad: str) -> None:
    with pytest.raises(SpecError, match=bad.partition("=")[0]):
        load_strategy(f"{name}({bad})")


def asked(search: object) -> list[tuple[int, int]]:
    actions = search.ask(Room(0))  # type: ignore[attr-defined]
    return [(a.first, a.count) for a in actions if isinstance(a, Generate)]


def test_samples_alone_are_asked_for_at_once() -> None:
    """One action is one request: the prompt is paid once."""
    assert asked(Vote().start(Start(problem(), TASK, Budget(samples=100)))) == [(0, 100)]
    assert asked(Vote(n=9).start(Start(problem(), TASK, Budget(seconds=5)))) == [(0, 9)]


@pytest.mark.parametrize("budget", [Budget(tokens=10**6), Budget(seconds=9), Budget(cost=9)])
def test_under_other_limits_so_many_are_in_flight(budget: Budget) -> None:
    search = Vote(flight=5).start(Start(problem(), TASK, budget))
    assert asked(search) == [(0, 5)]
    done = Completion(0, "answer 1", StopReason.END, Usage(generated=8))
    search.tell(Outcome(0, 0, done, done.usage))
    assert asked(search) == [(5, 1)]
    assert Vote().flight == FLIGHT


def test_a_sample_out_of_turn_starts_nothing() -> None:
    """What is asked next depends on what took effect, in order, not on what came."""
    search = Vote(flight=3).start(Start(problem(), TASK, Budget(tokens=100)))
    assert asked(search) == [(0, 3)]
    done = Completion(2, "answer 1", StopReason.END, Usage(generated=8))
    search.tell(Outcome(0, 2, done, done.usage))
    assert asked(search) == []


def test_before_the_end_the_result_counts_what_came_out_of_turn() -> None:
    """One slow first sample must not hide seven answers when time is up."""
    search = Vote(n=8).start(Start(problem(), TASK))
    search.ask(Room(0))
    for index in range(1, 8):
        done = Completion(index, f"answer {index % 2}", StopReason.END, Usage(generated=8))
        search.tell(Outcome(0, index, done, done.usage))
    result = search.result()
    assert not search.done
    assert (result.answer, len(result.candidates), result.ended) == ("1", 7, Ended.UNFINISHED)
    search.tell(Outcome(0, 0, Failure("EngineConnectionError", "reset")))
    assert search.done
    assert [c.key for c in search.result().candidates] == [(i,) for i in range(1, 8)]
    assert len(search.result().failures) == 1


@pytest.mark.parametrize("tokens", [50, 120, 333])
def test_a_token_budget_is_overrun_by_what_was_in_flight_at_most(tokens: int) -> None:
    engine = SimulatedEngine(StepModel(), latency=Latency(token_ms=1), slots=3)
    solved = one(job(Vote(flight=4), Budget(tokens=tokens)), engine)
    lengths = [c.tokens for c in solved.result.candidates]
    assert solved.result.ended is Ended.BUDGET
    assert sum(lengths) == solved.ledger.total.generated >= tokens
    assert sum(lengths[:-4]) < tokens


def test_candidates_that_exist_are_not_paid_again() -> None:
    """The whole vote, and the same vote started with its own first five samples."""
    engine = SimulatedEngine(StepModel())
    whole = one(job(Vote(), Budget(samples=16)), engine)
    given = whole.result.candidates[:5]
    rest = one(job(Vote(), Budget(samples=16), candidates=given), engine)
    assert rest.result == whole.result
    assert rest.samples == 11
    paid = sum(c.tokens for c in whole.result.candidates[5:])
    assert rest.ledger.total.generated == paid
    none = one(job(Vote(n=4), candidates=whole.result.candidates), engine)
    assert none.ledger.total == Usage()
    assert none.result.candidates == whole.result.candidates[:4]


def test_greedy_answers_are_not_taken_from_samples() -> None:
    """Candidates count only where they were drawn as this search draws."""
    engine = SimulatedEngine(StepModel())
    sampled = one(job(Vote(n=4), success=0.05), engine).result.candidates
    greedy = load_strategy("greedy")
    alone = one(job(greedy, success=0.6), engine)
    given = one(job(greedy, success=0.6, candidates=sampled), engine)
    assert given.result == alone.result
    assert given.samples == 1


@pytest.mark.parametrize("failed", range(9))
@pytest.mark.parametrize("quorum", [0.0, 0.5, 1.0])
def test_below_the_quorum_there_is_no_answer(failed: int, quorum: float) -> None:
    faults = Faults(chosen=dict.fromkeys(range(failed), Fault.CONNECTION))
    engine = SimulatedEngine(Echo(), faults=faults)
    result = one(job(Vote(n=8, quorum=quorum)), engine).result
    missed = [f.message for f in result.failures if f.error == "Quorum"]
    assert missed == ([f"{8 - failed} of 8 samples came"] if 0 < 8 - failed < quorum * 8 else [])
    lost = [f for f in result.failures if f.error == "EngineConnectionError"]
    assert (len(result.candidates), len(lost)) == (8 - failed, failed)
    enough = 8 - failed >= max(quorum * 8, 1)
    assert result.answer == ("1" if enough else None)
    assert {f.error for f in result.failures} <= {"EngineConnectionError", "Quorum"}
    (chosen,) = result.parts
    assert (chosen.n_answered, chosen.left_out) == (8 - failed, 8 - failed if missed else 0)


def test_failed_work_stands_on_its_own_row() -> None:
    faults = Faults(chosen={0: Fault.RATE, 3: Fault.MISSING})
    engine = SimulatedEngine(StepModel(), faults=faults, latency=Latency(token_ms=1))
    solved = one(job(Vote(n=6)), engine)
    counts = {purpose: row[3] for (purpose, _), row in rows(solved).items()}
    assert counts[Purpose.FAILED] == 2
    assert counts[Purpose.POLICY] == 4
    assert solved.ledger.total.generated == engine.stats.generated
    assert [f.error for f in solved.result.failures] == ["RateLimitError", "RateLimitError"]


def test_problems_do_not_share_samples() -> None:
    engine = SimulatedEngine(StepModel())
    found = run([job(Vote(n=4), number=i, success=0.5) for i in range(6)], engine)
    texts = [tuple(c.text for c in s.result.candidates) for s in found]
    assert len(set(texts)) == 6
    assert math.isclose(sum(s.ledger.total.generated for s in found), engine.stats.generated)


@pytest.mark.parametrize("budget", [Budget(tokens=500), Budget(cost=1), Budget(seconds=3600)])
def test_an_engine_that_only_fails_is_given_up(budget: Budget) -> None:
    """Failures cost no tokens: no budget would ever end them."""
    faults = Faults(rates={Fault.MISSING: 1.0})
    engine = SimulatedEngine(
        Echo(), latency=Latency(request_ms=1), faults=faults, price=(0.0, 0.0, 1.0)
    )
    result = one(job(Vote(flight=5), budget), engine).result
    assert (result.answer, result.ended) == (None, Ended.COMPLETE)
    assert FLIGHT <= len(result.failures) < FLIGHT + 5
