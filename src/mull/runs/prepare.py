"""A config becomes a plan: everything that can be wrong is found before anything is written.

Knows configs, tasks and problems; knows no store. The model is loaded elsewhere: it is identified
here only by what its engine says of itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mull.catalog import load_task
from mull.errors import ConfigError, InputError
from mull.runs.cells import Cell, cells_of, check_cells, load_strategies
from mull.runs.config import Config
from mull.store import canonical, plain
from mull.strategies.base import Strategy
from mull.tasks.base import FileTask, GeneratedTask, Task
from mull.types import EngineInfo, Problem, Until


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked config with the objects that its names stand for."""

    config: Config
    task: Task
    strategies: Mapping[str, Strategy]
    problems: Sequence[Problem]
    cells: Sequence[Cell]
    until: Until

    def resolved(self, info: EngineInfo) -> dict[str, Any]:
        """What the run is recognised by: the fields, and the content behind their names."""
        fields = dict(self.config.portable)
        fields["problems_digest"] = problems_digest(self.problems)
        fields["task_digest"] = _file_digest(self.config.task)
        fields["engine_identity"] = list(info.identity)
        return fields


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
    check_cells(cells, chosen, problems[0], task, until)
    return Plan(config, task, chosen, problems, cells, until)


def load_problems(config: Config, task: Task) -> list[Problem]:
    """The problems that a config asks for: from its file, or as many as it says from the task."""
    problems = list(_problems(config, task))
    if not problems:
        raise InputError(f"{config.file or config.task}: no problems in it; expected at least one")
    if config.problems is not None and len(problems) < config.problems:
        raise ConfigError(
            f"problems = {config.problems}, and {config.file or config.task} has only "
            f"{len(problems)}: ask for at most that many, or leave the field out"
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
        return islice(task.load(config.file), config.problems)
    if not isinstance(task, GeneratedTask):
        raise ConfigError(
            f'task {task.name} reads its problems from a file: add file = "problems.jsonl"'
        )
    if config.problems is None:
        raise ConfigError(f"problems is missing; expected how many problems of {task.name} to make")
    return task.problems(config.split or "test", config.problems)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """A problem as JSON values, for records: the prompt as the model sees it and as plain text."""
    return {
        "id": problem.id,
        "prompt": plain(problem.prompt),
        "text": problem.prompt.plain,
        "answer": problem.answer,
        "meta": plain(problem.meta),
    }


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


def _file_digest(task: str) -> str | None:
    """A user's task is its file: other rules of grading are another run."""
    path = Path(task.partition("(")[0])
    if path.suffix != ".py" or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()
