"""Branches → the share of the policy's own continuations that come out right: the branch's value.

The one service behind Monte-Carlo step labels, the search for a first error by bisection, and
estimates of how good a state is. It is a strategy like any other: the driver keeps the engine busy
over all branches, and the ledger counts every token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from mull.budget import Purpose
from mull.engines.base import Engine
from mull.errors import UsageError
from mull.runs.result import grade_answer
from mull.selection import NOTHING
from mull.strategies.base import Ended, OrderedSearch, Outcome, Result, Search, Start
from mull.strategies.drive import Job, drive
from mull.tasks.base import Task
from mull.types import Branch, Candidate, Completion, Sampling, Usage


@dataclass(frozen=True, slots=True)
class Value:
    """What ``n`` rollouts of a branch came to; one that failed or has no grade is not counted."""

    branch: Branch
    right: int
    n: int
    usage: Usage = Usage()

    @property
    def mean(self) -> float:
        """The share that came out right; NaN where none came."""
        return self.right / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True)
class Rollouts:
    """The strategy: continue one branch to its end, ``n`` times."""

    branch: Branch
    n: int

    def start(self, start: Start) -> Search:
        return _RolloutSearch(start, self.branch, self.n)


@dataclass
class _RolloutSearch(OrderedSearch):
    branch: Branch
    n: int

    def __post_init__(self) -> None:
        self.candidates: list[Candidate] = []

    def begin(self) -> None:
        # No longer than a sample of the policy, what the branch has of it included.
        left = max(1, self.start.tokens_left(self.branch))
        until = replace(self.start.limit, max_tokens=left)
        self.generate(self.branch, until, self.n, purpose=Purpose.LOOKAHEAD)

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            self.candidates.append(self.start.candidate(self.branch.child(outcome.value)))

    def result(self) -> Result:
        ended = Ended.COMPLETE if self.done else Ended.UNFINISHED
        return Result((NOTHING,), tuple(self.candidates), tuple(self.failures), ended)


async def values(
    branches: Iterable[Branch],
    engine: Engine,
    task: Task,
    *,
    rollouts: int = 16,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> AsyncIterator[Value]:
    """The value of each branch, as each is known; branches are read lazily.

    A finished branch needs no rollout: its value is its own grade, 0 or 1. Rollouts of one branch
    are the same however they are asked for: their seed is the branch's key's.
    """
    if rollouts < 1:
        raise UsageError(f"rollouts must be at least 1, not {rollouts}")
    finished: deque[Value] = deque()

    def jobs() -> Iterator[Job]:
        for branch in branches:
            start = Start(branch.problem, task, None, sampling)
            if branch.finished:
                finished.append(_value(branch, task, [start.candidate(branch).answer]))
            else:
                yield Job(Rollouts(branch, rollouts), start, seed, branch)

    async with aclosing(drive(jobs(), {"policy": engine})) as stream:
        async for solved in stream:
            answers = [candidate.answer for candidate in solved.result.candidates]
            yield _value(solved.job.tag, task, answers, solved.ledger.total)
            while finished:
                yield finished.popleft()
    while finished:
        yield finished.popleft()


def _value(
    branch: Branch, task: Task, answers: Sequence[str | None], usage: Usage = Usage()
) -> Value:
    grades = [grade_answer(task, branch.problem, answer).correct for answer in answers]
    return Value(branch, grades.count(True), len(grades) - grades.count(None), usage)


def prefixes(branch: Branch) -> Iterator[Branch]:
    """The branch after its first step, its second, … its last; keys tell them apart."""
    for count in range(1, branch.depth + 1):
        yield replace(branch, key=(*branch.key, count), steps=branch.steps[:count])
