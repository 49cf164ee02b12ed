"""Reliability test 10, reduced: in mixed weather nothing is lost and little time is.

10 % 429, 5 % 5xx, 2 % silence, 1 % resets: every generation ends with a result or a typed failure,
in at most 1.6 times the time of fair weather.
"""

import asyncio

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.openai import OpenAIEngine, load_openai
from mull.engines.simulated import Echo, Latency, SimulatedEngine
from mull.engines.simulated.server import FaultServer
from mull.errors import DeadlineError, EngineError
from mull.types import Completion, Prompt, Request, Until

GENERATIONS, SLOTS = 400, 16


async def run(
    server: FaultServer, path: str, deadline_s: float = 1.0
) -> tuple[float, list[Completion], list[EngineError], OpenAIEngine]:
    engine = load_openai(server.url(path), slots=SLOTS, deadline_s=deadline_s, backoff_s=0.05)
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    done: list[Completion] = []
    failed: list[EngineError] = []

    async def one(number: int) -> None:
        request = Request(Prompt.of(f"problem {number}"), Until(200), n=1, seed=number)
        try:
            done.extend([item async for item in engine.generate(request, meter)])
        except EngineError as error:
            failed.append(error)

    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.gather(*(one(number) for number in range(GENERATIONS)))
    seconds = loop.time() - started
    await engine.aclose()
    return seconds, done, failed, engine


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_mixed_weather_loses_nothing_and_costs_little_time():
    inner = SimulatedEngine(Echo(tokens=(60, 90)), latency=Latency(token_ms=2))
    async with FaultServer(inner) as server:
        # On a busy machine a fair server is slow too; only the foul one is to miss deadlines.
        fair, done, failed, _ = await run(server, "", deadline_s=30.0)
        assert (len(done), len(failed)) == (GENERATIONS, 0)
        foul, done, failed, engine = await run(server, "weather")
        faults = sum(server.metered.faults.values())
    assert faults > 0.1 * GENERATIONS
    assert len(done) + len(failed) == GENERATIONS
    assert all(c.text.startswith("answer 1") for c in done)
    assert any(type(error) is DeadlineError for error in failed)
    assert len(failed) <= 0.05 * GENERATIONS
    assert engine.stats.max_retries <= 3 + 1
    assert engine.limit.in_flight == engine.limit.waiting == 0
    assert foul <= 1.6 * fair, (foul, fair)
