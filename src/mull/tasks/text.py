"""The task ``text``: any prompt; answers are texts, compared after normalisation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from mull.grades import Extraction, Grade, Unanswered
from mull.tasks.base import graded
from mull.tasks.files import QUESTIONS, Row, gold_text, load_problems, question
from mull.tasks.maths.extract import boxed, marked, visible
from mull.types import Message, Problem, Prompt, Until

_ARTICLES = re.compile(r"\b(?:a|an|the)\b(?!#)")
_LETTER = r"[^\W\d_]"
# Points between single letters: U.S.A., J. K. Rowling.
_INITIALS = re.compile(rf"(?<=(?<!\w){_LETTER})\.(?:\s(?={_LETTER}\.)|(?={_LETTER}(?!\w)))")


@lru_cache(maxsize=4096)
def normalise(
    text: str, case: bool = False, punctuation: bool = False, articles: bool = False
) -> str:
    """Text in a form for comparing: Unicode NFKC, white space collapsed, case folded.

    What the flags name *matters* and is kept: ``case``, ``punctuation``, ``articles`` (a, an, the).
    Punctuation becomes a blank, so that ``well-known`` is ``well known``, and between single
    letters nothing.  A text of nothing but punctuation is kept, and so are signs, points, ``/`` and
    ``:`` inside numbers and ``#`` behind a letter.

    >>> normalise("  The  Ｅiffel-Tower. "), normalise("-3.5 %"), normalise("U.S.A. 3/4")
    ('eiffel tower', '-3.5', 'usa 3/4')
    """
    text = unicodedata.normalize("NFKC", text)
    if not case:
        text = text.casefold()
    if not punctuation:
        text = _without_punctuation(text) or text
    if not articles:
        text = _ARTICLES.sub(" ", text) if _ARTICLES.sub("", text).strip() else text
    return " ".join(text.split())


def _without_punctuation(text: str) -> str:
    text = _INITIALS.sub("", text)
    kept = []
    for index, character in enumerate(text):
        follows = text[index + 1 : index + 2]
        before = text[index - 1 : index] if index else ""
        in_number = follows.isdigit() and (
            (character in ".,/:" and before.isdigit())
            or (character == "-" and not (before.isalnum() or before == "-"))
        )
        sharp = character == "#" and before.isalpha()
        if in_number or sharp or unicodedata.category(character)[0] != "P":
            kept.append(character)
        elif character not in "'’":
            kept.append(" ")
    return "".join(kept).strip()


@dataclass(frozen=True, slots=True)
class Text:
    r"""The user's own prompts; gold answers optional.

    The prompt is the text as it stands.  The answer is what follows the last "Answer:" or "the
    answer is", or stands in ``\boxed{…}``; without either it is the entire text.  Two answers are
    the same when their normal forms are (``normalise``); ``case``, ``punctuation`` and
    ``articles`` say what shall matter.

    Files: the question, and optionally ``answer`` and ``id`` (``mull.tasks.files``).

    >>> task = Text()
    >>> problem = task.problem("Which tower stands in Paris?")
    >>> task.extract(problem, "It is old. Answer: The Eiffel Tower.").answer
    'The Eiffel Tower.'
    >>> task.same(problem, "The Eiffel Tower.", "eiffel tower")
    True
    """

    name: ClassVar[str] = "text"
    case: bool = False
    punctuation: bool = False
    articles: bool = False
    max_tokens: int = 1024

    @property
    def until(self) -> Until:
        """Steps are lines."""
        return Until(self.max_tokens)

    def problem(self, text: str, id: str = "0") -> Problem:
        """The user's text as it stands, as one user message."""
        return Problem(id, as_it_stands(text))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        meta = row.rest(*QUESTIONS)
        return Problem(row.id, question(row, as_it_stands), gold_text(row), meta)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The marked answer, else the entire text, trimmed."""
        text = visible(text).strip()
        if not text:
            return Extraction(None, Unanswered.EMPTY)
        answer = boxed(text)[0] or marked(text) or text
        answer = answer.strip()
        return Extraction(answer) if answer else Extraction(None, Unanswered.MALFORMED)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Equality of the normal forms."""
        flags = (self.case, self.punctuation, self.articles)
        return a == b or normalise(a, *flags) == normalise(b, *flags)

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Equality with the gold answer."""
        return graded(self, problem, answer)


def as_it_stands(text: str) -> Prompt:
    """The text as one user message."""
    return Prompt.chat(Message("user", text))
