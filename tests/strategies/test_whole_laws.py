"""Laws of the strategies over whole answers, under every unit of budget and every mishap.

Whatever the order in which outcomes come, the slots, the failures: a search ends, asks for no more
than its budget, charges what was made, has a valid result at any moment, and comes to the same
result and the same ledger.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, idle, problem
from tests.strategies.whole import (
    HONEST,
    SILENT,
    Either,
    broken,
    committed,
    engines_of,
    luck,
    nan,
    solve,
    verifiers_of,
)

from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine
from mull.strategies.base import Ended, Room, Start
from mull.strategies.needs import needs_of

N = 12
SPECS = [
    "weighted-vote",
    "weighted-vote(flight=3, transform=exp)",
    "weighted-vote(rule=borda)",
    "weighted-vote(transform=logit, neutral=0.3)",
    "best-of-n(verifier=prm)",
    "best-of-n(judge=judge)",
    "best-of-n(judge=policy, compare=grade, votes=3, flight=5)",
    "best-of-n(judge=judge, compare=pairs)",
    "best-of-n(judge=policy, compare=pairs, flight=3)",
    "filter-vote",
    "filter-vote(judge=policy, votes=3, flight=5)",
    "revise",
    "revise(chains=3, history=2)",
    "revise(chains=4, select=majority, first=reviser)",
    "mixed(ratio=0.75)",
    "self-refine",
    "self-refine(judge=judge, history=3, approve=1)",
    "speculative-rejection(chunk=20)",
    "speculative-rejection(alpha=0.25)",
    "confident-vote(warm=3, window=20, chunk=16, eta=0.6)",
    "confident-vote",
    "budget-forcing",
    "budget-forcing(waits=3, min_tokens=100, flight=2)",
    "synthesis",
    "synthesis(judge=judge)",
]
JUDGED = [s for s in SPECS if s.startswith(("filter-vote", "self-refine", "best-of-n(judge"))]
LIMITS: dict[str, Any] = {
    "samples": st.just(N),
    "tokens": st.integers(1, 4000),
    "total_tokens": st.integers(1, 8000),
    "flops": st.floats(1.0, 1e5),
    "cost": st.floats(1e-6, 1e-2),
}
BUDGETS = (
    st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=2, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: LIMITS[name] for name in names}))
    .map(lambda limits: Budget(**limits))
)
SCORES = st.sampled_from([None, luck, nan, broken])
JUDGES = st.sampled_from([HONEST, SILENT])
RATES = st.sampled_from(
    [
        {},
        {Fault.CONNECTION: 0.3},
        {Fault.EMPTY: 0.2, Fault.FILTERED: 0.2, Fault.TRUNCATED: 0.2},
        {Fault.CONNECTION: 1.0},
    ]
)


def faulty(judge: Any, rates: dict[Fault, float], **options: Any) -> dict[str, Any]:
    return engines_of(judge, faults=Faults(rates=rates), **options)


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=8)
@given(
    budget=BUDGETS,
    schedule=st.integers(0, 2**32),
    score=SCORES,
    judge=JUDGES,
    rates=RATES,
    success=st.floats(0.2, 0.95),
)
def test_any_order_gives_the_same_result_and_the_same_ledger(
    spec: str,
    budget: Budget,
    schedule: int,
    score: Any,
    judge: Any,
    rates: dict[Fault, float],
    success: float,
) -> None:
    world = {"success": success, "verifiers": verifiers_of(score)}
    strategy = load_strategy(spec)
    alone = solve(strategy, budget, engines=faulty(judge, rates), **world)
    again = solve(strategy, budget, engines=faulty(judge, rates), schedule=schedule, **world)
    assert again.result == alone.result
    assert committed(again) == committed(alone)
    assert again.samples == alone.samples
    if budget.samples is not None:
        assert alone.samples <= budget.samples
    assert not any(
        f.error == "BudgetError" and "in full" in f.message for f in alone.result.failures
    )


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=4)
@given(
    budget=BUDGETS,
    slots=st.integers(1, 20),
    token_ms=st.floats(0.1, 50.0),
    request_ms=st.floats(0.0, 500.0),
    rates=RATES,
)
def test_any_slots_give_the_same_ledger_and_it_is_what_was_made(
    spec: str,
    budget: Budget,
    slots: int,
    token_ms: float,
    request_ms: float,
    rates: dict[Fault, float],
) -> None:
    strategy = load_strategy(spec)
    alone = solve(strategy, budget, engines=faulty(HONEST, rates))
    latency = Latency(token_ms, request_ms=request_ms)
    engines = faulty(HONEST, rates, latency=latency, slots=slots)
    timed = solve(strategy, budget, engines=engines)
    assert timed.result == alone.result
    assert committed(timed) == committed(alone)
    assert all(idle(engine) for engine in engines.values())
    made = sum(engine.stats.generated for engine in engines.values())
    assert made == timed.ledger.total.generated


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=3)
@given(tokens=st.integers(1, 3000))
def test_the_overrun_is_at_most_what_was_in_flight(spec: str, tokens: int) -> None:
    """Twelve turns of at most 400 tokens are the most that any of these has in flight."""
    solved = solve(load_strategy(spec), Budget(tokens=tokens, samples=N))
    assert solved.ledger.total.generated < tokens + N * TASK.until.max_tokens


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=3)
@given(seconds=st.floats(0.01, 3.0), slots=st.integers(1, 9))
def test_a_budget_of_seconds_ends_on_time(spec: str, seconds: float, slots: int) -> None:
    engines = engines_of(latency=Latency(token_ms=3), slots=slots)
    solved = solve(load_strategy(spec), Budget(seconds=seconds, samples=N), engines=engines)
    assert solved.seconds <= seconds + 1e-9
    assert all(idle(engine) for engine in engines.values())
    assert (solved.result.ended is Ended.BUDGET) == (solved.seconds == pytest.approx(seconds))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("score", [nan, broken])
def test_a_verifier_that_never_scores_still_leaves_an_answer(spec: str, score: Any) -> None:
    solved = solve(load_strategy(spec), Budget(samples=N), verifiers=verifiers_of(score))
    assert solved.result.answer is not None
    asked = needs_of(load_strategy(spec)).verifiers
    errors = {failure.error for failure in solved.result.failures}
    assert errors == ({"ScoreError"} if asked else set())
    assert not any(
        math.isfinite(c.scores.get(name, math.nan))
        for c in solved.result.candidates
        for name in asked
    )


@pytest.mark.parametrize("spec", JUDGED)
def test_a_judge_that_never_says_anything_is_counted_and_approves_nothing(spec: str) -> None:
    solved = solve(load_strategy(spec), Budget(samples=N), engines=engines_of(SILENT))
    assert solved.result.answer is not None
    assert {failure.error for failure in solved.result.failures} == {"NoVerdict"}
    assert not any("judge" in c.scores for c in solved.result.candidates)
    assert solved.ledger.of(Purpose.JUDGE).generated


@pytest.mark.parametrize("spec", SPECS)
def test_an_engine_that_is_away_leaves_no_answer_and_its_errors(spec: str) -> None:
    away = faulty(HONEST, {Fault.CONNECTION: 1.0})
    result = solve(load_strategy(spec), Budget(samples=N), engines=away).result
    assert result.answer is None
    assert result.candidates == ()
    assert {failure.error for failure in result.failures} == {"EngineConnectionError"}


@pytest.mark.parametrize("spec", SPECS)
def test_a_search_needs_no_outcome_for_a_result(spec: str) -> None:
    search = load_strategy(spec).start(Start(problem(), TASK, Budget(samples=N)))
    assert search.result().answer is None
    search.ask(Room(1))
    assert search.result().candidates == ()
    assert search.result().ended is Ended.UNFINISHED
    assert not search.done


@pytest.mark.parametrize("spec", SPECS)
def test_seeds_decide(spec: str) -> None:
    strategy = load_strategy(spec)
    results = [
        solve(strategy, Budget(samples=N), success=0.5, seed=seed).result for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] != results[2]


def test_the_engine_that_judges_itself_is_one_model() -> None:
    engine = SimulatedEngine(Either(HONEST))
    solved = solve(load_strategy("filter-vote(judge=policy, n=4)"), engines={"policy": engine})
    assert engine.stats.generated == solved.ledger.total.generated
