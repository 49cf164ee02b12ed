"""What a run records of one problem in one cell: candidates with their grades, and the bill.

A record holds no clock reading but the seconds that samples held a slot, so that equal work gives
equal bytes whenever and in whatever order it was done.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mull.budget import Ledger
from mull.errors import GradeError, SandboxError, SandboxTimeoutError
from mull.grades import Grade, GradeOutcome
from mull.selection import group
from mull.store import canonical, usage_of
from mull.strategies.base import Result
from mull.tasks.base import Task
from mull.trees import Fate, TreeNode
from mull.types import EMPTY, Candidate, Problem, Usage

UsageOf = Callable[[Candidate], Usage | None]

TREE_NODES = 2_000
TREE_TEXT = 500_000
"""A recorded tree has at most so many nodes and so many characters of text."""


BROKEN: frozenset[str] = frozenset({GradeOutcome.GRADER_TIMEOUT, GradeOutcome.GRADER_ERROR})
"""Outcomes of a grader that gave no verdict: neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class GradedCandidate:
    """One candidate of a record.

    ``group`` numbers the problem's answers by task equality in key order, -1 without an answer.
    ``correct`` is ``None`` where nothing can be said, and ``outcome`` (a ``GradeOutcome`` value)
    says why. ``usage`` is what the sample was charged; of a candidate that is no plain sample of
    the root only the generated tokens are known.
    """

    key: tuple[int, ...]
    text: str
    answer: str | None
    unanswered: str | None
    stop: str
    tokens: int
    group: int
    correct: bool | None
    outcome: str
    scores: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Spent:
    """One row of a ledger."""

    purpose: str
    model: str
    usage: Usage
    completions: int


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """One problem in one cell. Candidates stand in key order.

    ``answer``, ``confidence``, ``index`` (the candidate that represents the answer), ``correct``
    and ``outcome`` are the strategy's own selection; ``parts`` are the answers of a problem of
    several parts. ``failures`` are ``Type: message`` of samples, scores and verdicts that did not
    come. ``spent`` is what the search costs without interruptions; what those cost is in the
    store's ``waste``.
    ``tree`` are the nodes that the search grew, in key order; of a very large one ``left_out``
    nodes are not kept, and every node that is has its parent. Records without a tree do not
    mention it.
    """

    problem: str
    position: int
    answer: str | None
    confidence: float
    index: int | None
    correct: bool | None
    outcome: str
    detail: str
    ended: str
    samples: int
    candidates: tuple[GradedCandidate, ...]
    failures: tuple[str, ...]
    spent: tuple[Spent, ...]
    parts: tuple[str | None, ...] = ()
    tree: tuple[TreeNode, ...] = ()
    left_out: int = 0

    @property
    def total(self) -> Usage:
        """Everything this problem cost."""
        return sum((row.usage for row in self.spent), Usage())

    @property
    def failure(self) -> str | None:
        """The first error of a problem that has no candidate at all."""
        return self.failures[0] if self.failures and not self.candidates else None

    @property
    def broke(self) -> frozenset[str]:
        """The outcomes by which a grader broke, on the answer or on a candidate's."""
        return BROKEN & {self.outcome, *(candidate.outcome for candidate in self.candidates)}

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        data["candidates"] = [_candidate_to_json(c) for c in self.candidates]
        data["spent"] = [
            {**{n: getattr(row, n) for n in row.__slots__}, "usage": _usage_to_json(row.usage)}
            for row in self.spent
        ]
        del data["tree"], data["left_out"]
        if self.tree:
            data["tree"] = [[n.key, n.text, n.score, n.fate.value, n.visits] for n in self.tree]
            data["left_out"] = self.left_out
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ResultRecord:
        """The record that ``to_json`` was given."""
        return cls(
            **{
                **data,
                "confidence": float(data["confidence"]),
                "candidates": tuple(_candidate_from_json(c) for c in data["candidates"]),
                "failures": tuple(data["failures"]),
                "parts": tuple(data["parts"]),
                "spent": tuple(
                    Spent(**{**row, "usage": usage_of(row["usage"])}) for row in data["spent"]
                ),
                "tree": tuple(
                    TreeNode(tuple(key), text, score, Fate(fate), visits)
                    for key, text, score, fate, visits in data.get("tree", ())
                ),
            }
        )

    def pack(self) -> bytes:
        """The record as bytes of a row."""
        return zlib.compress(canonical(self.to_json()), 6)

    @classmethod
    def unpack(cls, raw: bytes) -> ResultRecord:
        """The record that ``pack`` was given."""
        return cls.from_json(json.loads(zlib.decompress(raw)))


def record_of(
    position: int,
    problem: Problem,
    task: Task,
    result: Result,
    ledger: Ledger,
    samples: int,
    usage: UsageOf,
) -> ResultRecord:
    """Grade a result; each distinct answer is graded once. Blocks while the task's grader works."""
    grades: dict[str | None, Grade] = {}
    order = sorted(range(len(result.candidates)), key=lambda at: result.candidates[at].key)
    candidates = [result.candidates[at] for at in order]
    groups = [-1] * len(candidates)
    for number, members in enumerate(group(candidates, partial(task.same, problem))):
        for member in members:
            groups[member] = number
    chosen = result.parts[0].index if result.parts else None
    grade = _grade(task, problem, result.answer, grades)
    tree = kept_tree(result.tree)
    return ResultRecord(
        problem=problem.id,
        position=position,
        answer=result.answer,
        confidence=result.confidence,
        index=None if chosen is None else order.index(chosen),
        correct=grade.correct,
        outcome=grade.outcome.value,
        detail=grade.detail,
        ended=result.ended.value,
        samples=samples,
        candidates=tuple(
            _graded(candidate, number, _grade(task, problem, candidate.answer, grades), usage)
            for candidate, number in zip(candidates, groups, strict=True)
        ),
        failures=tuple(f"{failure.error}: {failure.message}" for failure in result.failures),
        spent=tuple(
            Spent(purpose.value, model, _rounded(used), completions)
            for purpose, model, used, completions in ledger.rows()
        ),
        parts=tuple(part.answer for part in result.parts),
        tree=tree,
        left_out=len(result.tree) - len(tree),
    )


def kept_tree(
    tree: Sequence[TreeNode], nodes: int = TREE_NODES, text: int = TREE_TEXT
) -> tuple[TreeNode, ...]:
    """What is kept of a tree: first the ways to its ends, then from the root down; in key order.

    >>> made = [TreeNode(key, "", None, Fate.KEPT) for key in ((0,), (1,), (1, 0))]
    >>> [node.key for node in kept_tree([*made, TreeNode((1, 0, 0), "", 1.0, Fate.FINISHED)], 3)]
    [(1,), (1, 0), (1, 0, 0)]
    """
    ends = [node.key for node in tree if node.fate is Fate.FINISHED]
    ways = {key[:length] for key in ends for length in range(1, len(key) + 1)}
    ranked = sorted(tree, key=lambda node: (node.key not in ways, len(node.key), node.key))
    kept: list[TreeNode] = []
    for node in ranked[:nodes]:
        text -= len(node.text)
        if text < 0:
            break
        kept.append(node)
    return tuple(sorted(kept, key=lambda node: node.key))


def _graded(candidate: Candidate, number: int, grade: Grade, usage: UsageOf) -> GradedCandidate:
    used = usage(candidate) or Usage(generated=candidate.tokens)
    reason = candidate.unanswered
    return GradedCandidate(
        candidate.key,
        candidate.text,
        candidate.answer,
        None if reason is None else reason.value,
        candidate.stop.value,
        candidate.tokens,
        number,
        grade.correct,
        grade.outcome.value,
        {name: value for name, value in candidate.scores.items() if math.isfinite(value)},
        _rounded(used),
    )


def grade_answer(task: Task, problem: Problem, answer: str | None) -> Grade:
    """A task's grade; a grader that breaks is an outcome of its own, never a wrong answer."""
    try:
        return task.grade(problem, answer)
    except SandboxTimeoutError as error:
        return Grade(GradeOutcome.GRADER_TIMEOUT, str(error))
    except (GradeError, SandboxError) as error:
        return Grade(GradeOutcome.GRADER_ERROR, str(error))


def _grade(
    task: Task, problem: Problem, answer: str | None, grades: dict[str | None, Grade]
) -> Grade:
    """The same answer is graded once."""
    if answer not in grades:
        grades[answer] = grade_answer(task, problem, answer)
    return grades[answer]


def _rounded(usage: Usage) -> Usage:
    """Sums of seconds and money without the last bits, which depend on the order of summation."""
    return replace(usage, seconds=round(usage.seconds, 9), cost=round(usage.cost, 12))


def _usage_to_json(usage: Usage) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in usage.__slots__}


def _candidate_to_json(candidate: GradedCandidate) -> dict[str, Any]:
    data = {name: getattr(candidate, name) for name in candidate.__slots__}
    return {**data, "scores": dict(candidate.scores), "usage": _usage_to_json(candidate.usage)}


def _candidate_from_json(data: Mapping[str, Any]) -> GradedCandidate:
    scores = {name: float(value) for name, value in data["scores"].items()}
    return GradedCandidate(
        **{**data, "key": tuple(data["key"]), "scores": scores, "usage": usage_of(data["usage"])}
    )
