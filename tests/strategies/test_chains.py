"""Chains keep their own order and their own share; one request begins them all."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import TASK, job, one, problem
from tests.strategies.whole import Scorer, constant

from mull.budget import Budget, Meter
from mull.catalog import load_strategy
from mull.engines.simulated import Script, SimulatedEngine
from mull.strategies.base import Ended, Failure, Generate, Outcome, Room, Score, Start
from mull.strategies.chains import ChainSearch, SampleChains
from mull.strategies.number import FAR
from mull.types import Branch, Completion, Delta, Request, StopReason, Usage


@dataclass
class Two(ChainSearch):
    """Each chain makes three turns and scores each; it notes what it is told."""

    told: dict[int, list[str]] = field(default_factory=dict)

    def begin(self) -> None:
        self.told = {at: [] for at in range(self.count)}
        root = Branch.root(self.start.problem)
        self.open(root, self.start.limit, 0, range(self.count))

    def take(self, at: int, outcome: Outcome) -> None:
        if not isinstance(outcome.value, Completion):
            self.told[at].append("score")
            return
        self.told[at].append(outcome.value.text)
        branch = self.child(outcome)
        if len([text for text in self.told[at] if text != "score"]) < 3:
            self.generate(at, branch, self.start.limit)
        self.score(at, (branch,), "prm")


def said(action: Generate, index: int) -> Outcome:
    key = (*action.branch.key, index)
    usage = Usage(generated=10)
    return Outcome(action.id, index, Completion(index, f"{key}", StopReason.STEP, usage), usage)


@given(order=st.randoms(use_true_random=False), count=st.integers(1, 4))
def test_each_chain_is_told_in_its_own_order_whatever_the_others_do(
    order: object, count: int
) -> None:
    search = Two(Start(problem(), TASK), count)
    waiting: list[Outcome] = []
    while not search.done:
        for action in search.ask(Room(1)):
            if isinstance(action, Generate):
                indices = range(action.first, action.first + action.count)
                waiting += [said(action, index) for index in indices]
            elif isinstance(action, Score):
                waiting.append(Outcome(action.id, 0, (0.5,)))
        if waiting:
            search.tell(waiting.pop(order.randrange(len(waiting))))  # type: ignore[attr-defined]
    for at in range(count):
        turns = [f"({at},)", f"({at}, 0)", f"({at}, 0, 0)"]
        assert search.told[at] == [turns[0], turns[1], "score", turns[2], "score", "score"]
    assert search.ended is Ended.COMPLETE


def test_one_request_begins_all_chains() -> None:
    search = Two(Start(problem(), TASK), 5)
    (action,) = search.ask(Room(0))
    assert isinstance(action, Generate)
    assert (action.first, action.count) == (0, 5)
    search.tell(Outcome(0, 3, Failure("DeadlineError", "")))
    assert [len(chain.failures) for chain in search.chains] == [0, 0, 0, 1, 0]


def test_a_chain_whose_share_is_spent_asks_for_nothing_more() -> None:
    search = Two(Start(problem(), TASK, Budget(tokens=30)), 2)
    (action,) = search.ask(Room(0))
    assert isinstance(action, Generate)
    search.tell(said(action, 0))
    more, _ = search.ask(Room(0))
    assert isinstance(more, Generate)
    search.tell(said(more, 0))
    assert [type(a) for a in search.ask(Room(0))] == [Score]
    assert [chain.cut for chain in search.chains] == [True, False]
    assert search.ended is Ended.UNFINISHED


@pytest.mark.parametrize("budget", [Budget(samples=9), Budget(seconds=2, samples=3)])
def test_what_no_work_costs_is_not_shared_out(budget: Budget) -> None:
    assert budget.share(3) is None


@given(tokens=st.integers(1, 1000), flops=st.floats(1, 1e9), parts=st.integers(1, 30))
def test_shares_add_up(tokens: int, flops: float, parts: int) -> None:
    share = Budget(tokens=tokens, total_tokens=tokens + 1, flops=flops, cost=2.0).share(parts)
    assert share is not None
    assert share.tokens is not None
    assert share.tokens * parts <= max(tokens, parts)
    assert share.flops == pytest.approx(flops / parts)
    assert share.cost == pytest.approx(2.0 / parts)


@dataclass
class Whole(SampleChains):
    """Samples of one piece each."""

    def begin(self) -> None:
        self.begin_all(2, self.n)

    def take(self, at: int, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            self.chains[at].candidates.append(self.start.candidate(self.child(outcome)))
        self.begin_next(at, self.n, outcome.said)


@pytest.mark.parametrize(("n", "count"), [(9, 3), (9, 9), (3, 5), (2, 2)])
def test_every_sample_is_made_once(n: int, count: int) -> None:
    start = Start(problem(), TASK)
    search = Whole(start, count, n, start.limit)
    asked: list[int] = []
    while not search.done:
        for action in search.ask(Room(1)):
            assert isinstance(action, Generate)
            for index in range(action.first, action.first + action.count):
                asked.append(index)
                search.tell(said(action, index))
    assert sorted(asked) == list(range(2, n))
    assert [c.key for c in search.found()] == [(i,) for i in range(2, n)]


def test_samples_without_end_that_cost_nothing_are_given_up() -> None:
    start = Start(problem(), TASK, Budget(tokens=5))
    search = Whole(start, 2, FAR, start.limit)
    asked = 0
    while not search.done:
        for action in search.ask(Room(1)):
            assert isinstance(action, Generate)
            for index in range(action.first, action.first + action.count):
                asked += 1
                search.tell(Outcome(action.id, index, Failure("DeadlineError", "")))
    assert asked == 2 * 8


class Stuck(SimulatedEngine):
    """Says one chunk, and then one without a token whenever it is asked to go on."""

    asked = 0

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        self.asked += 1
        assert self.asked < 50
        if not request.assistant:
            async for item in super().generate(request, meter):
                yield item
            return
        for index in range(request.first, request.first + request.n):
            yield Completion(index, "", StopReason.TOKENS, Usage())


@pytest.mark.parametrize(
    "spec", ["confident-vote(n=4, warm=1, chunk=10)", "speculative-rejection(n=4, chunk=10)"]
)
def test_a_chunk_without_a_token_is_the_end_of_its_path(spec: str) -> None:
    engine = Stuck(Script(["answer 4 " + "and so on " * 9]))
    result = one(job(load_strategy(spec)), engine, verifiers={"prm": Scorer(constant)}).result
    assert result.answer == "4"
    assert result.ended is Ended.COMPLETE
    assert StopReason.LENGTH in {candidate.stop for candidate in result.candidates}
