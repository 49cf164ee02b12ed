"""Selection by a judge, as state machines: which candidate is right, or which of two is better.

They ask for verdicts and are told them, in any order: a verdict takes effect when its whole round
is in, so the outcome does not depend on timing. Nothing here knows a model; whoever drives them
draws a fresh view of the problem for every question, from its ``number``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mull.rng import derive

Z: Final = 1.6448536269514722
"""One-sided 95 % of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Verify:
    """Is candidate ``candidate`` right? Its ``number`` counts the questions about it from 0."""

    candidate: int
    number: int


class VerifyRanking:
    """Ranks candidates by the share of verdicts that call them right, and stops early.

    Each candidate is verified ``batch`` times a round. From ``least`` verdicts on, one that is
    significantly below the ``top``-th best is asked about no more; the others go on to ``most``.
    Significant: the rates differ by more than ``z`` standard deviations of their difference,
    binomial, with a pseudo-count where a rate is 0 or 1. Ties keep the order of the candidates.
    """

    def __init__(
        self,
        candidates: int,
        batch: int = 4,
        least: int = 8,
        most: int = 128,
        top: int = 2,
        z: float = Z,
    ) -> None:
        if candidates < 0 or not 1 <= batch <= most or not 1 <= least <= most or top < 1 or z < 0:
            raise ValueError(
                "expected candidates >= 0, 1 <= batch <= most, 1 <= least <= most, top >= 1 and "
                f"z >= 0, not {candidates}, {batch}, {most}, {least}, {top}, {z}"
            )
        self._batch, self._least, self._most, self._top, self._z = batch, least, most, top, z
        self._asked = [0] * candidates
        self._yes = [0] * candidates
        self._read = [0] * candidates
        self._live = list(range(candidates)) if candidates > 1 else []  # one has no rival
        self._waiting: dict[Verify, bool | None] = {}
        self._open: set[Verify] = set()
        self._fresh: list[Verify] = []
        self._next_round()

    def ask(self) -> list[Verify]:
        """The questions of this round that were not asked before; none at the end."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def tell(self, question: Verify, right: bool | None) -> None:
        """The verdict on a question; ``None`` where it could not be read, which counts as none."""
        if question not in self._open:
            raise ValueError(f"{question} was not asked, or was answered before")
        self._open.discard(question)
        self._waiting[question] = right
        if not self._open:
            for each, verdict in self._waiting.items():
                self._read[each.candidate] += verdict is not None
                self._yes[each.candidate] += verdict is True
            self._waiting = {}
            self._next_round()

    def rate(self, candidate: int) -> float:
        """The share of readable verdicts that say right; 0 without one."""
        return self._yes[candidate] / self._read[candidate] if self._read[candidate] else 0.0

    def ranking(self) -> tuple[int, ...]:
        """Candidates by rate, best first; valid at any moment."""
        return tuple(sorted(range(len(self._yes)), key=lambda each: -self.rate(each)))

    def _next_round(self) -> None:
        self._live = [i for i in self._live if self._asked[i] < self._most and self._hopeful(i)]
        for i in self._live:
            count = min(self._batch, self._most - self._asked[i])
            self._fresh += [Verify(i, self._asked[i] + k) for k in range(count)]
            self._asked[i] += count
        self._open = set(self._fresh)

    def _hopeful(self, candidate: int) -> bool:
        if self._asked[candidate] < self._least or len(self._yes) <= self._top:
            return True
        bar = self.ranking()[self._top - 1]
        spread = math.hypot(self._deviation(candidate), self._deviation(bar))
        return self.rate(bar) - self.rate(candidate) <= self._z * spread

    def _deviation(self, candidate: int) -> float:
        n, rate = self._read[candidate], self.rate(candidate)
        if not n:
            return 1.0
        if rate in (0.0, 1.0):  # one pseudo-verdict each way, or it would look certain
            rate = (self._yes[candidate] + 1) / (n + 2)
        return math.sqrt(rate * (1 - rate) / n)


@dataclass(frozen=True, slots=True)
class Match:
    """Which is better: ``first`` or ``second``, shown in this order? ``number`` counts matches."""

    first: int
    second: int
    number: int


class PairwiseSelection:
    """Successive halving by matches of two: the better half of each round plays on.

    Each candidate plays ``matches`` matches a round (in an odd field one sits out now and then);
    the better ceil(n/2) by Bradley–Terry strength over all matches so far go on, two at least, for
    1 + ceil(log2 n) rounds; the last round has an odd number of matches, so that it cannot end in
    a draw. Ties keep the order that stood before the round, at first the candidates' (the vote's).
    """

    def __init__(self, candidates: int, matches: int = 8, seed: int = 0) -> None:
        if candidates < 0 or matches < 1:
            raise ValueError(
                f"expected candidates >= 0 and matches >= 1, not {candidates}, {matches}"
            )
        self._count, self._matches, self._seed = candidates, matches, seed
        self._wins = [[0] * candidates for _ in range(candidates)]
        self._live = list(range(candidates))
        self._out: list[int] = []
        self._round, self._number = 0, 0
        self._rounds = 1 + math.ceil(math.log2(candidates)) if candidates > 1 else 0
        self._waiting: dict[Match, int | None] = {}
        self._open: set[Match] = set()
        self._fresh: list[Match] = []
        self._next_round()

    def ask(self) -> list[Match]:
        """The matches of this round that were not asked for before; none at the end."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def tell(self, match: Match, winner: int | None) -> None:
        """The winner of a match (``match.first`` or ``match.second``), ``None`` if unreadable."""
        if match not in self._open:
            raise ValueError(f"{match} was not asked for, or was answered before")
        if winner not in (match.first, match.second, None):
            raise ValueError(f"the winner of {match} is one of the two or None, not {winner}")
        self._open.discard(match)
        self._waiting[match] = winner
        if self._open:
            return
        for each, better in self._waiting.items():
            if better is not None:
                self._wins[better][each.first + each.second - better] += 1
        self._waiting = {}
        strength = self.strengths()
        order = sorted(self._live, key=lambda i: -strength[i])
        keep = max(2, math.ceil(len(order) / 2))
        self._out = [*order[keep:], *self._out]
        self._live = order[:keep]
        self._round += 1
        self._next_round()

    def strengths(self) -> list[float]:
        """Bradley–Terry strengths of all candidates from the matches so far."""
        return bradley_terry(self._wins)

    def ranking(self) -> tuple[int, ...]:
        """Candidates, best first: who played longest, then by strength; valid at any moment."""
        strength = self.strengths()
        return (*sorted(self._live, key=lambda i: -strength[i]), *self._out)

    def _next_round(self) -> None:
        if self._round >= self._rounds:
            return
        rng = random.Random(derive(self._seed, "round", self._round))
        rounds, last = self._matches, self._round == self._rounds - 1
        if len(self._live) % 2:
            # One sits out each time: more times, so that everyone plays ``matches`` in the mean.
            rounds = math.ceil(rounds * len(self._live) / (len(self._live) - 1))
        elif last and rounds % 2 == 0:
            rounds += 1
        for turn in range(rounds):
            field = sorted(self._live)
            rng.shuffle(field)
            for a, b in zip(field[::2], field[1::2], strict=False):
                # Who is shown first changes by turns: judges favour a place.
                low, high = min(a, b), max(a, b)
                first, second = (low, high) if (turn + low + high) % 2 else (high, low)
                self._fresh.append(Match(first, second, self._number))
                self._number += 1
        self._open = set(self._fresh)


def bradley_terry(
    wins: Sequence[Sequence[float]],
    pseudo: float = 1e-5,
    tolerance: float = 1e-3,
    rounds: int = 1000,
) -> list[float]:
    """Strengths such that i beats j with probability s_i / (s_i + s_j); geometric mean 1.

    ``wins[i][j]`` counts how often i beat j; ``pseudo`` is added to every pair, both ways, so that
    strengths exist for who never won or never played. The most likely strengths (Bradley and Terry
    1952), by Newton steps on their logarithms until none changes by more than ``tolerance``: the
    usual fixed-point iteration crawls where a judge is always sure.

    >>> [round(s, 2) for s in bradley_terry([[0, 3], [1, 0]])]
    [1.73, 0.58]
    """
    n = len(wins)
    if any(len(row) != n for row in wins):
        raise ValueError("wins must be a square matrix [candidates, candidates]")
    won = np.array(wins, dtype=np.float64).reshape(n, n) + pseudo
    np.fill_diagonal(won, 0.0)
    games, logs = won + won.T, np.zeros(n)
    for _ in range(rounds if n > 1 else 0):
        chance = 1 / (1 + np.exp(logs[None, :] - logs[:, None]))
        slope = (won - games * chance).sum(axis=1)
        curve = games * chance * chance.T
        # A common shift changes nothing: adding a constant matrix makes the system solvable.
        matrix = np.diag(curve.sum(axis=1)) - curve + curve.sum() / n**2
        step = np.linalg.solve(matrix, slope)
        step /= max(1.0, float(np.abs(step).max()))
        logs += step - step.mean()
        if float(np.abs(step).max()) <= tolerance:
            break
    return [float(each) for each in np.exp(logs)]
