"""The task contract: problems in; a prompt, an answer, an equality and a grade out.

A task knows text and answers; it knows no engine, no strategy and no budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from mull.types import Extraction, Grade, Problem, Until


@runtime_checkable
class Task(Protocol):
    """A family of problems.

    Answers are text in the task's canonical form everywhere outside a task; only ``same`` and
    ``grade`` know what they mean.
    """

    @property
    def name(self) -> str: ...

    @property
    def until(self) -> Until:
        """The task's default end of a solution: stop strings, step separator, token limit."""
        ...

    def problem(self, text: str, id: str = "0") -> Problem:
        """A user's own text as a problem of this task, rendered to a prompt, without a gold."""
        ...

    def extract(self, problem: Problem, text: str) -> Extraction:
        """Read the answer from a solution's text, or say why there is none."""
        ...

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Whether two answers mean the same; reflexive and symmetric. Groups votes."""
        ...

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Judge an answer against the gold answer; ``None`` grades as unanswered."""
        ...


@runtime_checkable
class GeneratedTask(Task, Protocol):
    """A task that makes its own problems, in disjoint seeded streams."""

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        """``count`` problems of split ``train``, ``validation`` or ``test``, lazily."""
        ...


@runtime_checkable
class FileTask(Task, Protocol):
    """A task that reads its problems from the user's file."""

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        ...


@runtime_checkable
class ProcessTask(Task, Protocol):
    """A task with an exact process checker."""

    def first_error(self, problem: Problem, text: str) -> int | None:
        """Index of the first wrong step, ``None`` if every step so far is right."""
        ...

    def reference(self, problem: Problem, seed: int = 0) -> str:
        """A right solution; different seeds may give different valid orders."""
        ...
