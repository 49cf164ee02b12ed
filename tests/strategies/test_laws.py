"""Laws of every built-in strategy under every unit of budget.

Whatever the latencies, the slots and the order of outcomes: a search asks for no more than its
budget, ends, has a valid result at any moment, and comes to the same result and the same ledger.
"""

from __future__ import annotations

import random
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, idle, job, one, problem, rows, run

from mull.budget import Budget, Ledger, Meter, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine, StepModel, run_virtual
from mull.strategies.base import (
    Ended,
    Failure,
    Generate,
    Inbox,
    Outcome,
    Result,
    Room,
    Search,
    Start,
)
from mull.types import Completion, Request

SPECS = [
    "greedy",
    "sample",
    "vote",
    "vote(flight=3)",
    "vote(stop=beta)",
    "vote(stop=beta, confidence=0.8, flight=2)",
    "vote(stop=dirichlet)",
    "best-of-n",
    "best-of-n(score=logprob, flight=5)",
    "token-beam(width=6)",
    "token-dfs(threshold=0.2)",
]


TIMED = [spec for spec in SPECS if not spec.startswith("token-")]
"""The simulator samples; searches in time are tested on an engine that has them."""


def budgets(samples: int) -> st.SearchStrategy[Budget]:
    """Budgets in every unit alone and in pairs; ``samples`` is what the strategy may be given."""
    limits = {
        "samples": st.just(samples),
        "tokens": st.integers(1, 2000),
        "total_tokens": st.integers(1, 3000),
        "flops": st.floats(1.0, 3e4),
        "cost": st.floats(1e-6, 3e-3),
    }
    names = st.lists(st.sampled_from(sorted(limits)), min_size=1, max_size=2, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries({name: limits[name] for name in chosen})
    ).map(lambda given: Budget(**given))


def samples_for(spec: str) -> int:
    return {"greedy": 1, "token-beam(width=6)": 6, "token-dfs(threshold=0.2)": 5}.get(spec, 11)


class Engine(SimulatedEngine):
    """The step model, with sizes and prices, so that FLOPs and money are spent too."""

    def __init__(self, **options: object) -> None:
        options = {"parameters": 10, "price": (1.0, 0.5, 2.0), **options}
        super().__init__(StepModel(), **options)  # type: ignore[arg-type]


ENGINE = Engine()


def complete(action: Generate, index: int, fails: float) -> Outcome:
    """What a sample of an action is: from the action and the index alone."""
    meter = Meter(Ledger(), Purpose.POLICY, ENGINE.info)
    if random.Random(f"{index}").random() < fails:
        meter.charge(index, generated=5)
        return Outcome(
            action.id, index, Failure("EngineConnectionError", "reset"), meter.usage(index)
        )
    completion = sample(index)
    return Outcome(action.id, index, completion, completion.usage)


@lru_cache
def sample(index: int) -> Completion:
    async def ask() -> Completion:
        meter = Meter(Ledger(), Purpose.POLICY, ENGINE.info)
        request = Request(problem(2).prompt, TASK.until, n=1, first=index, seed=3)
        (made,) = [c async for c in ENGINE.generate(request, meter)]
        assert isinstance(made, Completion)
        return made

    return run_virtual(ask())


def shuffle(search: Search, order: random.Random, fails: float) -> tuple[Result, set[int]]:
    """Tell outcomes in any order, ask at any moment; check what holds at any moment."""
    waiting: list[tuple[Generate, int]] = []
    asked: set[int] = set()
    while not search.done:
        if not waiting or order.random() < 0.5:
            for action in search.ask(Room(order.randint(0, 4))):
                assert isinstance(action, Generate)
                assert not action.speculative
                indices = set(range(action.first, action.first + action.count))
                assert not asked & indices, "a sample is asked for once"
                asked |= indices
                waiting += [(action, index) for index in sorted(indices)]
            assert waiting or search.done, "asks for nothing and waits for nothing"
        if waiting and order.random() < 0.7:
            action, index = waiting.pop(order.randrange(len(waiting)))
            search.tell(complete(action, index, fails))
        result = search.result()
        keys = [candidate.key for candidate in result.candidates]
        assert keys == sorted(set(keys))
        assert result.answer in {None, *(c.answer for c in result.candidates)}
        assert 0.0 <= result.confidence <= 1.0
        assert (result.ended is Ended.UNFINISHED) == (not search.done)
    assert not waiting, "a search that is done wants nothing more"
    assert search.ask(Room(4)) == []
    return search.result(), asked


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=15)
@given(data=st.data(), seed=st.integers(0, 2**32), fails=st.sampled_from([0.0, 0.2, 1.0]))
def test_any_order_gives_the_same_result(
    spec: str, data: st.DataObject, seed: int, fails: float
) -> None:
    budget = data.draw(budgets(samples_for(spec)))
    start = Start(problem(2), TASK, budget)
    strategy = load_strategy(spec)
    order = random.Random(seed)
    first, asked = shuffle(strategy.start(start), order, fails)
    again, asked_again = shuffle(strategy.start(start), order, fails)
    assert first == again
    assert asked == asked_again == set(range(len(asked)))
    if budget.samples is not None:
        assert len(asked) <= budget.samples
    flight = getattr(strategy, "flight", samples_for(spec))
    if budget.tokens is not None and not spec.startswith("token-"):
        spent = sum(c.tokens for c in first.candidates[:-flight])
        assert spent < budget.tokens, "overrun by more than what was in flight"


@pytest.mark.parametrize("spec", TIMED)
@settings(max_examples=6)
@given(
    data=st.data(),
    slots=st.integers(1, 20),
    token_ms=st.floats(0.1, 50.0),
    prefill_ms=st.floats(0.0, 5.0),
    request_ms=st.floats(0.0, 500.0),
    rate=st.sampled_from([0.0, 0.15]),
)
def test_any_latency_and_any_slots_give_the_same_ledger(
    spec: str,
    data: st.DataObject,
    slots: int,
    token_ms: float,
    prefill_ms: float,
    request_ms: float,
    rate: float,
) -> None:
    limits = data.draw(budgets(samples_for(spec)))
    strategy = load_strategy(spec)
    faults = Faults(
        rates={Fault.CONNECTION: rate, Fault.SLOW: rate, Fault.EMPTY: rate, Fault.FILTERED: rate}
    )
    jobs = [job(strategy, limits, number, success=0.5 + 0.1 * number) for number in range(3)]
    alone = run(jobs, Engine(faults=faults, slots=1))
    engine = Engine(
        faults=faults,
        slots=slots,
        latency=Latency(token_ms, prefill_ms, request_ms),
    )
    timed = run(jobs, engine)
    assert [s.result for s in timed] == [s.result for s in alone]
    assert [rows(s) for s in timed] == [rows(s) for s in alone]
    assert [s.samples for s in timed] == [s.samples for s in alone]
    assert engine.stats.generated == sum(s.ledger.total.generated for s in timed)
    assert engine.stats.max_in_flight <= slots
    assert engine.stats.cancelled == 0
    assert idle(engine)
    if limits.samples is not None:
        assert all(s.samples <= limits.samples for s in timed)


@pytest.mark.parametrize("spec", TIMED)
@settings(max_examples=5)
@given(seconds=st.floats(0.01, 3.0), slots=st.integers(1, 9))
def test_a_budget_of_seconds_ends_on_time_with_what_came(
    spec: str, seconds: float, slots: int
) -> None:
    engine = Engine(latency=Latency(token_ms=3), slots=slots)
    solved = one(job(load_strategy(spec), Budget(seconds=seconds)), engine)
    assert solved.seconds <= seconds + 1e-9
    assert solved.ledger.total.generated == engine.stats.generated
    assert idle(engine)
    made = sum(c.tokens for c in solved.result.candidates)
    assert made == solved.ledger.of(Purpose.POLICY).generated
    if solved.result.ended is Ended.BUDGET:
        assert solved.seconds == pytest.approx(seconds)


@given(counts=st.lists(st.integers(1, 4), max_size=5), data=st.data())
def test_an_inbox_gives_outcomes_in_the_order_of_their_actions(
    counts: list[int], data: st.DataObject
) -> None:
    box = Inbox()
    turns = [(action, index) for action, count in enumerate(counts) for index in range(count)]
    for action, count in enumerate(counts):
        box.expect(action, range(count))
    given: list[tuple[int, int]] = []
    arrived: set[tuple[int, int]] = set()
    for turn in data.draw(st.permutations(turns)):
        arrived.add(turn)
        given += [(o.action, o.index) for o in box.put(Outcome(*turn, Failure("x", "")))]
        first = next((i for i, t in enumerate(turns) if t not in arrived), len(turns))
        assert given == turns[:first]
        held = [(o.action, o.index) for o in box.held()]
        assert held == [t for t in turns[first:] if t in arrived]
        assert len(box) == len(turns) - first
        assert box.actions() == {action for action, _ in turns[first:]}


@given(dropped=st.sets(st.integers(0, 3)), came=st.sets(st.integers(0, 7)))
def test_dropped_actions_let_those_behind_them_through(dropped: set[int], came: set[int]) -> None:
    box = Inbox()
    turns = [(action, index) for action in range(4) for index in range(2)]
    for action in range(5):
        box.expect(action, range(2))
    given = [
        (o.action, o.index)
        for at in sorted(came)
        for o in box.put(Outcome(*turns[at], Failure("x", "")))
    ]
    gone = box.drop(dropped)
    last = box.put(Outcome(4, 1, Failure("x", "")))  # it lets through what is due before it
    given += [(o.action, o.index) for o in last]
    assert gone == [turn for turn in turns if turn[0] in dropped and turn not in given]
    kept = [turn for turn in turns if turn not in gone]
    first = next((i for i, t in enumerate(kept) if turns.index(t) not in came), len(kept))
    assert given == kept[:first]


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    engine = SimulatedEngine(StepModel())
    vote = load_strategy("vote(n=6)")
    results = [one(job(vote, success=0.5, seed=seed), engine).result for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]


def test_a_result_does_not_need_a_single_outcome() -> None:
    for spec in SPECS:
        budget = Budget(samples=samples_for(spec))
        search = load_strategy(spec).start(Start(problem(), TASK, budget))
        assert search.result().answer is None
        search.ask(Room(1))
        assert search.result().candidates == ()
        assert search.result().ended is Ended.UNFINISHED
        assert not search.done
