"""What a run will cost before it is run: samples, tokens, FLOPs, hours, money.

Counts what the cells ask for, shared samples once, and multiplies by what a few real completions
took. Knows no store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from mull.budget import COST_MODELS, Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.runs.cells import Cell
from mull.runs.prepare import Plan
from mull.strategies.base import Adapt, Adapted, Generate, Outcome, Room, Start
from mull.strategies.needs import POLICY, needs_of
from mull.types import Branch, Completion, Problem, Request, Sampling, Usage

CALIBRATION = 16
"""Completions that a calibration makes, over as many problems as there are up to this."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a run, as far as it can be known.

    ``samples`` counts distinct completions; searches that decide as they go, and votes that may
    stop early, are counted at their most, a search by steps as that many whole solutions. ``hours``
    keeps all slots busy. ``measured`` is the number of completions that the figures rest on, 0
    where ``max_tokens`` was assumed. ``left_out`` names what the run asks besides and no figure
    counts: verifiers, other engines, adaptation.
    """

    cells: int
    problems: int
    samples: int
    prompt_tokens: int
    generated_tokens: int
    flops: float
    hours: float | None
    cost: float
    measured: int
    cost_model: str
    left_out: tuple[str, ...] = ()


async def estimate(plan: Plan, engine: Engine, completions: int = CALIBRATION) -> Estimate:
    """Measure ``completions`` completions on the engine, then multiply; 0 measures none.

    What is measured is not recorded. Without measuring, every completion is taken to be as long as
    it may be, and hours are unknown.
    """
    pools = _asked(plan, engine.info.slots)
    problems = len(plan.problems)
    samples = sum(count for count, _ in pools) * problems
    prompts = generated = flops = cost = busy = 0.0
    # Views of a problem are decoded alike: one of them tells what all cost.
    kinds: dict[tuple[object, ...], list[tuple[int, Generate]]] = {}
    for count, example in pools:
        kinds.setdefault((example.decoding, example.until), []).append((count, example))
    measured = 0
    for alike in kinds.values():
        each = max(1, completions // len(kinds)) if completions else 0
        made, spent, elapsed = await _measure(plan, engine, alike[0][1], each)
        share = sum(count for count, _ in alike) * problems / max(1, made)
        measured += made
        prompts += spent.prompt / max(1, made) * problems * len(alike)
        generated += spent.generated * share
        flops += spent.flops * share
        cost += spent.cost * share
        # Few completions do not fill the slots: the time that each held its own is what scales.
        busy += (spent.seconds or elapsed) * share
    width = max(1, min(engine.info.slots, samples))
    return Estimate(
        cells=len(plan.cells),
        problems=problems,
        samples=samples,
        prompt_tokens=round(prompts),
        generated_tokens=round(generated),
        flops=flops,
        hours=busy / width / 3600 if measured else None,
        cost=cost,
        measured=measured,
        cost_model=plan.config.cost_model,
        left_out=_left_out(plan),
    )


def _left_out(plan: Plan) -> tuple[str, ...]:
    asked = [needs_of(strategy) for strategy in plan.strategies.values()]
    verifiers = {f"verifier {name}" for needs in asked for name in needs.verifiers}
    engines = {f"engine {name}" for needs in asked for name in needs.engines if name != POLICY}
    trained = ["adaptation"] if any("adapts" in needs.capabilities for needs in asked) else []
    return (*sorted(verifiers), *sorted(engines), *trained)


def _asked(plan: Plan, slots: int) -> list[tuple[int, Generate]]:
    """Distinct samples that the cells ask for on one problem: (how many, an example of them)."""
    most: dict[tuple[object, ...], tuple[int, Generate]] = {}
    for cell in plan.cells:
        pools: dict[tuple[object, ...], tuple[int, Generate]] = {}
        for action in _first_actions(plan, cell, slots):
            # Samples of a branch are shared by all cells; a search by steps shares its first alone.
            alone = cell.id if action.until.steps or action.until.tokens else ""
            # The ranks of a search over tokens are shared by those who ask for the same ones.
            drawn = isinstance(action.decoding, Sampling)
            ranks = () if drawn else (action.first, action.count)
            branch = action.branch
            shown = (branch.key, branch.prompt, branch.opening, branch.weights)
            pool: tuple[object, ...] = (
                *shown,
                cell.seed,
                alone,
                ranks,
                action.decoding,
                action.until,
            )
            count = action.first + action.count if drawn else action.count
            if pool not in pools or pools[pool][0] < count:
                pools[pool] = (count, replace(action, until=plan.until) if alone else action)
        for pool, (count, example) in zip(pools, _whole(plan, cell, pools.values()), strict=True):
            if pool not in most or most[pool][0] < count:
                most[pool] = (count, example)
    return list(most.values())


def _whole(
    plan: Plan, cell: Cell, pools: Collection[tuple[int, Generate]]
) -> Iterator[tuple[int, Generate]]:
    """The pools that a cell asks for first, each with its part of all samples that it will take.

    Views of a problem have a pool each, and together as many samples as the strategy takes.
    """
    own = cell.budget.samples if cell.budget is not None else None
    own = own or getattr(plan.strategies[cell.strategy], "n", None) or 0
    total, before = sum(count for count, _ in pools), 0
    for count, example in pools:
        share = own * (before + count) // total - own * before // total
        yield max(share, count), example
        before += count


def _first_actions(plan: Plan, cell: Cell, slots: int) -> Sequence[Generate]:
    sampling = plan.config.sampling(1.0 if cell.temperature is None else cell.temperature)
    start = Start(plan.problems[0], plan.task, cell.budget, sampling, plan.until)
    search = plan.strategies[cell.strategy].start(start)
    actions = search.ask(Room(slots))
    # A search that trains first is told that it has, and shows by itself what it asks for then.
    while actions and all(isinstance(action, Adapt) for action in actions):
        for action in actions:
            if isinstance(action, Adapt):
                search.tell(Outcome(action.id, 0, Adapted(cell.strategy)))
        actions = search.ask(Room(slots))
    return [a for a in actions if isinstance(a, Generate) and a.engine == POLICY]


async def _measure(
    plan: Plan, engine: Engine, example: Generate, completions: int
) -> tuple[int, Usage, float]:
    """Completions like the example, one on each of the first problems, side by side.

    Gives how many came, what they cost and how long they took; a guess for one where none is made.
    """
    ledger = Ledger(COST_MODELS[plan.config.cost_model])
    meter = Meter(ledger, Purpose.POLICY, engine.info)
    if not completions:
        prompt = math.ceil(len(plan.problems[0].prompt.plain) / 4)
        meter.charge(0, prompt=prompt)
        meter.charge(0, generated=example.until.max_tokens, context=prompt)
        return 0, meter.total, 0.0
    decoding = example.decoding
    n = 1 if isinstance(decoding, Sampling) else decoding.width
    logprobs = engine.info.capabilities.logprobs

    async def one(seed: int, problem: Problem) -> int:
        root = Branch.root(problem)
        request = Request(
            root.prompt,
            example.until,
            root.text,
            n=n,
            decoding=decoding,
            seed=seed,
            logprobs=logprobs,
        )
        gauge, came = Meter(ledger, Purpose.POLICY, engine.info), 0
        async with aclosing(engine.generate(request, gauge)) as stream:
            async for item in stream:
                came += isinstance(item, Completion)
        return came

    loop = asyncio.get_running_loop()
    started = loop.time()
    chosen = plan.problems[:completions]
    came = await asyncio.gather(*(one(seed, problem) for seed, problem in enumerate(chosen)))
    return sum(came), ledger.total, loop.time() - started
