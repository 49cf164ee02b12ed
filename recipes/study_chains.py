"""The study's rules about chains of revisions: what each turn is worth, and how many to have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from study_rules import Finding, Rows, Rule, cells, own, points

from mull.metrics import ratio_interval
from mull.report.cells import CellRow
from mull.report.compare import column, contrast
from mull.report.verdicts import interior

Floats = NDArray[np.float64]
CHAIN = "revise(verifier=prm)"
MIXED = "mixed(ratio={}, verifier=prm)"
RATIOS = ("0.0625", "0.25", "1", "4", "16")


def by_turn(first: int, last: int) -> Rule:
    """Accuracy of the attempts at two turns of the longest chains."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        chains = _longest(own(families))
        late, early = column(chains, last), column(chains, first)
        return points(f"turn {first} → {last}", contrast([(1.0, late), (-1.0, early)]))

    return rule


def flips(families: Mapping[str, Rows]) -> list[Finding]:
    """Which share of right attempts is wrong at the next turn."""
    chains = [row for row in _longest(own(families)) if len(row.turns) > 1]
    if not chains:
        return []
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
    found = contrast([(1.0, column(chains)), (-1.0, column(chains, turns))])
    return points(f"best of {turns} - last", found)


def _longest(rows: Rows) -> list[CellRow]:
    chains = [row for row in rows if row.strategy == CHAIN and len(row.turns) > 1]
    longest = max((len(row.turns) for row in chains), default=0)
    return [row for row in chains if len(row.turns) == longest]


def interior_ratio(n: int) -> Rule:
    """A mixture of chains and samples beats both ends, chosen on other problems."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        grid = [column(cells(own(families), MIXED.format(ratio), n)) for ratio in RATIOS]
        if not all(grid):
            return []
        ends = {"first": f"{n}: inside - all parallel", "last": f"{n}: inside - one chain"}
        return [f for name, found in interior(grid) for f in points(ends[name], found, 0.0)]

    return rule
