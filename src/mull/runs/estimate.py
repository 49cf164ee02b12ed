"""What a run will cost before it is run: samples, tokens, FLOPs, hours, money.

Counts what the cells ask for, shared samples once, and multiplies by what a few real completions
took. Knows no store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from mull.budget import COST_MODELS, Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.runs.cells import Cell
from mull.runs.prepare import Plan
from mull.strategies.base import Adapt, Adapted, Generate, Outcome, Room
from mull.strategies.needs import POLICY, needs_of
from mull.types import Branch, Completion, Request, Sampling, Usage

CALIBRATION = 16
"""Completions that a calibration makes at least."""

QUICK = 5.0
"""Seconds of measuring after which no wider round follows."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a run, as far as it can be known.

    ``samples`` counts distinct completions; searches that decide as they go, and votes that may
    stop early, are counted at their most, a search by steps as that many whole solutions. ``hours``
    keeps all slots busy, each as slow as so wide a batch makes it. ``measured`` is the number of
    completions that the figures rest on, 0 where ``max_tokens`` was assumed. ``left_out`` names
    what the run asks besides and no figure counts: verifiers, other engines, adaptation.
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
    width = max(1, min(engine.info.slots, samples))
    for alike in kinds.values():
        each = max(1, completions // len(kinds)) if completions else 0
        found = await _measure(plan, engine, alike[0][1], each, width)
        # A pool computes the prompt of a problem once, however many samples it has.
        asked = len(alike) * problems / found.requests
        share = sum(count for count, _ in alike) * problems / max(1, found.completions)
        spent, prompt = found.spent, found.prompt
        measured += found.completions
        prompts += prompt.prompt * asked
        generated += spent.generated * share
        flops += prompt.flops * asked + (spent.flops - prompt.flops) * share
        cost += prompt.cost * asked + (spent.cost - prompt.cost) * share
        busy += found.pace * spent.generated * share
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
    search = plan.strategies[cell.strategy].start(plan.start_of(cell, plan.problems[0]))
    actions = search.ask(Room(slots))
    # A search that trains first is told that it has, and shows by itself what it asks for then.
    while actions and all(isinstance(action, Adapt) for action in actions):
        for action in actions:
            if isinstance(action, Adapt):
                search.tell(Outcome(action.id, 0, Adapted(cell.strategy)))
        actions = search.ask(Room(slots))
    return [a for a in actions if isinstance(a, Generate) and a.engine == POLICY]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What some requests cost: ``spent`` in all, of which ``prompt`` is that of their prompts.

    ``pace`` are the seconds that a token takes in a slot where all asked for are busy.
    """

    requests: int
    completions: int
    spent: Usage
    prompt: Usage
    pace: float


async def _measure(
    plan: Plan, engine: Engine, example: Generate, completions: int, width: int
) -> _Measured:
    """Completions like the example, over the first problems: a quarter of them side by side, then
    all, then ever more of them up to ``width`` while that is quick: in this process, whose slots
    share a machine. Elsewhere completions may cost money, and slots hold each other up less.

    Gives a guess for one completion where none is made.
    """
    model = COST_MODELS[plan.config.cost_model]
    ledger, prompts = Ledger(model), Ledger(model)
    if not completions:
        prompt = math.ceil(len(plan.problems[0].prompt.plain) / 4)
        meter = Meter(ledger, Purpose.POLICY, engine.info)
        meter.charge(0, prompt=prompt)
        guessed = meter.total
        meter.charge(0, generated=example.until.max_tokens, context=prompt)
        return _Measured(1, 0, meter.total, guessed, 0.0)
    loop = asyncio.get_running_loop()
    began, asked, made, paces = loop.time(), 0, 0, dict[int, float]()
    size = max(1, completions // 4)
    while True:
        before, started = ledger.total, loop.time()
        seeds = range(asked, asked + size)
        made += sum(
            await asyncio.gather(*(_one(plan, engine, example, ledger, prompts, i) for i in seeds))
        )
        asked += size
        slots = min(size, width)
        held = ledger.total.seconds - before.seconds or (loop.time() - started) * slots
        paces[slots] = held / max(1, ledger.total.generated - before.generated)
        if size < completions:
            size = completions
        elif size < width and not engine.info.url and loop.time() - began < QUICK:
            size = min(4 * size, width)
        else:
            return _Measured(asked, made, ledger.total, prompts.total, _pace(paces, width))


def _pace(paces: Mapping[int, float], width: int) -> float:
    """Seconds a token at ``width``: what the two widest rounds say, on a straight line.

    >>> _pace({4: 0.1, 16: 0.4}, 64)
    1.6
    """
    (n, last), *others = sorted(paces.items(), reverse=True)
    if not others or n >= width:
        return last
    fewer, before = others[0]
    return last + max(0.0, last - before) / (n - fewer) * (width - n)


async def _one(
    plan: Plan, engine: Engine, example: Generate, ledger: Ledger, prompts: Ledger, seed: int
) -> int:
    """One request like the example, of a problem by turns; how many completions came.

    All that it cost is charged to ``ledger``, what its prompt alone cost to ``prompts`` as well.
    """
    decoding = example.decoding
    root = Branch.root(plan.problems[seed % len(plan.problems)])
    request = Request(
        root.prompt,
        example.until,
        root.text,
        n=1 if isinstance(decoding, Sampling) else decoding.width,
        decoding=decoding,
        seed=seed,
        logprobs=engine.info.capabilities.logprobs,
    )
    meter = Meter(ledger, Purpose.POLICY, engine.info)
    async with aclosing(engine.generate(request, meter)) as stream:
        came = len([item async for item in stream if isinstance(item, Completion)])
    spent = meter.total
    alone = Meter(prompts, Purpose.POLICY, engine.info)
    alone.charge(0, prompt=spent.prompt, cached=spent.cached)
    return came
