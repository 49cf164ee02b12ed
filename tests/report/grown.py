"""Problems with trees, grown by real searches on the simulator."""

from __future__ import annotations

from collections.abc import Iterator

from tests.strategies.common import TASK, run

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine, StepModel, levels
from mull.report.data import Cell, LedgerRow, ProblemResult
from mull.report.load import _problem
from mull.runs.records import ProblemRecord
from mull.runs.result import record_of
from mull.strategies.base import Start
from mull.strategies.drive import Job, Solved
from mull.types import Until
from mull.verifiers.simulated import SimulatedVerifier


def searched(
    spec: str, samples: int, problems: int, steps: int = 8, success: tuple[float, ...] = (0.8, 0.6)
) -> list[Solved]:
    """Simulated problems under a tree search."""
    strategy = load_strategy(spec)
    until = Until(max_tokens=1200)
    given = levels(problems, steps=steps, success=success)
    jobs = [Job(strategy, Start(p, TASK, Budget(samples=samples), until=until)) for p in given]
    verifiers = {"prm": SimulatedVerifier()}
    return run(jobs, SimulatedEngine(StepModel(), slots=64), verifiers=verifiers)


def grown(spec: str, samples: int, problems: int = 6, steps: int = 8) -> Cell:
    """A cell of such problems, as a report gets it."""

    def rows() -> Iterator[ProblemResult]:
        for at, solved in enumerate(searched(spec, samples, problems, steps)):
            problem = solved.job.start.problem
            record = record_of(
                at, problem, TASK, solved.result, solved.ledger, solved.samples, lambda _: None
            )
            asked = ProblemRecord(at, problem.id, problem.prompt.plain, problem.answer, {})
            yield _problem(asked, record, spec)

    return Cell(spec, f"samples={samples}", 0, tuple(rows()), independent=False)


def ledger_of(cell: Cell) -> tuple[LedgerRow, ...]:
    """All that the problems of a cell cost."""
    return tuple(row for problem in cell.problems for row in problem.spent)
