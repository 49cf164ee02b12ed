"""What was read of a text, and the verdict on it. No imports of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Unanswered(StrEnum):
    """Why a text has no answer. Closed, counted, shown."""

    EMPTY = "empty"
    """No text at all."""
    NO_ANSWER = "no_answer"
    """Text without anything that the task reads as an answer."""
    MALFORMED = "malformed"
    """An answer in the right place that cannot be read."""
    TRUNCATED = "truncated"
    """The text was cut by a length or context limit before an answer."""
    FILTERED = "filtered"
    """The endpoint withheld the text."""
    FAILED = "failed"
    """The generation failed; the record names the error."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What a task read from a text: an answer, or why there is none."""

    answer: str | None
    unanswered: Unanswered | None = None

    def __post_init__(self) -> None:
        if (self.answer is None) == (self.unanswered is None):
            raise ValueError("an extraction has either an answer or a reason for none")


class GradeOutcome(StrEnum):
    """How a grade came about. Closed."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNANSWERED = "unanswered"
    UNGRADED = "ungraded"
    """The problem has no gold answer."""
    GRADER_TIMEOUT = "grader_timeout"
    """The grader was killed at its time limit: not counted as wrong in silence."""
    GRADER_ERROR = "grader_error"


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict on one answer. ``correct`` is ``None`` where nothing can be said."""

    outcome: GradeOutcome
    detail: str = ""

    @property
    def correct(self) -> bool | None:
        """True, False (wrong or unanswered), or ``None`` (no gold answer, or the grader failed)."""
        if self.outcome is GradeOutcome.CORRECT:
            return True
        if self.outcome in (GradeOutcome.WRONG, GradeOutcome.UNANSWERED):
            return False
        return None
