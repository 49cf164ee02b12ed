"""Problems into difficulty bins, by their level or by a pass rate measured on other samples.

A bin made from the samples that are then evaluated regresses to the mean: lucky problems look
easy *and* right. So a measured pass rate comes from one half of the samples (``held_out_halves``)
and the evaluation from the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

ABSOLUTE = (0.1, 0.5)
"""Pass rates that part hard, medium and easy (Liu et al. 2025, arXiv 2502.06703)."""


def held_out_halves(n: int) -> tuple[Ints, Ints]:
    """Sample positions for measuring difficulty, and those for evaluating: even, odd.

    Samples are exchangeable, so any fixed split will do; alternating keeps both halves spread
    over a run. With one sample there is nothing to evaluate on.

    >>> [half.tolist() for half in held_out_halves(5)]
    [[0, 2, 4], [1, 3]]
    """
    return np.arange(0, n, 2, dtype=np.int64), np.arange(1, n, 2, dtype=np.int64)


def by_quantiles(pass_rates: ArrayLike, bins: int = 5) -> Ints:
    """Bin of each problem, 0 = hardest, with edges at the quantiles of the pass rates.

    Problems of equal pass rate share a bin, so bins may be uneven or empty. ``pass_rates`` must
    come from samples that are not evaluated. Source: Snell et al. 2024 (five quantiles).

    >>> by_quantiles([0.0, 0.2, 0.4, 0.6, 0.8], 5).tolist()
    [0, 1, 2, 3, 4]
    """
    rates = np.asarray(pass_rates, dtype=np.float64)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    # The share of problems strictly below: equal rates get equal shares.
    below = np.searchsorted(np.sort(rates), rates, side="left") / max(len(rates), 1)
    return np.minimum((below * bins + 1e-9).astype(np.int64), bins - 1)


def by_thresholds(pass_rates: ArrayLike, edges: Sequence[float] = ABSOLUTE) -> Ints:
    """Bin of each problem, 0 = hardest: the number of edges that its pass rate reaches.

    >>> by_thresholds([0.0, 0.1, 0.49, 1.0]).tolist()
    [0, 1, 1, 2]
    """
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges must rise, not {list(edges)}")
    rates = np.asarray(pass_rates, dtype=np.float64)
    return np.searchsorted(np.asarray(edges), rates, side="right").astype(np.int64)


def by_level(levels: Sequence[int | str | None]) -> tuple[tuple[str, ...], Ints]:
    """Names of the levels in order (numbers by value, then words), and each problem's bin.

    Problems without a level get bin -1.

    >>> by_level([10, 2, None, 2])
    (('2', '10'), array([ 1,  0, -1,  0]))
    """
    present = {level for level in levels if level is not None}
    numbers = sorted(level for level in present if isinstance(level, int))
    words = sorted(level for level in present if isinstance(level, str))
    index = {level: i for i, level in enumerate([*numbers, *words])}
    names = tuple(str(level) for level in index)
    return names, np.array([-1 if v is None else index[v] for v in levels], dtype=np.int64)
