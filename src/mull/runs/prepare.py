"""A config becomes a plan: everything that can be wrong is found before anything is written.

Knows configs, tasks and problems; knows no store. The model is loaded elsewhere: it is identified
here only by what its engine says of itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mull.budget import check_countable
from mull.catalog import Equipment, equip, load_task
from mull.engines.base import Engine
from mull.errors import BudgetError, ConfigError, InputError
from mull.runs.cells import Cell, cells_of, load_strategies
from mull.runs.config import Config
from mull.store import canonical, plain
from mull.strategies.base import Start, Strategy
from mull.strategies.needs import POLICY, check_sampled, needs_of
from mull.tasks.base import FileTask, GeneratedTask, Task
from mull.types import Message, Problem, Prompt, Until
from mull.verifiers.base import Verifier

MOST_MADE = 1_000_000
"""Problems that a run may have a task make, those that it skips included."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked config with the objects that its names stand for."""

    config: Config
    task: Task
    strategies: Mapping[str, Strategy]
    problems: Sequence[Problem]
    cells: Sequence[Cell]
    until: Until

    def resolved(self, equipment: Equipment) -> dict[str, Any]:
        """What the run is recognised by: the fields, and the content behind their names."""
        fields = dict(self.config.portable)
        fields["problems_digest"] = problems_digest(self.problems)
        fields["task_digest"] = _file_digest(self.config.task)
        fields["engine_identity"] = list(equipment.engines[POLICY].info.identity)
        asked = (name for each in self.strategies.values() for name in needs_of(each).verifiers)
        scoring = {name: _file_digest(spec) for name, spec in self.config.verifiers.items()}
        tables: dict[str, Mapping[str, str | None]] = {
            "strategy_digests": _file_digests(self.config.strategies),
            "verifier_digests": {**_file_digests(asked), **scoring},
        }
        # Most runs name no files: what their records are recognised by stays as it was.
        fields |= {name: table for name, table in tables.items() if any(table.values())}
        return {**fields, **equipment.identities}

    def start_of(self, cell: Cell, problem: Problem) -> Start:
        """What the search of a problem in a cell begins with."""
        config = self.config
        sampling = config.sampling(1.0 if cell.temperature is None else cell.temperature)
        return Start(
            problem, self.task, cell.budget, sampling, self.until, speculate=config.speculate
        )

    def equip(
        self,
        policy: Engine,
        engines: Mapping[str, Engine] | None = None,
        verifiers: Mapping[str, Verifier] | None = None,
    ) -> Equipment:
        """The engines and verifiers that the strategies need: those given, else the config's.

        Raises ``UsageError`` or ``ModelLoadError`` for what is missing, unknown or does not fit,
        and for a budget in a unit in which an engine's work costs nothing known.
        """
        config = self.config
        equipment = equip(
            self.strategies.values(),
            policy,
            self.task,
            engines={**config.engines, **(engines or {})},
            verifiers={**config.verifiers, **(verifiers or {})},
            prompt=self.problems[0].prompt,
        )
        for cell in self.cells:
            for name in needs_of(self.strategies[cell.strategy]).engines:
                check_countable(cell.budget, equipment.engines[name].info)
        return equipment


def prepare(
    config: Config,
    *,
    task: Task | None = None,
    strategies: Mapping[str, Strategy] | None = None,
) -> Plan:
    """Check a config whole. ``task`` and ``strategies`` (by spec) stand in for their names.

    Raises ``ConfigError``, ``SpecError``, ``BudgetError`` or ``InputError``; writes nothing.
    """
    chosen = {**load_strategies([s for s in config.strategies if s not in (strategies or {})])}
    chosen.update(strategies or {})
    task = task or load_task(config.task)
    until = task.until
    if config.max_tokens is not None:
        until = replace(until, max_tokens=config.max_tokens)
    cells = cells_of(config, chosen)
    problems = load_problems(config, task)
    plan = Plan(config, task, chosen, problems, cells, until)
    _check_cells(plan)
    return plan


def _check_cells(plan: Plan) -> None:
    """Start every cell's search on one problem, so that contradictions show before any work."""
    for cell in plan.cells:
        try:
            plan.strategies[cell.strategy].start(plan.start_of(cell, plan.problems[0]))
        except BudgetError as error:
            raise ConfigError(f"{cell.id}: {error}") from error


def check_new(plan: Plan) -> None:
    """Raise ``UsageError`` for fields that would change nothing; runs of before may have them."""
    config = plan.config
    if config.model_fields_set & {"temperatures", "top_k", "top_p", "min_p"}:
        asked = [config.sampling(temperature) for temperature in config.temperatures]
        check_sampled(plan.strategies.values(), asked)


def load_problems(config: Config, task: Task) -> list[Problem]:
    """The problems that a config asks for: from its file, or as many as it says from the task."""
    problems = list(_problems(config, task))
    if not problems:
        place = config.file or config.task
        if config.skip:
            raise ConfigError(
                f"skip = {config.skip}: {place} has no problem behind the first {config.skip}; "
                "skip fewer than it has"
            )
        raise InputError(f"{place}: no problems in it; expected at least one")
    if config.problems is not None and len(problems) < config.problems:
        behind = f" behind the first {config.skip}" if config.skip else ""
        raise ConfigError(
            f"problems = {config.problems}, and {config.file or config.task} has only "
            f"{len(problems)}{behind}: ask for at most that many, or leave the field out"
        )
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(
                f"{config.file or config.task}: two problems have the id {problem.id!r}; "
                "give each its own"
            )
        seen.add(problem.id)
    return problems


def _problems(config: Config, task: Task) -> Iterator[Problem]:
    if config.file is not None:
        if not isinstance(task, FileTask):
            raise ConfigError(f"task {task.name} makes its own problems: leave out file")
        if config.split is not None:
            raise ConfigError("split is for tasks that make their own problems: leave it out")
        end = None if config.problems is None else config.skip + config.problems
        return islice(task.load(config.file), config.skip, end)
    if not isinstance(task, GeneratedTask):
        raise ConfigError(
            f'task {task.name} reads its problems from a file: add file = "problems.jsonl"'
        )
    if config.problems is None:
        raise ConfigError(f"problems is missing; expected how many problems of {task.name} to make")
    if config.skip + config.problems > MOST_MADE:
        raise ConfigError(
            f"problems = {config.problems} behind skip = {config.skip}: expected together at most "
            f"{MOST_MADE:,}, for every problem up to there is made anew"
        )
    made = task.problems(config.split or "test", config.skip + config.problems)
    return islice(made, config.skip, None)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """A problem as JSON values, for records: the prompt as the model sees it and as plain text."""
    value = {
        "id": problem.id,
        "prompt": plain(problem.prompt),
        "text": problem.prompt.plain,
        "answer": problem.answer,
        "meta": plain(problem.meta),
    }
    # Most have none: what their records are recognised by stays as it was.
    return {**value, "opening": problem.opening} if problem.opening else value


def problem_from_json(data: Mapping[str, Any]) -> Problem:
    """The problem that ``problem_to_json`` was given."""
    prompt = data["prompt"]
    if prompt["messages"]:
        turns = (Message(turn["role"], turn["content"]) for turn in prompt["messages"])
        view = Prompt.chat(*turns)
    elif prompt["token_ids"] is not None:
        view = Prompt(token_ids=tuple(prompt["token_ids"]))
    else:
        view = Prompt.of(prompt["text"])
    return Problem(data["id"], view, data["answer"], data["meta"], data.get("opening", ""))


def problems_digest(problems: Sequence[Problem]) -> str:
    """SHA-256 over the problems in order, as hex."""
    state = hashlib.sha256()
    for problem in problems:
        state.update(canonical(problem_to_json(problem)) + b"\n")
    return state.hexdigest()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The fields in which two resolved configs differ, as ``field: old -> new``.

    >>> differences({"a": 1, "b": 2}, {"a": 1, "b": 3})
    ['b: 2 -> 3']
    """
    names = sorted({*before, *after})
    return [
        f"{name}: {_shown(before, name)} -> {_shown(after, name)}"
        for name in names
        if before.get(name, ...) != after.get(name, ...)
    ]


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return canonical(fields[name]).decode()[:80] if name in fields else "(none)"


def _file_digests(specs: Iterable[str]) -> dict[str, str]:
    """The digests of the specs that name files."""
    return {spec: digest for spec in specs if (digest := _file_digest(spec)) is not None}


def _file_digest(spec: str) -> str | None:
    """What a user's task, strategy or verifier is: its file. Another content is another run."""
    path = Path(spec)
    if path.suffix != ".py" or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()
