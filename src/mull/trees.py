"""What is told of the tree that a search grew. No imports of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What became of a node of a search tree. Closed."""

    KEPT = "kept"
    """It was extended."""
    PRUNED = "pruned"
    """It was dropped in favour of others, or the search ended before its turn."""
    FINISHED = "finished"
    """It ended a solution: a candidate."""
    FAILED = "failed"
    """It did not come, or could not be scored."""


@dataclass(frozen=True, slots=True)
class TreeNode:
    """One node of the tree that a search grew, as it is recorded and drawn: a step, or an attempt.

    ``key`` is the branch's key (its parent's key and the child index; between an attempt and its
    revision a -1, for which a node stands only where a criticism parts them); ``text`` is this step
    alone; ``score`` the verifier's, ``None`` where none was asked; ``visits`` counts simulations
    through it (tree searches), or how many equal siblings it stands for.
    """

    key: tuple[int, ...]
    text: str
    score: float | None
    fate: Fate
    visits: int = 1
