"""What the tests of real strategies share: a task, jobs on the simulator, and short ways to run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mull.budget import Budget, Purpose
from mull.engines.base import Engine
from mull.engines.simulated import SimulatedEngine, run_virtual, simulated_problem
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.strategies.base import Search, Start, Strategy
from mull.strategies.drive import Job, Solved, drive
from mull.types import Candidate, EngineInfo, Problem, Prompt, Sampling, Until, Usage
from mull.verifiers.simulated import SimulatedVerifier


@dataclass(frozen=True)
class Plain:
    """Reads the last "answer N" of a text."""

    name: str = "plain"
    until: Until = field(default_factory=lambda: Until(max_tokens=400))

    def problem(self, text: str, id: str = "0") -> Problem:
        return Problem(id, Prompt.of(text))

    def extract(self, problem: Problem, text: str) -> Extraction:
        found = re.findall(r"answer:? (\S+)", text)
        return Extraction(found[-1]) if found else Extraction(None, Unanswered.NO_ANSWER)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        right = answer is not None and answer == problem.answer
        return Grade(GradeOutcome.CORRECT if right else GradeOutcome.WRONG)


TASK = Plain()


PRICE = (1.0, 0.5, 2.0)


class Priced(SimulatedVerifier):
    """The simulated verifier with a size and a price."""

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, parameters=self.parameters or 3, price=PRICE)


@dataclass(frozen=True)
class Starts:
    """A strategy made of a search class."""

    search: Callable[[Start], Search]

    def start(self, start: Start) -> Search:
        return self.search(start)


def problem(number: int = 0, success: float = 0.7, steps: int = 3) -> Problem:
    """A problem for the step model: each step is right with probability ``success``."""
    return simulated_problem(f"p{number}", success, steps, 10 + number)


def job(
    strategy: Strategy,
    budget: Budget | None = None,
    number: int = 0,
    *,
    success: float = 0.7,
    steps: int = 3,
    candidates: tuple[Candidate, ...] = (),
    sampling: Sampling = Sampling(),
    seed: int = 0,
    tag: Any = None,
) -> Job:
    """One simulated problem under a strategy."""
    given = problem(number, success, steps)
    start = Start(given, TASK, budget, sampling, candidates=candidates)
    return Job(strategy, start, seed, tag)


def run(
    jobs: Iterable[Job],
    engine: Engine | Mapping[str, Engine],
    *,
    watch: Callable[[Solved], None] | None = None,
    **options: Any,
) -> list[Solved]:
    """Everything a drive yields, in the jobs' order of ids, on a virtual clock."""

    async def collect() -> list[Solved]:
        engines = engine if isinstance(engine, Mapping) else {"policy": engine}
        found = []
        async for solved in drive(jobs, engines, **options):
            found.append(solved)
            if watch is not None:
                watch(solved)
        return found

    return sorted(run_virtual(collect()), key=lambda s: s.job.start.problem.id)


def one(job: Job, engine: Engine, **options: Any) -> Solved:
    """The single job, solved."""
    (solved,) = run([job], engine, **options)
    return solved


def tokens(usage: Usage) -> tuple[int, int, int]:
    """The whole numbers of a usage: sums of seconds may differ in their last digits."""
    return usage.prompt, usage.cached, usage.generated


def rows(solved: Solved) -> dict[tuple[Purpose, str], tuple[int, int, int, int, float]]:
    """The ledger to compare: what was spent on what, and how many completions."""
    return {(p, m): (*tokens(u), n, u.flops) for p, m, u, n in solved.ledger.rows()}


def idle(engine: SimulatedEngine) -> bool:
    """Whether no slot is held and nothing waits."""
    return engine.stats.in_flight == 0 and engine.stats.waiting == 0
