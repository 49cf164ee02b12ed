"""The public face: one call solves a prompt, or many.

It only wires: names become objects (catalog), objects a job (strategies), a job a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mull.budget import Budget, CostModel, Ledger
from mull.catalog import load_engine, load_strategy, load_task, model_card
from mull.engines.base import Engine
from mull.errors import UsageError
from mull.strategies.base import Ended, Failure, Start, Strategy
from mull.strategies.drive import Job, Solved, drive
from mull.tasks.base import Task
from mull.types import Candidate, Problem, Sampling, Until, Usage

DEFAULT_BUDGET = Budget(samples=16)


@dataclass(frozen=True, slots=True)
class Solution:
    """The answer to one prompt, and what it rests on.

    ``answer`` is ``None`` where no candidate had one; ``confidence`` is the answer's share of the
    vote in 0..1; ``spent`` sums the ledger, ``ledger`` itemises it; ``seconds`` is wall clock.
    """

    problem: Problem
    answer: str | None
    confidence: float
    candidates: tuple[Candidate, ...]
    spent: Usage
    ledger: Ledger
    samples: int
    seconds: float
    ended: Ended
    failures: tuple[Failure, ...] = ()

    @classmethod
    def of(cls, solved: Solved) -> Solution:
        """The public view of what the driver solved."""
        result = solved.result
        return cls(
            solved.job.start.problem,
            result.answer,
            result.confidence,
            result.candidates,
            solved.ledger.total,
            solved.ledger,
            solved.samples,
            solved.seconds,
            result.ended,
            result.failures,
        )


def resolve_task(task: str | Task | None, engine: str | Engine) -> Task:
    """The task asked for, else the one on the model's card, else ``text``."""
    if task is None:
        name = engine if isinstance(engine, str) else engine.info.model
        task = (model_card(name) or {}).get("task", "text")
    return load_task(task)


def default_budget(strategy: Strategy) -> Budget | None:
    """16 samples for a strategy that takes ``n`` and was given none; else its own parameters."""
    return DEFAULT_BUDGET if getattr(strategy, "n", 0) is None else None


def solve(
    prompt: str | Problem,
    engine: str | Engine,
    *,
    task: str | Task | None = None,
    strategy: str | Strategy = "vote",
    budget: Budget | None = None,
    sampling: Sampling = Sampling(),
    until: Until | None = None,
    seed: int = 0,
) -> Solution:
    """Spend a budget on one prompt; give the best answer.

    ``engine`` is a model's name (``words-s``, a directory, ``http://host:8000/v1#model``) or an
    engine; ``task`` says how answers are read and compared; without a budget, 16 samples.

    >>> solve("simulated: 2 + 2", "simulated", task="text", strategy="vote(n=4)").samples
    4
    """
    _no_loop("solve", "asolve")
    return asyncio.run(
        asolve(
            prompt,
            engine,
            task=task,
            strategy=strategy,
            budget=budget,
            sampling=sampling,
            until=until,
            seed=seed,
        )
    )


async def asolve(
    prompt: str | Problem,
    engine: str | Engine,
    *,
    task: str | Task | None = None,
    strategy: str | Strategy = "vote",
    budget: Budget | None = None,
    sampling: Sampling = Sampling(),
    until: Until | None = None,
    seed: int = 0,
) -> Solution:
    """``solve`` for code that runs in an event loop already."""
    stream = asolve_many(
        [prompt],
        engine,
        task=task,
        strategy=strategy,
        budget=budget,
        sampling=sampling,
        until=until,
        seed=seed,
    )
    async with aclosing(stream):
        return await anext(stream)


def solve_many(
    prompts: Iterable[str | Problem],
    engine: str | Engine,
    *,
    on_solution: Callable[[Solution], None] | None = None,
    **options: Any,
) -> list[Solution]:
    """Solve many prompts side by side, in the prompts' order; options as ``solve``.

    ``on_solution`` is called as each finishes (progress, or saving as you go).
    """

    async def run() -> list[Solution]:
        found: dict[int, Solution] = {}
        async with aclosing(_solve_each(prompts, engine, **options)) as stream:
            async for position, solution in stream:
                found[position] = solution
                if on_solution is not None:
                    on_solution(solution)
        return [found[position] for position in sorted(found)]

    _no_loop("solve_many", "asolve_many")
    return asyncio.run(run())


async def asolve_many(
    prompts: Iterable[str | Problem],
    engine: str | Engine,
    *,
    task: str | Task | None = None,
    strategy: str | Strategy = "vote",
    budget: Budget | None = None,
    sampling: Sampling = Sampling(),
    until: Until | None = None,
    seed: int = 0,
    cost_model: CostModel | None = None,
) -> AsyncGenerator[Solution, None]:
    """Solve prompts (read lazily) side by side; yield each as it finishes.

    An engine that was given by name is opened here and closed at the end.
    """
    stream = _solve_each(
        prompts,
        engine,
        task=task,
        strategy=strategy,
        budget=budget,
        sampling=sampling,
        until=until,
        seed=seed,
        cost_model=cost_model,
    )
    async with aclosing(stream):
        async for _, solution in stream:
            yield solution


async def _solve_each(
    prompts: Iterable[str | Problem],
    engine: str | Engine,
    *,
    task: str | Task | None = None,
    strategy: str | Strategy = "vote",
    budget: Budget | None = None,
    sampling: Sampling = Sampling(),
    until: Until | None = None,
    seed: int = 0,
    cost_model: CostModel | None = None,
) -> AsyncGenerator[tuple[int, Solution], None]:
    """Solutions with the positions of their prompts."""
    chosen = load_strategy(strategy)
    solver = resolve_task(task, engine)
    budget = budget or default_budget(chosen)
    runner = load_engine(engine)

    def jobs() -> Iterator[Job]:
        for position, prompt in enumerate(prompts):
            problem = _problem(solver, prompt, str(position))
            yield Job(chosen, Start(problem, solver, budget, sampling, until), seed, position)

    try:
        async with aclosing(drive(jobs(), {"policy": runner}, cost_model=cost_model)) as stream:
            async for solved in stream:
                yield solved.job.tag, Solution.of(solved)
    finally:
        if isinstance(engine, str):
            await runner.aclose()


def _no_loop(name: str, instead: str) -> None:
    """Raise ``UsageError`` where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        f"mull.{name} cannot run inside a running event loop (a notebook?): use await "
        f"mull.api.{instead}"
    )


def _problem(task: Task, prompt: str | Problem, id: str) -> Problem:
    if isinstance(prompt, Problem):
        return prompt
    if not prompt.strip():
        raise UsageError("the prompt is empty; expected the text of a problem")
    return task.problem(prompt, id)
