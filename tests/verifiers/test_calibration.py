"""Calibration: calibrated scores lie on the diagonal; ranks are counted where they pay."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.metrics import Pool
from mull.selection import Majority, Weighted
from mull.types import Candidate
from mull.verifiers.calibration import (
    Labelled,
    auc,
    auc_pooled,
    auc_within,
    calibration_error,
    errors_at,
    fit_neutral,
    reliability,
    votes_right,
)

LABELS = st.lists(st.booleans(), min_size=2, max_size=40)


def drawn(problems: int = 200, each: int = 16, power: float = 1.0, seed: int = 0) -> Labelled:
    """Scores whose probability of being right is score**power: calibrated at power 1."""
    draw = np.random.default_rng(seed)
    scores = draw.random(problems * each)
    right = draw.random(problems * each) < scores**power
    return Labelled.of(scores, right.tolist(), np.repeat(np.arange(problems), each).tolist())


def test_a_calibrated_verifier_lies_on_the_diagonal() -> None:
    curve = reliability(drawn(), resamples=500)
    assert len(curve) == 10
    assert [each.n for each in curve] == [320] * 10
    inside = [each.right.low <= each.score <= each.right.high for each in curve]
    assert sum(inside) >= 8
    assert calibration_error(curve) < 0.03
    assert calibration_error(reliability(drawn(power=4.0), resamples=10)) > 0.2


@given(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=60), st.integers(1, 12))
def test_equal_scores_share_a_bin_and_every_branch_has_one(scores: list[float], bins: int) -> None:
    right = [score > 0.3 for score in scores]
    curve = reliability(Labelled.of(scores, right, [0] * len(scores)), bins, resamples=10)
    assert sum(each.n for each in curve) == len(scores)
    assert len(curve) <= bins
    assert all(a.high < b.low for a, b in pairwise(curve))


@given(LABELS, st.integers(0, 99))
def test_auc_is_the_share_of_pairs_in_the_right_order(right: list[bool], seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, len(right)).astype(float)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, good in zip(scores, right, strict=True)
        if good
        for b, other in zip(scores, right, strict=True)
        if not other
    ]
    found = auc(scores, right)
    assert (not pairs and math.isnan(found)) or found == pytest.approx(sum(pairs) / len(pairs))


def test_a_verifier_that_knows_hard_problems_only_has_a_pooled_rank_alone() -> None:
    """Easy problems are mostly right and score high: .9 pooled, a coin's toss inside each."""
    draw = np.random.default_rng(1)
    ease = np.repeat([0.95, 0.05], 100)
    problems = np.repeat(np.arange(200), 20)
    right = draw.random(4000) < ease[problems]
    given = Labelled.of(
        ease[problems] + 0.01 * draw.random(4000), right.tolist(), problems.tolist()
    )
    pooled = auc_pooled(given, resamples=500)
    assert pooled.value > 0.85
    assert pooled.low < pooled.value == auc(given.scores, given.right) < pooled.high
    within = auc_within(given, resamples=500)
    assert within.value == pytest.approx(0.5, abs=0.06)
    both = sum(0 < right[problems == p].sum() < 20 for p in range(200))
    assert within.n == both < 200


def test_the_interval_of_the_pooled_rank_resamples_problems() -> None:
    """Sixteen copies of a branch say no more than one: the interval is as wide."""
    once = drawn(problems=120, each=1)
    often = Labelled(*(np.repeat(a, 16) for a in (once.scores, once.right, once.problems)))
    alone, copied = (auc_pooled(given, resamples=400) for given in (once, often))
    assert copied.value == pytest.approx(alone.value)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, abs=0.01)


def test_without_both_kinds_there_is_no_rank() -> None:
    given = Labelled.of([0.1, 0.9], [True, True], [0, 1])
    assert math.isnan(auc_pooled(given).value) and auc_within(given).n == 0
    errors = errors_at(given, 0.5, resamples=10)
    assert math.isnan(errors.false_positive.value)
    assert errors.false_negative.value == 0.5


def test_rates_of_error_are_shares_of_each_kind() -> None:
    given = Labelled.of(
        [0.9, 0.2, 0.6, 0.4, 0.5], [True, True, False, False, False], [0, 0, 0, 1, 1]
    )
    errors = errors_at(given, 0.5, resamples=200)
    assert errors.false_negative.value == pytest.approx(1 / 2)
    assert errors.false_positive.value == pytest.approx(2 / 3)
    assert (errors.false_negative.n, errors.false_positive.n) == (1, 2)


def test_branches_without_a_score_are_left_out_and_columns_must_agree() -> None:
    given = Labelled.of([0.1, math.nan, math.inf, 0.3], [True] * 4, ["a", "b", "c", "a"])
    assert given.scores.tolist() == [0.1, 0.3]
    assert given.problems.tolist() == [0, 0]
    with pytest.raises(InputError, match="2 scores, 1 labels and 2 problems"):
        Labelled.of([0.1, 0.2], [True], [0, 1])


# Weights ------------------------------------------------------------------------------------


def pools(problems: int, seed: int) -> list[Pool]:
    """Right answers are rare (.3) and agree, wrong ones score as a noisy verifier says."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(problems):
        right = draw.random(16) < 0.3
        groups = np.where(right, 0, np.where(draw.random(16) < 0.6, 1, draw.integers(2, 9, 16)))
        scores = 1 / (1 + np.exp(-draw.normal(np.where(right, 0.5, -1.5), 1.0)))
        made.append(Pool(groups.astype(np.int64), right, None, scores))
    return made


def test_a_fitted_neutral_score_beats_the_score_itself_on_other_problems() -> None:
    neutral = fit_neutral(pools(300, 0))
    votes = votes_right(pools(400, 1), neutral)
    assert votes.logit.mean() > votes.score.mean() + 0.02
    assert votes.logit.mean() > votes.majority.mean() + 0.02


def test_no_neutral_score_is_better_on_the_problems_of_the_fit() -> None:
    given = pools(60, 2)
    best = votes_right(given, fit_neutral(given)).logit.mean()
    others = [votes_right(given, neutral).logit.mean() for neutral in np.linspace(0.05, 0.95, 19)]
    # Between two points of the grid a vote or two may still turn.
    assert best >= max(others) - 2 / 60


def candidates_of(pool: Pool) -> list[Candidate]:
    assert pool.weights is not None
    return [
        Candidate((at,), "", str(group), scores={"prm": float(score)})
        for at, (group, score) in enumerate(zip(pool.groups, pool.weights, strict=True))
    ]


@pytest.mark.parametrize("neutral", [0.1, 0.3, 0.7])
def test_the_votes_judged_are_those_that_specs_name(neutral: float) -> None:
    given = pools(60, 2)
    votes = votes_right(given, neutral)
    for found, select in (
        (votes.logit, Weighted("prm", "logit", neutral)),
        (votes.score, Weighted("prm")),
        (votes.majority, Majority()),
    ):
        right = [select(candidates_of(pool)).answer == "0" for pool in given]
        assert found.tolist() == right


def test_a_fit_needs_scores_that_are_probabilities() -> None:
    with pytest.raises(InputError, match="pools have weights"):
        fit_neutral([])
    bare = Pool(np.zeros(2, np.int64), np.ones(2, np.bool_), None, np.full(2, math.nan))
    with pytest.raises(InputError, match="no candidate has a finite score"):
        fit_neutral([bare])
    far = Pool(np.zeros(2, np.int64), np.ones(2, np.bool_), None, np.array([0.5, 3.0]))
    with pytest.raises(InputError, match=r"scores in 0\.\.1"):
        fit_neutral([far])
