"""How good a verifier is: is its score a probability, does it rank, and what vote it is worth.

Scores of branches with their labels go in, numbers with intervals over problems come out. A good
rank over all branches together may come from telling easy problems from hard ones; what a search
or a vote lives on is the rank *within* a problem, so both are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mull.errors import InputError
from mull.metrics import Interval, Pool, mean_interval, ratio_interval
from mull.selection import TRANSFORMS, logit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a verifier said of ``n`` branches, and what is true: three arrays of shape [n].

    ``problems`` says whose branch it is; branches without a finite score are left out.
    """

    scores: Floats
    right: NDArray[np.bool_]
    problems: NDArray[np.int64]

    @classmethod
    def of(cls, scores: ArrayLike, right: Sequence[bool], problems: Sequence[Hashable]) -> Labelled:
        """Any three columns of one length; problems are numbered in order of appearance."""
        found = np.asarray(scores, dtype=np.float64)
        if not len(found) == len(right) == len(problems):
            raise InputError(
                f"{len(found)} scores, {len(right)} labels and {len(problems)} problems; expected "
                "one of each a branch"
            )
        numbers: dict[Hashable, int] = {}
        whose = np.array([numbers.setdefault(p, len(numbers)) for p in problems], dtype=np.int64)
        kept = np.isfinite(found)
        return cls(found[kept], np.asarray(right, dtype=np.bool_)[kept], whose[kept])


@dataclass(frozen=True, slots=True)
class Bin:
    """Branches whose scores lie in ``low..high``: their mean score, and the share that is right."""

    low: float
    high: float
    score: float
    right: Interval
    n: int


def reliability(given: Labelled, bins: int = 10, resamples: int = 2000) -> tuple[Bin, ...]:
    """The reliability curve, in bins of equal mass; equal scores share a bin.

    A calibrated verifier has ``right`` near ``score`` in every bin. Intervals resample problems.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    order = np.argsort(given.scores, kind="stable")
    scores = given.scores[order]
    edges = {0, len(order)}
    for cut in range(1, bins):
        at = round(cut * len(order) / bins)
        if 0 < at < len(order):
            edges.add(int(np.searchsorted(scores, scores[at], side="left")))
    cuts = sorted(edges)
    return tuple(
        _bin(given, order[low:high], resamples) for low, high in pairwise(cuts) if high > low
    )


def _bin(given: Labelled, chosen: NDArray[np.int64], resamples: int) -> Bin:
    scores, whose = given.scores[chosen], given.problems[chosen]
    present, places = np.unique(whose, return_inverse=True)
    right = np.bincount(places, weights=given.right[chosen], minlength=len(present))
    total = np.bincount(places, minlength=len(present))
    share = ratio_interval(right, total, resamples)
    low, high, mean = float(scores.min()), float(scores.max()), float(scores.mean())
    return Bin(low, high, mean, share, len(chosen))


def calibration_error(curve: Sequence[Bin]) -> float:
    """Mean distance of score and share over the bins, by mass (expected calibration error)."""
    mass = sum(each.n for each in curve)
    return sum(each.n * abs(each.score - each.right.value) for each in curve) / mass


def auc(scores: ArrayLike, right: ArrayLike) -> float:
    """How often a right branch scores above a wrong one; a tie counts half. NaN without both kinds.

    >>> auc([0.1, 0.4, 0.4, 0.9], [False, True, False, True])
    0.875
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    good = int(labels.sum())
    bad = len(labels) - good
    if not good or not bad:
        return math.nan
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank, from 1, of equal scores
    return float((ranks[places][labels].sum() - good * (good + 1) / 2) / (good * bad))


def auc_pooled(given: Labelled) -> float:
    """The AUC over all branches together: it also rewards telling easy problems from hard ones."""
    return auc(given.scores, given.right)


def auc_within(given: Labelled, resamples: int = 10_000) -> Interval:
    """The mean of the problems' own AUCs, over those that have both kinds (``n`` of them)."""
    each = [
        auc(given.scores[mine], given.right[mine])
        for problem in np.unique(given.problems)
        for mine in [given.problems == problem]
    ]
    both = [value for value in each if not math.isnan(value)]
    if not both:
        return Interval(math.nan, math.nan, math.nan, 0)
    return mean_interval(both, resamples)


@dataclass(frozen=True, slots=True)
class Errors:
    """Rates of error of a verdict: scores that reach ``threshold`` are called right.

    ``false_positive`` (e+) is the share of wrong branches that is called right, over problems with
    wrong branches; ``false_negative`` (e-) the share of right ones that is called wrong.
    """

    threshold: float
    false_positive: Interval
    false_negative: Interval


def errors_at(given: Labelled, threshold: float = 0.5, resamples: int = 10_000) -> Errors:
    """e+ and e- at a threshold, with intervals over problems."""
    called = given.scores >= threshold
    return Errors(
        threshold,
        _rate(given, called & ~given.right, ~given.right, resamples),
        _rate(given, ~called & given.right, given.right, resamples),
    )


def _rate(
    given: Labelled, hit: NDArray[np.bool_], among: NDArray[np.bool_], resamples: int
) -> Interval:
    total = np.bincount(given.problems, weights=among)
    hits = np.bincount(given.problems, weights=hit)
    concerned = total > 0
    if not concerned.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    return ratio_interval(hits[concerned], total[concerned], resamples)


# Weights of votes ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted neutral score with the accuracies of three votes on the problems it was fitted on.

    ``neutral`` is for ``weighted-vote(transform=logit, neutral=…)``. The three accuracies, of that
    vote, of the vote weighted by the score itself and of the majority, flatter ``fitted``: judge it
    on other problems.
    """

    neutral: float
    fitted: float
    plain: float
    majority: float


def fit_neutral(pools: Sequence[Pool], points: int = 41) -> Fitted:
    """Fit the neutral score b of the vote weight logit(p) - logit(b) on validation problems.

    The best weight of a vote is the logarithm of a likelihood ratio, negative for a score that
    speaks against its answer; one number more makes the score such a ratio. The pools' weights are
    scores p in 0..1. The grid is the quantiles of the scores' logits and one below them all. Of
    neutral scores with equal accuracy the middle one is taken, so that the fit does not hang on a
    single problem.
    """
    if not pools or any(pool.weights is None for pool in pools):
        raise InputError("a fit needs problems whose pools have weights: the verifier's scores")
    scores = np.concatenate([pool.weights for pool in pools if pool.weights is not None])
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        raise InputError("no candidate has a finite score: there is nothing to fit")
    if scores.min() < 0 or scores.max() > 1:
        raise InputError("a logit needs scores in 0..1: map them there first")
    logits = np.array([logit(score) for score in scores])
    grid = np.unique(np.quantile(logits, np.linspace(0, 1, points)))
    grid = np.concatenate([[grid[0] - 1.0], grid])
    reached = [_accuracy(pools, _above(b)) for b in grid.tolist()]
    best = max(reached)
    tied = [at for at, value in enumerate(reached) if value == best]
    neutral = TRANSFORMS["sigmoid"](float(grid[tied[len(tied) // 2]]))
    return Fitted(
        neutral, best, _accuracy(pools, lambda score: score), _accuracy(pools, lambda _: 1.0)
    )


def _above(offset: float) -> Callable[[float], float]:
    return lambda score: logit(score) - offset


def _accuracy(pools: Sequence[Pool], weigh: Callable[[float], float]) -> float:
    """The share of problems that the weighted vote gets right, ties as in ``selection``."""
    return float(np.mean([_right(pool, weigh) for pool in pools]))


def _right(pool: Pool, weigh: Callable[[float], float]) -> bool:
    scores = pool.weights if pool.weights is not None else np.full(pool.n, math.nan)
    voters = [at for at in range(pool.n) if pool.groups[at] >= 0 and math.isfinite(scores[at])]
    if not voters:
        return False
    weight: dict[int, float] = {}
    votes: dict[int, int] = {}
    first: dict[int, int] = {}
    for at in voters:
        group = int(pool.groups[at])
        weight[group] = weight.get(group, 0.0) + weigh(float(scores[at]))
        votes[group] = votes.get(group, 0) + 1
        first.setdefault(group, at)
    chosen = max(weight, key=lambda group: (weight[group], votes[group], -first[group]))
    return bool(pool.correct[first[chosen]])
