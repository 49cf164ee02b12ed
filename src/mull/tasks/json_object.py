"""The task ``json``: the answer is a JSON object, canonical as text, voted field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.tasks.files import QUESTIONS, Row, load_problems, question, unique
from mull.tasks.maths.extract import visible
from mull.tasks.text import as_it_stands, normalise
from mull.types import Json, Problem, Until

MAX_DEPTH: Final = 64
TRIES: Final = 16
"""Fenced blocks that are looked into, and broken objects that are passed over."""

_FENCE = re.compile(r"^[^\S\n]{0,8}```[^\n]{0,40}$", re.MULTILINE)
_START = re.compile(
    r"""\{\s{0,16}(?:\}|"(?:[^"\\\n]|\\.){0,500}"\s{0,16}:|'[^'\n]{0,100}'\s{0,16}:|\w{1,64}\s{0,16}:)"""
)
_TOKEN = re.compile(r'[{}"\\]')


def canonical(value: Json) -> str:
    """JSON with sorted keys and no blanks; whole floats are written as integers.

    >>> canonical({"b": 2.0, "a": ["x", None]})
    '{"a":["x",null],"b":2}'
    """
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def objects_in(text: str) -> Iterator[str]:
    """Spans that may be JSON objects, from the end of the text to its start; linear in the text.

    Fenced blocks are looked into first.  Objects inside an object are never offered alone, so that
    a broken or truncated one has no answer rather than a part of one.
    """
    fences = [*_FENCE.finditer(text)]
    for opening, closing in zip(fences[-2 : -2 * TRIES : -2], fences[::-2], strict=False):
        block = text[opening.end() : closing.start()].strip()
        if block[:1] == "{" and block[-1:] == "}":
            yield block
    yield from reversed(_spans(text))


@dataclass(frozen=True, slots=True)
class JsonObject:
    r"""Prompts whose answer is a JSON object; gold answers optional.

    The answer is the last JSON object in the text, fenced or bare.  It is ``malformed`` when there
    is a brace and no object that can be read (duplicate keys, NaN, nesting beyond 64 levels and
    comments cannot), or when a field that ``fields`` names (comma-separated, or the row's
    ``fields``) is missing.  Strings are compared after normalisation of Unicode and blanks, with
    case and punctuation; numbers by value.  A plain vote goes field by field (the selection
    ``per-field``): the object that answers is composed of the value that most give each field.

    Files: the question, and optionally ``answer`` (an object or its text), ``fields``, ``id``.

    >>> task = JsonObject()
    >>> problem = task.problem("Who wrote Faust? Answer as JSON.")
    >>> task.extract(problem, 'Sure:\n```json\n{"year": 1808.0, "author": "Goethe"}\n```').answer
    '{"author":"Goethe","year":1808}'
    """

    name: ClassVar[str] = "json"
    per_field: ClassVar[bool] = True
    fields: str = ""
    max_tokens: int = 1024

    @property
    def until(self) -> Until:
        """Steps are lines."""
        return Until(self.max_tokens)

    def problem(self, text: str, id: str = "0") -> Problem:
        """The user's text as it stands."""
        return Problem(id, as_it_stands(text))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        meta = row.rest(*QUESTIONS)
        names = meta.get("fields", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise row.error("fields must be an array of field names")
        return Problem(row.id, question(row, as_it_stands), _gold(row), meta)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The last object in the text that has all required fields, as canonical JSON."""
        text = visible(text)
        if not text.strip():
            return Extraction(None, Unanswered.EMPTY)
        required = {name.strip() for name in self.fields.split(",") if name.strip()}
        required |= set(problem.meta.get("fields", ()))
        for span in objects_in(text):
            value = _read(span)
            if value is not None and required <= set(value):
                return Extraction(canonical(value))
        return Extraction(None, Unanswered.MALFORMED if "{" in text else Unanswered.NO_ANSWER)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Equality of two JSON texts, of objects or of fields."""
        return a == b or _normal(a) == _normal(b)

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Equality with the gold object; the detail names the fields that differ."""
        if problem.answer is None:
            return Grade(GradeOutcome.UNGRADED)
        if answer is None:
            return Grade(GradeOutcome.UNANSWERED)
        gold, given = _read(_normal(problem.answer)) or {}, _read(_normal(answer))
        if given is None:
            return Grade(GradeOutcome.WRONG, "not a JSON object")
        # Compared as text: to Python, true is 1.
        wrong = [
            name
            for name in sorted({*gold, *given})
            if name not in gold
            or name not in given
            or canonical(gold[name]) != canonical(given[name])
        ]
        if not wrong:
            return Grade(GradeOutcome.CORRECT)
        return Grade(GradeOutcome.WRONG, f"fields that differ: {', '.join(wrong)}"[:200])


def _gold(row: Row) -> str | None:
    found = row.value.get("answer")
    if found is None:
        return None
    value = _read(found) if isinstance(found, str) else found
    if not isinstance(value, dict):
        raise row.error("answer must be a JSON object or the text of one")
    return canonical(value)


def _spans(text: str) -> list[str]:
    """Objects that decode, outermost, in the order of the text; braces of prose are passed over."""
    decoder = json.JSONDecoder()
    spans, failures = [], 0
    match = _START.search(text)
    while match and failures < TRIES:
        try:
            end: int | None = decoder.raw_decode(text, match.start())[1]
            spans.append(text[match.start() : end])
        except (ValueError, RecursionError):
            failures += 1
            end = _close(text, match.start())
        match = _START.search(text, end) if end is not None else None
    return spans


def _close(text: str, start: int) -> int | None:
    """The end of a broken object: past the brace that closes it, ``None`` where it stays open."""
    depth, quoted, position = 0, False, start
    while match := _TOKEN.search(text, position):
        character, position = match[0], match.end()
        if character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted:
            depth += 1 if character == "{" else -1
            if not depth:
                return position
    return None


def _read(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse)
        if not isinstance(value, dict) or _depth(value) > MAX_DEPTH:
            return None
        canonical(value).encode()  # half of a surrogate pair could not be stored
    except (ValueError, RecursionError):
        return None
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _depth(value: Json) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


@lru_cache(maxsize=4096)
def _normal(text: str) -> str:
    """Canonical JSON with strings normalised; a text that is no JSON is its own normal form."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        return canonical(_strings(value))
    except (ValueError, RecursionError):
        return text


def _strings(value: Json) -> Json:
    if isinstance(value, str):
        return normalise(value, case=True, punctuation=True, articles=True)
    if isinstance(value, list):
        return [_strings(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _strings(inner) for key, inner in value.items()}
    return value
