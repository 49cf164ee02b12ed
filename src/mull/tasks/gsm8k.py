"""The task ``gsm8k``: grade-school word problems whose answer is one number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mull.grades import Extraction, Grade
from mull.tasks.files import QUESTIONS, Row, gold_text, load_problems, question
from mull.tasks.maths.extract import CALCULATION, find_number
from mull.tasks.maths.judge import SECONDS, grade, same
from mull.types import Message, Problem, Prompt, Until


@dataclass(frozen=True, slots=True)
class Gsm8k:
    """Problems whose answer is a number, in whatever words, units or notation it is given.

    Files: ``question`` and ``answer``, a number or a solution that ends in ``#### number``: GSM8K
    as it is published (Cobbe et al. 2021, arXiv 2110.14168).  The level of a problem is the number
    of calculations that its reference solution marks with ``<<…>>``.  A percent sign is a unit:
    ``25%`` is 25, as the data's gold answers have it.

    ``instruction`` follows the question in the prompt; ``seconds`` limits one comparison (only
    answers that are no plain numbers need one).

    >>> task = Gsm8k()
    >>> task.extract(task.problem("How much?"), "Each day 9 * 2 = $18.\\n#### 18").answer
    '18'
    """

    name: ClassVar[str] = "gsm8k"
    instruction: str = r"Think step by step. Put the final number in \boxed{}."
    max_tokens: int = 512
    seconds: float = SECONDS

    @property
    def until(self) -> Until:
        """Steps are lines."""
        return Until(self.max_tokens)

    def problem(self, text: str, id: str = "0") -> Problem:
        """A problem of the user's own, without a gold answer."""
        return Problem(id, self._prompt(text))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        prompt = question(row, self._prompt)
        meta = row.rest(*QUESTIONS)
        solution = gold_text(row)
        gold = None
        if solution is not None:
            gold = find_number(solution).answer
            if gold is None:
                raise row.error("answer holds no number; expected one, or a text ending in #### N")
            steps = len(CALCULATION.findall(solution))
            if steps:
                meta = {"level": steps, **meta}
            if "####" in solution:
                meta = {"solution": solution, **meta}
        return Problem(row.id, prompt, gold, meta)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        r"""``\\boxed{…}``, else ``#### …``, else "the answer is", else the last number."""
        return find_number(text)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Equality of the numbers."""
        return same(a, b, self.seconds)

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Equality with the gold answer; a killed comparison is ``grader_timeout``, not wrong."""
        return grade(problem.answer, answer, self.seconds)

    def _prompt(self, text: str) -> Prompt:
        content = f"{text}\n\n{self.instruction}" if self.instruction else text
        return Prompt.chat(Message("user", content))
