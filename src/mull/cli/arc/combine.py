"""`mull arc combine` and `mull arc concatenate`: submissions of several solvers → one file."""

from __future__ import annotations

from typing import Annotated

import typer

from mull.errors import UsageError
from mull.tasks.arc import submission
from mull.tasks.arc.predictions import write_answers
from mull.tasks.arc.submission import Submission

Out = Annotated[str, typer.Option(help="The file to write.")]


def combine(
    first: Annotated[str, typer.Argument(help="Its attempt 1 leads; [[0]] counts as none.")],
    second: Annotated[str, typer.Argument(help="Gives attempt 2.")],
    out: Out,
    prefer_second: Annotated[
        bool, typer.Option(help="The second solver's attempt before the first's own attempt 2.")
    ] = True,
) -> None:
    """Combine two submissions: the first attempt of each solver."""
    made = submission.combine(_read(first, True), _read(second, True), prefer_second)
    _write(out, made)


def concatenate(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Predictions, submissions.")],
    out: Out,
) -> None:
    """Put all attempts of several files together: attempt_1 … of one after the other."""
    if len(files) < 2:
        raise UsageError(f"concatenate takes two files or more, not {len(files)}")
    made = submission.concatenate(_read(file, False) for file in files)
    write_answers(out, made)
    _say(out, made)


def _read(file: str, filler_is_none: bool) -> Submission:
    if not file.lower().endswith(".csv"):
        return submission.read(file, filler_is_none)
    made = submission.read_csv(file)
    return submission.without_filler(made) if filler_is_none else made


def _write(out: str, made: Submission) -> None:
    if out.lower().endswith(".csv"):
        submission.write_csv(out, made)
    else:
        write_answers(out, made, submission.FILLER)
    _say(out, made)


def _say(out: str, made: Submission) -> None:
    print(f"{len(made):,} puzzles, {sum(map(len, made.values())):,} test inputs: {out}")
