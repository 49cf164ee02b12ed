"""REBASE: the next children are divided in proportion to the softmax of the scores.

Source: Wu et al. 2024 (arXiv 2408.00724), section 3.1.2. Rounding in the paper may lose or gain
children; here the sum is exact at every depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mull.errors import SpecError
from mull.strategies.base import Search, Start
from mull.strategies.levels import level_width
from mull.strategies.levels_options import LevelOptions
from mull.strategies.levels_rule import Level, Shares, softmax

Rounding = Literal["remainder", "ceil"]


@dataclass(frozen=True, slots=True)
class RebaseRule:
    """What is left of ``n`` after the paths that ended, divided by softmax(score / balance).

    ``rounding`` by the largest ``remainder``, or by ``ceil`` in falling order of the scores with
    what is then left (the released code, which favours the best).

    >>> from mull.strategies.levels_rule import Entry
    >>> level = Level(1, (Entry(0.5), Entry(0.9, finished=True), Entry(0.5), Entry(0.2)))
    >>> RebaseRule(4).allocate(level).children
    (2, 0, 1, 0)
    """

    n: int
    balance: float = 0.1
    rounding: Rounding = "remainder"

    @property
    def unit(self) -> int:
        return 1

    def allocate(self, level: Level) -> Shares:
        entries = level.entries
        votes = tuple(int(entry.finished) for entry in entries)
        left = max(0, self.n - level.banked - sum(votes))
        active = [i for i, entry in enumerate(entries) if not entry.finished]
        children = [0] * len(entries)
        if active and left:
            shares = softmax([entries[i].score for i in active], self.balance)
            divide = _by_ceil if self.rounding == "ceil" else by_remainder
            for i, count in zip(active, divide(shares, left), strict=True):
                children[i] = count
        return Shares(tuple(children), votes)


def by_remainder(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum to ``total``, by largest remainder; ties to the earlier.

    >>> by_remainder([0.5, 0.25, 0.25], 3)
    [1, 1, 1]
    """
    exact = [share * total for share in shares]
    # A share that is whole but for its last bits must not lose its remainder to them.
    counts = [math.floor(value + 1e-9) for value in exact]
    rest = sorted(range(len(exact)), key=lambda i: (round(counts[i] - exact[i], 9), i))
    for i in rest[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _by_ceil(shares: Sequence[float], total: int) -> list[int]:
    counts = [0] * len(shares)
    mass = 1.0
    for i in sorted(range(len(shares)), key=lambda i: -shares[i]):
        if total <= 0:
            break
        counts[i] = min(total, math.ceil(total * shares[i] / mass - 1e-9)) if mass > 0 else total
        total -= counts[i]
        mass -= shares[i]
    return counts


@dataclass(frozen=True, slots=True)
class Rebase(LevelOptions):
    """Reward-balanced search: n paths, ``balance`` is the paper's temperature T_b.

    n is the budget's samples (16 where nothing is given). A large ``balance`` is plain sampling, a
    small one extends the best path alone. A node's children are asked for one by one, so that each
    can be guessed: on an engine without a prefix cache each pays its prompt. The other options are
    those of ``LevelOptions``.
    """

    n: int | None = None
    balance: float = 0.1
    rounding: Rounding = "remainder"

    def _check(self) -> None:
        if not 0 < self.balance < math.inf:
            raise SpecError(f"rebase(balance={self.balance}): must be a positive finite number")
        if self.rounding not in ("remainder", "ceil"):
            raise SpecError(f"rebase(rounding={self.rounding!r}): remainder or ceil")

    def start(self, start: Start) -> Search:
        n = level_width(self.name, self.n, start.budget)
        return self._search(start, RebaseRule(n, self.balance, self.rounding))
