"""`mull bench`: the driver and the engines, measured side by side in one run, as ratios."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mull.catalog import model_card
from mull.cli import options
from mull.cli.arc.shared import puzzles_of
from mull.errors import MissingExtraError, UsageError

REPEATS = 5
Repeats = Annotated[int, typer.Option(min=1, help="Repeats; medians and ranges are printed.")]

app = typer.Typer(help="Measure engines and driver side by side, as ratios.")


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Measure engines and driver side by side, as ratios; without a name, all of them."""
    if context.invoked_subcommand is None:
        driver()
        search()
        # Minutes in real time: only where there is somebody to compare with.
        from mull.bench.peers import its_hub_python

        if its_hub_python() is not None:
            peers()
        engine()
        batching()


@app.command("driver")
def driver(repeats: Repeats = REPEATS, as_json: options.AsJson = False) -> None:
    """CPU time of ours a completion, makespan over list scheduling, peak memory."""
    # Here, so that other commands start without numpy.
    from mull.bench.driver import driver_overhead, flat_memory, list_scheduling_ratio

    overhead = driver_overhead(repeats=repeats)
    schedule = list_scheduling_ratio(repeats=repeats)
    memory = flat_memory()
    if as_json:
        found: dict[str, Any] = {"overhead": overhead, "schedule": schedule, "memory": memory}
        print(json.dumps({name: asdict(value) for name, value in found.items()}))
        return
    table = Table("driver, simulated engine", "median (range)", "to reach", box=None)
    table.add_row(
        f"CPU µs of ours a completion ({overhead.completions:,} completions, no store)",
        str(overhead.ours_us),
        f"under {overhead.target_us:g}",
    )
    table.add_row("  the engine's own, not counted above", str(overhead.engine_us), "")
    table.add_row(
        f"makespan / list scheduling ({schedule.problems} problems × {schedule.samples})",
        str(schedule.ratio),
        "at most 1.1",
    )
    table.add_row("slots busy", str(schedule.occupancy), "")
    table.add_row(
        f"peak MB over {memory.completions:,} completions",
        f"{memory.peak_mb:.0f} (at start {memory.start_mb:.0f})",
        "under 500",
    )
    _show(table)


@app.command("search")
def search(
    repeats: Repeats = REPEATS,
    problems: Annotated[int, typer.Option(min=1, help="Problems of each flight.")] = 64,
    as_json: options.AsJson = False,
) -> None:
    """Slots that work on what counts, tokens wasted on guesses, and what guesses win."""
    from mull.bench.search import SEARCHES, alone, flights, search_table

    flown = list(flights(problems))
    lone = [alone(spec, repeats) for spec in SEARCHES]
    if as_json:
        rows = {"flights": [asdict(f) for f in flown], "alone": [asdict(f) for f in lone]}
        print(json.dumps(rows))
    else:
        _show(search_table(flown, lone))


@app.command("peers")
def peers(
    repeats: Annotated[int, typer.Option(min=1, help="Repeats, each over all contenders.")] = 3,
    problems: Annotated[int, typer.Option(min=1, help="Problems, 16 paths each.")] = 16,
    search: Annotated[list[str] | None, typer.Option(help="beam, particles, vote; or all.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """The driver beside its_hub (where installed) on one endpoint that meters both; minutes."""
    from mull.bench.peers import SEARCHES, beside, peers_table

    races = beside(problems, repeats, search or tuple(SEARCHES))
    if as_json:
        print(json.dumps([asdict(race) for race in races]))
    else:
        _show(peers_table(races))


@app.command("engine")
def engine(
    repeats: Repeats = REPEATS,
    new: Annotated[int, typer.Option(min=1, help="New tokens a sample.")] = 128,
    small: Annotated[bool, typer.Option(help="Leave out the 0.5B shape.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """The torch engine against transformers, a bare decode loop, and vLLM where installed."""
    measured = _torch_bench().measure(repeats, new, large=not small)
    if as_json:
        print(json.dumps([asdict(speed) for speed in measured]))
    else:
        _show(_torch_bench().speed_table(measured))


@app.command("batching")
def batching(
    repeats: Repeats = REPEATS,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the problems that slow modes run.")
    ] = 0.1,
    puzzles: Annotated[
        str | None, typer.Option(help="Grid puzzles and 8 views each instead; needs --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model that solves grid puzzles.")] = None,
    as_json: options.AsJson = False,
) -> int:
    """One prompt at a time, per problem, all together: 100 problems × 8 samples."""
    wrong: list[str] = []
    if (puzzles is None) != (model is None):
        raise UsageError("--puzzles and --model belong together: give both or neither")
    if puzzles is not None and model is not None:
        _torch_bench()  # says what is missing
        from mull.bench.arc import arc_batching
        from mull.cli.arc.solving import task_of

        found, wrong = puzzles_of(puzzles)
        task = task_of(model_card(model))
        measured = arc_batching(found, model, task=task, repeats=repeats, share=share)
    else:
        measured = _torch_bench().batching(repeats=repeats, share=share)
    if as_json:
        print(json.dumps([asdict(row) for row in measured]))
    else:
        _show(_torch_bench().batching_table(measured))
    options.say(wrong, sys.stderr)
    return options.FAILURES if wrong else 0


def _torch_bench() -> Any:
    try:
        from mull.bench import engine as bench_engine
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull bench", "torch") from error
    return bench_engine


def _show(table: Table) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
