"""`mull arc solve`: puzzles → a run, a submission of two attempts, the score, and a report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mull.catalog import load_task, model_card
from mull.catalog.spec import parse
from mull.catalog.strategies import load_strategy, strategy_class
from mull.cli.arc.shared import FAILURES, SHOWN, Puzzles, puzzles_of, say
from mull.cli.run import say_end, with_bar
from mull.errors import MissingExtraError, UsageError
from mull.report.arc import SolvedCell, solved_of, viewed
from mull.report.arc_files import SUBMISSION, write_files
from mull.report.arc_tables import label, left_out, tables
from mull.report.load import Runs
from mull.report.tables import Table, safe_terminal, terminal
from mull.runs import Config, default_directory, make_config
from mull.strategies.airv import VERIFIER
from mull.strategies.judged_views import JUDGE
from mull.strategies.needs import needs_of
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.task import ArcTask
from mull.types import Problem

LADDER = ("greedy", "airv", "airv(rank=views)", "airv(rank=views, threshold={})")
"""The steps of ``--compare``: one answer, the vote, its answers by experts, all likely ones so."""

PRINTED = ("arc_steps", "arc_n_scaling", "arc_temperatures")
"""Tables for the terminal; the others stand in the directory and in the report."""


@dataclass(frozen=True, slots=True)
class Given(ArcTask):
    """The task with puzzles that were read already, so that a bad one does not stop the rest."""

    puzzles: tuple[Puzzle, ...] = ()

    def load(self, path: str) -> Iterator[Problem]:
        """Every test pair of the puzzles, whatever the path."""
        for puzzle in self.puzzles:
            yield from self.problems_of(puzzle)


def solve(
    puzzles: Puzzles,
    model: Annotated[str, typer.Option(help="Shipped model, directory, or http://host/v1#model.")],
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy; may be repeated. Default: airv.")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="Views of each puzzle.")] = 8,
    rank: Annotated[
        str | None, typer.Option(help="vote; views: product of experts; verify, select: a judge.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="The model that judges, for --rank verify or select.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="All answers of this probability, instead of samples.")
    ] = None,
    experts: Annotated[
        int, typer.Option(min=1, help="Views that a product of experts judges by.")
    ] = 8,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Run greedy, vote, product of experts, threshold search."),
    ] = False,
    temperature: Annotated[
        list[float] | None, typer.Option(help="0 is greedy; may be repeated. Default: 0.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="How puzzles are written; default: the model card's.")
    ] = None,
    characters: Annotated[
        int | None, typer.Option(help="Longest prompt; train pairs beyond it are left out.")
    ] = None,
    geometry: Annotated[
        bool, typer.Option(help="Views turn and mirror the grids; leave rows lying.")
    ] = True,
    colours: Annotated[bool, typer.Option(help="Views rename the colours.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first puzzles.")] = None,
    seed: Annotated[int, typer.Option(help="Seed; equal seeds give equal samples.")] = 0,
    out: Annotated[
        str | None, typer.Option(help="Directory; default: runs/arc-<puzzles>-<model>.")
    ] = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Write every prompt into task_results.json.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
) -> int:
    """Solve puzzles: run or resume, vote, write a submission and a report, print the score."""
    found, wrong = puzzles_of(puzzles)
    found = found[:limit]
    task = task_of(model, format, characters)
    task = replace(task, geometry=task.geometry and geometry, colours=task.colours and colours)
    chosen = _strategies(strategy or [], views, rank, threshold, compare)
    config = _config(puzzles, model, task, chosen, temperature or [0.0], experts, seed, judge)
    directory = Path(out) if out is not None else default_directory(config)
    settings = {each.name: getattr(task, each.name) for each in fields(ArcTask)}
    ended = with_bar(config, directory, Given(**settings, puzzles=tuple(found)))
    console = Console(highlight=False, markup=False)
    problems = list(wrong)
    if not ended.interrupted:
        problems += _finish(console, directory, wrong, report, task if prompts else None)
    say(problems, sys.stderr)
    say_end(console, ended)
    return ended.exit_code or (FAILURES if problems else 0)


def task_of(model: str, format: str | None = None, characters: int | None = None) -> ArcTask:
    """The task as the model's card has it, with what the command line says instead."""
    said = str((model_card(model) or {}).get("task", ArcTask.name))
    base = load_task(said if said.partition("(")[0] == ArcTask.name else ArcTask.name)
    settings: dict[str, Any] = {each.name: getattr(base, each.name) for each in fields(ArcTask)}
    if format is not None:
        settings["format"] = format
    if characters is not None:
        settings["characters"] = characters
    return ArcTask(**settings)


def _strategies(
    given: Sequence[str], views: int, rank: str | None, threshold: float | None, compare: bool
) -> list[str]:
    """Specs of strategies that know how many samples they take."""
    if compare:
        if rank is not None:
            raise UsageError("--compare runs every rank itself: leave out --rank")
        given = [*(step.format(threshold or 0.1) for step in LADDER), *given]
        threshold = None
    return list(dict.fromkeys(_spec(s, views, rank, threshold) for s in given or ["airv"]))


def _spec(text: str, views: int, rank: str | None, threshold: float | None) -> str:
    """A spec with the number of samples that so many views take, where it does not say one."""
    if text.partition("(")[0].endswith(".py"):
        return text
    spec = parse(text)
    made = strategy_class(spec.name)
    parameters = dict(spec.parameters)
    known = {each.name for each in fields(made)}
    if {"rank", "threshold"} <= known:
        parameters |= {} if rank is None else {"rank": rank, **parameters}
        parameters |= {} if threshold is None else {"threshold": threshold, **parameters}
    if "n" in known and "n" not in parameters:
        # The strategy itself says what a view costs, once it has been checked.
        seen = viewed(load_strategy(_written(spec.name, parameters)))
        parameters = {"n": views * (seen.width if seen else 1), **parameters}
    return _written(spec.name, parameters)


def _written(name: str, parameters: dict[str, Any]) -> str:
    """The spec string of a name and its parameters.

    >>> _written("airv", {"n": 8, "rank": "views"})
    'airv(n=8, rank=views)'
    """
    words = {True: "true", False: "false", None: "none"}

    def word(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return words[value]
        plain = not isinstance(value, str) or value.replace("-", "").replace("_", "").isalnum()
        quote = "'" if '"' in str(value) else '"'
        return str(value) if plain else f"{quote}{value}{quote}"

    inside = ", ".join(f"{key}={word(value)}" for key, value in parameters.items())
    return f"{name}({inside})" if inside else name


def _config(
    puzzles: str,
    model: str,
    task: ArcTask,
    strategies: list[str],
    temperatures: list[float],
    experts: int,
    seed: int,
    judge: str | None,
) -> Config:
    base = ArcTask()
    options = {
        each.name: getattr(task, each.name)
        for each in fields(ArcTask)
        if getattr(task, each.name) != getattr(base, each.name)
    }
    # Where a strategy asks for its verifier, it is told how many views judge.
    needed = any(VERIFIER in needs_of(load_strategy(spec)).verifiers for spec in strategies)
    stem, name = (Path(part.rstrip("/")).name or part for part in (puzzles, model))
    return make_config(
        {
            "name": f"arc-{stem.removesuffix('.json')}-{name}",
            "task": _written(ArcTask.name, options),
            "model": model,
            "file": puzzles,
            "strategies": strategies,
            "temperatures": temperatures,
            "seeds": seed,
            **({"verifiers": {VERIFIER: f"{VERIFIER}(views={experts})"}} if needed else {}),
            **({"engines": {JUDGE: judge}} if judge is not None else {}),
        },
        "arc solve",
    )


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
            _report(console, loaded, directory / "report", more)
    print(_score(solved[-1], directory))
    return _unfit(solved)


def _report(console: Console, loaded: Runs, folder: Path, more: Sequence[Table]) -> None:
    try:
        from mull.report.write import write_report

        page = write_report(loaded.runs, folder, more=more)
    except MissingExtraError as error:
        console.print(f"no report: {error}", soft_wrap=True)
    else:
        console.print(f"report: {page}", soft_wrap=True)


def _score(solved: SolvedCell, directory: Path) -> str:
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


def _unfit(solved: Sequence[SolvedCell]) -> list[str]:
    unfit = list(dict.fromkeys(id for each in solved for id in each.too_long))
    if not unfit:
        return []
    shown = ", ".join(unfit[:SHOWN]) + (" …" if len(unfit) > SHOWN else "")
    return [
        f"{len(unfit):,} test pairs do not fit the model's context and count as failed: {shown}"
    ]
