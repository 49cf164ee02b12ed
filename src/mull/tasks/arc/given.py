"""The task with puzzles that were read already: one that cannot be read does not stop the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.task import ArcTask
from mull.types import Problem


@dataclass(frozen=True, slots=True)
class Given(ArcTask):
    """Asks the test pairs of ``puzzles``, as the task that it was made of writes and reads them."""

    puzzles: tuple[Puzzle, ...] = ()

    @classmethod
    def of(cls, task: ArcTask, puzzles: Iterable[Puzzle]) -> Self:
        """A task with its options, and puzzles in place of a file."""
        return cls(**settings(task), puzzles=tuple(puzzles))

    def load(self, path: str) -> Iterator[Problem]:
        """Every test pair of the puzzles, whatever the path."""
        for puzzle in self.puzzles:
            yield from self.problems_of(puzzle)


def settings(task: ArcTask) -> dict[str, Any]:
    """The task's options by name.

    >>> settings(ArcTask(geometry=False))["geometry"]
    False
    """
    return {each.name: getattr(task, each.name) for each in fields(ArcTask)}
