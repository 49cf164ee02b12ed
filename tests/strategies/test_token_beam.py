"""A token beam is one request, ranked as the beam ranks."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence

import pytest
from tests.strategies.common import TASK, job, one, problem, rows

from mull.budget import Budget, Meter, Purpose
from mull.engines.base import check_supported
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.strategies.base import Ended, Generate, Room, Start
from mull.strategies.best_of_n import BestOfN
from mull.strategies.token_beam import TokenBeamSearch
from mull.types import (
    Capabilities,
    Completion,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    TokenBeam,
)


class Hypotheses:
    """An engine that decodes by token beam: ``width`` hypotheses of known lengths and sums."""

    def __init__(self, made: Sequence[tuple[str, int, float]]) -> None:
        self.made = made
        self.requests: list[Request] = []

    @property
    def info(self) -> EngineInfo:
        can = Capabilities(logprobs=True, token_beam=True)
        return EngineInfo("test", "beam", slots=4, capabilities=can)

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        check_supported(request, self.info)
        self.requests.append(request)
        assert isinstance(request.decoding, TokenBeam)
        beam = request.decoding
        ranked = sorted(self.made, key=lambda h: -h[2] / h[1] ** beam.length_penalty)
        for index, (text, length, total) in enumerate(ranked[: request.n]):
            meter.charge(index, prompt=0 if index else 5, generated=length)
            logprobs = (total / length,) * length
            usage = meter.usage(index)
            yield Completion(index, text, StopReason.END, usage, None, logprobs)

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        raise UnsupportedError("this engine scores nothing")

    async def aclose(self) -> None:
        self.made = ()


MADE = [("answer 1", 2, -2.0), ("answer 2", 8, -4.0), ("answer 3", 4, -3.0), ("answer 4", 9, -9.0)]


@pytest.mark.parametrize(("penalty", "answer"), [(0.0, "1"), (1.0, "2"), (0.4, "1"), (0.6, "2")])
def test_the_beam_ranks_by_its_length_penalty(penalty: float, answer: str) -> None:
    engine = Hypotheses(MADE)
    strategy = TokenBeamSearch(width=4, best_of=3, length_penalty=penalty)
    best = max(MADE, key=lambda h: h[2] / h[1] ** penalty)
    result = one(job(strategy), engine).result
    assert result.answer == answer == best[0][-1]
    assert [request.n for request in engine.requests] == [3]
    assert engine.requests[0].decoding == TokenBeam(4, penalty)
    assert result.ended is Ended.COMPLETE


@pytest.mark.parametrize("budget", [None, Budget(samples=16), Budget(tokens=5), Budget(flops=1.0)])
def test_a_beam_is_one_request_whatever_the_budget(budget: Budget | None) -> None:
    (action,) = TokenBeamSearch(width=16).start(Start(problem(), TASK, budget)).ask(Room(1))
    assert isinstance(action, Generate)
    assert (action.first, action.count) == (0, 16)


@pytest.mark.parametrize("best_of", [1, 3, None])
def test_a_beam_costs_its_width(best_of: int | None) -> None:
    kind = TokenBeamSearch(width=4, best_of=best_of)
    for budget in (None, Budget(samples=4)):
        solved = one(job(kind, budget), Hypotheses(MADE))
        assert (solved.samples, solved.came) == (4, 4)
        lost = one(job(kind, budget), Hypotheses([]))
        assert (lost.samples, lost.came) == (4, 0)
    with pytest.raises(BudgetError, match=r"token-beam\(width=4\) contradicts the budget of 8"):
        TokenBeamSearch().start(Start(problem(), TASK, Budget(samples=8)))


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 0},
        {"width": 4, "best_of": 5},
        {"width": 4, "best_of": 0},
        {"length_penalty": math.nan},
        {"length_penalty": math.inf},
    ],
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="token-beam"):
        TokenBeamSearch(**bad)  # type: ignore[arg-type]


def test_samples_are_no_hypotheses() -> None:
    sampled = one(job(BestOfN(n=4)), SimulatedEngine(StepModel())).result.candidates
    engine = Hypotheses(MADE)
    solved = one(job(TokenBeamSearch(), candidates=sampled), engine)
    assert [request.n for request in engine.requests] == [4]
    assert rows(solved)[Purpose.POLICY, "beam"][3] == 4
