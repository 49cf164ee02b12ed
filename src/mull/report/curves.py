"""Digested cells → accuracy curves against compute, each point with its interval.

Cells that differ only in their seed are one series: each problem's score is averaged over the
seeds, then problems are resampled. All intervals are paired over problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mull.metrics import (
    ScalingRow,
    by_level,
    by_quantiles,
    held_out_halves,
    powers_of_two,
    scaling_row,
)
from mull.metrics.estimators import Pool
from mull.report.digest import UNITS, CellDigest

Floats = NDArray[np.float64]

STRATEGIES = {
    "pass_n": "coverage",
    "vote": "vote",
    "best": "best-of-n (likelihood)",
    "accuracy": "single sample",
}
"""What is read off a pool of samples, by its column, with the name that a plot shows."""


@dataclass(frozen=True, slots=True)
class Series:
    """A cell over its seeds: ``digests`` share strategy, budget, parameters and problems."""

    label: str
    digests: tuple[CellDigest, ...]

    @property
    def first(self) -> CellDigest:
        """The digest of the first seed."""
        return self.digests[0]

    @property
    def pooled(self) -> bool:
        """Whether smaller n can be read off the samples, and there is something graded."""
        same = len({digest.n for digest in self.digests}) == 1
        return same and all(d.pools for d in self.digests) and bool(self.graded.any())

    @property
    def pool_name(self) -> tuple[object, ...]:
        """Pooled series of one run with equal names draw the same samples."""
        return (tuple(sorted(self.first.parameters.items())), self.first.ids)

    @property
    def graded(self) -> NDArray[np.bool_]:
        """Problems with a gold answer and a verdict under every seed, [problems]."""
        return np.asarray(np.all([digest.graded for digest in self.digests], axis=0))

    def mean(self, name: str) -> Floats:
        """An array of the digests averaged over the seeds, graded problems only."""
        columns = [getattr(digest, name)[self.graded] for digest in self.digests]
        return np.asarray(np.mean(columns, axis=0))

    def cost(self, k: int | None = None) -> dict[str, float]:
        """Mean cost of a problem by unit, at k samples or in all; units not known are left out."""
        per_seed = [d.total.mean(axis=0) if k is None else d.cost(k) for d in self.digests]
        means = np.mean(per_seed, axis=0)
        return {unit: float(x) for unit, x in zip(UNITS, means, strict=True) if x > 0}


@dataclass(frozen=True, slots=True)
class Panel:
    """The points of the problems of one difficulty."""

    title: str
    problems: int
    points: tuple[ScalingRow, ...]


def series(digests: Sequence[CellDigest], prefix: str = "") -> list[Series]:
    """Digests grouped over their seeds, in the order of first appearance."""
    groups: dict[tuple[object, ...], list[CellDigest]] = {}
    for digest in digests:
        named = tuple(sorted(digest.parameters.items()))
        groups.setdefault((digest.strategy, digest.budget, named, digest.ids), []).append(digest)
    return [Series(prefix + members[0].label, tuple(members)) for members in groups.values()]


def points(
    line: Series, resamples: int, draws: int, seed: int = 0, ks: Sequence[int] | None = None
) -> tuple[ScalingRow, ...]:
    """The points of a pooled series at 1, 2, 4 … n samples."""
    pools = [
        [pool for pool, keep in zip(d.pools, line.graded, strict=True) if keep]
        for d in line.digests
    ]
    steps = ks or powers_of_two(line.first.n)
    return tuple(scaling_row(pools, k, draws, resamples, seed) for k in steps)


def panels(line: Series, resamples: int, draws: int, seed: int = 0) -> tuple[Panel, ...]:
    """A pooled series by difficulty: by the task's levels, else by a measured pass rate.

    The pass rate is measured on one half of the samples and the panel drawn from the other, so
    that luck in a half cannot make a problem look easy and right at once.
    """
    digest, graded = line.first, line.graded
    levels = [level for level, keep in zip(digest.levels, graded, strict=True) if keep]
    kept = [
        [pool for pool, keep in zip(d.pools, graded, strict=True) if keep] for d in line.digests
    ]
    if len(set(levels)) > 1:
        names, bins = by_level(levels)
        titles = [f"level {name}" for name in names]
    elif digest.n >= 4:
        measure, evaluate = held_out_halves(digest.n)
        rates = np.mean([[pool.correct[measure].mean() for pool in part] for part in kept], axis=0)
        bins = by_quantiles(rates, 5)
        titles = [_quintile(rates[bins == b], b) for b in range(5)]
        kept = [[_part(pool, evaluate) for pool in part] for part in kept]
    else:
        return ()
    made = []
    for b, title in enumerate(titles):
        inside = np.flatnonzero(bins == b)
        if len(inside):
            part = [[pools[i] for i in inside] for pools in kept]
            steps = powers_of_two(part[0][0].n)
            rows = tuple(scaling_row(part, k, draws, resamples, seed) for k in steps)
            made.append(Panel(title, len(inside), rows))
    return tuple(made)


def _quintile(rates: Floats, bin: int) -> str:
    ends = ("hardest fifth", "second fifth", "middle fifth", "fourth fifth", "easiest fifth")
    if not len(rates):
        return ends[bin]
    return f"{ends[bin]} ({100 * rates.min():.0f}–{100 * rates.max():.0f} %)"


def _part(pool: Pool, positions: NDArray[np.int64]) -> Pool:
    likelihood = pool.mean_logprob
    return Pool(
        pool.groups[positions],
        pool.correct[positions],
        None if likelihood is None else likelihood[positions],
    )
