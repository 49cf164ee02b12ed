"""The real driver keeps the contract: slots and timing change neither results nor what was spent.

The toy strategies of ``toys.py`` run on engines whose samples take random times and sometimes fail,
once with one slot and once with several, on the virtual clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import pytest
from tests.strategies.test_contract import TOYS, ToyTask

from mull.budget import Budget, Meter, Purpose
from mull.engines.simulated import run_virtual
from mull.errors import EngineConnectionError
from mull.strategies.base import Search, Start
from mull.strategies.drive import Job, Solved, drive
from mull.types import (
    Branch,
    Capabilities,
    Completion,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    Usage,
)

FAILURES = 1 / 12
WORLDS = 8


class RandomTimes:
    """What a sample says follows from its seed; when it says it, from ``clock``."""

    def __init__(self, name: str, slots: int, clock: random.Random) -> None:
        can = Capabilities(logprobs=True, token_ids=True)
        self.info = EngineInfo("toy", name, slots=slots, capabilities=can)
        self.clock = clock
        self.made = 0

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        for index in range(request.first, request.first + request.n):
            self.charge(meter, index, prompt=3)
            await asyncio.sleep(self.clock.random())
            draw = random.Random(f"{request.seed},{index}")
            tokens = draw.randint(2, 9)
            if draw.random() < FAILURES:
                raise EngineConnectionError("reset")
            text, stop = self.says(request, draw)
            self.charge(meter, index, generated=tokens)
            logprobs = tuple(-draw.random() for _ in range(tokens))
            usage = meter.usage(index)
            yield Completion(index, text, stop, usage, tuple(range(tokens)), logprobs)

    def charge(self, meter: Meter, index: int, prompt: int = 0, generated: int = 0) -> None:
        meter.charge(index, prompt=prompt, generated=generated)
        self.made += prompt + generated

    def says(self, request: Request, draw: random.Random) -> tuple[str, StopReason]:
        if self.info.model == "judge":
            return draw.choice(["[[correct]]", "[[wrong]]"]), StopReason.END
        if request.until.steps and request.assistant.count("\n") < 3:
            return f"step {draw.randint(0, 99)}\n", StopReason.STEP
        return f"answer {draw.choice('77777355')}", StopReason.END

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        raise AssertionError("no toy scores text")

    async def aclose(self) -> None:
        return


class RandomVerifier:
    info = EngineInfo("toy", "verifier")
    policy = ()

    def __init__(self, clock: random.Random) -> None:
        self.clock = clock
        self.made = 0

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        for index in range(len(branches)):
            meter.charge(index, prompt=5)
            self.made += 5
        await asyncio.sleep(self.clock.random())
        return [random.Random(repr(branch.key)).random() for branch in branches]


@dataclass(frozen=True)
class Toy:
    search: type

    def start(self, start: Start) -> Search:
        search: Search = self.search(start)
        return search


def solve(
    toy: type, world: int, slots: int, schedule: int, budget: Budget | None
) -> tuple[Solved, int]:
    """One problem solved by the real driver, and the tokens that engines and verifier made."""

    async def run() -> tuple[Solved, int]:
        clock = random.Random(schedule)
        policy, judge = (RandomTimes(name, slots, clock) for name in ("policy", "judge"))
        verifier = RandomVerifier(clock)
        task = ToyTask()
        job = Job(Toy(toy), Start(task.problem("how many?"), task, budget), world)
        engines = {"policy": policy, "judge": judge}
        found = [s async for s in drive([job], engines, {"verifier": verifier})]
        return found[0], policy.made + judge.made + verifier.made

    return run_virtual(run())


def committed(solved: Solved) -> dict[tuple[str, str], tuple[Usage, int]]:
    """The ledger's rows but for work that depends on timing by its nature."""
    loose = (Purpose.SPECULATIVE, Purpose.CANCELLED)
    return {
        (purpose.value, model): (usage, completions)
        for purpose, model, usage, completions in solved.ledger.rows()
        if purpose not in loose
    }


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("tokens", [None, 20, 60, 120])
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)
def test_slots_and_times_change_neither_result_nor_committed_cost(
    toy: type, tokens: int | None
) -> None:
    budget = None if tokens is None else Budget(tokens=tokens)
    for world in range(WORLDS):
        alone, _ = solve(toy, world, 1, 0, budget)
        slots = random.Random(world).randint(2, 8)
        crowd, made = solve(toy, world, slots, world + 1, budget)
        assert crowd.result == alone.result
        assert committed(crowd) == committed(alone)
        assert crowd.ledger.total.tokens == made
