"""The two stopping rules against scipy and simulation; no smaller number of samples could stop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mull.strategies.stopping import Beta, Dirichlet, StopRule, samples_needed

COUNTS = st.lists(st.integers(0, 30), max_size=7)
RULES: list[StopRule] = [Beta(), Beta(0.8), Beta(0.999), Dirichlet(), Dirichlet(0.8)]


@given(COUNTS)
def test_beta_is_the_tail_of_the_two_leaders(counts: list[int]) -> None:
    first, second = [*sorted(counts, reverse=True), 0, 0][:2]
    expected = stats.beta.sf(0.5, first + 1, second + 1)
    assert Beta().certainty(counts) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_dirichlet_of_two_answers_is_beta(first: int, second: int) -> None:
    expected = stats.beta.sf(0.5, max(first, second) + 1, min(first, second) + 1)
    assert Dirichlet().certainty([first, second]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "counts", [(3, 2, 1), (5, 4, 4), (9, 3, 2, 1, 1), (2, 2, 2, 2, 2), (12, 8, 7, 1)]
)
def test_dirichlet_agrees_with_a_hundred_thousand_draws(counts: tuple[int, ...]) -> None:
    draws = np.random.default_rng(0).dirichlet(np.array(counts) + 1, 100_000)
    share = float((draws.argmax(axis=1) == 0).mean())
    deviation = math.sqrt(share * (1 - share) / 100_000)
    assert Dirichlet().certainty(counts) == pytest.approx(share, abs=5 * deviation)


def test_dirichlet_looks_at_the_five_leaders() -> None:
    assert Dirichlet().certainty([9, 4, 3, 2, 1]) == Dirichlet().certainty([2, 1, 4, 9, 3, 1, 1])


def test_the_published_corners() -> None:
    """3 of 3 is not enough, 4 of 4 is (reference: science 7)."""
    assert Beta().certainty([3]) == 0.9375
    assert Beta().certainty([4]) == pytest.approx(0.969, abs=5e-4)
    assert Beta().certainty([5]) == pytest.approx(0.984, abs=5e-4)
    assert Beta().certainty([]) == 0.5
    assert Dirichlet().certainty([]) == pytest.approx(0.5, abs=1e-10)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 12), max_size=4))
def test_no_fewer_samples_could_stop(rule: StopRule, counts: list[int]) -> None:
    """Brute force over where every further sample could go, a new answer included."""
    most = 6
    needed = samples_needed(rule, counts, most)
    reached = {tuple(sorted(counts, reverse=True))}
    for more in range(1, needed + 1):
        reached = {
            tuple(sorted([*c[:at], c[at] + 1, *c[at + 1 :]], reverse=True))
            for have in reached
            for c in [[*have, 0]]
            for at in range(len(c))
        }
        reached = {tuple(count for count in c if count) for c in reached}
        could = any(rule.certainty(c) >= rule.confidence for c in reached)
        assert could == (more == needed) or (more == needed == most)


@pytest.mark.parametrize("rule", RULES)
@given(counts=COUNTS, most=st.integers(1, 1 << 20))
def test_the_answer_lies_in_one_to_most(rule: StopRule, counts: list[int], most: int) -> None:
    assert 1 <= samples_needed(rule, counts, most) <= most


def test_a_confidence_out_of_reach_of_the_arithmetic_ends_too() -> None:
    assert samples_needed(Dirichlet(1 - 1e-15), [50, 50, 50], 1 << 20) <= 1 << 20
