"""The task contract: problems in; a prompt, an answer, an equality and a grade out.

A task knows text and answers; it knows no engine, no strategy and no budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mull.engines.adapt import Parts
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.types import Problem, Prompt, StopReason, Until


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


SAME = "same"
"""The key of the view that shows a problem as it is."""


@dataclass(frozen=True, slots=True)
class View:
    """A problem shown otherwise: turned, with other names, in another order.

    ``key`` says how (``same``: not at all), and whoever has it can make the view again; ``opening``
    is what the assistant's turn begins with before the model writes.
    """

    key: str
    prompt: Prompt
    opening: str = ""


@runtime_checkable
class ViewedTask(Task, Protocol):
    """A task that can show a problem in several ways, and bring answers back from them.

    ``closes`` says whether a solution's text shows where it ends (a closing mark or bracket). Where
    it does not, a text and its beginning are told apart by the end of the turn alone.
    """

    @property
    def closes(self) -> bool: ...

    def views(self, problem: Problem, count: int, seed: int = 0) -> Sequence[View]:
        """``count`` views; fewer of them are the first of more."""
        ...

    def extract_from(self, problem: Problem, view: View, text: str) -> Extraction:
        """The answer in a text written under a view (``opening`` included), as the problem itself
        has it."""
        ...

    def solution_in(self, problem: Problem, view: View, answer: str) -> str:
        """The text behind the view's ``opening`` that gives this answer there."""
        ...


@runtime_checkable
class EndingTask(Task, Protocol):
    """A task that may read an answer only from a text that its model has ended."""

    @property
    def needs_end(self) -> bool:
        """Whether a text that was cut has no answer, whatever can be read from it."""
        ...


@runtime_checkable
class FieldsTask(Task, Protocol):
    """A task whose answers may be JSON objects, each field of which is voted on by itself."""

    @property
    def per_field(self) -> bool:
        """Whether a plain vote over answers goes field by field; they must be JSON then."""
        ...


def settled(task: Task, read: Extraction, stop: StopReason) -> Extraction:
    """A reading in the light of why its text ended: without an answer, that may be the reason.

    A text that was not ended by the model or a stop string has none at all where the task needs an
    end: what stands there may be the beginning of another answer.
    """
    # Asked for cut texts alone: to look whether a task has what a protocol asks for is slow.
    cut = stop not in (StopReason.END, StopReason.STOP)
    if read.answer is not None and not (cut and isinstance(task, EndingTask) and task.needs_end):
        return read
    if stop is StopReason.FILTERED:
        return Extraction(None, Unanswered.FILTERED)
    if stop.truncated or read.answer is not None:
        return Extraction(None, Unanswered.TRUNCATED)
    return read


def graded(task: Task, problem: Problem, answer: str | None) -> Grade:
    """The grade of an answer by its task's equality with the gold answer."""
    if problem.answer is None:
        return Grade(GradeOutcome.UNGRADED)
    if answer is None:
        return Grade(GradeOutcome.UNANSWERED)
    right = task.same(problem, problem.answer, answer)
    return Grade(GradeOutcome.CORRECT if right else GradeOutcome.WRONG)


@runtime_checkable
class AdaptableTask(Task, Protocol):
    """A task whose problems hold something to learn from before they are answered."""

    def adaptation(self, problem: Problem, count: int, seed: int = 0) -> Sequence[Parts]:
        """Up to ``count`` training texts out of what the problem shows, never out of its gold.

        Fewer of them are the first of more; none where there is nothing to learn from.
        """
        ...
