"""Accuracy on the simulator's mixed problems, to compare with published simulated curves."""

from __future__ import annotations

import math
from dataclasses import replace

from mull.budget import Budget
from mull.catalog import load_strategy, load_task
from mull.engines.simulated import SimulatedEngine, StepModel, levels, run_virtual
from mull.strategies.base import Start
from mull.strategies.drive import Job, drive
from mull.strategies.levels_options import LevelOptions
from mull.types import Until
from mull.verifiers.simulated import SimulatedVerifier

BREAK = "\n\n"
PROBLEMS = {4: 240, 16: 150, 64: 70}


def accuracy(spec: str, samples: int, problems: int, **model: float) -> float:
    """Share of ``levels`` problems of 8 steps solved; each text has a score of its own."""
    strategy = load_strategy(spec)
    if isinstance(strategy, LevelOptions):
        strategy = replace(strategy, merge=False, speculate=False)
    content = StepModel((20, 20), separator=BREAK, closing="answer: ", **model)  # type: ignore[arg-type]
    task, until = load_task("text"), Until(4000, separator=BREAK)

    async def solve() -> int:
        verifier = SimulatedVerifier(separator=BREAK)
        jobs = (
            Job(strategy, Start(p, task, Budget(samples=samples), until=until))
            for p in levels(problems)
        )
        right = 0
        async for solved in drive(jobs, {"policy": SimulatedEngine(content)}, {"prm": verifier}):
            right += solved.result.answer == solved.job.start.problem.answer
        return right

    return run_virtual(solve()) / problems


def misses(spec: str, published: dict[int, float], **model: float) -> dict[int, float]:
    """Standard errors between ours and the published accuracy (two digits), by samples.

    Both are Monte-Carlo figures of some hundred problems; the published ones are rounded.
    """
    found = {}
    for samples, expected in published.items():
        problems = PROBLEMS[samples]
        ours = accuracy(spec, samples, problems, **model)
        spread = math.sqrt(max(expected * (1 - expected), 0.02) * 2 / problems)
        found[samples] = max(0.0, abs(ours - expected) - 0.005) / spread
    return found
