"""Rows of cells side by side: paired by problem, at equal samples or equal FLOPs, bin by bin.

Everything is paired within a *unit*, one policy, seed and set of problems, and only rows that the
same weights wrote and scored are set side by side. The problem is what is resampled: the units of
one set of problems are averaged first, and problems that are the same puzzle are drawn together.
Policies count alike: of sets that not all of them were run on, nothing is said in common.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mull.metrics import Bootstrap, Interval, by_level
from mull.report.cells import CellRow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.str_]
Unit = tuple[str, int, str]
BINS = 5
RATES = ("checker", "simulated")
"""Kinds of verifiers whose revision is what they were set to, not the weights they have."""


@dataclass(frozen=True)
class Measured:
    """One number a problem in one unit, the problems' bins and puzzles, the models behind it."""

    values: Floats
    bins: Ints
    puzzles: Labels
    models: tuple[Mapping[str, str], ...]


Column = Mapping[Unit, Measured]


def column(rows: Sequence[CellRow], turn: int | None = None) -> Column:
    """Right or wrong on each problem of each unit; with ``turn`` (1 …) at that turn of the chain.

    Rows that have no such turn are left out. ``ValueError`` for two rows of one unit.
    """
    found: dict[Unit, Measured] = {}
    for row in rows:
        if row.unit in found:
            raise ValueError(f"two rows of {row.unit}: give one strategy at one number of samples")
        if turn is None or turn <= len(row.turns):
            values = row.correct if turn is None else row.by_turn[turn - 1]
            found[row.unit] = Measured(values, fifths(row.levels), row.puzzles, (row.models,))
    return found


def at_flops(rows: Sequence[CellRow], anchors: Sequence[CellRow]) -> Column:
    """A strategy's chance of being right on each problem at the FLOPs of the anchors.

    Between two measured budgets the chance is interpolated in the logarithm of the FLOPs; outside
    the measured range nothing is said. Rows of other weights than the anchor's are left out.
    """
    found: dict[Unit, Measured] = {}
    for anchor in anchors:
        own = [r for r in rows if r.unit == anchor.unit and agree(r.models, anchor.models)]
        ordered = sorted(own, key=lambda row: (row.flops, row.n))
        exact = [(row, row) for row in ordered if row.flops == anchor.flops]
        around = [
            (low, high)
            for low, high in pairwise(ordered)
            if 0 < low.flops < anchor.flops < high.flops and agree(low.models, high.models)
        ]
        for low, high in (exact or around)[:1]:
            wide = math.log(high.flops / low.flops) if high.flops > low.flops else 1.0
            share = math.log(anchor.flops / low.flops) / wide if anchor.flops > low.flops else 0.0
            values = (1 - share) * low.correct + share * high.correct
            models = low.models, high.models
            found[anchor.unit] = Measured(values, fifths(low.levels), low.puzzles, models)
    return found


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two cells had the same weights wherever both used the same name or model.

    A verifier read in another way (by its last step, by its least) has the same weights. Cells that
    do not say who took part agree with each other alone.

    >>> agree({"prm": "torch:p@a1/last"}, {"low": "torch:p@a1/min", "policy": "torch:s@c3"})
    True
    >>> agree({"prm": "torch:p@a1/last"}, {"low": "torch:p@b2/min"})
    False
    """
    if not one or not other:
        return not one and not other
    if any(other.get(name, who) != who for name, who in one.items()):
        return False
    mine, yours = _weights(one), _weights(other)
    return all(yours.get(model, weights) == weights for model, weights in mine.items())


def _weights(models: Mapping[str, str]) -> dict[str, str]:
    """Revisions of the weights by model; what only has settings is left out."""
    found: dict[str, str] = {}
    for who in models.values():
        model, _, revision = who.rpartition("@")
        if model.partition(":")[0] not in RATES:
            found[model] = revision.partition("/")[0]
    return found


def agreeing(rows: Sequence[CellRow]) -> tuple[list[CellRow], list[CellRow]]:
    """The rows that may stand in one table, and those left out: most rows of each policy stay.

    Of equally many those whose models come last by name.
    """
    groups: dict[str, list[list[CellRow]]] = {}
    for row in sorted(rows, key=lambda row: (-len(row.models), sorted(row.models.items()))):
        known = groups.setdefault(row.policy, [])
        fits = [g for g in known if all(agree(row.models, other.models) for other in g)]
        for group in fits or known[len(known) :]:
            group.append(row)
        if not fits:
            known.append([row])
    kept = {
        id(row)
        for known in groups.values()
        for row in max(known, key=lambda g: (len(g), sorted(g[0].models.items())))
    }
    return [r for r in rows if id(r) in kept], [r for r in rows if id(r) not in kept]


def fifths(levels: str) -> Ints:
    """Bin 0 … 4 of each problem by its level, easiest first; -1 without a level.

    ``levels`` are the levels of a row, with commas between. Each level stands where its middle
    lies, so that of three levels or more the easiest are in the first fifth, the hardest in the
    last.

    >>> fifths("1,2,3,4,5,6,7,8,9,10,None").tolist()
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, -1]
    >>> fifths("1,2,3,4").tolist()
    [0, 1, 3, 4]
    """
    read = [None if x == "None" else int(x) if x.isdigit() else x for x in levels.split(",")]
    names, at = by_level(read)
    return np.where(at < 0, -1, (2 * at + 1) * BINS // max(1, 2 * len(names))).astype(np.int64)


def balanced(units: Collection[Unit]) -> set[Unit]:
    """The units of the sets of problems that the most policies share, so that all count alike.

    >>> sorted(balanced([("s", 0, "a"), ("s", 0, "b"), ("s-seed1", 0, "a")]))
    [('s', 0, 'a'), ('s-seed1', 0, 'a')]
    """
    policies: dict[str, set[str]] = {}
    for policy, _, digest in units:
        policies.setdefault(digest, set()).add(policy)
    groups = Counter(frozenset(each) for each in policies.values())
    most = max(groups, key=lambda g: (len(g), groups[g], sorted(g)), default=frozenset[str]())
    return {unit for unit in units if policies[unit[2]] == most}


@dataclass(frozen=True)
class Paired:
    """Columns on shared problems, [problems, columns], and which puzzle each problem is."""

    values: Floats
    puzzles: Labels

    def __len__(self) -> int:
        return len(self.values)

    def bootstrap(self, values: Floats | None = None) -> Bootstrap:
        """Resamples of the columns, or of other ``values`` on the same problems."""
        return Bootstrap(self.values if values is None else values, clusters=self.puzzles)


def paired(columns: Sequence[Column], bins: Collection[int] | None = None) -> Paired:
    """The columns on the problems of the ``balanced`` units that all have.

    Units in which the columns' models do not agree are left out. Units of the same problems are
    averaged. ``bins`` keeps the problems of some bins.
    """
    blocks: dict[str, list[Floats]] = {}
    kept: dict[str, NDArray[np.bool_]] = {}
    puzzles: dict[str, Labels] = {}
    shared = set.intersection(*(set(each) for each in columns)) if columns else set[Unit]()
    for unit in sorted(balanced([each for each in shared if _agree_in(each, columns)])):
        cells = [each[unit] for each in columns]
        blocks.setdefault(unit[2], []).append(np.column_stack([c.values for c in cells]))
        kept[unit[2]] = np.isin(cells[0].bins, sorted(bins or range(-1, BINS)))
        puzzles[unit[2]] = cells[0].puzzles
    if not blocks:
        return Paired(np.empty((0, len(columns))), np.empty(0, dtype=np.str_))
    digests = sorted(blocks)
    return Paired(
        np.concatenate([np.mean(blocks[digest], axis=0)[kept[digest]] for digest in digests]),
        np.concatenate([puzzles[digest][kept[digest]] for digest in digests]),
    )


def _agree_in(unit: Unit, columns: Sequence[Column]) -> bool:
    models = [each for column in columns for each in column[unit].models]
    return all(agree(a, b) for a, b in combinations(models, 2))


def contrast(
    terms: Sequence[tuple[float, Column]], bins: Collection[int] | None = None
) -> Interval | None:
    """The weighted sum of columns, paired by problem; ``None`` where no unit has them all."""
    found = paired([each for _, each in terms], bins)
    if not len(found):
        return None
    weights = np.array([weight for weight, _ in terms])
    sides = [found.values @ side.clip(min=0.0) for side in (weights, -weights)]
    return found.bootstrap(np.column_stack(sides)).difference(0, 1)


def difference(
    a: Sequence[CellRow], b: Sequence[CellRow], bins: Collection[int] | None = None
) -> Interval | None:
    """a - b, each a strategy at one number of samples, on the units that both have."""
    return contrast([(1.0, column(a)), (-1.0, column(b))], bins)


def over_policies(rows: Sequence[CellRow]) -> Column:
    """Right or wrong on each problem, averaged over the ``balanced`` units of a set of problems.

    For comparing policies with each other: nobody's weights need agree.
    """
    blocks: dict[str, list[Measured]] = {}
    known = column(rows)
    for unit in sorted(balanced(known)):
        blocks.setdefault(unit[2], []).append(known[unit])
    return {
        ("", 0, digest): replace(
            units[0], values=np.mean([unit.values for unit in units], axis=0), models=()
        )
        for digest, units in blocks.items()
    }


def per_problem(rows: Sequence[CellRow], number: Callable[[CellRow], float]) -> float:
    """A number of the ``balanced`` rows as a mean a problem; the units of a set averaged first.

    ``ValueError`` (``StatisticsError``) without rows.
    """
    units: dict[str, list[CellRow]] = {}
    even = balanced([row.unit for row in rows])
    for row in rows:
        if row.unit in even:
            units.setdefault(row.digest, []).append(row)
    means = [fmean(number(row) for row in found) for found in units.values()]
    return fmean(means, weights=[found[0].problems for found in units.values()])


def accuracy(rows: Sequence[CellRow], bins: Collection[int] | None = None) -> Interval:
    """Accuracy of a strategy at one number of samples over the problems of all its units."""
    return paired([column(rows)], bins).bootstrap().mean()


def slope(columns: Mapping[int, Column], bins: Collection[int] | None = None) -> Interval | None:
    """Change of accuracy with each doubling: least squares over log2 of the columns' keys.

    ``None`` for fewer than two columns, or where no unit has them all.
    """
    if len(columns) < 2:
        return None
    x = np.log2(np.array(sorted(columns), dtype=np.float64))
    x -= x.mean()
    weights = x / float(x @ x)
    terms = [(float(w), columns[n]) for w, n in zip(weights, sorted(columns), strict=True)]
    return contrast(terms, bins)
