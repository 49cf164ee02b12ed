"""Reliability test 13: with one slot everything completes; nobody holds it while waiting for more.

300 drawn mixes of strategies (plain and nested: beams, trees, judges, revisions, lanes), budgets
and problems in flight share engines that serve one request at a time, on a virtual clock. Half of
the mixes also lose one sample in twelve.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from tests.strategies.test_contract import TOYS, ToyTask
from tests.strategies.test_drive_laws import RandomTimes, RandomVerifier, Toy

from mull.budget import Budget, Meter
from mull.catalog import load_strategy
from mull.engines.simulated import run_virtual
from mull.strategies.base import Ended, Start
from mull.strategies.drive import Job, Solved, drive
from mull.types import Completion, Request

MIXES = 300
A_DAY = 86_400.0


class OneRequest(RandomTimes):
    """Serves one request at a time, whatever it is asked."""

    def __init__(self, name: str, clock: random.Random) -> None:
        super().__init__(name, 1, clock)
        self.gate = asyncio.Semaphore(1)
        self.most = self.now = 0

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        async with self.gate:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                async with aclosing(super().generate(request, meter)) as items:
                    async for item in items:
                        yield item
            finally:
                self.now -= 1


def drawn_job(draw: random.Random, number: int) -> Job:
    """A strategy with a budget that does not contradict it."""
    task = ToyTask()
    n = draw.randint(1, 9)
    tokens = {"tokens": draw.randint(1, 120)}
    limits: dict[str, Any] = draw.choice(
        [{}, {}, tokens, {"total_tokens": draw.randint(1, 200)}, {"seconds": draw.uniform(0.1, 20)}]
    )
    if draw.random() < 0.4:
        strategy: Any = Toy(draw.choice(TOYS))
        limits = {unit: limit for unit, limit in limits.items() if unit in ("tokens", "seconds")}
    else:
        flight = draw.randint(1, 8)
        spec = draw.choice(
            [
                f"sample(flight={flight})",
                f"vote(flight={flight}, quorum={draw.choice([0.0, 0.5, 1.0])})",
                f"vote(stop=beta, flight={flight})",
                f"vote(stop=dirichlet, flight={flight})",
                f"best-of-n(flight={flight})",
                "greedy",
            ]
        )
        strategy = load_strategy(spec)
        if spec != "greedy" and (draw.random() < 0.5 or not limits or "seconds" in limits):
            limits["samples"] = n
    budget = Budget(**limits) if limits else None
    start = Start(task.problem("how many?", str(number)), task, budget)
    return Job(strategy, start, draw.randint(0, 99), number)


def solve(mix: int) -> tuple[list[Job], list[Solved], list[OneRequest]]:
    draw = random.Random(mix)
    jobs = [drawn_job(draw, number) for number in range(draw.randint(1, 4))]

    async def run() -> tuple[list[Job], list[Solved], list[OneRequest]]:
        engines = {name: OneRequest(name, draw) for name in ("policy", "judge")}
        stream = drive(jobs, engines, {"verifier": RandomVerifier(draw)})

        async def collect() -> list[Solved]:
            async with aclosing(stream):
                return [solved async for solved in stream]

        # With nothing left to happen, the virtual clock jumps to this limit at once.
        solved = await asyncio.wait_for(collect(), A_DAY)
        return jobs, solved, list(engines.values())

    return run_virtual(run())


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_with_one_slot_every_mix_of_strategies_completes() -> None:
    kinds, endings = set(), set()
    for mix in range(MIXES):
        jobs, solved, engines = solve(mix)
        assert sorted(each.job.tag for each in solved) == list(range(len(jobs)))
        for engine in engines:
            assert engine.now == 0
            assert engine.most <= 1
        for each in solved:
            assert each.result.ended is not Ended.UNFINISHED
            kinds.add(getattr(each.job.strategy, "search", type(each.job.strategy)).__name__)
            endings.add(each.result.ended)
    assert len(kinds) == len(TOYS) + 4
    assert endings >= {Ended.COMPLETE, Ended.BUDGET, Ended.CONFIDENT}
