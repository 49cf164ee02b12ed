"""`mull arc external`: puzzles and the command of another solver → its attempts as a submission."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mull.cli.arc.shared import Puzzles, puzzles_of
from mull.cli.options import FAILURES, say
from mull.tasks.arc.external import External, solve
from mull.tasks.arc.predictions import write_answers


def external(
    puzzles: Puzzles,
    command: Annotated[
        str, typer.Option(help='As in "./solve {challenges} {attempts}"; no shell runs it.')
    ],
    out: Annotated[str, typer.Option(help="The submission to write; [] where there is none.")],
    seconds: Annotated[float, typer.Option(help="Wall clock, then it is killed.")] = 600.0,
    name: Annotated[str | None, typer.Option(help="For messages; default: its program.")] = None,
) -> int:
    """Run another solver, as your own user, without a look at the outputs of test pairs."""
    asked, problems = puzzles_of(puzzles)
    checked = solve(External.of(name, command, seconds), asked)
    write_answers(out, checked.submission)
    pairs = [pair for each in checked.submission.values() for pair in each]
    empty = sum(not any(grid is not None for grid in pair) for pair in pairs)
    print(f"{len(asked):,} puzzles, {len(pairs):,} test inputs, {empty:,} without an answer: {out}")
    problems += checked.problems
    say(problems, sys.stderr)
    return FAILURES if problems else 0
