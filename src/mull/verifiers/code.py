"""Execution as a verifier: a candidate's program against the problem's tests, in an isolated child.

A test's expected value never enters the child: the program prints what it computes, and the
comparison is made out here. So nothing that it prints, patches or exits with passes a test but the
right value.
"""

from __future__ import annotations

import ast
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mull.budget import Meter
from mull.errors import EngineError, SandboxError, SpecError, UnsupportedError
from mull.syntax import parse, parse_expression
from mull.types import Branch, EngineInfo, Problem
from mull.verifiers.isolated import Outcome, check_isolation, run_isolated
from mull.verifiers.threads import score_in_thread

_BLOCK = re.compile(r"^```[ \t]*(?:(?:python|py)[ \t]*)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_VALUE = 1 << 16
EXPECTED = (
    'expected meta["tests"]: a list of texts like "assert f(2) == 4", with a literal on the right, '
    'or of objects {"stdin": text, "stdout": text}'
)


class Verdict(StrEnum):
    """What came of one test. Closed."""

    PASSED = "passed"
    WRONG = "wrong"
    """The program ended and gave another value, or none."""
    FAILED = "failed"
    """It raised, was ended by a limit, or printed too much."""
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class _Test:
    """What follows the program, what it reads, and what it must give."""

    call: str
    stdin: str
    expected: object


class CodeVerifier:
    """The share of the problem's tests that a finished solution's program passes.

    The program is the last fenced block of the solution, else its whole text; tests stand in
    ``problem.meta["tests"]``. Each test is a child of its own, killed after ``seconds``. NaN for
    an unfinished solution, and for one that no child could be made for. ``SandboxError`` where code
    cannot be isolated.
    """

    policy = ()

    def __init__(self, *, seconds: float = 5.0, memory_mib: int = 512) -> None:
        if not 0 < seconds < math.inf or memory_mib < 64:
            raise SpecError(
                f"code(seconds={seconds}, memory_mib={memory_mib}): seconds must be above 0 and "
                "memory_mib at least 64"
            )
        check_isolation()
        self.seconds, self.memory_mib = seconds, memory_mib
        self.info = EngineInfo("code", "code", f"{seconds}/{memory_mib}")

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch; costs no tokens. ``UnsupportedError`` for a problem without tests
        that can be read; ``EngineError`` where no child could be made for any branch.
        """
        for position in range(len(branches)):
            meter.charge(position)
        for branch in branches:
            read_tests(branch.problem)
        found = await score_in_thread(self._share, branches)
        errors = [each for each in found if isinstance(each, SandboxError)]
        if errors and len(errors) == len(found):
            raise EngineError(str(errors[0])) from errors[0]
        return [math.nan if isinstance(each, SandboxError) else each for each in found]

    def verdicts(
        self, branch: Branch, unwanted: threading.Event | None = None
    ) -> tuple[Verdict, ...]:
        """What came of each test, in order; blocks while the children run.

        ``SandboxError`` where one could not be made, or once ``unwanted`` is set.
        """
        program = read_program(branch.text)
        tests = read_tests(branch.problem)
        return tuple(self._verdict(program, test, unwanted) for test in tests)

    def _share(self, branch: Branch, unwanted: threading.Event) -> float | SandboxError:
        if not branch.finished:
            return math.nan
        try:
            found = self.verdicts(branch, unwanted)
        except SandboxError as error:  # of this child: the other branches have theirs
            return error
        return sum(each is Verdict.PASSED for each in found) / len(found)

    def _verdict(self, program: str, test: _Test, unwanted: threading.Event | None) -> Verdict:
        ended = run_isolated(
            f"{program}\n{test.call}",
            test.stdin,
            seconds=self.seconds,
            memory_mib=self.memory_mib,
            unwanted=unwanted,
        )
        if ended.outcome is Outcome.TIMEOUT:
            return Verdict.TIMEOUT
        if ended.outcome is not Outcome.ENDED:
            return Verdict.FAILED
        if not test.call:
            same = ended.output.split() == str(test.expected).split()
        else:
            same = _given(ended.output, test.expected)
        return Verdict.PASSED if same else Verdict.WRONG


def read_program(text: str) -> str:
    """The last fenced block of a solution, else the whole text.

    >>> read_program("So:\\n```python\\nx = 1\\n```\\nDone.")
    'x = 1\\n'
    """
    blocks = _BLOCK.findall(text)
    return blocks[-1] if blocks else text


def read_tests(problem: Problem) -> tuple[_Test, ...]:
    """A problem's tests; ``UnsupportedError`` that says what was expected."""
    given = problem.meta.get("tests")
    if not isinstance(given, list | tuple) or not given:
        raise UnsupportedError(f"problem {problem.id!r} has no tests; {EXPECTED}")
    return tuple(_test(problem, each) for each in given)


def _test(problem: Problem, given: object) -> _Test:
    if isinstance(given, Mapping) and {*given} == {"stdin", "stdout"}:
        return _Test("", str(given["stdin"]), str(given["stdout"]))
    compared = _compared(str(given))
    if compared is None:
        raise UnsupportedError(
            f"problem {problem.id!r}: {str(given)[:100]!r} is no test; {EXPECTED}"
        )
    call, expected = compared
    # Behind an own line break: whatever the program printed before stands in other lines.
    return _Test(f"print('\\n' + repr({call}))", "", expected)


def _compared(text: str) -> tuple[str, object] | None:
    """The left side of ``assert left == literal`` as text, and the literal; else ``None``."""
    try:
        match parse(text):
            case [ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]))]:
                return ast.unparse(left), ast.literal_eval(right)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return None


def _given(output: str, expected: object) -> bool:
    """Whether the last line that was printed is the expected value."""
    lines = output.rstrip("\n").rsplit("\n", 1)
    if len(lines[-1]) > _VALUE:
        return False
    try:
        return bool(ast.literal_eval(parse_expression(lines[-1].lstrip(" \t"))) == expected)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
