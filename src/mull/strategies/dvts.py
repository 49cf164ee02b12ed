"""Diverse verifier tree search: independent subtrees, each of which keeps its single best step.

Source: Beeching, Tunstall, Rush 2024, "Scaling test-time compute with open models" (DVTS).
"""

from __future__ import annotations

from dataclasses import dataclass

from mull.strategies.base import Search, Start
from mull.strategies.beam import BeamRule, beam_size
from mull.strategies.checks import check_positive
from mull.strategies.levels_options import LevelOptions


@dataclass(frozen=True, slots=True)
class Dvts(LevelOptions):
    """``trees`` subtrees, each a beam of width one with ``branch`` children a step.

    n = trees x branch is the budget's samples; ``branch`` is 4, or n where that is less. Where n is
    no multiple of it, the last subtree is as much narrower, at every step. No subtree waits for
    another. With one tree it is the beam that keeps one. The other options are those of
    ``LevelOptions``; paths are merged within a subtree only.
    """

    trees: int | None = None
    branch: int | None = None

    def _check(self) -> None:
        check_positive(self.name, trees=self.trees, branch=self.branch)

    def start(self, start: Start) -> Search:
        samples = start.budget.samples if start.budget else None
        n, branch = beam_size(self.name, self.trees, self.branch, samples, keep_is="trees")
        whole, rest = divmod(n, branch)
        sizes = (branch,) * whole + (rest,) * bool(rest)
        return self._search(start, *(BeamRule(size, size) for size in sizes))
