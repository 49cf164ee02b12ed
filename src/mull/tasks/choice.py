"""The task ``choice``: multiple choice; the answer is the letter of one option."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from mull.grades import Extraction, Grade, Unanswered
from mull.tasks.base import graded
from mull.tasks.files import QUESTIONS, Row, load_problems, question
from mull.tasks.maths.extract import boxed, marked, visible
from mull.tasks.text import as_it_stands, normalise
from mull.types import Message, Problem, Prompt, Until

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION = re.compile(
    r"^[^\S\n]{0,8}(?:[-*][^\S\n]{1,4})?\(?([A-Z])[).:][^\S\n]{1,8}(\S[^\n]{0,999})$", re.M
)
_OPEN = r"[\s*_(\[\"'“‘]{0,8}"
_NAMED = rf"{_OPEN}(?:(?i:option|choice)(?![A-Za-z]){_OPEN})?"
_END = r"(?![A-Za-z0-9]|['’][A-Za-z])"
_CLOSE = r"[\s*_)\].:\"'”’]{0,8}"
_LEADING = re.compile(rf"{_NAMED}([A-Za-z]){_END}")
_OTHER = re.compile(rf"(?:\bor\b|\band\b|,|/|&){_NAMED}([A-Z]){_END}")
_ALONE = re.compile(rf"{_NAMED}([A-Za-z]){_CLOSE}")
_IS_RIGHT = re.compile(
    rf"{_NAMED}[A-Z]{_END}{_CLOSE}(?:(?:or|and)\b.{{0,20}})?\b(?:is|are)\s(?:the\s)?"
    r"(?:correct|right|best)\b"
)
_CHOSEN = re.compile(
    r"(?i:\b(?:correct|right|best)\s(?:option|choice)(?:\sis\b|:)"
    r"|\bI(?:\s(?:will|would)|['’](?:ll|d))?\s(?:choose|pick|select)\b)"
    rf"(?={_NAMED}[A-Z]{_END})"
)
# Behind a chosen letter: what follows says why, or why not another.
_REASON = re.compile(r"\b(?:since|because|whereas|not)\b|,\s(?:as|while|but)\b")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}|\$")


@lru_cache(maxsize=1024)
def options_in(text: str) -> Mapping[str, str]:
    """The last run of options in a prompt, by letter: lines ``A) …``, ``(B) …`` or ``C. …``.

    >>> dict(options_in("Which?\\nA) red\\nB) blue"))
    {'A': 'red', 'B': 'blue'}
    """
    found: dict[str, str] = {}
    for match in _OPTION.finditer(text):
        letter = match[1]
        if letter == "A":
            found = {}
        elif len(found) >= len(LETTERS) or letter != LETTERS[len(found)]:
            continue
        found[letter] = match[2].strip()
    return found if len(found) > 1 else {}


@dataclass(frozen=True, slots=True)
class Choice:
    """Questions with lettered options; gold answers optional.

    Options stand in the field ``choices`` (or ``options``): an array, or an object from letter to
    text; else they are read from the prompt's own lines ``A) …``.  The gold ``answer`` is a
    letter, the number of an option from 0, or an option's text.

    An answer is read from a box, after "the answer is", as a letter alone in the last line (also
    "option B", "B is correct"), as the text of exactly one option, or after "the correct option
    is" or "I choose".  Two letters, or one that is no option, are ``malformed``.

    >>> task = Choice()
    >>> problem = task.problem("Which is a colour?\\nA) seven\\nB) blue")
    >>> task.extract(problem, "Seven is a number. The answer is (B).").answer
    'B'
    >>> task.extract(problem, "The answer is A or B.").unanswered.value
    'malformed'
    """

    name: ClassVar[str] = "choice"
    instruction: str = "End with: The answer is (letter)."
    max_tokens: int = 1024

    @property
    def until(self) -> Until:
        """Steps are lines."""
        return Until(self.max_tokens)

    def problem(self, text: str, id: str = "0") -> Problem:
        """A problem of the user's own; the options are read from its text."""
        return self._problem(id, as_it_stands(text), None, {}, dict(options_in(text)))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        prompt = question(row, as_it_stands)
        options = _given(row)
        shown = options_in(prompt.plain)
        if not options:
            options = dict(shown)
            if not options:
                raise row.error(
                    "no options; expected the field choices, an array or an object from letter to "
                    "text, or lines 'A) …' in the question"
                )
            extra = {}
        else:
            extra = {} if shown else options
        meta = row.rest(*QUESTIONS, "choices", "options")
        return self._problem(row.id, prompt, _gold(row, options), meta, options, extra)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The letter of the chosen option."""
        text = visible(text).strip()
        if not text:
            return Extraction(None, Unanswered.EMPTY)
        options: Mapping[str, str] = problem.meta.get("choices") or {}
        content, has_box = boxed(text)
        span = content if content is not None else marked(text)
        if span is None and not has_box:
            span = _last_line(text, options) or _chosen(text)
            if span is None:
                return Extraction(None, Unanswered.NO_ANSWER)
        letter = _letter(_WRAPPED.sub(r"\1", span), options) if span else None
        return Extraction(letter) if letter else Extraction(None, Unanswered.MALFORMED)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """The same letter."""
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Whether it is the gold letter."""
        return graded(self, problem, answer)

    def _problem(
        self,
        id: str,
        prompt: Prompt,
        gold: str | None,
        meta: Mapping[str, object],
        options: dict[str, str],
        shown: Mapping[str, str] = {},
    ) -> Problem:
        """Options that the prompt does not show yet, and the instruction, follow its last turn."""
        lines = [f"{letter}) {text}" for letter, text in shown.items()]
        blocks = ["\n".join(lines)] * bool(lines) + [self.instruction] * bool(self.instruction)
        last = prompt.messages[-1]
        content = "\n\n".join([last.content, *blocks])
        turns = (*prompt.messages[:-1], Message(last.role, content))
        return Problem(id, Prompt.chat(*turns), gold, {**meta, "choices": options})


def _given(row: Row) -> dict[str, str]:
    name = "choices" if row.value.get("choices") is not None else "options"
    found = row.value.get(name)
    if found is None:
        return {}
    if isinstance(found, list) and 2 <= len(found) <= len(LETTERS):
        found = dict(zip(LETTERS, found, strict=False))
    if not isinstance(found, dict) or len(found) < 2 or not set(found) <= set(LETTERS):
        raise row.error(
            f"{name} must be an array of 2 to {len(LETTERS)} options or an object from capital "
            "letter to option"
        )
    return {letter: text if isinstance(text, str) else str(text) for letter, text in found.items()}


def _gold(row: Row, options: Mapping[str, str]) -> str | None:
    found = row.value.get("answer")
    if found is None:
        return None
    letters = list(options)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < len(letters):
        return letters[found]
    if isinstance(found, str):
        letter = found.strip().strip("().").upper()
        if letter in options:
            return letter
        if named := _by_text(found, options):
            return named
    raise row.error(
        f"answer must be a letter ({', '.join(letters)}), the number of an option from 0, or an "
        f"option's text, not {found!r:.60}"
    )


def _by_text(span: str, options: Mapping[str, str]) -> str | None:
    wanted = normalise(span)
    named = [letter for letter, text in options.items() if normalise(text) == wanted]
    return named[0] if len(named) == 1 else None


def _letter(span: str, options: Mapping[str, str]) -> str | None:
    """The one option that a span names, ``None`` where it names none or two."""
    # "a" may be an article; an option's text may begin with a letter that is one ("A minor").
    if named := _by_text(span, options):
        return named
    match = _LEADING.match(span)
    if match is None or (match[1].islower() and not _ALONE.fullmatch(span)):
        return None
    letter = match[1].upper()
    if options and letter not in options:
        return None
    end = match.end() + 40
    if reason := _REASON.search(span, match.end(), end):
        end = reason.start()
    if any(other[1] != letter for other in _OTHER.finditer(span, match.end(), end)):
        return None
    rest = span[match.end() :].lstrip(" .):]*_-")
    # The letter of one option with the text of another is no answer.
    other = _by_text(rest, options) if rest else None
    return letter if other in (None, letter) else None


def _last_line(text: str, options: Mapping[str, str]) -> str | None:
    last = text.rsplit("\n", 1)[-1].strip()
    if (
        _ALONE.fullmatch(last)
        or _OPTION.match(last)
        or _IS_RIGHT.match(last)
        or _by_text(last, options)
    ):
        return last
    if (
        "\n" not in text
        and (match := _OTHER.search(last))
        and _ALONE.fullmatch(last[: match.start()])
    ):
        return last
    return None


def _chosen(text: str) -> str | None:
    """The rest of the line after the last "the correct option is" or "I choose" of a letter."""
    last = None
    for match in _CHOSEN.finditer(text):
        last = match
    return text[last.end() :].split("\n", 1)[0] if last else None
