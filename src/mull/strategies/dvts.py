"""Diverse verifier tree search: independent subtrees, each of which keeps its single best step.

Source: Beeching, Tunstall, Rush 2024, "Scaling test-time compute with open models" (DVTS).
"""

from __future__ import annotations

from dataclasses import dataclass

from mull.errors import SpecError
from mull.strategies.base import Search, Start
from mull.strategies.beam import BeamRule, beam_size
from mull.strategies.levels import LevelSearch, Select, check_level_options, level_needs
from mull.strategies.needs import Needs


@dataclass(frozen=True, slots=True)
class Dvts:
    """``trees`` subtrees, each a beam of width one with ``branch`` children a step.

    n = trees x branch is the budget's samples; ``branch`` is 4, or n where that is less. No subtree
    waits for another. With one tree it is the beam that keeps one. The other parameters are the
    beam's; paths are merged within a subtree only.
    """

    trees: int | None = None
    branch: int | None = None
    verifier: str = "prm"
    select: Select = "weighted"
    max_steps: int = 40
    merge: bool = True
    speculate: bool = True

    def __post_init__(self) -> None:
        for field in ("trees", "branch"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise SpecError(f"dvts({field}={value}): must be at least 1")
        check_level_options("dvts", self.select, self.max_steps)

    @property
    def needs(self) -> Needs:
        """A policy that continues a turn, and the verifier."""
        return level_needs(self.verifier)

    def start(self, start: Start) -> Search:
        samples = start.budget.samples if start.budget else None
        n, branch = beam_size("dvts", self.trees, self.branch, samples, keep_is="trees")
        whole, rest = divmod(n, branch)
        return LevelSearch(
            start,
            BeamRule(branch, branch),
            (branch,) * whole + (rest,) * bool(rest),
            self.verifier,
            select=self.select,
            max_steps=self.max_steps,
            merge=self.merge,
            speculate=self.speculate,
        )
