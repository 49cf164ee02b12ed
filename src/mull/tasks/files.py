"""A user's jsonl file → rows → problems; what is wrong is said with file and line.

A row is a JSON object.  The question stands in ``problem``, ``question``, ``prompt``, ``text`` or
``messages``, the gold answer, if there is one, in ``answer``, a name in ``id`` or ``unique_id``
(default: the row's number from 0).  Every other field becomes the problem's metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from mull.errors import InputError
from mull.tasks.base import Task
from mull.types import Json, Message, Problem, Prompt, encodable

MAX_LINE: Final = 2**20
"""Bytes in one line."""
QUESTIONS: Final = ("problem", "question", "prompt", "text", "messages")
_BOM = b"\xef\xbb\xbf"
_KINDS: Final = {str: "a string", dict: "an object", list: "an array", bool: "true or false"}


@runtime_checkable
class RowTask(Task, Protocol):
    """A task that reads a problem from a row of a file."""

    def from_row(self, row: Row) -> Problem: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One object of a file; its methods read fields or say what is wrong with them."""

    path: str
    line: int
    index: int
    value: Mapping[str, Json]

    def error(self, problem: str) -> InputError:
        """The error to raise about this row."""
        return InputError(f"{self.path}:{self.line}: {problem}")

    @property
    def named(self) -> bool:
        """Whether the row says its ``id`` (or ``unique_id``)."""
        return self._name is not None

    @property
    def id(self) -> str:
        """The row's ``id`` (or ``unique_id``) as text, else its number."""
        found = self._name
        if found is None:
            return str(self.index)
        if isinstance(found, bool | float | list | dict) or found == "":
            raise self.error(f"id must be a string or a whole number, not {_show(found)}")
        return str(found)

    @property
    def _name(self) -> Json:
        found = self.value.get("id")
        return self.value.get("unique_id") if found is None else found

    def text(self, *names: str) -> str:
        """The first of the named fields that is there, a string that is not blank."""
        name = next((name for name in names if self.value.get(name) is not None), None)
        if name is None:
            have = ", ".join(self.value) or "none"
            raise self.error(f"no field {_either(names)}; the row's fields are: {have}")
        value = self.value[name]
        if not isinstance(value, str):
            raise self.error(f"{name} must be a string, not {_show(value)}")
        if not value.strip():
            raise self.error(f"{name} is empty; expected text")
        return value

    def messages(self) -> tuple[Message, ...] | None:
        """The chat turns in ``messages``, ``None`` where there are none."""
        found = self.value.get("messages")
        if found is None:
            return None
        if not isinstance(found, list):
            raise self.error(f"messages must be an array of turns, not {_show(found)}")
        if not found:
            raise self.error("messages is empty; expected an array of at least one turn")
        turns = []
        for turn in found:
            role = turn.get("role") if isinstance(turn, dict) else None
            content = turn.get("content") if isinstance(turn, dict) else None
            if role not in ("system", "user", "assistant") or not isinstance(content, str):
                raise self.error(
                    'a turn of messages is {"role": "system"|"user"|"assistant", "content": text}'
                    f", not {_show(turn)}"
                )
            turns.append(Message(role, content))
        return tuple(turns)

    def rest(self, *used: str) -> dict[str, Any]:
        """The fields that nobody has read: the problem's metadata."""
        skip = {"id", "unique_id", "answer", *used}
        return {name: value for name, value in self.value.items() if name not in skip}


def read_rows(path: str, unique: bool = False) -> Iterator[Row]:
    """The rows of a jsonl file, lazily, in order; ``InputError`` at the first one that is wrong.

    Blank lines are skipped.  Wrong are: a missing or empty file, a line over 1 MiB, bytes that are
    no UTF-8, a line that is no JSON object; where ids are to be ``unique``, one that comes twice.
    """
    seen: dict[str, int] = {}
    count = 0
    try:
        with Path(path).open("rb") as file:
            for line, data in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                if len(data) > MAX_LINE:
                    raise InputError(
                        f"{path}:{line}: the line is longer than {MAX_LINE} bytes; expected one "
                        "JSON object a line"
                    )
                body = data.removeprefix(_BOM) if line == 1 else data
                if not body.strip():
                    continue
                row = Row(path, line, count, _object(path, line, body))
                if unique and seen.setdefault(row.id, line) != line:
                    raise row.error(
                        f"id {row.id!r} was there before, in line {seen[row.id]}; expected a "
                        "different id in every row (without one, a row is named by its number "
                        "from 0)"
                    )
                count += 1
                yield row
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not count:
        raise InputError(
            f"{path} is empty; expected one JSON object a line, with {_either(QUESTIONS)}"
        )


def load_problems(path: str, problem: Callable[[Row], Problem]) -> Iterator[Problem]:
    """Problems of a jsonl file, lazily, each made of its row by ``problem``; no id comes twice.

    ``InputError`` for a row with text that no model can be asked.
    """
    for row in read_rows(path, unique=True):
        if not encodable(json.dumps(row.value, ensure_ascii=False)):
            raise row.error(
                "half of a surrogate pair (\\ud800 to \\udfff) is no text; expected Unicode text"
            )
        yield problem(row)


def problem_of(task: Task, row: Row) -> Problem:
    """The problem in a row, by the task's own reading (``from_row``) or the general one."""
    if isinstance(task, RowTask):
        return task.from_row(row)
    prompt = question(row, Prompt.of)
    meta = row.rest(*QUESTIONS)
    try:
        problem = task.problem(prompt.plain, row.id)
    except InputError as error:
        raise row.error(str(error)) from error
    return replace(problem, answer=gold_text(row), meta=meta)


def question(row: Row, render: Callable[[str], Prompt]) -> Prompt:
    """The prompt of a row: its ``messages`` as they stand, or its text rendered."""
    turns = row.messages()
    return Prompt.chat(*turns) if turns is not None else render(row.text(*QUESTIONS))


def gold_text(row: Row) -> str | None:
    """The row's ``answer`` as text: strings as they are, other values as JSON; ``None`` without.

    An array or object is refused: compared as one text, it would make every answer wrong.
    """
    found = row.value.get("answer")
    if found is None:
        return None
    if isinstance(found, str):
        if not found.strip():
            raise row.error("answer is empty; leave the field out where there is no gold answer")
        return found
    if isinstance(found, list | dict):
        raise row.error(
            f"answer must be a string or a number, not {_show(found)}; expected one gold answer a "
            "row, or a task of your own whose grade or same gets the whole value as JSON text"
        )
    return json.dumps(found)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``object_pairs_hook``: a JSON object; ``ValueError`` names a key that is given twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{key!r:.60} is given twice")
    return value


def _object(path: str, line: int, data: bytes) -> dict[str, Json]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}:{line}: byte {error.start + 1} is no UTF-8; expected a UTF-8 jsonl file"
        ) from None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise InputError(f"{path}:{line}: JSON nested too deeply") from None
    except ValueError as error:
        raise InputError(
            f"{path}:{line}: broken JSON ({error}); expected one object a line"
        ) from None
    if not isinstance(value, dict):
        raise InputError(f"{path}:{line}: expected a JSON object, not {_show(value)}")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _show(value: object) -> str:
    for kind, name in _KINDS.items():
        if isinstance(value, kind) and kind is not str:
            return name
    return "null" if value is None else f"{value!r:.40}"
