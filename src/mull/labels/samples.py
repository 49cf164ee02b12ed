"""A run's records → the policy's own samples, graded, with their exact tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mull.catalog import load_task
from mull.errors import InputError, StoreError, UsageError
from mull.runs.config import Config
from mull.runs.prepare import problem_from_json
from mull.runs.records import Records
from mull.runs.result import grade_answer
from mull.store.keys import request_key
from mull.store.reader import Reader
from mull.strategies.base import Generate, Start
from mull.strategies.drive import request_of
from mull.tasks.base import Task, settled
from mull.types import Attempt, Branch, Completion, EngineInfo, Problem, Sampling, StopReason

_ALL = range(1 << 30)


@dataclass(frozen=True, slots=True)
class Sample:
    """One recorded solution: sample ``index`` of its problem.

    ``history`` are the attempts that stood in context when it was made, oldest first.
    ``ids`` are the tokens as the policy made them, the end token among them, ``None`` where the
    engine gave none. ``answer`` is ``None`` where the task reads none; it then counts as wrong.
    ``correct`` is ``None`` where nothing can be said (no gold answer, or the grader failed).
    """

    problem: Problem
    index: int
    text: str
    ids: tuple[int, ...] | None
    answer: str | None
    correct: bool | None
    stop: StopReason
    mean_logprob: float = math.nan
    history: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The samples of a run, problem by problem, and who made them of what task."""

    directory: Path
    task: Task
    policy: EngineInfo

    def problems(self) -> Iterator[tuple[Sample, ...]]:
        """The samples of each problem in index order, equal ones included; problems in order.

        All plain samples of the root count, whatever strategy asked for them; samples of another
        seed or temperature follow behind.
        """
        with Records(self.directory) as records, Reader(self.directory) as reader:
            config = config_of(records)
            draws = dict.fromkeys((cell.seed, cell.temperature) for cell in records.cells)
            for row in records.raw_problems():
                problem = problem_from_json(row)
                found: list[Sample] = []
                for seed, temperature in draws:
                    if temperature is None:
                        continue
                    start = recorded_start(problem, self.task, config, temperature)
                    root = Generate(0, Branch.root(problem), start.limit, decoding=start.sampling)
                    key = request_key(request_of(root, self.policy, seed), self.policy)
                    made = sorted(reader.samples(key, _ALL).items())
                    first = len(found)
                    found += [self.graded(problem, first + at, each) for at, each in made]
                yield tuple(found)

    def graded(
        self, problem: Problem, index: int, made: Completion, history: tuple[Attempt, ...] = ()
    ) -> Sample:
        """A completion as sample ``index``, read and graded by the task."""
        read = self.task.extract(problem, made.text)
        answer = settled(self.task, read, made.stop).answer
        grade = grade_answer(self.task, problem, answer)
        likely = math.nan if made.mean_logprob is None else made.mean_logprob
        return Sample(
            problem,
            index,
            made.text,
            made.token_ids,
            answer,
            grade.correct,
            made.stop,
            likely,
            history,
        )


def read_run(directory: str | Path, task: Task | None = None) -> Recorded:
    """Open a run's records as samples of one policy.

    Raises ``StoreError`` where the directory holds no run or more than one policy answered,
    ``UsageError`` for a task that begins the answer's turn itself, and
    ``InputError`` where it holds no plain sample.
    """
    path = Path(directory)
    with Records(path) as records, Reader(path) as reader:
        named = str(records.config["model"])
        engines = [info for info in reader.engines() if _is_policy(info, named)]
        if len(engines) != 1:
            known = ", ".join(sorted(info.model for info in reader.engines())) or "none"
            raise StoreError(
                f"{path}: expected the records of one policy {named!r}, found engines: {known}"
            )
        recorded = Recorded(path, task or load_task(str(records.config["task"])), engines[0])
        for row in records.raw_problems():
            if opening := problem_from_json(row).opening:
                raise UsageError(
                    f"{path}: its task begins the answer's turn itself ({opening[:40]!r}), and "
                    "labels are of whole turns: train on runs of a task that leaves it empty"
                )
    if not any(recorded.problems()):
        raise InputError(
            f"{path} holds no plain samples: run a config with the strategy sample or vote first"
        )
    return recorded


def recorded_start(
    problem: Problem, task: Task, config: Config, temperature: float | None
) -> Start:
    """What a search of a recorded cell began with, as far as its requests show it."""
    until = task.until
    if config.max_tokens is not None:
        until = replace(until, max_tokens=config.max_tokens)
    sampling = Sampling() if temperature is None else config.sampling(temperature)
    return Start(problem, task, None, sampling, until)


def config_of(records: Records) -> Config:
    """The config of recorded fields, without what was added to recognise it by."""
    fields = {k: v for k, v in records.config.items() if k in Config.model_fields}
    return Config(**{k: v for k, v in fields.items() if v is not None})


def _is_policy(info: EngineInfo, named: str) -> bool:
    return info.model in (named, Path(named).name) or named.endswith(f"#{info.model}")
