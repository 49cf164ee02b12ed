"""What an interval says of a claim; and claims that are no plain difference of two columns.

Crossings, costs at equal error and optima on a grid are decided on resampled problems as well.
Verdicts: *reproduced* (the interval excludes zero and the point reaches the smallest effect of
interest), *direction only*, *not detected*, *contradicted*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mull.metrics import Interval, held_out_halves
from mull.report.cells import CellRow
from mull.report.compare import Column, over_policies, paired, per_problem

Floats = NDArray[np.float64]
REPRODUCED, DIRECTION = "reproduced", "direction only"
CONTRADICTED, NOT_DETECTED = "contradicted", "not detected"


def verdict(found: Interval, smallest: float = 0.0) -> str:
    """What an interval says of a claim that something is above zero, by ``smallest`` at least.

    >>> verdict(Interval(0.03, 0.01, 0.05, 9), 0.015)
    'reproduced'
    >>> verdict(Interval(0.01, 0.002, 0.02, 9), 0.015)
    'direction only'
    """
    if found.low > 0:
        return REPRODUCED if found.value >= smallest else DIRECTION
    return CONTRADICTED if found.high < 0 else NOT_DETECTED


def no_more_than(found: Interval, bound: float) -> str:
    """What an interval says of a claim that something is no more than ``bound`` above zero.

    >>> no_more_than(Interval(0.0, -0.02, 0.02, 9), 0.03)
    'reproduced'
    """
    if found.high < bound:
        return REPRODUCED
    return CONTRADICTED if found.low > bound else NOT_DETECTED


def p_value(found: Interval) -> float:
    """Two-sided p of the interval's distance from zero, by the normal with the interval's width.

    >>> round(p_value(Interval(1.96, 0.0, 3.92, 9)), 3)
    0.05
    """
    z = NormalDist().inv_cdf(0.5 + found.level / 2)
    spread = (found.high - found.low) / (2 * z)
    if math.isnan(spread) or spread == 0.0:
        return 1.0 if math.isnan(spread) or found.value == 0.0 else 0.0
    return 2 * NormalDist().cdf(-abs(found.value) / spread)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): at most this share of false alarms in all.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [1.0] * len(values), 0.0
    for rank, at in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[at]))
        adjusted[at] = largest
    return adjusted


@dataclass(frozen=True)
class Crossing:
    """Where a difference falls through zero over log2 N, and in which share of resamples it does.

    ``at`` is in samples; its value is NaN where the measured means do not cross.
    """

    at: Interval
    share: float


def crossing(differences: Mapping[int, tuple[Column, Column]]) -> Crossing | None:
    """Where ``left - right`` first turns from above zero to zero or less, on resampled problems.

    ``differences`` has the two columns of each number of samples; ``None`` for fewer than two, or
    where no unit has them all.
    """
    sizes = sorted(differences)
    both = paired([each for n in sizes for each in differences[n]])
    if len(sizes) < 2 or not len(both):
        return None
    boot = both.bootstrap(both.values[:, 0::2] - both.values[:, 1::2])
    logs = np.log2(np.array(sizes, dtype=np.float64))
    at = boot.interval(lambda means: 2.0 ** _falls(means, logs))
    return Crossing(at, float(np.mean(np.isfinite(_falls(boot.means, logs)))))


def _falls(means: Floats, logs: Floats) -> Floats:
    """log2 N at the first fall through zero of each row, NaN where there is none."""
    before, after = means[:, :-1], means[:, 1:]
    down = (before > 0) & (after <= 0)
    gap = np.where(down, before - after, 1.0)
    points = logs[:-1] + np.where(down, before / gap, 0.0) * (logs[1:] - logs[:-1])
    first = np.argmax(down, axis=1)
    rows = np.arange(len(means))
    return np.where(down.any(axis=1), points[rows, first], np.nan)


def inverse(means: Floats, logs: Floats, target: float) -> Floats:
    """log2 of the cost at which each row of rising accuracies reaches ``target``.

    ``means`` [rows, budgets] in the order of the rising costs ``logs``; a fall is taken for noise
    (the best so far counts). Infinity where the target is not reached, minus infinity where the
    cheapest is past it.

    >>> inverse(np.array([[0.25, 0.5, 0.4]]), np.array([0.0, 2.0, 4.0]), 0.375).tolist()
    [1.0]
    """
    best = np.maximum.accumulate(means, axis=1)
    reached = best >= target
    first = np.argmax(reached, axis=1)
    rows, before = np.arange(len(means)), np.maximum(first - 1, 0)
    low, high = best[rows, before], best[rows, first]
    share = np.where(first > 0, (target - low) / np.where(high > low, high - low, 1.0), 0.0)
    found = logs[before] + share * (logs[first] - logs[before])
    found = np.where((first == 0) & (best[:, 0] > target), -np.inf, found)
    return np.where(reached.any(axis=1), found, np.inf)


def cost_ratios(
    small: Mapping[int, Sequence[CellRow]],
    large: Mapping[int, Sequence[CellRow]],
    targets: int = 3,
) -> list[tuple[float, Interval]]:
    """How many times the FLOPs of the small policy the large one needs, at equal accuracy.

    Both are one strategy at several numbers of samples, on the same problems. The accuracies are
    spread evenly over the range that both reach. Each interval is log2 of the ratio (above zero:
    the small one is cheaper), over resampled problems; in one where only one policy reaches the
    accuracy, the ratio is infinite in its favour. Empty where the ranges do not meet.
    """
    sides = [_by_cost(side) for side in on_shared(small, large)]
    both = paired([each for columns, _ in sides for each in columns])
    if not len(both) or any(len(logs) < 2 for _, logs in sides):
        return []
    cut = len(sides[0][0])
    boot = both.bootstrap()
    low = max(float(part[0, 0]) for part in (boot.centre[:, :cut], boot.centre[:, cut:]))
    high = min(float(part.max()) for part in (boot.centre[:, :cut], boot.centre[:, cut:]))
    if low >= high:
        return []

    def ratio(means: Floats, target: float) -> Floats:
        cheap = inverse(means[:, :cut], sides[0][1], target)
        with np.errstate(invalid="ignore"):  # where neither reaches it, nothing is said
            return inverse(means[:, cut:], sides[1][1], target) - cheap

    steps = [low + (high - low) * (i + 1) / (targets + 1) for i in range(targets)]
    return [(target, boot.interval(partial(ratio, target=target))) for target in steps]


def on_shared(
    *sides: Mapping[int, Sequence[CellRow]],
) -> list[dict[int, list[CellRow]]]:
    """The sides' rows on the problems that all their budgets were run on; budgets without rows go.

    ``sides`` have rows by number of samples. All are empty where one of them is.
    """
    known = [{n: rows for n, rows in side.items() if rows} for side in sides]
    if not all(known):
        return [{} for _ in sides]
    digests = set.intersection(
        *({row.digest for row in rows} for side in known for rows in side.values())
    )
    kept = [
        {n: [row for row in rows if row.digest in digests] for n, rows in side.items()}
        for side in known
    ]
    return kept if digests else [{} for _ in sides]


def _by_cost(rows: Mapping[int, Sequence[CellRow]]) -> tuple[list[Column], Floats]:
    """Columns by rising cost, averaged over policies, and their log2 FLOPs; unknown ones go."""
    costs = {
        n: per_problem(each, lambda row: row.flops)
        for n, each in rows.items()
        if all(row.flops > 0 for row in each)
    }
    order = sorted(costs, key=lambda n: (costs[n], n))
    return [over_policies(rows[n]) for n in order], np.log2([costs[n] for n in order])


def interior(columns: Sequence[Column]) -> list[tuple[str, Interval]]:
    """The best column between the ends against either end, chosen on other problems.

    Two folds: the best is chosen on every other problem and compared on the rest, and the other
    way round, so that luck in the choice is not counted. Empty for fewer than three columns.
    """
    found = paired(columns)
    if len(columns) < 3 or len(found) < 2:
        return []
    values = found.values
    gains = np.empty((len(values), 2))
    for chosen_on, tested_on in _folds(found.puzzles):
        best = 1 + int(np.argmax(values[chosen_on, 1:-1].mean(axis=0)))
        for end, at in enumerate((0, len(columns) - 1)):
            gains[tested_on, end] = values[tested_on, best] - values[tested_on, at]
    boot = found.bootstrap(gains)
    return [
        ("first", boot.interval(lambda means: means[:, 0])),
        ("last", boot.interval(lambda means: means[:, 1])),
    ]


def _folds(puzzles: NDArray[np.str_]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Two halves, each to choose on and to test on; equal puzzles are all in the half of the first.

    Levels often go round in fives or tens: halves of whole tens have every level in both.
    """
    n = len(puzzles)
    even, odd = held_out_halves((n + 9) // 10)
    block = np.arange(n) // 10
    one, other = np.flatnonzero(np.isin(block, even)), np.flatnonzero(np.isin(block, odd))
    if not len(other):
        one, other = held_out_halves(n)
    _, first, puzzle = np.unique(puzzles, return_index=True, return_inverse=True)
    in_one = np.isin(first[puzzle], one)
    one, other = np.flatnonzero(in_one), np.flatnonzero(~in_one)
    return [(one, other), (other, one)]
