"""The public face: one call solves a prompt, or many.

It only wires: names become objects (catalog), objects a job (strategies), a job a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypedDict, Unpack

from mull.budget import Budget, CostModel, Ledger, check_countable
from mull.catalog import EngineSpec, equip, load_policy, load_strategy, load_task, model_card
from mull.catalog.models import name_of
from mull.catalog.spec import unknown
from mull.engines.base import Engine
from mull.errors import UsageError
from mull.strategies.base import Ended, Failure, Start, Strategy
from mull.strategies.drive import Job, Solved, drive
from mull.strategies.needs import check_sampled, needs_of
from mull.tasks.base import Task
from mull.types import Candidate, Problem, Sampling, Until, Usage, encodable
from mull.verifiers.base import Verifier

DEFAULT_BUDGET = Budget(samples=16)
AMOUNTS = ("length", "simulations")
"""Parameters of strategies that say how much they do where their ``n`` says nothing."""


@dataclass(frozen=True, slots=True)
class Solution:
    """The answer to one prompt, and what it rests on.

    ``answer`` is ``None`` where no candidate had one; ``confidence`` is the answer's share of the
    vote in 0..1; ``samples`` are those that came; ``spent`` sums the ledger, ``ledger`` itemises
    it; ``seconds`` is wall clock; ``notes`` are what the engines did besides answering, a line
    each, up to this answer.
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
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, solved: Solved, notes: tuple[str, ...] = ()) -> Solution:
        """The public view of what the driver solved."""
        result = solved.result
        return cls(
            solved.job.start.problem,
            result.answer,
            result.confidence,
            result.candidates,
            solved.ledger.total,
            solved.ledger,
            solved.came,
            solved.seconds,
            result.ended,
            result.failures,
            notes,
        )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended ``solve`` or ``solve_many``; ``spent`` is what it had cost until then."""

    def __init__(self, spent: Usage) -> None:
        super().__init__("interrupted; nothing that was not finished is kept")
        self.spent = spent


Model = str | PathLike[str] | Engine
"""A model's name, a directory, or an engine."""


def resolve_task(task: str | Task | None, engine: Model) -> Task:
    """The task asked for, else the one on the model's card, else ``text``."""
    if task is None:
        name = engine.info.model if isinstance(engine, Engine) else name_of(engine)
        task = (model_card(name) or {}).get("task", "text")
    return load_task(task)


def default_budget(strategy: Strategy) -> Budget | None:
    """16 samples for a strategy that takes ``n`` and says nothing of how much it does; else none,
    for its own parameters say it.
    """
    said = any(getattr(strategy, name, None) is not None for name in AMOUNTS)
    return DEFAULT_BUDGET if getattr(strategy, "n", 0) is None and not said else None


class Options(TypedDict, total=False):
    """What may be said to ``solve`` and its kin, all by name."""

    task: str | Task | None
    """How answers are read and compared; default: the model card's, else ``text``."""
    strategy: str | Strategy
    """How the budget is spent; default ``vote``."""
    budget: Budget | None
    """What may be spent on a prompt; default: 16 samples, unless the strategy says."""
    sampling: Sampling | None
    """Temperature and filters; default: plain sampling at temperature 1."""
    until: Until | None
    """When a solution ends; default: the task's."""
    seed: int
    """Equal seeds give equal samples; default 0."""
    cost_model: CostModel | None
    """What a token costs in FLOPs; default ``2P+4LWc``."""
    engine_options: Mapping[str, Any]
    """Options of the engine that is given by name: ``slots``, ``price`` …"""
    engines: Mapping[str, EngineSpec]
    """Models besides the policy, by the names that the strategy uses (``judge``, ``reviser``)."""
    verifiers: Mapping[str, str | Verifier]
    """Verifiers, or their specs, by the names that the strategy uses (``prm``)."""


def solve(prompt: str | Problem, engine: Model, **options: Unpack[Options]) -> Solution:
    """Spend a budget on one prompt; give the best answer.

    ``engine`` is a model's name (``words-s``, a directory, ``http://host:8000/v1#model``) or an
    engine; ``options`` are those of ``Options``: ``task`` says how answers are read and compared,
    ``strategy`` how the ``budget`` is spent.

    >>> solve("simulated: 2 + 2", "simulated", task="text", strategy="vote(n=4)").samples
    4
    """
    _no_loop("solve", "await mull.api.asolve")
    ledgers: list[Ledger] = []
    (solution,) = _run(_solve_each([prompt], engine, options, ledgers), ledgers)
    return solution


async def asolve(prompt: str | Problem, engine: Model, **options: Unpack[Options]) -> Solution:
    """``solve`` for code that runs in an event loop already."""
    async with aclosing(asolve_many([prompt], engine, **options)) as stream:
        return await anext(stream)


def solve_many(
    prompts: Iterable[str | Problem],
    engine: Model,
    *,
    on_solution: Callable[[Solution], None] | None = None,
    **options: Unpack[Options],
) -> list[Solution]:
    """Solve many prompts side by side, in the prompts' order; options as ``solve``.

    ``on_solution`` is called as each finishes (progress, or saving as you go). A list or tuple of
    prompts is checked before anything is spent; others are read lazily, and what is wrong with one
    of them is raised when those before it are finished.
    """

    _no_loop("solve_many", "async for solution in mull.api.asolve_many(…)")
    ledgers: list[Ledger] = []
    return _run(_solve_each(prompts, engine, options, ledgers), ledgers, on_solution)


def _run(
    solving: AsyncGenerator[tuple[int, Solution], None],
    ledgers: list[Ledger],
    on_solution: Callable[[Solution], None] | None = None,
) -> list[Solution]:
    """All solutions in the prompts' order; ``Interrupted`` says what ``ledgers`` have by then."""

    async def run() -> list[Solution]:
        found: dict[int, Solution] = {}
        async with aclosing(solving) as stream:
            async for position, solution in stream:
                found[position] = solution
                if on_solution is not None:
                    on_solution(solution)
        return [found[position] for position in sorted(found)]

    try:
        return asyncio.run(run())
    except KeyboardInterrupt as error:
        raise Interrupted(sum((ledger.total for ledger in ledgers), Usage())) from error


async def asolve_many(
    prompts: Iterable[str | Problem], engine: Model, **options: Unpack[Options]
) -> AsyncGenerator[Solution, None]:
    """Solve prompts (read lazily) side by side; yield each as it finishes. Prompts are checked as
    by ``solve_many``.

    What was given by name (engines, verifiers) is opened here and closed at the end.
    """
    async with aclosing(_solve_each(prompts, engine, options)) as stream:
        async for _, solution in stream:
            yield solution


async def _solve_each(
    prompts: Iterable[str | Problem],
    engine: Model,
    options: Options,
    ledgers: list[Ledger] | None = None,
) -> AsyncGenerator[tuple[int, Solution], None]:
    """Solutions with the positions of their prompts; ``ledgers`` gets each one's as it begins."""
    check_options(options)
    if isinstance(prompts, str | Problem) or not isinstance(prompts, Iterable):
        raise UsageError(f"prompts = {prompts!r:.80} is not valid; expected several, as in a list")
    strategy = load_strategy(options.get("strategy", "vote"))
    task = resolve_task(options.get("task"), engine)
    budget = options.get("budget") or default_budget(strategy)
    sampling, until = options.get("sampling"), options.get("until")
    check_sampled([strategy], [] if sampling is None else [sampling])
    seed, more = options.get("seed", 0), options.get("engine_options") or {}
    if more and isinstance(engine, Engine):
        raise UsageError("engine_options are for an engine given by name; this one is made already")
    problems: Iterable[Problem] = (_problem(task, p, str(at)) for at, p in enumerate(prompts))
    if isinstance(prompts, list | tuple):
        problems = list(problems)
    policy = load_policy(engine, **more)
    wrong: list[Exception] = []

    def jobs() -> Iterator[Job]:
        try:
            for position, problem in enumerate(problems):
                start = Start(problem, task, budget, sampling or Sampling(), until)
                ledger = Ledger(options.get("cost_model"))
                if ledgers is not None:
                    ledgers.append(ledger)
                yield Job(strategy, start, seed, position, ledger)
        except Exception as error:  # those that were begun are paid for: they are finished first
            wrong.append(error)

    try:
        given = equip(
            [strategy],
            policy,
            task,
            engines=options.get("engines"),
            verifiers=options.get("verifiers"),
        )
        try:
            for name in needs_of(strategy).engines:
                check_countable(budget, given.engines[name].info)
            solving = drive(
                jobs(), given.engines, given.verifiers, cost_model=options.get("cost_model")
            )
            async with aclosing(solving) as stream:
                async for solved in stream:
                    yield solved.job.tag, Solution.of(solved, given.notes)
            if wrong:
                raise wrong[0]
        finally:
            await given.aclose()
    finally:
        if policy is not engine:
            await policy.aclose()


EXPECTED: Mapping[str, tuple[Any, str]] = {
    "budget": (Budget, "a budget, as mull.Budget(samples=16)"),
    "sampling": (Sampling, "sampling, as mull.Sampling(temperature=0.7)"),
    "until": (Until, "an end, as mull.types.Until(max_tokens=400)"),
    "seed": (int, "a whole number"),
    "cost_model": (CostModel, "a cost model, as one of mull.budget.COST_MODELS"),
    "engine_options": (Mapping, "options by name, as {'slots': 8}"),
    "engines": (Mapping, "models by the names that the strategy uses, as {'judge': 'words-m'}"),
    "verifiers": (Mapping, "verifiers by the names that the strategy uses, as {'prm': 'checker'}"),
}
"""What an option is, as ``isinstance`` knows it and in words."""
MAY_BE_NONE = frozenset(EXPECTED) - {"seed"}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an option that there is not, or that is something else."""
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise unknown("option of mull.solve", name, Options.__annotations__)
        kind, words = EXPECTED.get(name, (object, ""))
        if value is None and name in MAY_BE_NONE:
            continue
        if not isinstance(value, kind) or (name == "seed" and isinstance(value, bool)):
            raise UsageError(f"{name} = {value!r:.80} is not valid; expected {words}")


def _no_loop(name: str, instead: str) -> None:
    """Raise ``UsageError`` where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        f"mull.{name} cannot run inside a running event loop (a notebook?): use {instead}"
    )


def _problem(task: Task, prompt: str | Problem, id: str) -> Problem:
    if isinstance(prompt, Problem):
        _check_text(prompt.prompt.plain + prompt.opening)
        return prompt
    if not isinstance(prompt, str):
        raise UsageError(
            f"prompt = {prompt!r:.80} is not valid; expected a text or a mull.types.Problem"
        )
    if not prompt.strip():
        raise UsageError("the prompt is empty; expected the text of a problem")
    _check_text(prompt)
    return task.problem(prompt, id)


def _check_text(text: str) -> None:
    if not encodable(text):
        raise UsageError(
            "the prompt has half of a surrogate pair (\\ud800 to \\udfff), which is no text; "
            "expected Unicode text"
        )
