"""How good a verifier is: is its score a probability, does it rank, and what vote it is worth.

Scores of branches with their labels go in, numbers with intervals over problems come out. A good
rank over all branches together may come from telling easy problems from hard ones; what a search
or a vote lives on is the rank *within* a problem, so both are given.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mull.errors import InputError
from mull.metrics import Bootstrap, Interval, Pool, mean_interval, ratio_interval
from mull.selection import TRANSFORMS, logit, tie_keys

Floats = NDArray[np.float64]
GRID = 200


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


def auc_pooled(given: Labelled, resamples: int = 10_000) -> Interval:
    """The AUC over all branches together: it also rewards telling easy problems from hard ones.

    The number counts every pair; its interval, over problems, counts in ``GRID`` bins of equal
    mass.
    """
    value = auc(given.scores, given.right)
    whose, rows = np.unique(given.problems, return_inverse=True)
    if math.isnan(value):
        return Interval(math.nan, math.nan, math.nan, len(whose))
    edges = np.unique(np.quantile(given.scores, np.linspace(0, 1, GRID + 1)[1:-1]))
    places = np.searchsorted(edges, given.scores, side="left")
    counts = np.zeros((len(whose), 2, len(edges) + 1))
    np.add.at(counts, (rows, given.right.astype(np.int64), places), 1.0)
    bad, good = counts[:, 0], counts[:, 1]

    def share(means: Floats) -> Floats:
        wrong, right = np.split(means, 2, axis=1)
        below = np.cumsum(wrong, axis=1) - wrong / 2
        pairs = wrong.sum(axis=1) * right.sum(axis=1)
        return np.asarray((right * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan))

    drawn = Bootstrap(np.hstack([bad, good]), resamples).interval(share)
    return Interval(value, drawn.low, drawn.high, len(whose))


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


def fit_neutral(pools: Sequence[Pool], points: int = 41) -> float:
    """Fit the neutral score b of the vote weight logit(p) - logit(b) on validation problems.

    It is for ``weighted-vote(transform=logit, neutral=b)``. The best weight of a vote is the
    logarithm of a likelihood ratio, negative for a score that speaks against its answer; one number
    more makes the score such a ratio. The pools' weights are scores p in 0..1. The grid is the
    quantiles of the scores' logits and one below them all. Of neutral scores with equal accuracy
    the middle one is taken, so that the fit does not hang on a single problem.
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
    tallies = [tally for pool in pools if (tally := _Tally.of(pool)) is not None]
    reached = np.sum([tally.logit_right(grid) for tally in tallies], axis=0)
    tied = np.flatnonzero(reached == reached.max())
    return TRANSFORMS["sigmoid"](float(grid[tied[len(tied) // 2]]))


@dataclass(frozen=True, slots=True)
class Votes:
    """Whether three votes are right on each problem, [problems]: 1 or 0.

    By logit(score) - logit(neutral), by the score itself, and the majority of those that have one.
    """

    logit: Floats
    score: Floats
    majority: Floats


def votes_right(pools: Sequence[Pool], neutral: float) -> Votes:
    """The verdicts of the votes on problems whose pools' weights are scores in 0..1."""
    offset = np.array([math.log(neutral / (1 - neutral))])
    rows = np.zeros((len(pools), 3))
    for at, pool in enumerate(pools):
        if (tally := _Tally.of(pool)) is not None:
            others = (tally.right[np.argmax(sums)] for sums in (tally.scores, tally.votes))
            rows[at] = [*tally.logit_right(offset), *others]
    return Votes(*rows.T)


@dataclass(frozen=True, slots=True)
class _Tally:
    """The votes on one problem by group, [groups], those first that a tie goes to."""

    logits: Floats
    scores: Floats
    votes: Floats
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, pool: Pool) -> _Tally | None:
        """What the samples with an answer and a score say; ``None`` where there are none."""
        weights = pool.weights if pool.weights is not None else np.full(pool.n, math.nan)
        members: dict[int, list[int]] = {}
        for at in np.flatnonzero((pool.groups >= 0) & np.isfinite(weights)).tolist():
            members.setdefault(int(pool.groups[at]), []).append(at)
        if not members:
            return None
        groups = sorted(members.values())  # by their earliest member
        likely = pool.mean_logprob if pool.mean_logprob is not None else np.full(pool.n, math.nan)
        ties = tie_keys(
            [[float(x) if math.isfinite(x := likely[at]) else None for at in g] for g in groups]
        )
        groups = [group for _, group in sorted(zip(ties, groups, strict=True))]
        return cls(
            np.array([math.fsum(logit(weights[at]) for at in group) for group in groups]),
            np.array([math.fsum(weights[group]) for group in groups]),
            np.array([float(len(group)) for group in groups]),
            np.array([bool(pool.correct[group[0]]) for group in groups]),
        )

    def logit_right(self, offsets: Floats) -> NDArray[np.bool_]:
        """For each offset, whether the group with the largest sum of logit - offset is right."""
        chosen = np.argmax(self.logits - offsets[:, None] * self.votes, axis=1)
        return np.asarray(self.right[chosen])
