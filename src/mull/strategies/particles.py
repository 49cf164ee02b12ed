"""Particle filtering: paths are weighted by their scores and resampled when few carry the weight.

Source: Puri et al. 2025 (arXiv 2502.01618), with the weights of sequential Monte Carlo done right:
a path's weight is multiplied by what its score gained in the last step, so that after any number of
steps it stands for the policy's probability times the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mull.errors import SpecError
from mull.rng import derive
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_positive
from mull.strategies.levels import level_width
from mull.strategies.levels_options import LevelOptions
from mull.strategies.levels_rule import Entry, Level, Shares, softmax

Mode = Literal["incremental", "product", "odds"]
EDGE = 1e-6
"""Scores are kept this far from 0 and 1, so that their logarithms are finite."""


@dataclass(frozen=True, slots=True)
class ParticleRule:
    """Resampling counts of ``n`` particles; finished ones stay among them.

    ``mode`` of the weights: ``incremental`` log r - log of the score before; ``product`` log r of
    every step; ``odds`` r / (1 - r) of the last score alone, resampled at every step (the released
    code). Resampling is systematic, when the effective sample size falls below ``threshold`` of the
    particles. A reference particle always keeps one child of its own.

    >>> flat = Level(1, (Entry(0.3), Entry(0.3), Entry(0.3)))
    >>> ParticleRule(3).allocate(flat).children
    (1, 1, 1)
    """

    n: int
    mode: Mode = "incremental"
    threshold: float = 0.5
    seed: int = 0

    @property
    def unit(self) -> int:
        return 1

    def allocate(self, level: Level) -> Shares:
        entries = level.entries
        none = (0,) * len(entries)
        if not entries:
            return Shares((), ())
        weights = [self._weight(entry) for entry in entries]
        shares = softmax(weights, 1.0)
        if self.mode != "odds" and effective(shares) >= self.threshold * len(entries):
            return Shares((1,) * len(entries), none, tuple(weights))
        drawn = derive(self.seed, level.problem, level.round, level.depth, "resample")
        kept = [int(entry.reference) for entry in entries]
        # n again, however many failed to come; the reference's own child is one of them.
        counts = systematic(shares, self.n - sum(kept), drawn / 2**63)
        return Shares(tuple(a + b for a, b in zip(counts, kept, strict=True)), none)

    def _weight(self, entry: Entry) -> float:
        """The log-weight of a particle now."""
        score = _clip(entry.score)
        if self.mode == "odds":
            return math.log(score) - math.log1p(-score)
        if entry.stays:
            return entry.weight
        if self.mode == "product":
            return entry.weight + math.log(score)
        return entry.weight + math.log(score) - math.log(_clip(entry.before))


def effective(shares: Sequence[float]) -> float:
    """Effective sample size of weights that sum to 1: 1 / sum of squares.

    >>> effective([0.5, 0.5, 0.0])
    2.0
    """
    return 1 / math.fsum(share * share for share in shares)


def systematic(shares: Sequence[float], total: int, draw: float) -> list[int]:
    """Counts by systematic resampling: the points (draw + i) / total on the shares' line.

    ``draw`` lies in 0..1. A count differs from share x total by less than 1; equal shares of as
    many as ``total`` get one each.

    >>> systematic([0.5, 0.25, 0.25], 4, 0.3)
    [2, 1, 1]
    """
    draw = min(max(draw, 1e-6), 1 - 1e-6)  # rounding must not carry a point over an edge
    ends = [
        math.ceil(total * math.fsum(shares[: i + 1]) - draw) for i in range(len(shares) - 1)
    ] + [total]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Particles(LevelOptions):
    """Particle filter of n particles; with ``iterations`` above 1, particle Gibbs.

    n x iterations are the budget's samples (n is 16 where nothing is given). Each iteration after
    the first keeps one particle of the one before, drawn by weight, and grows n - 1 others around
    it, so it draws a sample less than the first; all iterations vote. ``seed`` moves the draws of
    resampling and of what is kept. Scores must lie in 0..1: another is a ``ScoreError``; in the
    weights they are kept 1e-6 from the ends. The other options are those of ``LevelOptions``.
    """

    n: int | None = None
    mode: Mode = "incremental"
    threshold: float = 0.5
    iterations: int = 1
    seed: int = 0

    def _check(self) -> None:
        if self.mode not in ("incremental", "product", "odds"):
            raise SpecError(f"particles(mode={self.mode!r}): incremental, product or odds")
        if not 0 <= self.threshold <= 1:
            raise SpecError(f"particles(threshold={self.threshold}): must lie in 0..1")
        check_positive(self.name, iterations=self.iterations)

    def start(self, start: Start) -> Search:
        n = level_width(self.name, self.n, start.budget, self.iterations)
        rule = ParticleRule(n, self.mode, self.threshold, self.seed)
        return self._search(start, rule, rounds=self.iterations, seed=self.seed, bounded=True)


def _clip(score: float) -> float:
    return min(max(score, EDGE), 1 - EDGE)
