"""Reliability 38: graders and parsers against hostile answers.

300 pathological answers: each is judged within 2 s (CPU time, beside the grader's own limit), and
none is called wrong in silence; the verdict is the same from the main thread, a thread and another
process; every pattern of the graders reads 100 KB of anything in time that is linear: within 100 ms
of CPU time on an idle machine, and ``LINEAR`` on any.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from tests.patience import PATIENCE

from mull.grades import GradeOutcome
from mull.tasks.choice import Choice
from mull.tasks.gsm8k import Gsm8k
from mull.tasks.json_object import JsonObject
from mull.tasks.maths import judge
from mull.tasks.maths.task import Math
from mull.tasks.text import Text, normalise
from mull.types import Problem, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HONEST = {GradeOutcome.GRADER_TIMEOUT, GradeOutcome.GRADER_ERROR, GradeOutcome.UNANSWERED}
LIMIT = 2.0
LINEAR = 0.5  # what is quadratic takes minutes
LONG = 100_000


def tower(height: int, base: int) -> str:
    return f"{base}" + "^{%d" * (height - 1) % ((base,) * (height - 1)) + "}" * (height - 1)


def flat_tower(height: int, base: int) -> str:
    return "^".join([str(base)] * height)


def python_tower(height: int, base: int) -> str:
    return "**".join([str(base)] * height)


def bracketed_tower(height: int, base: int) -> str:
    return f"{base}^(" * (height - 1) + str(base) + ")" * (height - 1)


FAMILIES: dict[str, Callable[[int], str]] = {
    "tower": lambda i: tower(3 + i, 5 + i),
    "flat tower": lambda i: flat_tower(3 + i, 9 + i),
    "python tower": lambda i: python_tower(3 + i, 9),
    "bracketed tower": lambda i: bracketed_tower(3 + i, 7),
    "huge exponent": lambda i: f"{i + 2}^{{{10 ** (7 + i)}}}",
    "huge exponents added": lambda i: f"7^{{{10 ** (6 + i)}}}+1",
    "factorials": lambda i: f"{10 ** (6 + i)}!",
    "factorial of factorial": lambda i: f"({20 + i}!)!",
    "open braces": lambda i: "{" * (LONG - i),
    "balanced braces": lambda i: "{" * (LONG // 2 - i) + "5" + "}" * (LONG // 2 - i),
    "open boxes": lambda i: r"\boxed{" * (50_000 - i),
    "nested fractions": lambda i: r"\frac{1}{1+" * (100 + 100 * i) + "x" + "}" * (100 + 100 * i),
    "nested roots": lambda i: r"\sqrt{x+" * (60 + 60 * i) + "x" + "}" * (60 + 60 * i),
    "long digits": lambda i: "9" * (400 + 5000 * i),
    "long sums": lambda i: "x" + "+x" * (1500 + 2000 * i),
}


def pathological() -> Iterator[tuple[str, str]]:
    for name, make in FAMILIES.items():
        for i in range(20):
            answer = make(i)
            # The last family member comes boxed or bare in turn: both roads must hold.
            text = answer if i % 2 or "boxed" in answer else rf"Thus \boxed{{{answer}}}."
            yield f"{name} {i}", text if "boxed" in text else f"The answer is ${text}$"


@pytest.fixture(scope="module", autouse=True)
def workers() -> None:
    judge.pool().warm()


def problem(gold: str) -> Problem:
    return Problem("0", Prompt.of("?"), gold)


def test_300_pathological_answers_are_judged_in_time_and_never_called_wrong() -> None:
    cases = list(pathological())
    assert len(cases) == 300
    seconds, outcomes = {}, {}
    for task in (Math(), Gsm8k()):
        for name, text in cases:
            start = time.process_time()
            answer = task.extract(problem("5"), text).answer
            outcome = task.grade(problem("5"), answer).outcome
            seconds[task.name, name] = time.process_time() - start
            outcomes[task.name, name] = outcome
    slowest = max(seconds, key=lambda key: seconds[key])
    print(f"slowest {slowest}: {seconds[slowest]:.3f} s; {counts(outcomes.values())}")
    assert seconds[slowest] <= LIMIT, slowest
    assert {key: value for key, value in outcomes.items() if value not in HONEST} == {}


def counts(values: Iterable[GradeOutcome]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[str(value)] = found.get(str(value), 0) + 1
    return found


SLOW_FOR_REAL = (
    r"\binom{999999999}{499999999}",
    r"\sum_{n=1}^{9999} \frac{1}{n^n}",
    r"\prod_{k=1}^{9999} k^k",
    r"(x+1)^{9999}+y",
    r"10^{10\cdot10^9}",
    r"(((x+y)^9+z)^9+w)^9",
)


@pytest.mark.parametrize("answer", SLOW_FOR_REAL)
def test_what_no_guard_sees_is_killed_in_time(answer: str) -> None:
    judge._equal.cache_clear()
    task = Math()
    start = time.monotonic()
    grade = task.grade(problem("5"), task.extract(problem("5"), rf"\boxed{{{answer}}}").answer)
    seconds = time.monotonic() - start
    assert grade.outcome is GradeOutcome.GRADER_TIMEOUT
    assert grade.correct is None
    assert "killed" in grade.detail
    assert seconds < PATIENCE


PAIRS = (
    ("5", "5^(5^(5^(5^5)))"),
    (r"\frac{1}{2}", "0.5"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    ("(1,2)", "[1,2]"),
    ("x=5", "5"),
    ("5", "x=5"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1,2", "2,1"),
    (r"\text{even}", "even"),
    ("5", r"\sum_{n=1}^{9999} \frac{1}{n^n}"),
    ("7", r"\frac{1}{"),
)


def verdicts() -> list[str]:
    judge._equal.cache_clear()
    return [str(judge.compare(gold, answer)[0]) for gold, answer in PAIRS]


def test_the_verdict_is_the_same_from_main_thread_threads_and_processes() -> None:
    here = verdicts()
    assert set(here) == {"same", "different", "timeout"}
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(verdicts())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [here] * 3
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from test_reliability_38_graders import verdicts; print(json.dumps(verdicts()))"
    )
    command = [sys.executable, "-c", code, __file__.rpartition("/")[0]]
    other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == here


ALPHABET = (
    *"a1 {}$^-.!\n#'\"*<\\,(_:é",
    *(r"\boxed{", r"\boxed", r"\text{", r"\frac{", r"\(", r"\)", r"\left", "$a", "1,", "1,111"),
    *("1.", "-1", "1+1", "1 1/1 ", "1/", "1^", "^{", "<<", "<<1>>", "```\n", "A) x\n", "(A) "),
    *("answer ", "answer is ", "**", "a or ", " or A", "1 or ", ",A", "level ", "x ", "!)", "\t "),
    *("```py ", "\r", "\r ", "===", "verdict: "),
    *("A" * 1001 + "\n", "9" * 300 + "a", "1:", '{"a":', "{}", "\\\\", "the ", "a-", "</think>"),
)
MODULES = (
    "mull.tasks.maths.extract",
    "mull.tasks.maths.normal",
    "mull.tasks.maths.task",
    "mull.tasks.maths.judge",
    "mull.tasks.gsm8k",
    "mull.tasks.text",
    "mull.tasks.choice",
    "mull.tasks.json_object",
    "mull.verifiers.code",
    "mull.verifiers.generative",
)


def patterns() -> list[re.Pattern[str]]:
    found = [
        value
        for name in MODULES
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, re.Pattern)
    ]
    assert len(found) > 30
    return found


def hostile_texts() -> Iterator[str]:
    rng = random.Random(38)
    for piece in ALPHABET:
        yield (piece * (LONG // len(piece) + 1))[:LONG]
    yield ("```" + " " * LONG)[:LONG]
    for _ in range(10):
        pieces = rng.choices(ALPHABET, k=rng.randint(2, 4))
        yield ("".join(pieces) * LONG)[:LONG]


def quickest(function: Callable[[], object], limit: float) -> float:
    """CPU seconds, the best of up to three: this machine may be busy."""
    best = limit + 1
    for _ in range(3):
        start = time.thread_time()
        function()
        best = min(best, time.thread_time() - start)
        if best <= limit:
            break
    return best


def scan(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))


def test_every_pattern_reads_100_kb_of_anything_in_linear_time() -> None:
    slow = []
    for text in hostile_texts():
        for pattern in {pattern.pattern: pattern for pattern in patterns()}.values():
            # A tenth first, so that a pattern that is not linear fails here and does not hang.
            seconds = 10 * quickest(lambda p=pattern, t=text: scan(p, t[: LONG // 10]), LINEAR / 10)
            if seconds <= 2 * LINEAR:
                seconds = quickest(lambda p=pattern, t=text: scan(p, t), LINEAR)
            if seconds > LINEAR:
                slow.append((pattern.pattern, text[:20], round(seconds, 3)))
    assert slow == []


def test_every_extraction_and_normal_form_is_linear() -> None:
    slow = []
    some = problem("5")
    readers: dict[str, Callable[[str], object]] = {
        task.name: lambda text, task=task: task.extract(some, text)
        for task in (Math(), Gsm8k(), Text(), Choice(), JsonObject())
    }
    readers["normalise"] = normalise.__wrapped__
    worst = 0.0
    for text in hostile_texts():
        for name, read in readers.items():
            seconds = quickest(lambda r=read, t=text: r(t), LINEAR)
            worst = max(worst, seconds)
            if seconds > LINEAR:
                slow.append((name, text[:20], round(seconds, 3)))
    print(f"slowest {worst:.3f} s")
    assert slow == []
