"""The n-scaling table: what 1, 2, 4 … N samples buy, each number with its interval.

Columns as the ARC write-up prints them, computed from one pool of N samples a problem: ``pass_n``
(coverage), ``vote``, ``best`` (of n by likelihood), ``accuracy`` (mean of the samples, the same
for every n), ``unanswered``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mull.metrics.estimators import Pool, best_at_k, pass_at_k, vote_at_k
from mull.metrics.intervals import RESAMPLES, Bootstrap, Interval, ratio_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScalingRow:
    """One n of the table; ``best`` is ``None`` where some sample has no likelihood.

    ``gap`` is pass_n - vote and ``gain`` vote - accuracy, both paired over problems.
    """

    n: int
    pass_n: Interval
    vote: Interval
    best: Interval | None
    accuracy: Interval
    unanswered: Interval
    gap: Interval
    gain: Interval


def powers_of_two(limit: int) -> tuple[int, ...]:
    """1, 2, 4 … and the limit itself.

    >>> powers_of_two(12)
    (1, 2, 4, 8, 12)
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return tuple(sorted({2**i for i in range(limit.bit_length())} | {limit}))


def scaling_scores(
    pools: Sequence[Pool], k: int, draws: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Expected score of each problem at k samples, shape [problems] each: one column a strategy.

    Keys: ``pass_n``, ``vote``, ``best`` (only where every answered sample has a likelihood),
    ``accuracy``, ``unanswered``.
    """
    n = np.array([pool.n for pool in pools])
    right = np.array([int(pool.correct.sum()) for pool in pools])
    scores = {
        "pass_n": pass_at_k(n, right, k),
        "vote": vote_at_k(pools, k, draws, seed),
        "accuracy": right / n,
        "unanswered": np.array([np.mean(pool.groups < 0) for pool in pools]),
    }
    likelihoods = [_ranked(pool) for pool in pools]
    if all(likelihood is not None for likelihood in likelihoods):
        pairs = zip(pools, likelihoods, strict=True)
        scores["best"] = np.array(
            [best_at_k(p.correct, lp, k) for p, lp in pairs if lp is not None]
        )
    return scores


def n_scaling(
    pools: Sequence[Pool],
    ks: Sequence[int] | None = None,
    draws: int = 1000,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[ScalingRow]:
    """The table for the numbers of samples ``ks`` (default: powers of two up to the smallest pool).

    ``vote`` is exact or the mean over ``draws`` subsets; intervals by a paired bootstrap over
    problems. ``ValueError`` if there are no problems or a k exceeds a pool.
    """
    if not pools:
        raise ValueError("an n-scaling table needs at least one problem")
    rows = []
    for k in ks or powers_of_two(min(pool.n for pool in pools)):
        scores = scaling_scores(pools, k, draws, seed)
        rows.append(_row(k, scores, resamples, seed))
    return rows


def _row(k: int, scores: Mapping[str, Floats], resamples: int, seed: int) -> ScalingRow:
    names = list(scores)
    boot = Bootstrap(np.column_stack([scores[name] for name in names]), resamples, seed)
    at = {name: i for i, name in enumerate(names)}

    def mean(name: str) -> Interval:
        return boot.mean(at[name])

    def difference(a: str, b: str) -> Interval:
        return boot.difference(at[a], at[b])

    return ScalingRow(
        n=k,
        pass_n=mean("pass_n"),
        vote=mean("vote"),
        best=mean("best") if "best" in scores else None,
        accuracy=mean("accuracy"),
        unanswered=mean("unanswered"),
        gap=difference("pass_n", "vote"),
        gain=difference("vote", "accuracy"),
    )


def _ranked(pool: Pool) -> Floats | None:
    """Likelihoods with -inf for the unanswered; None if an answered sample has none."""
    if pool.mean_logprob is None:
        return None
    answered = pool.groups >= 0
    if not np.isfinite(pool.mean_logprob[answered]).all():
        return None
    return np.where(answered, pool.mean_logprob, -np.inf)


def selection_accuracy(
    selected: ArrayLike, covered: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Of the problems with a right candidate, the share where selection took one.

    ``selected`` and ``covered`` are verdicts (or expectations) per problem, shape [problems].
    """
    return ratio_interval(selected, covered, resamples, seed)


def unanswered_shares(reasons: Iterable[str | None]) -> dict[str, float]:
    """Share of the samples by the reason for having no answer; answered samples are ``None``.

    >>> unanswered_shares(["truncated", None, None, "empty"])
    {'empty': 0.25, 'truncated': 0.25}
    """
    counts = Counter(reasons)
    total = counts.total()
    return {reason: counts[reason] / total for reason in sorted(filter(None, counts))}
