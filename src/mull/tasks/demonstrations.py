"""A generated task's own right solutions as training examples."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

from mull.rng import derive
from mull.tasks.base import GeneratedTask, ProcessTask
from mull.training.data import Example


class DemonstratedTask(GeneratedTask, ProcessTask, Protocol):
    """A task that makes problems and solves them."""


def demonstrations(task: DemonstratedTask, seed: int = 0) -> Iterator[Example]:
    """Problems of the ``train`` split with a right solution each, without end.

    Example ``i`` depends on the task, the seed and ``i`` only, so whoever asks for more gets the
    same ones first.  The order of steps varies from problem to problem.

    >>> from mull.tasks.words import WordsTask
    >>> next(demonstrations(WordsTask())).solution.startswith("- ")
    True
    """
    for index, problem in enumerate(task.problems("train", sys.maxsize, seed)):
        solution = task.reference(problem, derive(seed, "solution", index))
        yield Example(problem.prompt.plain, solution)
