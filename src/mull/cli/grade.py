"""`mull grade`: responses made elsewhere → grades, and why some have none."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mull.catalog import load_task
from mull.cli import options
from mull.grades import GradeOutcome
from mull.metrics import mean_interval
from mull.runs.responses import Response, grade_responses

RESAMPLES = 2_000


def grade(
    file: Annotated[str, typer.Argument(help="jsonl rows: id, problem, answer (gold), response.")],
    task: Annotated[str, typer.Option(help="Task that reads and compares the answers.")],
    as_json: options.AsJson = False,
) -> int:
    """Grade responses made elsewhere."""
    responses: list[Response] = []
    for response in grade_responses(file, load_task(task)):
        responses.append(response)
        if as_json:
            options.print_json(_row(response))
    if not as_json:
        _print(responses)
    broke = options.broken(response.grade for response in responses)
    options.say(broke, sys.stderr)
    return options.FAILURES if broke else 0


def _row(response: Response) -> dict[str, object]:
    reason = response.extraction.unanswered
    return {
        "id": response.problem.id,
        "correct": response.grade.correct,
        "answer": response.extraction.answer,
        "outcome": response.grade.outcome.value,
        **({"unanswered": reason.value} if reason is not None else {}),
    }


def _print(responses: Sequence[Response]) -> None:
    table = Table("outcome", "responses", "share", box=None)
    n = len(responses)
    outcomes = Counter(response.grade.outcome for response in responses)
    for outcome in GradeOutcome:
        if outcomes[outcome]:
            table.add_row(outcome.value, f"{outcomes[outcome]:,}", f"{outcomes[outcome] / n:.1%}")
    reasons = Counter(response.extraction.unanswered for response in responses)
    for reason, count in sorted((str(r.value), c) for r, c in reasons.items() if r is not None):
        table.add_row(f"  unanswered: {reason}", f"{count:,}", f"{count / n:.1%}")
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(_accuracy(responses), soft_wrap=True)


def _accuracy(responses: Sequence[Response]) -> str:
    """The mean over problems of the share that is right, of what has a verdict."""
    right: dict[str, list[bool]] = {}
    for response in responses:
        if response.grade.correct is not None:
            right.setdefault(response.name, []).append(response.grade.correct)
    if right:
        accuracy = mean_interval([fmean(each) for each in right.values()], RESAMPLES)
        graded = sum(len(each) for each in right.values())
        return (
            f"accuracy {accuracy.percent()} over {len(right):,} problems "
            f"with {graded:,} graded responses (95 %)"
        )
    if all(response.problem.answer is None for response in responses):
        return "no response could be graded: the rows have no gold answers"
    return "no response could be graded: no verdict came, as the outcomes say"
