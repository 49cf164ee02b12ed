"""What a number over k of n stored samples is: pass@k, best-of-k, vote@k. No chance but seeded.

One pool of n samples a problem gives whole curves: each estimator is the mean over subsets of k
samples without replacement, never "the first k".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CELLS = 100_000
"""Cells of one working array (draws × samples): what stays in a core's cache is fastest."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The graded samples of one problem, in key order; every array has shape [n].

    ``groups`` numbers the answers by task equality, in order of first appearance, -1 where there
    is none; ``correct`` is the verdict of each sample (unanswered is false); ``mean_logprob`` is
    NaN where unknown; ``weights`` are a verifier's scores.
    """

    groups: Ints
    correct: Bools
    mean_logprob: Floats | None = None
    weights: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.groups)
        for name in ("correct", "mean_logprob", "weights"):
            array = getattr(self, name)
            if array is not None and len(array) != n:
                raise ValueError(f"pool.{name} has {len(array)} entries, expected {n} as in groups")

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.groups)


def pass_at_k(n: Ints | int, c: Ints | int, k: int) -> Floats:
    """Probability that k of n samples, c of them right, hold a right one: 1 - C(n-c,k)/C(n,k).

    Unbiased, as a product that cannot overflow (Chen et al. 2021, arXiv 2107.03374). ``n`` and
    ``c`` broadcast; ``ValueError`` if k > n or c > n.

    >>> [round(float(pass_at_k(10, 3, k)), 10) for k in (1, 5)]
    [0.3, 0.9166666667]
    """
    total, right = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    if k < 1 or np.any(total < k) or np.any(right > total) or np.any(right < 0):
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, not k={k}, n={n}, c={c}")
    missed = np.ones(total.shape)
    # C(n-c,k)/C(n,k) = prod over i < k of (n-c-i)/(n-i); zero as soon as n-c <= i.
    for i in range(k):
        missed *= np.maximum(total - right - i, 0) / (total - i)
    return np.asarray(1.0 - missed, dtype=np.float64)


def best_at_k(correct: Bools, scores: Floats, k: int) -> float:
    """Expected accuracy of the best of k by score, exact over all subsets: sort, then weigh.

    The i-th sample from below is the best of C(i-1, k-1) of the C(n, k) subsets. Samples of equal
    score share their chances evenly. An unanswered sample carries ``-inf``: it is taken only
    where nothing else is there.

    >>> best_at_k(np.array([True, False, False]), np.array([0.5, 0.9, 0.1]), 2)
    0.3333333333333333
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"best-of-k needs 1 <= k <= n, not k={k}, n={n}")
    if np.isnan(scores).any():
        raise ValueError("best-of-k needs a score for every sample; -inf marks an unanswered one")
    order = np.argsort(scores, kind="stable")
    chance = np.zeros(n)
    chance[n - 1] = k / n
    for i in range(n - 2, k - 2, -1):  # C(i,k-1) from C(i+1,k-1), no large numbers
        chance[i] = chance[i + 1] * (i + 2 - k) / (i + 1)
    ranked, right = scores[order], correct[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, n])
    means = np.add.reduceat(right, starts) / sizes
    return float(np.sum(np.add.reduceat(chance, starts) * means))


def subsets(n: int, k: int, draws: int, seed: int) -> Bools:
    """Subsets of k of n as a mask [subsets, n]: all of them if at most ``draws``, else a sample.

    >>> subsets(3, 2, draws=10, seed=0).astype(int).tolist()
    [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    if not 1 <= k <= n:
        raise ValueError(f"a subset needs 1 <= k <= n, not k={k}, n={n}")
    if math.comb(n, k) <= draws:
        chosen = np.array(list(combinations(range(n), k)))
    else:
        ranks = np.random.default_rng([seed, n, k]).random((draws, n))
        chosen = np.argpartition(ranks, k - 1, axis=1)[:, :k]
    mask = np.zeros((len(chosen), n), dtype=np.bool_)
    np.put_along_axis(mask, chosen, True, axis=1)
    return mask


def vote_at_k(pools: Sequence[Pool], k: int, draws: int = 1000, seed: int = 0) -> Floats:
    """Expected accuracy of a vote of k for each problem, shape [problems].

    The mean over subsets of k samples of the vote's verdict: exact where a problem has at most
    ``draws`` subsets, else a seeded Monte-Carlo mean (the subsets are shared by the problems,
    which the bootstrap over problems does not mind). Ties as in ``mull.selection``: votes, mean
    log-probability where every voter has one, earliest sample. A group is right if its first
    sample is.
    """
    result = np.empty(len(pools))
    by_size: dict[int, list[int]] = {}
    for i, pool in enumerate(pools):
        by_size.setdefault(pool.n, []).append(i)
    for n, members in by_size.items():
        if k == 1:  # the vote of one is that one: exact, whatever the number of draws
            result[members] = [float(np.mean(pools[i].correct)) for i in members]
            continue
        mask = subsets(n, k, draws, seed)
        at_once = max(1, _CELLS // (len(mask) * n))
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            result[part] = _vote_block([pools[i] for i in part], mask)
    return result


def _vote_block(pools: Sequence[Pool], mask: Bools) -> Floats:
    """Mean verdict of the vote over the subsets in ``mask`` [S, n], for pools of one size."""
    result = np.zeros(len(pools))
    live = [i for i, pool in enumerate(pools) if (pool.groups >= 0).any()]
    if not live:
        return result
    parts = [_columns(pools[i]) for i in live]
    sizes = np.array([len(part.starts) for part in parts])  # groups of each problem
    offsets = np.cumsum([0, *(len(part.order) for part in parts)])[:-1]
    group_starts = np.concatenate([p.starts + o for p, o in zip(parts, offsets, strict=True)])
    problem_starts = np.cumsum(np.r_[0, sizes])[:-1]
    order = np.concatenate([part.order for part in parts])
    likelihood = np.concatenate([part.likelihood for part in parts])
    taken = mask[:, order]  # [S, answered samples, sorted by problem and group]

    verdicts = np.concatenate([part.verdicts for part in parts])
    votes = np.add.reduceat(taken, group_starts, axis=1, dtype=np.int64)
    leading = votes > 0
    leading &= _tops(votes.astype(np.float64), leading, problem_starts, sizes)
    # Most subsets have one leader: the tie rule is worked out for the others alone.
    tied = (np.add.reduceat(leading, problem_starts, axis=1, dtype=np.int64) > 1).any(axis=1)
    if tied.any():
        taken, votes, rest = taken[tied], votes[tied], leading[tied]
        unknown = np.isnan(likelihood)
        known = np.add.reduceat(taken * np.nan_to_num(likelihood), group_starts, axis=1)
        # One voter without a likelihood switches that rule off for its problem.
        blind = np.logical_or.reduceat(taken & unknown, offsets, axis=1)
        mean = np.where(np.repeat(blind, sizes, axis=1), 0.0, known / np.maximum(votes, 1))
        earliest = np.where(taken, -order.astype(np.float64), -np.inf)
        for key in (mean, np.maximum.reduceat(earliest, group_starts, axis=1)):
            rest &= _tops(key, rest, problem_starts, sizes)
        leading[tied] = rest
    right = np.logical_or.reduceat(leading & verdicts, problem_starts, axis=1)
    result[live] = right.mean(axis=0)
    return result


def _tops(key: Floats, among: Bools, problem_starts: Ints, sizes: Ints) -> Bools:
    """Which groups have the highest key of their problem among those still leading, [S, groups]."""
    top = np.maximum.reduceat(np.where(among, key, -np.inf), problem_starts, axis=1)
    # Sums of equal terms may differ in the last bit with their position: a relative hair.
    top -= np.where(np.isfinite(top), 1e-12 * np.abs(top), 0.0)
    return np.asarray(key >= np.repeat(top, sizes, axis=1))


@dataclass(frozen=True, slots=True)
class _Columns:
    """One problem's answered samples, sorted by group: [answered], and [groups] for the groups."""

    order: Ints
    likelihood: Floats
    starts: Ints
    verdicts: Bools


def _columns(pool: Pool) -> _Columns:
    answered = np.flatnonzero(pool.groups >= 0)
    order = answered[np.argsort(pool.groups[answered], kind="stable")]
    _, starts = np.unique(pool.groups[order], return_index=True)
    unknown = np.full(len(order), np.nan)
    likelihood = unknown if pool.mean_logprob is None else pool.mean_logprob[order]
    likelihood = np.where(np.isfinite(likelihood), likelihood, np.nan)
    return _Columns(order, likelihood, starts, pool.correct[order[starts]])
