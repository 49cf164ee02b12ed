"""What the tests of verifiers share: branches of text, scores with their bill, a toy strategy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mull.budget import Ledger, Meter, Purpose
from mull.engines.simulated import run_virtual
from mull.selection import NOTHING, best
from mull.strategies.base import Ended, OrderedSearch, Outcome, Result, Search, Start
from mull.strategies.needs import Needs
from mull.types import Branch, Candidate, Completion, Problem, Step, StopReason
from mull.verifiers.base import Verifier


def branch(
    problem: Problem,
    *lines: str,
    key: tuple[int, ...] = (0,),
    stop: StopReason = StopReason.STEP,
    logprobs: Sequence[tuple[float, ...] | None] = (),
) -> Branch:
    """A branch of steps, the last with a stop of its own."""
    stops = [StopReason.STEP] * (len(lines) - 1) + [stop]
    likely = logprobs or [None] * len(lines)
    pairs = zip(lines, stops[-len(lines) :], likely, strict=True)
    steps = tuple(Step(line, why, logprobs=known) for line, why, known in pairs)
    return Branch(problem, problem.prompt, key, steps=steps)


def whole(problem: Problem, *lines: str, key: tuple[int, ...] = (0,)) -> Branch:
    """A branch that its model ended."""
    return branch(problem, *lines, key=key, stop=StopReason.END)


def meter(verifier: Verifier) -> Meter:
    return Meter(Ledger(), Purpose.VERIFIER, verifier.info)


def scores(verifier: Verifier, *branches: Branch, gauge: Meter | None = None) -> list[float]:
    """What a verifier says, on a virtual clock."""
    return run_virtual(verifier.score(branches, gauge or meter(verifier)))


def scored(verifier: Verifier, *branches: Branch, gauge: Meter | None = None) -> list[float]:
    """What a verifier says, on a real clock: for engines with threads of their own."""
    return asyncio.run(_score(verifier, branches, gauge or meter(verifier)))


async def _score(verifier: Verifier, branches: Sequence[Branch], gauge: Meter) -> list[float]:
    return await verifier.score(branches, gauge)


@dataclass(frozen=True)
class Pick:
    """Best of n by a named verifier: n samples, one ``Score`` of all, the best answers."""

    n: int = 4
    verifier: str = "prm"

    @property
    def needs(self) -> Needs:
        return Needs(verifiers=(self.verifier,))

    def start(self, start: Start) -> Search:
        return _PickSearch(start, self.n, self.verifier)


@dataclass
class _PickSearch(OrderedSearch):
    n: int
    verifier: str
    branches: list[Branch] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    def begin(self) -> None:
        self.generate(Branch.root(self.start.problem), self.start.limit, self.n)

    def take(self, outcome: Outcome) -> None:
        root = Branch.root(self.start.problem)
        if isinstance(outcome.value, Completion):
            self.branches.append(root.child(outcome.value))
            if len(self.branches) == self.n:
                super().score(self.branches, self.verifier)
        elif isinstance(outcome.value, tuple):
            read = map(self.start.candidate, self.branches)
            self.candidates = [
                replace(candidate, scores={**candidate.scores, self.verifier: score})
                for candidate, score in zip(read, outcome.value, strict=True)
            ]

    def result(self) -> Result:
        chosen = NOTHING
        if self.candidates:
            chosen = best(self.candidates, self.verifier, self.start.same)
        ended = Ended.COMPLETE if self.done else Ended.UNFINISHED
        return Result((chosen,), tuple(self.candidates), tuple(self.failures), ended)
