"""`mull grade`: responses made elsewhere → grades, and why some have none."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mull.catalog import load_task
from mull.cli import options
from mull.metrics.intervals import wilson
from mull.runs.responses import Response, grade_responses
from mull.types import GradeOutcome

BROKEN = (GradeOutcome.GRADER_TIMEOUT, GradeOutcome.GRADER_ERROR)


def grade(
    file: Annotated[str, typer.Argument(help="jsonl rows: id, problem, answer (gold), response.")],
    task: Annotated[str, typer.Option(help="Task that reads and compares the answers.")],
    as_json: options.AsJson = False,
) -> int:
    """Grade responses made elsewhere."""
    outcomes: Counter[GradeOutcome] = Counter()
    reasons: Counter[str] = Counter()
    for response in grade_responses(file, load_task(task)):
        outcomes[response.grade.outcome] += 1
        if response.extraction.unanswered is not None:
            reasons[response.extraction.unanswered.value] += 1
        if as_json:
            options.print_json(_row(response))
    if not as_json:
        _print(outcomes, reasons)
    return 3 if any(outcomes[outcome] for outcome in BROKEN) else 0


def _row(response: Response) -> dict[str, object]:
    reason = response.extraction.unanswered
    return {
        "id": response.problem.id,
        "correct": response.grade.correct,
        "answer": response.extraction.answer,
        "outcome": response.grade.outcome.value,
        **({"unanswered": reason.value} if reason is not None else {}),
    }


def _print(outcomes: Counter[GradeOutcome], reasons: Counter[str]) -> None:
    table = Table("outcome", "responses", "share", box=None)
    n = sum(outcomes.values())
    for outcome in GradeOutcome:
        if outcomes[outcome]:
            table.add_row(outcome.value, f"{outcomes[outcome]:,}", f"{outcomes[outcome] / n:.1%}")
    for reason, count in sorted(reasons.items()):
        table.add_row(f"  unanswered: {reason}", f"{count:,}", f"{count / n:.1%}")
    console = Console(highlight=False, markup=False)
    console.print(table)
    graded = outcomes[GradeOutcome.CORRECT] + outcomes[GradeOutcome.WRONG]
    graded += outcomes[GradeOutcome.UNANSWERED]
    if graded:
        accuracy = wilson(outcomes[GradeOutcome.CORRECT], graded)
        console.print(f"accuracy {accuracy.percent()} of {graded:,} graded (Wilson 95 %)")
    else:
        console.print("no response could be graded: the rows have no gold answers")
