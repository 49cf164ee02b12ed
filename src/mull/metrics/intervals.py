"""How sure a number is: Wilson intervals and bootstraps over problems.

The unit is the problem: samples of one problem are not independent, so problems are resampled; with
``clusters`` equal problems are drawn together. Every column of one ``Bootstrap`` sees the same
resamples, which pairs comparisons for free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
RESAMPLES = 10_000
EDGE = 3.0
"""Problems from none or all within which a proportion gets Wilson's interval, and problems that
differ below which a difference gets one made of two such; of equal problems each set counts one."""

_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its interval, the problems behind it and how the interval was made.

    ``low`` and ``high`` hold the number with probability ``level`` over resampled problems. All
    three are NaN where nothing can be said (no problems, a ratio over nothing).
    """

    value: float
    low: float
    high: float
    n: int
    method: str = "bootstrap"
    level: float = 0.95

    def percent(self, digits: int = 1) -> str:
        """The number and its bounds in percent.

        >>> Interval(0.5, 0.25, 0.75, 8).percent()
        '50.0 [25.0, 75.0]'
        """
        if math.isnan(self.value):
            return "–"
        if math.isnan(self.low):
            return f"{100 * self.value:.{digits}f}"
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927): sane at 0, 1 and small n.

    >>> wilson(0, 10).percent()
    '0.0 [0.0, 27.8]'
    """
    if n <= 0:
        return Interval(math.nan, math.nan, math.nan, 0, "wilson", level)
    if not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n, not {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(p, low, high, n, "wilson", level)


class Bootstrap:
    """Means of columns over resampled problems; every statistic of the means gets an interval.

    ``values`` has shape [problems] or [problems, columns]. ``clusters`` has a label a problem:
    those of one label (an equal problem, met again) are drawn together, for what they tell is
    hardly more than one of them does. Vectorised, seeded; memory is bounded whatever the number of
    resamples.

    >>> boot = Bootstrap([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], seed=1)
    >>> boot.interval(lambda m: m[:, 0] - m[:, 1]).value
    0.5
    """

    def __init__(
        self,
        values: ArrayLike,
        resamples: int = RESAMPLES,
        seed: int = 0,
        clusters: ArrayLike | None = None,
    ) -> None:
        table = np.asarray(values, dtype=np.float64)
        self.values: Floats = table[:, None] if table.ndim == 1 else table
        if self.values.ndim != 2 or resamples < 1:
            raise ValueError("a bootstrap needs values [problems, columns] and resamples >= 1")
        if not np.isfinite(self.values).all():
            raise ValueError("a bootstrap needs finite values; leave out the problems without one")
        self.n = len(self.values)
        self.centre: Floats = self.values.mean(axis=0, keepdims=True) if self.n else self.values
        self.cluster = _numbered(self.n, clusters)
        self.sizes: Floats = np.bincount(self.cluster).astype(np.float64)
        self.sums: Floats = _summed(self.values, self.cluster)
        self.means: Floats = self._resample(resamples, seed)

    def _resample(self, resamples: int, seed: int) -> Floats:
        means = np.empty((resamples, self.values.shape[1]))
        rng = np.random.default_rng([seed, self.n])
        drawn = len(self.sizes)
        at_once = max(1, _CELLS // max(drawn, 1))
        for start in range(0, resamples if drawn else 0, at_once):
            rows = min(at_once, resamples - start)
            picks = rng.integers(0, drawn, (rows, drawn), dtype=np.int32)
            # Counting how often each cluster was drawn turns the resampled mean into a product.
            picks += (np.arange(rows, dtype=np.int32) * drawn)[:, None]
            counts = np.bincount(picks.ravel(), minlength=rows * drawn).reshape(rows, drawn)
            means[start : start + rows] = counts @ self.sums / (counts @ self.sizes)[:, None]
        return means

    def interval(
        self,
        statistic: Callable[[Floats], Floats] = lambda means: means[:, 0],
        level: float = 0.95,
        method: str = "percentile",
    ) -> Interval:
        """The statistic of the column means, with its ``percentile`` or ``bca`` interval.

        ``statistic`` maps means [rows, columns] to [rows]. BCa corrects bias and skew by the
        jackknife (Efron 1987). Resamples where the statistic is undefined (NaN) are left out; one
        that is infinite counts, and so may a bound be.
        """
        if method not in ("percentile", "bca"):
            raise ValueError(f"method must be percentile or bca, not {method!r}")
        if not self.n:
            return Interval(math.nan, math.nan, math.nan, 0, method, level)
        value = float(statistic(self.centre)[0])
        drawn = statistic(self.means)
        drawn = drawn[~np.isnan(drawn)]
        if math.isnan(value) or not len(drawn):
            return Interval(value, math.nan, math.nan, self.n, method, level)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method == "bca":
            tails = self._bca_tails(statistic, value, drawn, tails)
        if np.isfinite(drawn).all():
            low, high = np.quantile(drawn, tails)
        else:  # nothing lies between a number and infinity
            low, high = np.quantile(drawn, tails, method="closest_observation")
        return Interval(value, float(low), float(high), self.n, method, level)

    def mean(self, column: int = 0, level: float = 0.95, method: str = "percentile") -> Interval:
        """The mean of a column over problems.

        Resampling cannot show what was not seen: a proportion within ``EDGE`` problems of none or
        all gets Wilson's interval instead.
        """
        values = self.values[:, column]
        if self.n and values.min() >= 0.0 and values.max() <= 1.0:
            different = len(self.sizes)
            right = float((self.sums[:, column] / self.sizes).sum())
            if min(right, different - right) < EDGE:
                return replace(self._wilson(values, level), n=self.n)
        return self.interval(lambda means: means[:, column], level, method)

    def difference(
        self, a: int, b: int, level: float = 0.95, method: str = "percentile"
    ) -> Interval:
        """The mean of column ``a`` minus that of column ``b``.

        Where shares differ on fewer than ``EDGE`` problems, resampling would claim to know what was
        not seen: Wilson's intervals of what was gained and what was lost are combined instead
        (MOVER, Zou and Donner 2008).

        >>> Bootstrap(np.zeros((100, 2))).difference(0, 1).percent()
        '0.0 [-3.7, 3.7]'
        """
        apart = self.values[:, a] - self.values[:, b]
        differ = len(np.unique(self.cluster[apart != 0.0]))
        if self.n and differ < EDGE and np.abs(apart).max() <= 1.0:
            gained = self._wilson(apart.clip(min=0.0), level)
            lost = self._wilson(-apart.clip(max=0.0), level)
            value = gained.value - lost.value
            low = value - math.hypot(gained.value - gained.low, lost.high - lost.value)
            high = value + math.hypot(gained.high - gained.value, lost.value - lost.low)
            return Interval(value, low, high, self.n, "mover", level)
        return self.interval(lambda means: means[:, a] - means[:, b], level, method)

    def _wilson(self, shares: Floats, level: float) -> Interval:
        """Wilson's interval over as many problems as the clusters weigh (Kish's effective size)."""
        weight = max(1, round(self.n**2 / float((self.sizes**2).sum())))
        right = float(shares.sum()) * (weight / self.n)
        return wilson(min(max(right, 0.0), float(weight)), weight, level)

    def _bca_tails(
        self, statistic: Callable[[Floats], Floats], value: float, drawn: Floats, tails: Floats
    ) -> Floats:
        normal = NormalDist()
        below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
        if len(self.sizes) < 2 or not 0 < below < 1:
            return tails
        bias = normal.inv_cdf(float(below))
        left_out = (self.values.sum(axis=0) - self.sums) / (self.n - self.sizes)[:, None]
        jackknife = statistic(left_out)
        spread = jackknife.mean() - jackknife
        scale = float(np.sum(spread**2)) ** 1.5
        skew = float(np.sum(spread**3)) / (6 * scale) if scale > 0 else 0.0
        z = [normal.inv_cdf(float(tail)) + bias for tail in tails]
        return np.array([normal.cdf(bias + x / (1 - skew * x)) for x in z])


def _numbered(n: int, labels: ArrayLike | None) -> NDArray[np.intp]:
    """Labels as 0, 1 … by their first use; without labels each of ``n`` has its own."""
    if labels is None:
        return np.arange(n)
    _, first, at = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    if at.shape != (n,):
        raise ValueError(f"clusters must have a label a problem, {n}, not {at.shape}")
    return np.argsort(np.argsort(first))[at]


def _summed(values: Floats, cluster: NDArray[np.intp]) -> Floats:
    """Rows of ``values`` added up by their clusters, [clusters, columns]."""
    sums = np.zeros((cluster.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, cluster, values)
    return sums


def mean_interval(
    values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, method: str = "percentile"
) -> Interval:
    """The mean over problems, shape [problems]; Wilson's interval near none and all."""
    return Bootstrap(values, resamples, seed).mean(method=method)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: str = "percentile",
) -> Interval:
    """mean(a) - mean(b) where both were measured on the same problems, shape [problems] each.

    Where hardly any problem differs, as ``Bootstrap.difference`` says.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(
            f"a paired difference needs equal problems, not {left.shape} and {right.shape}"
        )
    return Bootstrap(np.column_stack([left, right]), resamples, seed).difference(
        0, 1, method=method
    )


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: ArrayLike | None = None,
) -> Interval:
    """mean(numerator) / mean(denominator) over problems; NaN where the denominator is zero.

    A share (on no problem is the numerator above the denominator) within ``EDGE`` problems of none
    or all gets Wilson's interval, over the problems that the denominator has: where it has more of
    one than of another, over as many as these weigh (the effective size of Kish 1965). Problems of
    one label in ``clusters`` are drawn together.

    >>> ratio_interval([1, 1, 1, 0, 0], [1, 1, 1, 0, 0]).percent()
    '100.0 [43.9, 100.0]'
    """
    both = np.column_stack([np.asarray(numerator, float), np.asarray(denominator, float)])
    n_problems = len(both)
    both = _summed(both, _numbered(n_problems, clusters))
    part, whole = both.T
    # A mean over samples may be a hair above another way to the same number.
    if whole.sum() > 0 and part.min() >= 0 and (part <= whole + 1e-9).all():
        n = max(1, round(whole.sum() ** 2 / (whole**2).sum()))
        right = min(1.0, float(part.sum() / whole.sum())) * n
        if min(right, n - right) < EDGE:
            return replace(wilson(right, n), n=n_problems)

    def ratio(means: Floats) -> Floats:
        over = np.where(means[:, 1] > 0, means[:, 1], np.nan)
        return np.asarray(means[:, 0] / over)

    return replace(Bootstrap(both, resamples, seed).interval(ratio), n=n_problems)


def hierarchical_interval(
    replicates: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean over problems of the mean over replicates, both levels resampled.

    ``replicates`` has shape [problems, replicates], NaN where one is missing; a problem needs at
    least one. Source: reference on evaluation statistics (problems first, then replicates).
    """
    table = np.asarray(replicates, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).any(axis=1).all():
        raise ValueError("replicates must be [problems, replicates], one a problem at least")
    n, width = table.shape
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0, "hierarchical", level)
    # Missing replicates to the right, so that an index below the count hits a real one.
    order = np.argsort(~np.isfinite(table), axis=1, kind="stable")
    packed = np.take_along_axis(table, order, axis=1)
    counts = np.isfinite(table).sum(axis=1)
    rng = np.random.default_rng([seed, n, width])
    drawn = np.concatenate(
        [_two_levels(packed, counts, rows, rng) for rows in _chunks(resamples, n * width)]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    value = float(np.nanmean(table, axis=1).mean())
    return Interval(value, float(low), float(high), n, "hierarchical", level)


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    at_once = max(1, _CELLS // max(cells, 1))
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _two_levels(
    packed: Floats, counts: NDArray[np.intp], rows: int, rng: np.random.Generator
) -> Floats:
    n, width = packed.shape
    problems = rng.integers(0, n, (rows, n))
    have = counts[problems]
    picks = (rng.random((rows, n, width)) * have[:, :, None]).astype(np.intp)
    values = packed[problems[:, :, None], picks]
    used = np.arange(width) < have[:, :, None]
    means = np.where(used, values, 0.0).sum(axis=2) / have
    return np.asarray(means.mean(axis=1))
