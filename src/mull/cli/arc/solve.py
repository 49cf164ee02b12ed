"""`mull arc solve`: puzzles → a run, a submission of two attempts, the score, and a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mull.catalog import model_card
from mull.cli import options
from mull.cli.arc.shared import Puzzles, puzzles_of
from mull.cli.arc.solving import Solving
from mull.cli.run import say_end, with_bar
from mull.errors import MissingExtraError
from mull.report.arc import SolvedCell, solved_of
from mull.report.arc_files import SUBMISSION, write_files
from mull.report.arc_tables import label, left_out, tables
from mull.report.load import Runs
from mull.report.tables import Table, safe_terminal, terminal
from mull.runs import default_directory
from mull.tasks.arc.given import Given
from mull.tasks.arc.task import ArcTask

PRINTED = ("arc_steps", "arc_n_scaling", "arc_temperatures")
"""Tables for the terminal; the others stand in the directory and in the report."""


@options.shared
def solve(
    given: Solving,
    puzzles: Puzzles,
    model: Annotated[str, typer.Option(help="Shipped model, directory, or http://host/v1#model.")],
    out: Annotated[
        str | None,
        typer.Option(
            help="Directory; default: runs/arc-<puzzles>-<model>.", callback=options.named
        ),
    ] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Write every prompt into task_results.json.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
) -> int:
    """Solve puzzles: run or resume, vote, write a submission and a report, print the score."""
    found, wrong = puzzles_of(puzzles)
    task = given.task(model_card(model))
    stem, name = (Path(part.rstrip("/")).name or part for part in (puzzles, model))
    config = given.config(f"arc-{stem.removesuffix('.json')}-{name}", puzzles, model, task)
    directory = Path(out) if out is not None else default_directory(config)
    ended = with_bar(config, directory, Given.of(task, found[: given.limit]))
    console = Console(highlight=False, markup=False)
    problems = list(wrong)
    if not ended.interrupted:
        problems += _finish(console, directory, wrong, report, task if prompts else None)
    options.say(problems, sys.stderr)
    say_end(console, ended)
    return ended.exit_code or (options.FAILURES if problems else 0)


def _finish(
    console: Console, directory: Path, wrong: list[str], report: bool, task: ArcTask | None
) -> list[str]:
    """Write files and report, print tables and score; what is to be said of the puzzles."""
    with Runs([directory]) as loaded:
        (run,) = loaded.runs
        solved = solved_of(run)
        more = [left_out(wrong)] if wrong else []
        made = tables(solved)
        write_files(directory, solved, [*made, *more], task)
        for table in made:
            if table.name in PRINTED:
                console.print(terminal(table))
        if report:
            write_page(console, loaded, directory / "report", more)
    print(score_line(solved[-1], directory))
    return unfit(solved)


def write_page(console: Console, loaded: Runs, folder: Path, more: Sequence[Table]) -> None:
    """Write the runs' report and say where; that it needs an extra is said, and no error."""
    try:
        from mull.report.write import write_report

        page = write_report(loaded.runs, folder, more=more)
    except MissingExtraError as error:
        console.print(f"no report: {error}", soft_wrap=True)
    else:
        console.print(f"report: {page}", soft_wrap=True)


def score_line(solved: SolvedCell, directory: Path) -> str:
    """What a cell's attempts are worth, and where they stand."""
    counts = f"{len(solved.puzzles):,} puzzles: {directory / SUBMISSION}"
    if not solved.scored:
        return f"no solutions are known, so there is no score; {counts}"
    worth = solved.score
    more = len(solved.puzzles) - len(solved.scored)
    said = (
        f"score {worth.fractional.percent()} % of solved test pairs, "
        f"{worth.all_pairs.percent()} % of whole puzzles ({safe_terminal(label(solved))}); {counts}"
    )
    return said + (f"; {more:,} without solutions are not scored" if more else "")


def unfit(solved: Sequence[SolvedCell]) -> list[str]:
    """A line on the test pairs that did not fit the model's context, if there are any."""
    ids = list(dict.fromkeys(id for each in solved for id in each.too_long))
    if not ids:
        return []
    shown = ", ".join(ids[: options.SHOWN]) + (" …" if len(ids) > options.SHOWN else "")
    return [f"{len(ids):,} test pairs do not fit the model's context and count as failed: {shown}"]
