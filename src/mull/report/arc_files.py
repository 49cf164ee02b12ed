"""What a cell made of grid puzzles → the field's files: submission, predictions, task results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mull.fileio import safe_name, write_atomic
from mull.report.arc import SolvedCell, as_json
from mull.report.arc_tables import LEFT_OUT, label, left_out
from mull.report.tables import Table, markdown, to_csv
from mull.tasks.arc import submission
from mull.tasks.arc.predictions import Prediction, write_predictions, write_task_results
from mull.tasks.arc.task import ArcTask

SUBMISSION = "submission.json"
PREDICTIONS = "predictions.json"
TASK_RESULTS = "task_results.json"
SCORES = "scores.json"


def write_files(
    folder: Path, solved: Sequence[SolvedCell], tables: Sequence[Table], task: ArcTask | None = None
) -> None:
    """Write the last cell's files into ``folder``, and where there are several cells, each one's
    into ``folder/cells/<its name>``; the scores of all, and the tables.

    With ``task`` the task results hold the prompts as well. A response stands there as the run
    recorded it: an answer in the puzzle's own frame, a failed response as the model wrote it.
    """
    for each in solved if len(solved) > 1 else ():
        own = folder / "cells" / safe_name(label(each, solved))
        own.mkdir(parents=True, exist_ok=True)
        _write(own, each, task)
    _write(folder, solved[-1], task)
    write_atomic(folder / SCORES, as_json(solved) + "\n")
    write_tables(folder, tables)


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """Write tables into ``folder/tables``; that of puzzles that could not be read goes if they can.

    Puzzles that a run could not read are nowhere in its records: the table remembers them.
    """
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    if all(table.name != LEFT_OUT for table in tables):  # what could not be read once, now can be
        for ending in ("md", "csv"):
            (folder / "tables" / f"{LEFT_OUT}.{ending}").unlink(missing_ok=True)
    for table in tables:
        write_atomic(folder / "tables" / f"{table.name}.md", markdown(table))
        write_atomic(folder / "tables" / f"{table.name}.csv", to_csv(table))


def left_out_of(folders: Sequence[str | Path]) -> Table | None:
    """The puzzles that some runs could not read, as they noted it; ``None`` where all were read.

    The run's own records know puzzles that were asked alone: the table beside them has the others.
    """
    found: dict[str, None] = {}
    for folder in folders:
        file = Path(folder) / "tables" / f"{LEFT_OUT}.csv"
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):  # most runs read all
            continue
        try:
            rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        except csv.Error:  # a file that somebody changed is no reason to have no report
            continue
        found |= dict.fromkeys(row[0] for row in rows if row)
    return left_out(list(found)) if found else None


def _write(folder: Path, solved: SolvedCell, task: ArcTask | None) -> None:
    tests = {puzzle.id: len(puzzle.test) for puzzle in solved.puzzles}
    submission.write(str(folder / SUBMISSION), solved.answers, solved.puzzles)
    write_predictions(str(folder / PREDICTIONS), solved.predictions, tests)
    made: Sequence[Prediction] = solved.predictions
    write_task_results(str(folder / TASK_RESULTS), made if task is None else _asked(task, solved))


def _asked(task: ArcTask, solved: SolvedCell) -> list[Prediction]:
    """The predictions with the prompts that their views are."""
    problems = {p.id: p for puzzle in solved.puzzles for p in task.problems_of(puzzle)}
    return [
        replace(each, prompt=task.asked(problems[each.problem], each.view)) if each.view else each
        for each in solved.predictions
    ]
