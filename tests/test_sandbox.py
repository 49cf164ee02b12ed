"""Laws of the sandbox: limits hold, a killed worker is replaced, nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import operator
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.patience import PATIENCE

from mull.errors import SandboxError, SandboxTimeoutError
from mull.sandbox import MAX_MESSAGE, Pool

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(size=2, memory_mib=256) as made:
        made.warm()
        yield made


def workers_of(pool: Pool) -> list[int]:
    return [worker.pid for worker in pool._free]


def kill(pids: list[int]) -> None:
    """Kill and wait until they are dead, if not yet buried."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while any(map(alive, pids)):
        time.sleep(0.005)


def test_a_value_comes_back(pool: Pool) -> None:
    assert pool.call(math.factorial, 20, seconds=10) == math.factorial(20)
    assert pool.call(json.loads, '{"a": [1, null, "é"]}', seconds=10) == {"a": [1, None, "é"]}


def test_a_worker_that_overruns_is_killed_and_replaced(pool: Pool) -> None:
    pool.warm()
    before = workers_of(pool)
    start = time.monotonic()
    with pytest.raises(SandboxTimeoutError, match=r"time:sleep did not end within 0\.3 s"):
        pool.call(time.sleep, 60, seconds=0.3)
    assert time.monotonic() - start < PATIENCE
    assert pool.call(math.factorial, 3, seconds=10) == 6
    gone = [pid for pid in before if pid not in workers_of(pool)]
    assert gone
    assert not any(psutil.pid_exists(pid) for pid in gone)


def test_a_busy_loop_in_c_is_killed_too(pool: Pool) -> None:
    with pytest.raises(SandboxTimeoutError):
        pool.call(math.factorial, 10**8, seconds=0.3)


def test_an_error_is_reported_with_its_type_and_the_worker_lives_on(pool: Pool) -> None:
    pool.call(math.factorial, 1, seconds=10)
    before = workers_of(pool)
    with pytest.raises(SandboxError, match="math:factorial: ValueError: factorial"):
        pool.call(math.factorial, -1, seconds=10)
    assert workers_of(pool) == before


def test_memory_is_limited(pool: Pool) -> None:
    with pytest.raises(SandboxError, match="MemoryError"):
        pool.call(operator.mul, "x", 2**30, seconds=10)
    assert pool.call(operator.mul, "x", 3, seconds=10) == "xxx"


def test_a_worker_that_dies_is_an_error_that_names_the_signal(pool: Pool) -> None:
    with pytest.raises(SandboxError, match="killed by SIGSEGV"):
        pool.call(signal.raise_signal, int(signal.SIGSEGV), seconds=10)
    with pytest.raises(SandboxError, match="exit code 7"):
        pool.call(os._exit, 7, seconds=10)
    assert pool.call(math.factorial, 3, seconds=10) == 6


def test_a_worker_killed_while_idle_costs_no_call(pool: Pool) -> None:
    pool.warm()
    kill(workers_of(pool))
    assert pool.call(math.factorial, 4, seconds=10) == 24


def test_a_killed_nursery_costs_no_call() -> None:
    with Pool(size=1) as pool:
        pool.warm()
        assert pool._nursery is not None
        pool._nursery._process.kill()
        pool._nursery._process.wait()
        kill(workers_of(pool))
        assert pool.call(math.factorial, 4, seconds=10) == 24


def test_only_names_and_json_cross_the_border(pool: Pool) -> None:
    for function in (lambda: 1, Pool.close, workers_of.__class__):
        with pytest.raises((SandboxError, AttributeError)):
            pool.call(function, seconds=1)
    with pytest.raises(TypeError):
        pool.call(len, {1, 2}, seconds=1)  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="at most"):
        pool.call(len, "x" * MAX_MESSAGE, seconds=1)
    with pytest.raises(SandboxError, match="not JSON serializable"):
        pool.call(complex, 1, seconds=10)
    with pytest.raises(SandboxError, match="Out of range float"):
        pool.call(float, "nan", seconds=10)


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_limit_is_positive(pool: Pool, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        pool.call(len, "", seconds=seconds)


def test_a_preload_that_fails_says_why() -> None:
    with (
        Pool(("mull.no_such_module",)) as pool,
        pytest.raises(SandboxError, match="no_such_module"),
    ):
        pool.warm()


def test_many_threads_share_the_workers(pool: Pool) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: pool.call(math.factorial, n, seconds=20), range(200)))
    assert found == [math.factorial(n) for n in range(200)]
    assert len(workers_of(pool)) <= pool.size


def test_kills_and_calls_from_many_threads_do_not_mix(pool: Pool) -> None:
    def one(n: int) -> object:
        try:
            if n % 5 == 0:
                return pool.call(time.sleep, 60, seconds=0.05)
            return pool.call(operator.neg, n, seconds=20)
        except SandboxTimeoutError:
            return "killed"

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(60)))
    assert found == ["killed" if n % 5 == 0 else -n for n in range(60)]


async def test_an_event_loop_runs_on_while_a_worker_works(pool: Pool) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(SandboxTimeoutError):
        await asyncio.to_thread(pool.call, time.sleep, 60, seconds=0.4)
    ticking.cancel()
    assert ticks > 5


def answer(pool: Pool, out: Callable[[int], None]) -> None:
    out(pool.call(math.factorial, 5, seconds=20))


def test_the_result_is_the_same_in_main_thread_thread_and_forked_process(pool: Pool) -> None:
    found: list[int] = []
    answer(pool, found.append)
    thread = threading.Thread(target=answer, args=(pool, found.append))
    thread.start()
    thread.join()
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    process = fork.Process(target=answer, args=(pool, queue.put))
    process.start()
    found.append(queue.get())
    process.join()
    answer(pool, found.append)
    assert found == [120] * 4
    assert process.exitcode == 0


def test_the_workers_see_none_of_the_callers_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary")
    with Pool(size=1) as pool:
        assert pool.call(os.getenv, "SOME_API_KEY", seconds=10) is None


def test_a_worker_cannot_fill_the_disk(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="File too large"):
        pool.call(shutil.copyfile, __file__, str(tmp_path / "copy"), seconds=10)


def test_a_closed_pool_leaves_no_process_and_says_so() -> None:
    pool = Pool(size=2)
    pool.warm()
    assert pool._nursery is not None
    pids = [pool._nursery._process.pid, *workers_of(pool)]
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(SandboxError, match="closed"):
        pool.call(len, "", seconds=1)


PROGRAM = """
import contextlib, os, sys, threading, time
from mull.errors import SandboxError
from mull.sandbox import Pool
pool = Pool(size=2)
pool.warm()
def work():
    with contextlib.suppress(SandboxError):
        pool.call(time.sleep, 600, seconds=600)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print(pool._nursery._process.pid, *[w.pid for w in pool._free], flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)", "raise SystemExit(3)"]
)
def test_no_process_outlives_the_program_however_it_ends(end: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(end=end)], stdout=subprocess.PIPE, text=True
    )
    out, _ = run.communicate(timeout=30)
    pids = [int(pid) for pid in out.split()]
    deadline = time.monotonic() + PATIENCE
    # The sleeping worker is a child of the nursery: when the nursery is gone, it has been buried.
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    assert pids
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
