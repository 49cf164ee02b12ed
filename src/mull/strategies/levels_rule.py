"""What a level search is told by its rule: how many children every node of a level gets.

One template serves step beam, lookahead, DVTS, REBASE and particles (the resource-allocation view
of Wang et al. 2025, DORA): extend every branch by a step, score it, let a rule divide the next
children. A rule is a pure function of the level, so the same rule also answers "what if the missing
scores were these?", which is all that speculation needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

LOWEST = -math.inf
"""The score of a node that could not be scored: behind all others."""


class Entry(NamedTuple):
    """One path of a level.

    ``score`` is the verifier's (``LOWEST`` where there is none), ``before`` that of its parent (1
    for the root); ``weight`` is the log-weight that the rule gave its parent, 0 at the start.
    ``finished`` paths have nothing to extend; ``stays`` marks those that finished at an earlier
    depth and are still in the race; ``reference`` the path that must survive (particle Gibbs).
    """

    score: float
    finished: bool = False
    before: float = 1.0
    weight: float = 0.0
    stays: bool = False
    reference: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """All paths of one depth in key order, duplicates included.

    ``depth`` counts the steps of its paths, ``banked`` the votes that are final already;
    ``problem`` is the problem's id, for rules that draw; ``round`` counts repeats of the search.
    """

    depth: int
    entries: tuple[Entry, ...]
    banked: int = 0
    problem: str = ""
    round: int = 0


@dataclass(frozen=True, slots=True)
class Shares:
    """What each path of a level gets.

    ``children`` is the number of children of an unfinished path; of a finished one, how many copies
    stay in the race. ``votes`` are final votes, of finished paths alone. ``weights`` are the
    log-weights that children and copies carry (none: 0).
    """

    children: tuple[int, ...]
    votes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def weight(self, position: int) -> float:
        """The log-weight that the children of one path carry."""
        return self.weights[position] if self.weights else 0.0


class Rule(Protocol):
    """Divides the children of the next level. Pure: equal levels give equal shares."""

    @property
    def n(self) -> int:
        """Paths side by side: the first children, and the most that any level gets."""
        ...

    @property
    def unit(self) -> int:
        """Children are asked for in requests of this size; every count is a multiple of it."""
        ...

    def allocate(self, level: Level) -> Shares:
        """The shares of a level."""
        ...


def requests(children: int, unit: int) -> Iterator[tuple[int, int]]:
    """(first, count) of the requests that ask for so many children of a node.

    The cut depends on nothing but the count, so that a guess of the first request is the very
    request that is wanted later, whatever else is.

    >>> list(requests(6, 4))
    [(0, 4), (4, 2)]
    """
    for first in range(0, children, unit):
        yield first, min(unit, children - first)


def ranked(entries: Sequence[Entry]) -> list[int]:
    """Positions by falling score; the earlier path first among equals."""
    return sorted(range(len(entries)), key=lambda i: -entries[i].score)


def softmax(scores: Sequence[float], temperature: float) -> list[float]:
    """Shares that sum to 1; a score of ``LOWEST`` gets 0, unless all have it.

    >>> softmax([1.0, 1.0, LOWEST], 0.1)
    [0.5, 0.5, 0.0]
    """
    top = max(scores, default=LOWEST)
    if top == LOWEST:
        return [1 / len(scores)] * len(scores)
    weights = [math.exp((score - top) / temperature) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
