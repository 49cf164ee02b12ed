"""`mull arc score`: a submission and the puzzles with their solutions → what it is worth."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mull.cli import options
from mull.cli.arc.shared import Puzzles, puzzles_of
from mull.metrics import Interval
from mull.tasks.arc import submission
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.submission import Checked


def score(
    file: Annotated[
        str, typer.Argument(metavar="SUBMISSION", help="submission.json, or the csv of 2020.")
    ],
    puzzles: Puzzles,
    as_json: options.AsJson = False,
) -> int:
    """Score a submission: two attempts a test input, every puzzle counts."""
    asked, wrong = puzzles_of(puzzles)
    checked = _checked(file, asked)
    found = submission.score(checked.submission, asked)
    problems = [*wrong, *checked.problems]
    if as_json:
        options.print_json(
            {
                "score": _json(found.fractional),
                "all_pairs": _json(found.all_pairs),
                "puzzles": len(asked),
                "solved": found.solved,
                "problems": problems,
            }
        )
    else:
        table = Table("score", "percent [95 %]", "puzzles", box=None)
        table.add_row("solved test pairs", found.fractional.percent(), f"{len(asked):,}")
        table.add_row("whole puzzles", found.all_pairs.percent(), f"{len(asked):,}")
        Console(highlight=False, markup=False).print(table)
    options.say(problems, sys.stderr)
    return options.FAILURES if problems else 0


def _checked(file: str, puzzles: list[Puzzle]) -> Checked:
    if not file.lower().endswith(".csv"):
        return submission.check(file, puzzles)
    return submission.matched(file, submission.read_csv(file), puzzles)


def _json(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
