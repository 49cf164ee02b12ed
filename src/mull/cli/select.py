"""`mull select`: many responses a problem, made elsewhere → one answer each."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer
from rich.console import Console

from mull.catalog import load_task
from mull.catalog.options import build
from mull.catalog.spec import parse, unknown
from mull.cli import options
from mull.metrics.intervals import wilson
from mull.report.tables import safe_terminal
from mull.runs.responses import Chosen, select_responses
from mull.selection import SELECTORS, Selector


def select(
    file: Annotated[str, typer.Argument(help="jsonl rows: problem, response, logprob or scores.")],
    task: Annotated[str, typer.Option(help="Task that reads and compares the answers.")],
    by: Annotated[
        str, typer.Option("--select", help="As in majority or weighted(score=prm).")
    ] = "majority",
    as_json: options.AsJson = False,
) -> int:
    """Select one answer a problem from samples made elsewhere."""
    chosen = list(select_responses(file, load_task(task), _selector(by)))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    graded = correct = 0
    for choice in chosen:
        verdict = choice.grade.correct
        graded += verdict is not None
        correct += verdict is True
        if as_json:
            options.print_json(_row(choice))
        else:
            answer = "(no answer)" if choice.selection.answer is None else choice.selection.answer
            mark = {True: "correct", False: "wrong", None: ""}[verdict]
            console.print(
                f"{safe_terminal(choice.problem.id)[:60]}\t{safe_terminal(answer)}\t"
                f"{choice.selection.confidence:.2f} of {choice.responses}\t{mark}"
            )
    if graded and not as_json:
        console.print(f"accuracy {wilson(correct, graded).percent()} of {graded:,} (Wilson 95 %)")
    broke = options.broken(choice.grade for choice in chosen)
    options.say(broke, sys.stderr)
    return options.FAILURES if broke else 0


def _selector(text: str) -> Selector:
    spec = parse(text)
    if spec.name not in SELECTORS:
        raise unknown("selection", spec.name, SELECTORS)
    return cast(Selector, build(spec.name, SELECTORS[spec.name], spec.parameters))


def _row(choice: Chosen) -> dict[str, object]:
    return {
        "id": choice.problem.id,
        "answer": choice.selection.answer,
        "confidence": round(choice.selection.confidence, 4),
        "votes": [[group.answer, group.votes] for group in choice.selection.ranking],
        "responses": choice.responses,
        "correct": choice.grade.correct,
    }
