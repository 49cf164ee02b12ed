"""Confidence: read from the tokens that were chosen, or not at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import problem
from tests.verifiers.common import branch, meter, scores

from mull.errors import SpecError, UnsupportedError
from mull.types import Branch, Capabilities, EngineInfo
from mull.verifiers.base import Verifier
from mull.verifiers.confidence import LowestGroup, MeanLogprob

POLICY = EngineInfo("test", "m", capabilities=Capabilities(logprobs=True))
LOGPROBS = st.lists(st.floats(-20, 0), min_size=1, max_size=60)


def steps(*logprobs: tuple[float, ...] | None) -> Branch:
    lines = [f"step {at}\n" for at in range(len(logprobs))]
    return branch(problem(), *lines, logprobs=logprobs)


@given(LOGPROBS, LOGPROBS)
def test_the_mean_is_over_tokens_whatever_the_steps(a: list[float], b: list[float]) -> None:
    (apart,) = scores(MeanLogprob(POLICY), steps(tuple(a), tuple(b)))
    (joined,) = scores(MeanLogprob(POLICY), steps((*a, *b)))
    assert apart == joined == pytest.approx(math.exp(sum(a + b) / len(a + b)))
    assert 0 < apart <= 1


@given(LOGPROBS, st.integers(1, 80))
def test_the_lowest_group_is_the_weakest_stretch(values: list[float], size: int) -> None:
    (found,) = scores(LowestGroup(POLICY, size=size), steps(tuple(values)))
    width = min(size, len(values))
    means = [sum(values[at : at + width]) / width for at in range(len(values) - width + 1)]
    assert found == pytest.approx(math.exp(min(means)), rel=1e-9)


def test_one_weak_stretch_that_a_mean_hides_is_found() -> None:
    even, weak = steps((-0.5,) * 100), steps((-0.3,) * 90 + (-2.3,) * 10)
    assert len({round(s, 6) for s in scores(MeanLogprob(POLICY), even, weak)}) == 1
    low = scores(LowestGroup(POLICY, size=10), even, weak)
    assert low[0] == pytest.approx(math.exp(-0.5)) and low[1] == pytest.approx(math.exp(-2.3))


@pytest.mark.parametrize("verifier", [MeanLogprob(POLICY), LowestGroup(POLICY)])
def test_without_log_probabilities_there_is_no_score(verifier: Verifier) -> None:
    assert isinstance(verifier, Verifier)
    gauge = meter(verifier)
    cases = [steps((-1.0,), None), steps(None), Branch.root(problem()), steps((-1.0,))]
    found = scores(verifier, *cases, gauge=gauge)
    assert [math.isnan(score) for score in found] == [True, True, True, False]
    assert gauge.samples == (0, 1, 2, 3) and gauge.total.tokens == 0


@pytest.mark.parametrize("kind", [MeanLogprob, LowestGroup])
def test_a_policy_that_tells_none_is_refused(kind: type) -> None:
    with pytest.raises(UnsupportedError, match="test:blind does not tell"):
        kind(EngineInfo("test", "blind"))
    with pytest.raises(SpecError, match="size must be at least 1"):
        LowestGroup(POLICY, size=0)
