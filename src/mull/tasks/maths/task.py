r"""The task ``math``: competition mathematics, answers in LaTeX, graded with math-verify."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mull.grades import Extraction, Grade
from mull.tasks.files import QUESTIONS, Row, gold_text, load_problems, question
from mull.tasks.maths.extract import canonical, find_answer
from mull.tasks.maths.judge import SECONDS, grade, same
from mull.types import Message, Problem, Prompt, Until

_LEVEL = re.compile(r"(?:[Ll]evel\s?)?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Math:
    r"""Problems whose answer is a mathematical expression.

    Files: ``problem``, ``answer`` (or a ``solution`` that boxes it), and optionally ``level``
    (1..5 or ``"Level 5"``), ``subject``, ``unique_id``: MATH and MATH-500 as they are published
    (Hendrycks et al. 2021, arXiv 2103.03874; Lightman et al. 2023, arXiv 2305.20050).

    ``instruction`` follows the problem in the prompt; ``seconds`` limits one comparison.

    >>> task = Math()
    >>> problem = task.problem("What is one half of one half?")
    >>> task.extract(problem, r"Half of it is $\boxed{\frac{1}{4}}$.").answer
    '1/4'
    >>> task.same(problem, "1/4", "0.25")
    True
    """

    name: ClassVar[str] = "math"
    instruction: str = r"Solve step by step. Put the final answer in \boxed{}."
    max_tokens: int = 2048
    seconds: float = SECONDS

    @property
    def until(self) -> Until:
        """Steps are paragraphs, as PRM800K cuts them."""
        return Until(self.max_tokens, separator="\n\n")

    def problem(self, text: str, id: str = "0") -> Problem:
        """A problem of the user's own, without a gold answer."""
        return Problem(id, self._prompt(text))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        prompt = question(row, self._prompt)
        meta = row.rest(*QUESTIONS)
        level = meta.get("level")
        if isinstance(level, str) and (match := _LEVEL.fullmatch(level.strip())):
            meta["level"] = int(match[1])
        return Problem(row.id, prompt, self._gold(row), meta)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        r"""The last ``\boxed{…}``, else ``####``, else "the answer is", else the last math."""
        return find_answer(text)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Mathematical equality; a pair that cannot be decided in ``seconds`` is not the same."""
        return same(a, b, self.seconds)

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Equality with the gold answer; a killed comparison is ``grader_timeout``, not wrong."""
        return grade(problem.answer, answer, self.seconds)

    def _prompt(self, text: str) -> Prompt:
        content = f"{text}\n\n{self.instruction}" if self.instruction else text
        return Prompt.chat(Message("user", content))

    def _gold(self, row: Row) -> str | None:
        gold = gold_text(row)
        if gold is not None:
            return canonical(gold)
        if row.value.get("solution") is None:
            return None
        found = find_answer(row.text("solution"))
        if found.answer is None:
            raise row.error(r"no answer, and the solution has no \boxed{…}; add the field answer")
        return found.answer
