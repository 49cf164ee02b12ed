"""Responses made elsewhere → grades, or one selected answer a problem. No engine, no budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mull.errors import InputError
from mull.grades import Extraction, Grade, Unanswered
from mull.runs.result import grade_answer
from mull.selection import Selection, Selector
from mull.tasks.base import Task
from mull.tasks.files import Row, problem_of, read_rows
from mull.types import Candidate, Problem


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a file, read and graded; ``name`` is one for all responses to a problem."""

    name: str
    problem: Problem
    extraction: Extraction
    grade: Grade


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a selection made of all responses to one problem; graded where there is a gold."""

    problem: Problem
    selection: Selection
    grade: Grade
    responses: int


def grade_responses(path: str, task: Task) -> Iterator[Response]:
    """Grade each row of a jsonl file: ``id``, ``problem``, ``answer`` (gold), ``response``.

    Rows belong together as in ``select_responses``. An empty response is data (unanswered); a
    missing field is an ``InputError`` with its line.
    """
    # All rows are read before the first is graded: a broken one is said before anything is printed.
    asked = [(row, problem_of(task, row), _response(row)) for row in read_rows(path)]
    for row, problem, text in asked:
        read = _extract(task, problem, text)
        grade = grade_answer(task, problem, read.answer)
        yield Response(_name(row, problem), problem, read, grade)


def select_responses(path: str, task: Task, select: Selector) -> Iterator[Chosen]:
    """Select one answer a problem from rows with ``problem``, ``response`` and scores.

    Rows belong together by ``id`` (or ``unique_id``), or where there is none by the problem's text;
    the problem then has the number of its first row. Scores are ``scores`` (an object of numbers),
    ``logprob`` and ``mean_logprob``.
    """
    problems: dict[str, Problem] = {}
    candidates: dict[str, list[Candidate]] = {}
    for row in read_rows(path, unique=False):
        problem = problem_of(task, row)
        name = _name(row, problem)
        before = problems.get(name)
        problems[name] = _same_problem(row, before, problem) if before else problem
        group = candidates.setdefault(name, [])
        text = _response(row)
        read = _extract(task, problem, text)
        key = (len(group),)
        group.append(Candidate(key, text, read.answer, read.unanswered, scores=_scores(row)))
    for name, problem in problems.items():
        try:
            selection = select(candidates[name], partial(task.same, problem))
        except InputError as error:
            raise InputError(f"{path}: problem {problem.id[:80]!r}: {error}") from error
        grade = grade_answer(task, problem, selection.answer)
        yield Chosen(problem, selection, grade, len(candidates[name]))


def _name(row: Row, problem: Problem) -> str:
    """What the rows of one problem share."""
    return row.id if row.named else problem.prompt.plain


def _same_problem(row: Row, before: Problem, now: Problem) -> Problem:
    """The problem of earlier rows, with the gold of this one where none of them had it."""
    if now.prompt.plain != before.prompt.plain:
        raise row.error(f"id {before.id!r} was another problem before; expected one problem an id")
    if before.answer is None:
        return replace(before, answer=now.answer)
    if now.answer not in (None, before.answer):
        raise row.error(
            f"answer (gold) {now.answer!r} contradicts {before.answer!r} of an earlier row of the "
            "same problem; expected one gold a problem"
        )
    return before


def _extract(task: Task, problem: Problem, text: str) -> Extraction:
    if not text.strip():
        return Extraction(None, Unanswered.EMPTY)
    return task.extract(problem, text)


def _response(row: Row) -> str:
    value = row.value.get("response")
    if not isinstance(value, str):
        have = ", ".join(row.value) or "none"
        raise row.error(f"response must be a string; the row's fields are: {have}")
    return value


def _scores(row: Row) -> Mapping[str, float]:
    given: dict[str, Any] = {}
    scores = row.value.get("scores")
    if isinstance(scores, dict):
        given.update(scores)
    elif scores is not None:
        raise row.error('scores must be an object of numbers, as in {"prm": 0.7}')
    for name in ("logprob", "mean_logprob"):
        if row.value.get(name) is not None:
            given[name] = row.value[name]
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise row.error(f"score {name} must be a number, not {value!r}")
    return {name: float(value) for name, value in given.items()}
