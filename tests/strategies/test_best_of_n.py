"""The likeliest sample answers; a token beam is one request, ranked as the beam ranks."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from tests.strategies.common import TASK, job, one, problem, rows
from tests.strategies.whole import broken, constant, nan, solve, verifiers_of

from mull.budget import Budget, Meter, Purpose
from mull.engines.base import check_supported
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.strategies.base import Ended, Generate, Room, Start, Strategy
from mull.strategies.best_of_n import BestOfN, TokenBeamSearch
from mull.strategies.needs import Needs
from mull.strategies.vote import Vote
from mull.types import (
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    TokenBeam,
)

ENGINE = SimulatedEngine(StepModel())


@pytest.mark.parametrize("score", ["mean_logprob", "logprob"])
def test_the_answer_has_the_best_score_of_all(score: str) -> None:
    for number in range(8):
        result = one(job(BestOfN(n=12, score=score), number=number), ENGINE).result  # type: ignore[arg-type]
        answered = [c for c in result.candidates if c.answer is not None]
        best = max(answered, key=lambda c: c.scores[score])
        assert result.answer == best.answer
        share = sum(c.answer == best.answer for c in answered) / len(answered)
        assert result.confidence == pytest.approx(share)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(SpecError, match="score is mean_logprob or logprob"):
        BestOfN(score="prm")  # type: ignore[arg-type]


class Bare(SimulatedEngine):
    """An engine that gives text alone; it notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(StepModel())
        self.requests: list[Request] = []

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, capabilities=Capabilities())

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        self.requests.append(request)
        async for item in super().generate(request, meter):
            yield item


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


def test_a_beam_costs_its_width() -> None:
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


@pytest.mark.parametrize("strategy", [TokenBeamSearch(), BestOfN(n=4)])
def test_an_engine_that_lacks_what_is_needed_is_refused_before_any_work(strategy: Strategy) -> None:
    engine = Bare()
    with pytest.raises(UnsupportedError, match="use another engine or strategy"):
        one(job(strategy), engine)
    assert not engine.requests


def test_samples_are_no_hypotheses() -> None:
    sampled = one(job(BestOfN(n=4)), ENGINE).result.candidates
    engine = Hypotheses(MADE)
    solved = one(job(TokenBeamSearch(), candidates=sampled), engine)
    assert [request.n for request in engine.requests] == [4]
    assert rows(solved)[Purpose.POLICY, "beam"][3] == 4


def test_a_verifier_picks_the_sample_that_it_scores_best() -> None:
    for number in range(6):
        result = solve(BestOfN(n=12, verifier="prm"), number=number, success=0.6).result
        best = max(result.candidates, key=lambda c: c.scores["prm"])
        assert result.answer == best.answer
        assert result.parts[0].index == result.candidates.index(best)


def test_a_constant_verifier_gives_the_first_sample() -> None:
    for number in range(12):
        scores = verifiers_of(constant)
        result = solve(
            BestOfN(n=9, verifier="prm"), verifiers=scores, number=number, success=0.4
        ).result
        assert result.answer == result.candidates[0].answer
        assert result.parts[0].index == 0


def test_a_verifier_that_scores_nothing_leaves_the_majority() -> None:
    voted = one(job(Vote(n=9), success=0.5), ENGINE).result
    for score in (nan, broken):
        result = solve(
            BestOfN(n=9, verifier="prm"), verifiers=verifiers_of(score), success=0.5
        ).result
        assert result.answer == voted.answer
        assert len(result.failures) == 9


def test_a_score_and_a_verifier_contradict_each_other() -> None:
    with pytest.raises(SpecError, match="give one of the two"):
        BestOfN(score="logprob", verifier="prm")
    assert BestOfN(verifier="orm").needs == Needs(verifiers=("orm",))
