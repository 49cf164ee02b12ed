"""Whether two mathematical answers mean the same: fast paths here, math-verify in a worker.

math-verify's own timeouts are signals: they fail outside the main thread and do not stop a tower
of powers.  They are off; a worker that overruns is killed.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import threading
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final

from mull.errors import MissingExtraError, SandboxError, SandboxTimeoutError
from mull.grades import Grade, GradeOutcome
from mull.sandbox import Pool
from mull.tasks.maths.normal import normal, read_number, refusal, same_number

SECONDS: Final = 1.5
"""Wall time that one comparison may take in its worker."""
_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_IN_BASE = re.compile(r"(?<!\w)[0-9A-Z]{1,300}_\{?\d{1,3}\}?")
_FIRST: Final = threading.Lock()


class Verdict(StrEnum):
    """What a comparison came to."""

    SAME = "same"
    DIFFERENT = "different"
    TIMEOUT = "timeout"
    ERROR = "error"


def compare(gold: str, answer: str, seconds: float = SECONDS) -> tuple[Verdict, str]:
    """The verdict on an answer and its detail; never raises on any text.

    Identical normal forms and plain numbers are decided here; answers that no grader should
    evaluate (``normal.refusal``) count as timeouts without being tried; the rest goes to
    ``verify(gold, answer)`` in a worker of ``pool()``.
    """
    if gold == answer:
        return Verdict.SAME, ""
    for text in (answer, gold):
        reason = refusal(text)
        if reason is not None:
            return Verdict.TIMEOUT, f"not evaluated: {reason}"
    try:
        equal = _equal(gold, answer, seconds)
    except SandboxTimeoutError as error:
        return Verdict.TIMEOUT, str(error)
    except SandboxError as error:
        return Verdict.ERROR, str(error)
    return (Verdict.SAME if equal else Verdict.DIFFERENT), ""


# A timeout or a worker's death raises and so is not kept: another try may come to a verdict.
@lru_cache(maxsize=65536)
def _equal(gold: str, answer: str, seconds: float) -> bool:
    if normal(gold) == normal(answer):
        return True
    if all(_IN_BASE.fullmatch(normal(text)) for text in (gold, answer)):
        return False  # math-verify reads 52_8 and 52_9 as 52
    numbers = read_number(gold), read_number(answer)
    if numbers[0] is not None and numbers[1] is not None:
        return same_number(numbers[0], numbers[1])
    return bool(pool().call(verify, gold, answer, seconds=seconds))


def same(a: str, b: str, seconds: float = SECONDS) -> bool:
    """Whether two answers mean the same, in either direction; undecided pairs do not.

    >>> same("0.5", r"\\frac{1}{2}"), same("1,000", "1000"), same("2", "3")
    (True, True, False)
    """
    first, second = sorted((a, b))
    verdict, _ = compare(first, second, seconds)
    if verdict is Verdict.DIFFERENT:
        # math-verify treats the gold's form as binding, so f(x) + 2 = 5 and 5 differ one way round.
        verdict, _ = compare(second, first, seconds)
    return verdict is Verdict.SAME


def grade(gold: str | None, answer: str | None, seconds: float = SECONDS) -> Grade:
    """The grade of an answer against the gold answer.

    Asked one way round, other than ``same``: 5 is no answer where the equation 2x + y = 5 is asked
    for, nor is "3, 2" where the point (2, 3) is.
    """
    if gold is None:
        return Grade(GradeOutcome.UNGRADED)
    if answer is None:
        return Grade(GradeOutcome.UNANSWERED)
    verdict, detail = compare(gold, answer, seconds)
    return Grade(_OUTCOMES[verdict], detail)


_OUTCOMES: Final = {
    Verdict.SAME: GradeOutcome.CORRECT,
    Verdict.DIFFERENT: GradeOutcome.WRONG,
    Verdict.TIMEOUT: GradeOutcome.GRADER_TIMEOUT,
    Verdict.ERROR: GradeOutcome.GRADER_ERROR,
}


def pool() -> Pool:
    """The workers that all mathematical graders of this process share."""
    with _FIRST:  # two threads must not start two pools
        return _pool()


@cache
def _pool() -> Pool:
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError.of("grading mathematical answers", "math")
    return Pool((f"{__name__}:warm_up",))


# ---------------------------------------------------------------- the worker's side


def verify(gold: str, answer: str) -> bool:
    """math-verify's verdict, in this process and without any limit: only for workers."""
    from math_verify import verify as math_verify

    # (2,3) and 2 < x < 3 are the same, whichever is the gold.
    return bool(
        math_verify(
            _parse(gold), _parse(answer), allow_set_relation_comp=True, timeout_seconds=None
        )
    )


def warm_up() -> None:
    """Import and exercise math-verify, so that every worker is born with it."""
    logging.disable()  # it warns that its timeouts are off, which is what we want
    verify(r"\frac{1}{2}", "x + 1")


def _parse(text: str) -> list[Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    text = _PI.sub(r"\\pi ", text)  # in plain text it would be p times i
    settings = (LatexExtractionConfig(), ExprExtractionConfig())
    return list(parse(f"${text}$", settings, parsing_timeout=None))
