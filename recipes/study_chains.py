"""The study's rules about chains of revisions: what each turn is worth, and how many to have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from study_rules import SESOI, Finding, Rows, Rule, cells, own, pooled

from mull.metrics import Interval, ratio_interval
from mull.report.cells import CellRow
from mull.report.compare import balanced, column, contrast
from mull.report.verdicts import (
    CONTRADICTED,
    DIRECTION,
    NOT_DETECTED,
    REPRODUCED,
    interior,
    p_value,
    verdict,
)

Floats = NDArray[np.float64]
CHAIN = "revise(verifier=prm)"
MIXED = "mixed(ratio={}, verifier=prm)"
RATIOS = ("0.0625", "0.25", "1", "4", "16")


def by_turn(first: int, last: int) -> Rule:
    """Accuracy of the attempts at two turns of the longest chains."""

    def gained(rows: Rows) -> Interval | None:
        chains = _longest(rows)
        return contrast([(1.0, column(chains, last)), (-1.0, column(chains, first))])

    return lambda families: pooled(f"turn {first} → {last}", own(families), gained)


def flips(families: Mapping[str, Rows]) -> list[Finding]:
    """Which share of right attempts is wrong at the next turn."""
    chains = _longest(own(families))
    if not chains:
        return []
    even = balanced([row.unit for row in chains])
    chains = [row for row in chains if row.unit in even]
    counts: dict[str, tuple[Floats, Floats]] = {}
    puzzles = {row.digest: row.puzzles for row in chains}
    for row in chains:  # the units of one set of problems are no problems of their own
        bits, nothing = row.by_turn, np.zeros(row.problems)
        lost, right = counts.get(row.digest, (nothing, nothing))
        lost = lost + (bits[:-1] * (1 - bits[1:])).sum(axis=0)
        counts[row.digest] = lost, right + bits[:-1].sum(axis=0)
    sides = [np.concatenate(side) for side in zip(*counts.values(), strict=True)]
    found = ratio_interval(*sides, clusters=np.concatenate([puzzles[digest] for digest in counts]))
    return [Finding("right → wrong", found.percent(), "(the paper: 38)")]


def never_last(families: Mapping[str, Rows]) -> list[Finding]:
    """The best of a chain against its last attempt."""
    chains = _longest(own(families))
    if not chains:
        return []
    turns = len(chains[0].turns)

    def above(rows: Rows) -> Interval | None:
        return contrast([(1.0, column(rows)), (-1.0, column(rows, turns))])

    return pooled(f"best of {turns} - last", chains, above)


def _longest(rows: Rows) -> list[CellRow]:
    chains = [row for row in rows if row.strategy == CHAIN and len(row.turns) > 1]
    longest = max((len(row.turns) for row in chains), default=0)
    return [row for row in chains if len(row.turns) == longest]


def interior_ratio(n: int) -> Rule:
    """A mixture of chains and samples beats both ends, chosen on other problems: one verdict."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        grid = [column(cells(own(families), MIXED.format(ratio), n)) for ratio in RATIOS]
        if not all(grid):
            return []
        ends = dict(interior(grid))
        if not ends:
            return []
        found = [verdict(gap, SESOI) for gap in ends.values()]
        weakest = max(found, key=(REPRODUCED, DIRECTION, NOT_DETECTED, CONTRADICTED).index)
        parallel, chain = (ends[end].percent() for end in ("first", "last"))
        shown = f"above all parallel {parallel}, above one chain {chain}"
        return [Finding(f"{n}", shown, weakest, max(map(p_value, ends.values())))]

    return rule
