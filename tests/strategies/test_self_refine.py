"""Attempts are judged one after another; the best grade answers, and silence approves nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tests.strategies.common import job, one
from tests.strategies.whole import Judge, engines_of, rows, solve

from mull.budget import Budget, Meter, Purpose
from mull.engines.simulated import Fault, Faults, Script, SimulatedEngine
from mull.errors import SpecError, UsageError
from mull.strategies.base import Ended
from mull.strategies.self_refine import SelfRefine
from mull.types import Completion, Delta, Request


class Noting(SimulatedEngine):
    """Notes what it is asked."""

    def __init__(self, content: Any, **options: Any) -> None:
        super().__init__(content, **options)
        self.asked: list[Request] = []

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        self.asked.append(request)
        async for item in super().generate(request, meter):
            yield item


class Counting:
    """Gives the next text every time it is asked."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.given = texts, 0

    def write(self, request: Request, index: int) -> Any:
        self.given += 1
        yield self.texts[(self.given - 1) % len(self.texts)], None


def graded(of: Callable[[str], object]) -> dict[str, Any]:
    """A judge that grades by the last answer in its prompt."""
    judge = Judge(lambda right, prompt, index: f"Think of {index}.\n[[{of(prompt)}]]")
    return {"judge": SimulatedEngine(judge)}


def attempts(texts: list[str], grades: list[str], strategy: SelfRefine, **options: Any) -> Any:
    policy, judge = Noting(Counting(texts)), Noting(Counting(grades))
    solved = solve(strategy, engines={"policy": policy, "judge": judge}, **options)
    return solved, policy.asked, judge.asked


TEXTS = ["answer 1", "answer 2", "answer 3", "answer 4"]


def test_approval_stops_at_the_first_attempt_that_is_good_enough() -> None:
    strategy = SelfRefine(n=8, judge="judge", approve=0.9)
    solved, asked, _ = attempts(TEXTS, ["[[3]]", "[[8.9]]", "[[9]]"], strategy)
    assert len(asked) == 3
    assert solved.result.answer == "3"
    assert solved.result.ended is Ended.CONFIDENT
    assert [c.scores["judge"] for c in solved.result.candidates] == [0.3, 0.89, 0.9]


def test_the_best_grade_answers_and_not_the_last() -> None:
    strategy = SelfRefine(n=4, judge="judge")
    solved, _, _ = attempts(TEXTS, ["[[3]]", "[[7]]", "[[7]]", "[[1]]"], strategy)
    assert solved.result.answer == "2"
    assert solved.result.ended is Ended.COMPLETE
    assert solved.samples == 4


def test_the_next_attempt_sees_the_criticism_and_no_verdict() -> None:
    strategy = SelfRefine(n=3, judge="judge", history=1)
    grades = ["Step one is off.\n[[2]]", "Still off.\n[[2]]", "[[3]]"]
    _, asked, judged = attempts(TEXTS, grades, strategy)
    first, second, third = (request.prompt.plain for request in asked)
    assert "answer 1\n\nStep one is off.\n\nSolve the problem again" in second.removeprefix(first)
    assert "[[2]]" not in second
    assert "answer 2\n\nStill off." in third
    assert "answer 1" not in third
    assert all("[[10]]" in request.prompt.plain for request in judged)
    assert [request.until.max_tokens for request in judged] == [512] * 3


def test_the_tree_has_each_criticism_between_the_attempts_that_it_parts() -> None:
    strategy = SelfRefine(n=4, judge="judge")
    grades = ["Step one is off.\n[[2]]", "[[4]]", "No verdict here.", "Still off.\n[[1]]"]
    solved, _, _ = attempts(TEXTS, grades, strategy)
    assert [(n.key, n.text, n.score, n.fate.value) for n in solved.result.tree] == [
        ((0,), "answer 1", 0.2, "finished"),
        ((0, -1), "Step one is off.", None, "kept"),
        ((0, -1, 0), "answer 2", 0.4, "finished"),
        ((0, -1, 0, -1, 0), "answer 3", None, "finished"),
        ((0, -1, 0, -1, 0, -1, 0), "answer 4", 0.1, "finished"),
    ]


def test_a_judge_without_a_verdict_approves_nothing() -> None:
    strategy = SelfRefine(n=4, judge="judge", approve=0.1)
    solved, _, _ = attempts(["answer 1", "answer 2"], ["Well done! [[10]] maybe"], strategy)
    assert [f.error for f in solved.result.failures] == ["NoVerdict"] * 4
    assert solved.samples == 4
    assert solved.result.ended is Ended.COMPLETE
    assert solved.result.answer == "1"


def test_an_attempt_without_an_answer_is_never_approved() -> None:
    strategy = SelfRefine(n=3, judge="judge")
    solved, _, _ = attempts(["hm", "answer 2"], ["[[10]]", "[[10]]"], strategy)
    assert solved.result.answer == "2"
    assert solved.samples == 2


def test_attempts_are_samples_and_verdicts_are_not() -> None:
    solved = solve(SelfRefine(), Budget(samples=5), success=0.3)
    row = rows(solved)
    made = len(solved.result.candidates)
    assert solved.samples == made
    assert row[Purpose.POLICY, "policy"][3] == 1
    assert row[Purpose.REVISION, "policy"][3] == made - 1
    assert row[Purpose.JUDGE, "policy"][3] == made


def test_a_failed_attempt_is_drawn_again_and_counts() -> None:
    engines = engines_of()
    engines["policy"] = SimulatedEngine(Script(TEXTS), faults=Faults(chosen={0: Fault.CONNECTION}))
    engines |= graded(lambda prompt: 1)
    solved = solve(SelfRefine(n=6, judge="judge"), Budget(samples=6), engines=engines)
    assert solved.samples == 6
    assert [f.error for f in solved.result.failures] == ["EngineConnectionError"] * 3
    assert len(solved.result.candidates) == 3
    assert [n.fate.value for n in solved.result.tree if n.key[-1] != -1] == [
        *["failed", "finished"] * 3
    ]


def test_an_attempt_that_exists_is_the_first() -> None:
    strategy = SelfRefine(n=3, judge="judge")
    first, _, _ = attempts(TEXTS, ["[[2]]"], SelfRefine(n=1, judge="judge"))
    given = first.result.candidates
    solved, asked, judged = attempts(TEXTS, ["[[1]]"], strategy, candidates=given)
    assert (len(asked), len(judged)) == (2, 2)
    assert [c.scores["judge"] for c in solved.result.candidates] == [0.2, 0.1, 0.1]


def test_a_spent_budget_ends_it_with_the_best_so_far() -> None:
    solved = solve(SelfRefine(judge="judge"), Budget(tokens=1))
    assert len(solved.result.candidates) == 1
    assert solved.result.ended is Ended.BUDGET
    assert solved.result.answer is not None
    assert not solved.ledger.of(Purpose.JUDGE).generated


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"history": 0}, "at least 1"),
        ({"judge_tokens": 0}, "at least 1"),
        ({"approve": 0.0}, "approve must lie"),
        ({"approve": float("nan")}, "approve must lie"),
    ],
)
def test_bad_options_are_refused(bad: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        SelfRefine(**bad)
    with pytest.raises(UsageError, match="needs engine 'judge'"):
        one(job(SelfRefine(n=2, judge="judge")), engines_of()["policy"])
