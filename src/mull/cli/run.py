"""`mull run`: a config → a run's records; run it again to resume."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from mull.catalog import load_policy, load_task
from mull.cli import options
from mull.report.arc_files import write_tables
from mull.report.arc_tables import left_out
from mull.report.console import summary
from mull.report.load import Runs
from mull.report.tables import safe_terminal
from mull.runs import Config, Estimate, Summary, default_directory, estimate, load_config, prepare
from mull.runs import Progress as RunProgress
from mull.runs import run as run_config
from mull.runs.prepare import check_new
from mull.tasks.arc.data import readable
from mull.tasks.arc.given import Given
from mull.tasks.arc.task import ArcTask
from mull.tasks.base import Task


def run(
    config: Annotated[str, typer.Argument(help="The run's config, a TOML file.")],
    out: Annotated[
        str | None,
        typer.Option(help="The run's directory; default: runs/<name>.", callback=options.named),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print tokens, FLOPs, hours and cost; run nothing.")
    ] = False,
) -> int:
    """Run or resume a config; Ctrl-C keeps everything so far."""
    console = Console(highlight=False, markup=False)
    loaded = load_config(config)
    task, problems = _task(loaded)
    if dry_run:
        console.print(_table(asyncio.run(_estimate(loaded, task))))
        options.say(problems, sys.stderr)
        return options.FAILURES if problems else 0
    directory = Path(out) if out is not None else default_directory(loaded)
    ended = with_bar(loaded, directory, task)
    if task is not None:
        write_tables(directory, [left_out(problems)] if problems else [])
    if ended.done:
        with Runs([directory]) as records:
            for table in summary(records.runs):
                console.print(table)
    options.say(problems, sys.stderr)
    say_end(console, ended)
    return ended.exit_code or (options.FAILURES if problems else 0)


def _task(config: Config) -> tuple[Task | None, list[str]]:
    """Grid puzzles are read one by one: what is wrong with some of them does not stop the rest.

    ``None`` for every other task, which the run reads itself.
    """
    if config.file is None or config.task.partition("(")[0] != ArcTask.name:
        return None, []
    task = load_task(config.task)
    if not isinstance(task, ArcTask):
        return None, []
    found, errors = readable(config.file)
    return Given.of(task, found), [str(error) for error in errors]


async def _estimate(config: Config, task: Task | None) -> Estimate:
    plan = prepare(config, task=task)
    check_new(plan)
    engine = load_policy(config.model, **config.engine)
    try:
        equipment = plan.equip(engine)
        await equipment.aclose()  # that it can be loaded is all that is asked of it
        return await estimate(plan, engine)
    finally:
        await engine.aclose()


def _table(found: Estimate) -> Table:
    table = Table("what", "about", box=None)
    hours = "unknown" if found.hours is None else f"{found.hours:.2g}"
    flops = f"{found.flops:.3g}" if found.flops else "unknown"
    cost = f"{found.cost:.4g}" if found.cost else "unknown"
    for name, value in (
        ("cells", f"{found.cells:,}"),
        ("problems", f"{found.problems:,}"),
        ("samples, shared ones once", f"{found.samples:,}"),
        ("prompt tokens", f"{found.prompt_tokens:,}"),
        ("generated tokens", f"{found.generated_tokens:,}"),
        (f"FLOPs ({found.cost_model})", flops),
        ("hours", hours),
        ("cost", cost),
        ("measured on", f"{found.measured} completions"),
        ("not counted", ", ".join(map(safe_terminal, found.left_out)) or "nothing"),
    ):
        table.add_row(name, value)
    return table


def with_bar(config: Config, directory: Path, task: Task | None = None) -> Summary:
    """Run or resume a config with a progress bar; ``task`` stands in for the config's."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tokens]} tokens"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # The bar goes to stderr, so that what a pipe takes from stdout is tables alone.
    with Progress(*columns, console=Console(stderr=True)) as bar:
        shown = bar.add_task("starting", total=None, tokens="0")

        def on_progress(state: RunProgress) -> None:
            bar.update(
                shown,
                description=str(state.cell.strategy),
                completed=state.done,
                total=state.total,
                tokens=f"{state.spent.generated:,}",
            )

        try:
            return run_config(config, directory, task=task, on_progress=on_progress, signals=True)
        except BaseException:
            # What is said of the error stands alone: no bar before it, no line where one was.
            bar.live.transient = True
            bar.console.quiet = not bar.console.is_interactive
            raise


def say_end(console: Console, ended: Summary) -> None:
    """Say what is left to know of a run that ended."""
    if ended.dropped:
        console.print(f"{ended.dropped} damaged rows were found, dropped and made again")
    lines = options.counted("failed", ended.failures) + options.counted("no verdict", ended.broke)
    lines += ended.notes
    for line in lines:
        console.print(" ".join(safe_terminal(line).split()), soft_wrap=True)
    if ended.failed:
        console.print(
            f"{ended.failed} results have failures; mend their cause, or run again to retry them"
        )
    if ended.interrupted:
        console.print(f"interrupted: {ended.stored} of {ended.total} kept; run again to go on")
    console.print(f"run: {ended.directory}", soft_wrap=True)
