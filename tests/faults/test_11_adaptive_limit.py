"""Reliability test 11: the adaptive limit finds what an endpoint takes, and stays there."""

import asyncio
import random

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.limit import AdaptiveLimit
from mull.engines.openai import load_openai
from mull.engines.simulated import Echo, Latency, SimulatedEngine, run_virtual
from mull.engines.simulated.server import FaultServer
from mull.types import Prompt, Request, Until


async def press(
    limit: AdaptiveLimit, capacity: int, seconds: float, *, broken: float = 0.0
) -> list[tuple[float, int]]:
    """200 callers against an endpoint that refuses more than ``capacity`` at once."""
    loop, rng = asyncio.get_running_loop(), random.Random(1)
    in_flight, history = 0, []

    async def caller() -> None:
        nonlocal in_flight
        while loop.time() < seconds:
            async with limit.permit() as permit:
                history.append((loop.time(), limit.limit))
                in_flight += 1
                if in_flight > capacity:
                    permit.refused = True
                else:
                    await asyncio.sleep(rng.uniform(0.1, 0.3))
                    permit.succeeded = rng.random() >= broken
                in_flight -= 1
            await asyncio.sleep(0.5 if permit.refused else 0.0)

    await asyncio.gather(*(caller() for _ in range(200)))
    return history


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("capacity", [10, 40, 100])
def test_it_settles_within_a_fifth_of_the_capacity_and_stays(capacity):
    limit = AdaptiveLimit()
    settled = [level for time, level in run_virtual(press(limit, capacity, 30)) if time > 12]
    mean = sum(settled) / len(settled)
    assert 0.8 * capacity <= mean <= 1.2 * capacity
    assert max(settled) <= 2 * min(settled)
    assert max(settled) <= 1.2 * capacity
    assert limit.in_flight == limit.waiting == 0


def test_it_doubles_each_round_until_the_first_sign_of_overload():
    async def main() -> list[int]:
        """Callers whose requests all take a second; the limit at the end of each."""
        limit, levels = AdaptiveLimit(), []

        async def caller() -> None:
            while asyncio.get_running_loop().time() < 3.5:
                async with limit.permit() as permit:
                    await asyncio.sleep(1.0)
                    permit.succeeded = True

        callers = [asyncio.ensure_future(caller()) for _ in range(400)]
        await asyncio.sleep(0.5)
        for _ in range(4):
            levels.append(limit.limit)
            await asyncio.sleep(1.0)
        await asyncio.gather(*callers)
        async with limit.permit() as permit:
            permit.refused = True
        return [*levels, limit.limit]

    assert run_virtual(main()) == [20, 40, 80, 160, 204]


def test_errors_that_are_no_refusals_never_shrink_it():
    limit = AdaptiveLimit(most=64)
    history = run_virtual(press(limit, 1000, 8, broken=0.5))
    levels = [level for _, level in history]
    assert levels == sorted(levels)
    assert limit.limit == 64
    assert limit.episodes == 0


def test_refusals_of_one_episode_shrink_it_once():
    async def main() -> list[int]:
        limit, seen = AdaptiveLimit(start=50, cooldown_s=5), []
        for wait in (0.0, 1.0, 3.0, 5.0):
            await asyncio.sleep(wait)
            async with limit.permit() as permit:
                permit.refused = True
            seen.append(limit.limit)
        return seen

    assert run_virtual(main()) == [40, 40, 40, 32]


def test_a_limit_that_is_not_reached_does_not_grow():
    async def main() -> int:
        limit = AdaptiveLimit(start=20)
        for _ in range(100):
            async with limit.permit() as permit:
                permit.succeeded = True
        return limit.limit

    assert run_virtual(main()) == 20


def test_permits_are_served_by_priority_and_never_lost_by_cancelling():
    async def main() -> list[int]:
        limit, order = AdaptiveLimit(start=1, most=1), []

        async def one(priority: int) -> None:
            async with limit.permit(priority):
                order.append(priority)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(one(priority)) for priority in (0, 4, 2, 3, 1)]
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limit.in_flight == limit.waiting == 0
        return order

    assert run_virtual(main()) == [0, 1, 3, 4]


def test_a_permit_granted_and_cancelled_in_the_same_instant_goes_to_the_next():
    async def main() -> None:
        limit = AdaptiveLimit(start=1, most=1)
        first = await limit.acquire()
        second = asyncio.create_task(limit.acquire())
        third = asyncio.create_task(limit.acquire())
        await asyncio.sleep(0)
        limit.release(first)
        second.cancel()
        limit.release(await third)
        assert limit.in_flight == limit.waiting == 0

    run_virtual(main())


@pytest.mark.slow
@pytest.mark.timeout(30)
async def test_an_endpoint_with_a_capacity_is_used_up_to_it_and_no_sample_fails():
    inner = SimulatedEngine(Echo(), latency=Latency(token_ms=5))
    async with FaultServer(inner, capacity=8) as server:
        engine = load_openai(server.url(), deadline_s=30, backoff_s=0.02)
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        request = Request(Prompt.of("hello"), Until(20), n=80)
        done = [item async for item in engine.generate(request, meter)]
        assert len(done) == 80
        assert engine.stats.refused > 0
        assert engine.limit.episodes >= 1
        assert meter.ledger.of(Purpose.RETRY).tokens == 0
        assert meter.total.generated == server.metered.generated
        await engine.aclose()
