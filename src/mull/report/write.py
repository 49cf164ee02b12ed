"""Runs → a folder: report.html, tables as Markdown and CSV, plots as SVG and PNG.

Bytes depend on the records alone: no dates, no host, no order of arrival.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mull.fileio import write_atomic
from mull.metrics import RESAMPLES
from mull.report import contents, curves, plots, worth
from mull.report.arc import Bench
from mull.report.arc_tables import tables as arc_tables
from mull.report.browser import TextBudget
from mull.report.data import BETWEEN, Run
from mull.report.digest import UNITS, digest
from mull.report.page import Chapter, Figure, render
from mull.report.tables import Table, markdown, safe_terminal, to_csv
from mull.report.trees import Grove

DRAWS = 1000
CHAPTERS = 8
"""Pooled series that get figures of their own; further ones stand in the tables."""
NOTED = "report_files.txt"
"""Which files beside the page are the report's, a name a line."""
OWN = re.compile(r"(tables|plots)/[^/\\]+\.(md|csv|svg|png)")
CHOSEN = re.compile(r"\b(verifier|judge)=")
CURVES = (
    "The share of candidates that is right by their score, in bins of equal mass; on the dashed "
    "line a score is a probability. Bars: how many have which score, green the right ones."
)


def write_report(
    runs: Sequence[Run],
    out: Path,
    resamples: int = RESAMPLES,
    draws: int = DRAWS,
    more: Sequence[Table] = (),
) -> Path:
    """Write the report of one or more runs into the folder ``out``; the path of report.html.

    ``resamples`` of the bootstrap and ``draws`` of the vote's subsets set the precision (and the
    time) of the numbers; ``more`` tables stand beside the runs' own. Raises ``MissingExtraError``
    without matplotlib and jinja2.
    """
    bench = Bench()
    runs = [bench.watched(run, run.name if len(runs) > 1 else "") for run in runs]
    texts = TextBudget(picture=bench.picture)
    grove = Grove()
    studies = study_all(runs, texts, resamples, draws, grove)
    texts.settle()
    pooled = [study for study in studies if study.points][:CHAPTERS]
    titled = len(pooled) > 1 or len(runs) > 1
    chapters = [_chapter(study, studies, titled) for study in pooled]
    comparisons = _comparisons(pooled)
    tables = _tables(runs, studies)
    found = worth.worths([study.line for study in studies], resamples)
    others = (*worth.tables(found), *arc_tables(bench.solved()), *more)
    tables |= {table.name: table for table in others}
    drawn = _drawn("reliability", CURVES, worth.figure, found)
    browser = [
        {
            "label": study.line.label
            if len(study.line.digests) == 1
            else f"{study.line.label} · seed {d.seed}",
            "problems": [entry.payload for entry in d.entries],
        }
        for study in studies
        for d in study.line.digests
    ]
    page = render(
        runs,
        chapters,
        comparisons,
        tables,
        grove.stands(),
        browser,
        texts.remark,
        version("mull"),
        bench.puzzles,
        drawn,
        titled,
    )
    every = [*tables.values(), *(table for chapter in chapters for table in chapter.tables)]
    figures = [*comparisons, *(f for c in chapters for f in (*c.compute, *c.figures))]
    figures += [drawn] if drawn else []
    return _write(out, page, every, figures)


def study_all(
    runs: Sequence[Run],
    texts: TextBudget,
    resamples: int = RESAMPLES,
    draws: int = DRAWS,
    grove: Grove | None = None,
) -> list[contents.Study]:
    """Every series of the runs with its numbers; ``grove`` sees every problem go by."""
    studies: list[contents.Study] = []
    grove = grove or Grove()
    for run in runs:
        name = run.name if len(runs) > 1 else ""
        watched = (replace(cell, problems=grove.watch(cell, name)) for cell in run.cells)
        digests = [digest(cell, texts) for cell in watched]
        lines = curves.series(digests, prefix=f"{name}{BETWEEN}" if name else "")
        largest = _largest(lines)
        for line in lines:
            pooled = line in largest
            number = len([study for study in studies if study.points]) + 1
            studies.append(
                contents.Study(
                    name="" if number == 1 else f"_{number}",
                    line=line,
                    **contents.means(line, resamples),
                    points=curves.points(line, resamples, draws) if pooled else (),
                    panels=curves.panels(line, resamples, draws) if pooled else (),
                    run=name,
                )
            )
    return studies


def _largest(lines: Sequence[curves.Series]) -> list[curves.Series]:
    """Of the pooled series that share their samples, the first with the most."""
    found: dict[tuple[object, ...], curves.Series] = {}
    for line in lines:
        if line.pooled and line.first.n > 1:
            before = found.get(line.pool_name)
            if before is None or line.first.n > before.first.n:
                found[line.pool_name] = line
    return list(found.values())


def _chapter(study: contents.Study, studies: Sequence[contents.Study], titled: bool) -> Chapter:
    # A cell that is read off the same pool would lie on a curve that is there already, unless a
    # verifier or a judge chose. Other runs may have had other problems.
    mine = study.line.first.parameters
    others = [
        other
        for other in studies
        if other.run == study.run
        and (not other.line.pooled or CHOSEN.search(other.line.first.strategy))
        and other.line.first.parameters in ({}, mine)
    ][: len(plots.OTHERS)]
    compute = [
        _drawn(
            f"accuracy_by_{unit}{study.name}",
            plots.SHORT[unit],
            plots.against_compute,
            study,
            others,
            unit,
        )
        for unit in UNITS
    ]
    figures = [
        _drawn(
            f"vote_against_coverage{study.name}",
            "Vote against coverage: the shaded gap is what a better selection could win.",
            plots.vote_against_coverage,
            study,
        )
    ]
    tables = [
        contents.n_scaling(study, titled),
        contents.vote_against_coverage(study, titled),
        contents.compute(study, titled),
    ]
    if study.panels:
        tables.append(contents.difficulty(study, titled))
        figures.append(
            _drawn(
                f"difficulty{study.name}",
                "Accuracy by samples, for each difficulty.",
                plots.difficulty,
                study.panels,
            )
        )
    return Chapter(
        study,
        tuple(figure for figure in compute if figure),
        tuple(figure for figure in figures if figure),
        tuple(tables),
    )


def _comparisons(pooled: Sequence[contents.Study]) -> list[Figure]:
    made = [
        _drawn(
            f"votes_by_{unit}",
            plots.SHORT[unit],
            plots.compare,
            pooled,
            unit,
        )
        for unit in ("samples", "flops")
    ]
    by_run: dict[str, list[contents.Study]] = {}
    for study in pooled:
        by_run.setdefault(study.run, []).append(study)
    for number, (run, own) in enumerate(by_run.items(), 1):
        name = "temperature" if number == 1 else f"temperature_{number}"
        title = f"temperature{BETWEEN}{safe_terminal(run)}" if run else "temperature"
        made.append(_drawn(name, title, plots.sweep, own))
    return [figure for figure in made if figure]


def _drawn(name: str, title: str, draw: Any, *arguments: Any) -> Figure | None:
    """Draw a figure in the house style; ``None`` where there is nothing to draw."""
    with plots.style(name):
        figure = draw(*arguments)
        return None if figure is None else Figure(name, title, plots.svg(figure), plots.png(figure))


def _tables(runs: Sequence[Run], studies: Sequence[contents.Study]) -> dict[str, Table]:
    ledgers = [
        contents.ledger(run, "ledger" if i == 0 else f"ledger_{i + 1}")
        for i, run in enumerate(runs)
    ]
    made = [contents.cells(studies), *ledgers]
    without = contents.undecided(studies)
    made += [without] if without.rows else []
    made += [contents.unanswered(studies), contents.failure_types(studies)]
    made.append(contents.failures(studies))
    return {table.name: table for table in made}


def _write(out: Path, page: str, tables: Sequence[Table], figures: Sequence[Figure]) -> Path:
    files: dict[str, str | bytes] = {}
    for table in tables:
        files[f"tables/{table.name}.md"] = markdown(table)
        files[f"tables/{table.name}.csv"] = to_csv(table)
    for figure in figures:
        files[f"plots/{figure.name}.svg"] = figure.svg
        files[f"plots/{figure.name}.png"] = figure.png
    for folder in ("tables", "plots"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    path = out / "report.html"  # goes first and comes last: where it is, the rest is complete
    path.unlink(missing_ok=True)
    _clear(out, files)
    for name, content in files.items():
        write_atomic(out / name, content)
    write_atomic(path, page)
    return path


def _clear(out: Path, files: Collection[str]) -> None:
    """Remove what an earlier report wrote into ``out`` and this one will not; note what is its own.

    A file that stood there before any report is somebody else's: it is never noted nor removed.
    """
    try:
        noted = (out / NOTED).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        noted = []
    own = {name for name in noted if OWN.fullmatch(name)}
    for name in own.difference(files):
        (out / name).unlink(missing_ok=True)
    kept = [name for name in files if name in own or not (out / name).exists()]
    write_atomic(out / NOTED, "".join(f"{name}\n" for name in kept))
