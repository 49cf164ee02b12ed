"""`mull report`: the records of one or more runs → one HTML page, tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mull.cli import options
from mull.errors import UsageError
from mull.report.arc_files import left_out_of
from mull.report.load import Runs
from mull.report.write import write_report


def report(
    directories: Annotated[list[str], typer.Argument(help="Directories of runs.")],
    out: Annotated[
        str | None,
        typer.Option(
            help="Where to write; default: report/ in the first directory.",
            callback=options.named,
        ),
    ] = None,
) -> None:
    """Write report.html, its tables (md, csv) and its plots (svg, png)."""
    target = Path(out) if out is not None else Path(directories[0]) / "report"
    if target.exists() and not target.is_dir():
        raise UsageError(f"--out {target} is a file; expected a directory, new or old")
    unread = left_out_of(directories)
    with Runs(directories) as loaded:
        page = write_report(loaded.runs, target, more=[] if unread is None else [unread])
    Console(highlight=False, markup=False, soft_wrap=True).print(f"report: {page}")
