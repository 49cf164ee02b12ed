"""Laws of the virtual clock: time is what the timers say, and no real time is waited for."""

import asyncio
import threading
import time

import pytest

from mull.engines.simulated import VirtualClock, VirtualDeadlock, run_virtual
from mull.engines.simulated import clock as clock_module


def test_sleeping_takes_virtual_time_and_no_real_time():
    """Days of it: the limit of every test would end a real sleep."""

    async def naps() -> list[tuple[str, float]]:
        loop, seen = asyncio.get_running_loop(), []

        async def nap(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time()))

        await asyncio.gather(nap("b", 7200), nap("a", 3600), nap("c", 86_400 * 3))
        return seen

    assert run_virtual(naps()) == [("a", 3600.0), ("b", 7200.0), ("c", 259_200.0)]


def test_a_timeout_fires_on_virtual_time():
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(wait()) == 30.0


def test_threads_take_no_virtual_time():
    async def work() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        alarm = asyncio.create_task(asyncio.sleep(0.001))
        result = await asyncio.to_thread(lambda: time.sleep(0.05) or "done")
        at = loop.time()
        await alarm
        return result, at

    assert run_virtual(work()) == ("done", 0.0)


def test_a_thread_of_ones_own_may_wake_the_loop():
    async def work() -> int:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        thread = threading.Thread(
            target=lambda: (time.sleep(0.02), loop.call_soon_threadsafe(future.set_result, 7))
        )
        thread.start()
        value = await future
        thread.join()
        return value

    assert run_virtual(work()) == 7


def test_a_deadlock_is_an_error_and_not_a_hang(monkeypatch):
    monkeypatch.setattr(clock_module, "PATIENCE", 0.05)

    async def stuck() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(VirtualDeadlock, match="no timer is set"):
        run_virtual(stuck())


def test_time_goes_on_between_runs_of_one_clock():
    with VirtualClock() as clock:
        clock.run(asyncio.sleep(2))
        clock.run(asyncio.sleep(3))
        assert clock.now == 5.0
