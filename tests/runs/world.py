"""A small world for runs: the simulator's problems as a task, on a virtual clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mull.engines.simulated import Faults, Latency, SimulatedEngine, StepModel, levels
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.runs.config import Config, make_config
from mull.runs.records import Records
from mull.types import Problem, Prompt, Until

UNTIL = Until(max_tokens=400)


@dataclass(frozen=True)
class Steps:
    """The simulator's problems: the answer stands in the last line."""

    name: str = "steps"
    until: Until = UNTIL

    def problem(self, text: str, id: str = "0") -> Problem:
        return Problem(id, Prompt.of(text))

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        return levels(count, steps=4, seed=seed)

    def extract(self, problem: Problem, text: str) -> Extraction:
        found = re.search(r"answer (\d+)\s*$", text)
        return Extraction(found[1]) if found else Extraction(None, Unanswered.NO_ANSWER)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        if answer is None:
            return Grade(GradeOutcome.UNANSWERED)
        right = answer == problem.answer
        return Grade(GradeOutcome.CORRECT if right else GradeOutcome.WRONG)


def small(**fields: Any) -> Config:
    """A config of 12 problems, vote and sample of 4."""
    given = {
        "name": "small",
        "task": "steps",
        "model": "simulated",
        "strategies": ["sample", "vote"],
        "problems": 12,
        "samples": 4,
    }
    return make_config({**given, **fields})


def engine(
    token_ms: float = 1.0, slots: int = 8, faults: Faults | None = None, **more: Any
) -> SimulatedEngine:
    """A simulated engine whose tokens take virtual time."""
    return SimulatedEngine(
        StepModel(),
        latency=Latency(token_ms=token_ms),
        slots=slots,
        faults=faults,
        **{"parameters": 1000, "layers": 2, "width": 8, **more},
    )


def exported(directory: Path) -> bytes:
    """The run's records as bytes."""
    with Records(directory) as records:
        return b"".join(records.export())
