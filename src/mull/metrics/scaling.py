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
from numpy.typing import NDArray

from mull.metrics.estimators import Pool, best_at_k, pass_at_k, vote_at_k
from mull.metrics.intervals import RESAMPLES, Bootstrap, Interval, ratio_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScalingRow:
    """One n of the table: the columns of ``scaling_scores`` by name, each with its interval.

    ``gap`` is pass_n - vote and ``gain`` vote - accuracy, both paired over problems; ``selection``
    is vote / pass_n.
    """

    n: int
    scores: Mapping[str, Interval]
    gap: Interval
    gain: Interval
    selection: Interval


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
    steps = ks or powers_of_two(min(pool.n for pool in pools))
    return [scaling_row([pools], k, draws, resamples, seed) for k in steps]


def scaling_row(
    seeds: Sequence[Sequence[Pool]],
    k: int,
    draws: int = 1000,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ScalingRow:
    """One k, from pools [seeds][problems]: each problem's score is its mean over the seeds.

    A column that one of the seeds lacks is left out.
    """
    per_seed = [scaling_scores(pools, k, draws, seed) for pools in seeds]
    names = [name for name in per_seed[0] if all(name in scores for scores in per_seed)]
    means = {name: np.mean([scores[name] for scores in per_seed], axis=0) for name in names}
    boot = Bootstrap(np.column_stack([means[name] for name in names]), resamples, seed)
    at = {name: i for i, name in enumerate(names)}
    return ScalingRow(
        n=k,
        scores={name: boot.mean(i) for name, i in at.items()},
        gap=boot.difference(at["pass_n"], at["vote"]),
        gain=boot.difference(at["vote"], at["accuracy"]),
        selection=ratio_interval(means["vote"], means["pass_n"], resamples, seed),
    )


def _ranked(pool: Pool) -> Floats | None:
    """Likelihoods with -inf for the unanswered; None if an answered sample has none."""
    if pool.mean_logprob is None:
        return None
    answered = pool.groups >= 0
    if not np.isfinite(pool.mean_logprob[answered]).all():
        return None
    return np.where(answered, pool.mean_logprob, -np.inf)


def unanswered_shares(reasons: Iterable[str | None]) -> dict[str, float]:
    """Share of the samples by the reason for having no answer; answered samples are ``None``.

    >>> unanswered_shares(["truncated", None, None, "empty"])
    {'empty': 0.25, 'truncated': 0.25}
    """
    counts = Counter(reasons)
    total = counts.total()
    return {reason: counts[reason] / total for reason in sorted(filter(None, counts))}
