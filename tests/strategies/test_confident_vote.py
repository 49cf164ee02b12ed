"""Samples vote by their confidence; those that lose it on the way are given up."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import job, one
from tests.strategies.whole import engines_of, solve

from mull.budget import Budget, Purpose
from mull.engines.base import Engine
from mull.engines.simulated import Latency, Script, SimulatedEngine, StepModel
from mull.errors import SpecError
from mull.grades import Unanswered
from mull.strategies.base import Ended
from mull.strategies.confident_vote import ConfidentVote, confidence
from mull.strategies.vote import Vote
from mull.types import StopReason

LOGPROBS = st.lists(st.floats(-20.0, 0.0), min_size=1, max_size=30)


@given(logprobs=LOGPROBS, window=st.integers(1, 40))
def test_confidence_is_that_of_the_weakest_window(logprobs: list[float], window: int) -> None:
    size = min(window, len(logprobs))
    means = [sum(logprobs[i : i + size]) / size for i in range(len(logprobs) - size + 1)]
    assert confidence(logprobs, window) == pytest.approx(math.exp(min(means)))
    assert 0.0 <= confidence(logprobs, window) <= 1.0


def test_confidence_of_nothing_and_of_the_impossible() -> None:
    assert confidence([], 8) == 0.0
    assert 0.0 <= confidence([-math.inf, 0.0], 1) < 1e-300


@given(logprobs=LOGPROBS, more=LOGPROBS, window=st.integers(1, 20))
def test_confidence_never_grows_once_a_window_is_full(
    logprobs: list[float], more: list[float], window: int
) -> None:
    """So a sample that is under the bar stays there: giving it up loses no voter."""
    if len(logprobs) >= window:
        before, after = confidence(logprobs, window), confidence(logprobs + more, window)
        assert after <= before * (1 + 1e-9)


def test_whoever_reaches_the_bar_votes_with_its_confidence() -> None:
    gave_up = 0
    for number in range(6):
        strategy = ConfidentVote(n=16, warm=6, eta=0.5, window=20, chunk=20)
        result = solve(strategy, number=number, success=0.6).result
        warm = sorted(c.scores["confidence"] for c in result.candidates if c.key[0] < 6)
        bar = (warm[2] + warm[3]) / 2
        sums: dict[str | None, float] = defaultdict(float)
        for c in result.candidates:
            if c.answer is not None and c.scores["confidence"] >= bar:
                sums[c.answer] += c.scores["confidence"]
        assert sums[result.answer] == pytest.approx(max(sums.values()))
        given_up = [c for c in result.candidates if c.stop is StopReason.CANCELLED]
        gave_up += len(given_up)
        for c in given_up:
            assert c.key[0] >= 6
            assert c.scores["confidence"] < bar
            assert (c.answer, c.unanswered) == (None, Unanswered.TRUNCATED)
        assert len({c.key[0] for c in result.candidates}) == 16
    assert gave_up


def test_giving_up_saves_tokens_and_all_of_them_are_on_the_candidates() -> None:
    strict = solve(ConfidentVote(n=24, eta=0.3, window=20, chunk=10), success=0.5)
    lenient = solve(ConfidentVote(n=24, eta=1.0, window=20, chunk=10), success=0.5)
    spent = [s.ledger.of(Purpose.POLICY).generated for s in (strict, lenient)]
    assert spent[0] < 0.8 * spent[1]
    for solved, tokens in zip((strict, lenient), spent, strict=True):
        assert sum(c.tokens for c in solved.result.candidates) == tokens
        assert solved.samples == 24
        assert solved.result.ended is Ended.COMPLETE


def test_equal_confidence_is_the_majority() -> None:
    texts = ["answer 4", "answer 7", "answer 4", "answer 9"]
    engine = SimulatedEngine(Script(texts))
    for n in (3, 8, 11):
        voted = one(job(Vote(n=n)), engine).result
        confident = one(job(ConfidentVote(n=n, warm=2)), engine).result
        assert confident.answer == voted.answer
        assert confident.confidence == pytest.approx(voted.confidence)
        assert not any(c.stop is StopReason.CANCELLED for c in confident.candidates)


def test_samples_after_the_warm_up_do_not_wait_for_one_another() -> None:
    engine = SimulatedEngine(StepModel(), latency=Latency(token_ms=1), slots=20)
    solved = one(job(ConfidentVote(n=20, warm=4, chunk=16, eta=1.0), success=0.5), engine)
    made = {c.key[0]: c.tokens for c in solved.result.candidates}
    longest = [max(made[i] for i in part) / 1e3 for part in (range(4), range(4, 20))]
    assert solved.seconds == pytest.approx(sum(longest))


def test_short_samples_that_exist_are_warm_ones() -> None:
    engine = SimulatedEngine(Script(["answer 4", "answer 7"]))
    first = one(job(Vote(n=4)), engine).result
    solved = one(job(ConfidentVote(n=10, warm=4), candidates=first.candidates), engine)
    assert solved.samples == 6
    assert len(solved.result.candidates) == 10
    long = one(job(Vote(n=4)), SimulatedEngine(StepModel())).result
    again = solve(ConfidentVote(n=10, warm=4, window=8), candidates=long.candidates)
    assert again.samples == 10
    assert again.result == solve(ConfidentVote(n=10, warm=4, window=8)).result


def test_under_a_budget_in_tokens_a_few_are_in_flight() -> None:
    solved = solve(ConfidentVote(flight=3, warm=4), Budget(tokens=3000))
    assert solved.result.ended is Ended.BUDGET
    made = sum(c.tokens for c in solved.result.candidates)
    assert 3000 <= made < 3000 + 3 * 400


@pytest.mark.parametrize("schedule", [None, 1, 2])
def test_where_a_chain_has_spent_its_share_in_the_warm_up_the_others_go_on(
    schedule: int | None,
) -> None:
    long, short = "a well of many words is not dry " * 12 + "answer 4", "answer 7"
    engine = SimulatedEngine(Script([long, short]))  # one chain has the long ones, one the others
    given: dict[str, Engine] = {"policy": engine}
    limit = Budget(tokens=2000)
    solved = solve(ConfidentVote(flight=2, warm=8), limit, engines=given, schedule=schedule)
    assert solved.result.ended is Ended.BUDGET
    assert 2000 <= solved.ledger.total.generated < 2000 + 2 * 400
    assert all(c.stop is StopReason.END for c in solved.result.candidates)


@pytest.mark.parametrize(
    "bad", [{"warm": 0}, {"chunk": 0}, {"eta": 0.0}, {"eta": 1.1}, {"window": 0}, {"flight": 0}]
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    (name,) = bad
    with pytest.raises(SpecError, match=rf"confident-vote\(.*{name}="):
        ConfidentVote(**bad)  # type: ignore[arg-type]
    assert engines_of()["policy"].info.capabilities.logprobs
