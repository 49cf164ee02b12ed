"""A threshold search is one request; what it finds are the candidates, the likeliest answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, Sequence

import pytest
from tests.strategies.common import TASK, job, one, problem

from mull.budget import Budget, Meter
from mull.engines.base import check_supported
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.strategies.base import Ended, Generate, Outcome, Room, Start
from mull.strategies.token_dfs import TokenDfs
from mull.types import (
    Capabilities,
    Completion,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    ThresholdDFS,
    Usage,
)


class Likely:
    """An engine that decodes by threshold: (text, log-probability) of what is likely enough."""

    def __init__(self, made: Sequence[tuple[str, float]]) -> None:
        self.made = made
        self.requests: list[Request] = []

    @property
    def info(self) -> EngineInfo:
        can = Capabilities(logprobs=True, threshold_dfs=True)
        return EngineInfo("test", "dfs", slots=4, capabilities=can)

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        check_supported(request, self.info)
        self.requests.append(request)
        assert isinstance(request.decoding, ThresholdDFS)
        floor = math.log(request.decoding.threshold)
        likely = sorted((m for m in self.made if m[1] >= floor), key=lambda m: -m[1])
        for index in reversed(range(request.n)):
            meter.charge(index, prompt=0 if index else 5, generated=2)
            usage = meter.usage(index)
            if index < len(likely):
                text, total = likely[index]
                yield Completion(index, text, StopReason.END, usage, None, (total / 2,) * 2)
            else:
                yield Completion(index, "", StopReason.EXHAUSTED, usage, ())

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        raise UnsupportedError("this engine scores nothing")

    async def aclose(self) -> None:
        self.made = ()


MADE = [("answer 1", -1.5), ("answer 2", -0.9), ("answer 1", -1.8), ("answer 3", -3.0)]


def test_the_likeliest_answers_and_what_was_not_found_is_no_candidate() -> None:
    engine = Likely(MADE)
    solved = one(job(TokenDfs(threshold=0.1)), engine)
    result = solved.result
    assert [request.n for request in engine.requests] == [10]
    assert engine.requests[0].decoding == ThresholdDFS(0.1)
    assert [c.answer for c in result.candidates] == ["2", "1", "1"]
    assert (solved.samples, solved.came) == (10, 3), "what it may cost, and what there was"
    assert [c.scores["logprob"] for c in result.candidates] == [-0.9, -1.5, -1.8]
    assert result.answer == "2"
    assert result.confidence == pytest.approx(1 / 3)
    assert (result.failures, result.ended) == ((), Ended.COMPLETE)
    assert solved.ledger.total.generated == 20, "what found nothing is paid for as well"


def test_fewer_candidates_can_be_asked_for() -> None:
    engine = Likely(MADE)
    result = one(job(TokenDfs(0.1, best_of=2)), engine).result
    assert [request.n for request in engine.requests] == [2]
    assert [c.answer for c in result.candidates] == ["2", "1"]


def test_where_nothing_is_likely_enough_there_is_no_answer() -> None:
    result = one(job(TokenDfs(0.5)), Likely(MADE)).result
    assert (result.answer, result.candidates, result.failures) == (None, (), ())
    assert result.ended is Ended.COMPLETE


def test_the_order_of_arrival_changes_nothing_at_any_moment() -> None:
    made = [
        Completion(0, "answer 2", StopReason.END, Usage(generated=1), None, (-0.9,)),
        Completion(1, "answer 1", StopReason.END, Usage(generated=1), None, (-1.5,)),
        Completion(2, "", StopReason.EXHAUSTED, Usage(generated=1), ()),
    ]
    for order in itertools.permutations(made):
        search = TokenDfs(1 / 3).start(Start(problem(), TASK))
        (action,) = search.ask(Room(1))
        for completion in order:
            assert all(c.text for c in search.result().candidates)
            search.tell(Outcome(action.id, completion.index, completion))  # type: ignore[union-attr]
        assert search.done
        assert search.result().answer == "2"
        assert len(search.result().candidates) == 2


@pytest.mark.parametrize("budget", [None, Budget(samples=10), Budget(tokens=5), Budget(flops=1.0)])
def test_a_search_is_one_request_whatever_the_budget(budget: Budget | None) -> None:
    (action,) = TokenDfs().start(Start(problem(), TASK, budget)).ask(Room(1))
    assert isinstance(action, Generate)
    assert (action.first, action.count) == (0, 10)


def test_a_search_costs_as_many_samples_as_can_be_so_likely() -> None:
    solved = one(job(TokenDfs(threshold=0.1, best_of=2), Budget(samples=10)), Likely(MADE))
    assert (solved.samples, solved.came) == (10, 10)
    with pytest.raises(BudgetError, match=r"token-dfs\(threshold=0.1\) contradicts .* costs 10"):
        TokenDfs().start(Start(problem(), TASK, Budget(samples=8)))


@pytest.mark.parametrize(
    "bad",
    [
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"threshold": math.nan},
        {"threshold": 1e-12},
        {"best_of": 11},
        {"best_of": 0},
    ],
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="token-dfs"):
        TokenDfs(**bad)  # type: ignore[arg-type]


def test_an_engine_that_cannot_is_refused_before_any_work() -> None:
    with pytest.raises(UnsupportedError, match="needs a policy that decodes by threshold"):
        one(job(TokenDfs()), SimulatedEngine(StepModel()))
