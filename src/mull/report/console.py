"""The tables that end a run on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mull.report import contents
from mull.report.browser import TextBudget
from mull.report.data import Run
from mull.report.tables import terminal
from mull.report.write import study_all

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def summary(runs: Sequence[Run], resamples: int = 2000, draws: int = 200) -> list[RichTable]:
    """Tables for ``rich.console.Console.print``: n-scaling of each pooled series with intervals,
    the strategies side by side where there are several or none is a pool, what has no verdict, and
    what a run of one strategy spent.

    Fewer resamples and draws than the report's, so that a run ends quickly. Needs neither
    matplotlib nor jinja2.
    """
    studies = study_all(runs, TextBudget(all_texts=0, some_texts=0), resamples, draws)
    pooled = [study for study in studies if study.points]
    tables = [contents.n_scaling(study, titled=len(pooled) > 1) for study in pooled]
    if len(studies) > 1 or not pooled:
        tables.append(contents.brief(studies))
    without = contents.undecided(studies)
    tables += [without] if without.rows else []
    tables += [contents.ledger(run) for run in runs if len(run.cells) == 1]
    return [terminal(table) for table in tables]
