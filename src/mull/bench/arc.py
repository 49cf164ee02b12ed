"""The batching table on grid puzzles: views one at a time, per puzzle, all together, a bare loop.

Answers are greedy and end where the model ends them, so every mode makes the same tokens. Each mode
starts with an empty prefix cache and counts with its better dtype.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mull.bench.driver import Spread
from mull.bench.engine import DTYPES, Batched, bare_loop
from mull.budget import Ledger, Meter, Purpose
from mull.catalog.models import model_folder
from mull.engines.torch import Dtype, load_torch_engine
from mull.errors import ContextError, InputError
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.task import ArcTask
from mull.tasks.base import View
from mull.types import GREEDY, Completion, Request, Until
from mull.verifiers.base import forget_prefixes

MODES = ("one prompt at a time", "per puzzle", "all together")
BARE = "bare loop of the same shapes"
Views = Sequence[View]


def arc_batching(
    puzzles: Sequence[Puzzle],
    model: str,
    *,
    task: ArcTask | None = None,
    count: int = 100,
    views: int = 8,
    repeats: int = 3,
    slots: int = 256,
    share: float = 0.1,
    dtypes: Sequence[Dtype] = DTYPES,
) -> list[Batched]:
    """Rows by mode: the first ``count`` test pairs that fit the model, ``views`` predictions each.

    The slow modes take a ``share`` of them, at least one, and are scaled up by tokens. The bare
    loop has as many rows as all together has slots in use, prompts and answers of the mean length.
    """
    folder, asked = model_folder(model), task or ArcTask()
    best: dict[str, Batched] = {}
    for dtype in dtypes:
        engine: Any = load_torch_engine(folder, dtype=dtype, slots=slots)
        try:
            found, until = _fitting(puzzles, engine, asked, count, views), asked.until
            rows = _modes(engine, dtype, found, until, repeats, share)
            prompt = round(fmean(_sizes(engine, found)))
        finally:
            asyncio.run(engine.aclose())
        new = max(1, round(rows[-1].rate.median * rows[-1].seconds / (len(found) * views)))
        width = min(slots, len(found) * views)
        rows.append(_loop(folder, dtype, (width, prompt, new), repeats, rows[-1]))
        for row in rows:
            if row.mode not in best or row.seconds < best[row.mode].seconds:
                best[row.mode] = row
    return list(best.values())


def _modes(
    engine: Any, dtype: str, found: Sequence[Views], until: Until, repeats: int, share: float
) -> list[Batched]:
    few = max(1, round(len(found) * share))
    timed: list[tuple[str, int, list[float]]] = []
    total = 0
    for mode in MODES:
        some = found if mode == MODES[-1] else found[:few]
        rates = []
        for _ in range(repeats):
            forget_prefixes(engine)
            began = time.perf_counter()
            total = asyncio.run(_in_mode(engine, mode, some, until))
            rates.append(total / (time.perf_counter() - began))
        timed.append((mode, sum(map(len, some)), rates))
    # The last mode made everything: its tokens are those of the whole job.
    made = [(mode, measured, Spread.of(rates)) for mode, measured, rates in timed]
    return [Batched(mode, dtype, rate, total / rate.median, n) for mode, n, rate in made]


async def _in_mode(engine: Any, mode: str, found: Sequence[Views], until: Until) -> int:
    """All answers in a mode; the tokens that were made."""
    if mode == MODES[-1]:
        every = (_say(engine, view, until) for views in found for view in views)
        return sum(await asyncio.gather(*every))
    made = 0
    for views in found:
        if mode == MODES[1]:
            made += sum(await asyncio.gather(*(_say(engine, view, until) for view in views)))
        else:
            for view in views:
                made += await _say(engine, view, until)
    return made


async def _say(engine: Any, view: View, until: Until) -> int:
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    request = Request(view.prompt, until, view.opening, decoding=GREEDY)
    items = [item async for item in engine.generate(request, meter)]
    return sum(item.usage.generated for item in items if isinstance(item, Completion))


def _fitting(
    puzzles: Sequence[Puzzle], engine: Any, task: ArcTask, count: int, views: int
) -> list[Sequence[View]]:
    """The views of the first test pairs that leave the model room for an answer of as many tokens
    as the test input has."""
    found: list[Sequence[View]] = []
    for puzzle in puzzles:
        for problem in task.problems_of(puzzle):
            shown = task.views(problem, views)
            grid = puzzle.test[int(problem.meta["index"])].input
            room = len(grid) * (len(grid[0]) + 1)
            if max(_sizes(engine, [shown])) + room < engine.info.context:
                found.append(shown)
            if len(found) == count:
                return found
    if not found:
        raise InputError(
            f"none of {len(puzzles)} puzzles fits the model's context of {engine.info.context}"
        )
    return found


def _sizes(engine: Any, found: Sequence[Views]) -> list[int]:
    """Tokens of every prompt; one beyond the context counts as all of it."""

    def size(view: View) -> int:
        try:
            return len(engine.text.prompt(view.prompt, view.opening))
        except ContextError:
            return int(engine.info.context)

    return [size(view) for views in found for view in views]


def _loop(
    folder: Path, dtype: Dtype, shape: tuple[int, int, int], repeats: int, all_together: Batched
) -> Batched:
    width, prompt, new = shape
    loop: Callable[[Sequence[tuple[int, ...]], int], None] = bare_loop(folder, dtype)
    rng = random.Random(0)
    # Ids of digits and marks: what they are changes nothing, that the vocabulary has them does.
    batch = [tuple(rng.randrange(4, 12) for _ in range(prompt)) for _ in range(width)]
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        loop(batch, new)
        rates.append(width * new / (time.perf_counter() - began))
    rate = Spread.of(rates)
    tokens = all_together.seconds * all_together.rate.median
    return Batched(BARE, dtype, rate, tokens / rate.median, width)
