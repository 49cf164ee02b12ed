"""Reliability 12: k of n samples fail, k = 0..n.

The result says how many came and why the others did not; below the quorum there is no answer, and
never a vote of the few in silence. What the failed ones cost is counted, on its own row.
"""

from __future__ import annotations

import random

import pytest
from tests.strategies.common import TASK, idle, job, one, rows

import mull
from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine, StepModel
from mull.grades import Unanswered

N = 12
ERRORS = {
    Fault.CONNECTION: "EngineConnectionError",
    Fault.DEADLINE: "DeadlineError",
    Fault.ENDPOINT: "EndpointError",
    Fault.PROTOCOL: "ProtocolError",
    Fault.RATE: "RateLimitError",
    Fault.MISSING: "ProtocolError",
}


def engine(faults: dict[int, Fault]) -> SimulatedEngine:
    """Slots fewer than samples, so that failures meet work that waits."""
    return SimulatedEngine(
        StepModel(), faults=Faults(chosen=faults), latency=Latency(token_ms=1), slots=5
    )


@pytest.mark.parametrize("spec", ["vote", "best-of-n", "vote(quorum=0.75)", "vote(quorum=1)"])
@pytest.mark.parametrize("failed", range(N + 1))
def test_k_of_n_fail(spec: str, failed: int) -> None:
    lost = random.Random(failed).sample(range(N), failed)
    strategy = load_strategy(spec)
    for fault in (Fault.CONNECTION, Fault.MISSING):
        simulated = engine(dict.fromkeys(lost, fault))
        solved = one(job(strategy, Budget(samples=N), success=0.9), simulated)
        result = solved.result
        assert len(result.candidates) == N - failed
        short = 0 < N - failed < strategy.quorum * N  # type: ignore[attr-defined]
        assert len(result.failures) == failed + short
        assert {c.key[0] for c in result.candidates} == set(range(N)) - set(lost)
        enough = N - failed >= max(1, strategy.quorum * N)  # type: ignore[attr-defined]
        assert (result.answer is not None) == enough
        if not enough:
            assert result.confidence == 0.0
        counts = {purpose: row[3] for (purpose, _), row in rows(solved).items()}
        assert counts.get(Purpose.POLICY, 0) == N - failed
        assert solved.ledger.total.generated == simulated.stats.generated
        assert idle(simulated)


@pytest.mark.parametrize(("fault", "error"), ERRORS.items())
def test_the_failure_names_the_error(fault: Fault, error: str) -> None:
    solved = one(job(load_strategy("vote(n=6)")), engine({2: fault}))
    (failure,) = solved.result.failures
    assert failure.error == error
    assert failure.message


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.EMPTY, Unanswered.NO_ANSWER),
        (Fault.TRUNCATED, Unanswered.TRUNCATED),
        (Fault.FILTERED, Unanswered.FILTERED),
    ],
)
def test_a_bad_text_is_a_candidate_without_an_answer(fault: Fault, reason: Unanswered) -> None:
    """It came back, so it is no failure; it has no say, and the reason is kept."""
    result = one(job(load_strategy("vote(n=6)"), success=1.0), engine({2: fault})).result
    assert result.failures == ()
    assert [c.unanswered for c in result.candidates] == [None, None, reason, None, None, None]
    assert result.confidence == 1.0
    assert result.parts[0].n_answered == 5


def test_the_solution_tells_the_caller() -> None:
    simulated = engine({0: Fault.RATE, 1: Fault.RATE, 2: Fault.RATE})
    problem = job(load_strategy("greedy")).start.problem
    solution = mull.solve(problem, simulated, task=TASK, budget=Budget(samples=4))
    assert solution.answer is None
    assert len(solution.candidates) == 1
    assert [f.error for f in solution.failures] == ["RateLimitError"] * 3 + ["Quorum"]


def test_a_stopped_vote_replaces_what_failed() -> None:
    """Under a stopping rule the samples that failed are drawn again, within the budget."""
    lost = dict.fromkeys(range(3), Fault.CONNECTION)
    solved = one(
        job(load_strategy("vote(stop=beta)"), Budget(samples=N), success=1.0), engine(lost)
    )
    assert len(solved.result.candidates) == 4
    assert solved.samples == 7
    assert solved.result.answer is not None
