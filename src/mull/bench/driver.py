"""What the driver costs and wins, on the simulated engine: overhead, schedule, memory.

Three figures. CPU time of ours for one completion, with an engine that takes none; the makespan of
many votes against list scheduling of the same lengths, on the virtual clock; and the peak memory of
a large run in a process of its own. ``print(json.dumps(asdict(figure)))`` is what a report needs.
"""

from __future__ import annotations

import asyncio
import heapq
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from mull.budget import Ledger, Meter, Purpose
from mull.catalog import load_task
from mull.engines.simulated import Echo, Latency, SimulatedEngine, run_virtual
from mull.strategies.base import Start
from mull.strategies.drive import Job, drive
from mull.strategies.vote import Vote
from mull.types import Request

TEXT = "The answer is 42."
TOKENS = (20, 60)
"""Lengths of a simulated completion, drawn uniformly."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range of the repeats of one measurement."""

    median: float
    least: float
    most: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values."""
        return cls(median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} to {self.most:.3g}, n={self.repeats})"


@dataclass(frozen=True, slots=True)
class Overhead:
    """CPU microseconds a completion: ``ours`` (drive, strategy, task, ledger) and the engine's."""

    ours_us: Spread
    engine_us: Spread
    completions: int
    target_us: float = 50.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Makespan of the driver over list scheduling of the same lengths; 1 is as good as that."""

    ratio: Spread
    occupancy: Spread
    problems: int
    samples: int
    slots: int
    target: float = 1.1


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident megabytes of a fresh process: before the first problem, and after the last."""

    start_mb: float
    peak_mb: float
    completions: int
    seconds: float
    target_mb: float = 500.0


def driver_overhead(problems: int = 100, samples: int = 64, repeats: int = 5) -> Overhead:
    """CPU time of ours a completion, with a 0 ms engine and no store.

    The engine's own cost is measured by iterating it bare with the same requests, before and after,
    and taken away.
    """
    ours, engines = [], []
    for seed in range(repeats):
        engine = SimulatedEngine(Echo(TEXT))
        jobs = list(_jobs(problems, samples, seed))
        bare = partial(_iterate, engine, jobs, samples)
        before = _cpu(bare)
        whole = _cpu(partial(_drive, engine, iter(jobs)))
        alone = (before + _cpu(bare)) / 2
        scale = 1e6 / (problems * samples)
        engines.append(alone * scale)
        ours.append((whole - alone) * scale)
    return Overhead(Spread.of(ours), Spread.of(engines), problems * samples)


def list_scheduling_ratio(
    problems: int = 16, samples: int = 8, slots: int = 64, token_ms: float = 5.0, repeats: int = 5
) -> Schedule:
    """Makespan of ``problems`` votes of ``samples`` over first-in-first-out list scheduling.

    List scheduling serves all completions in the order of problems and samples, with no dependence
    between them: what the best driver of a plain vote could reach. On the virtual clock.
    """
    ratios, occupancies = [], []
    for seed in range(repeats):
        engine = SimulatedEngine(Echo(TEXT, TOKENS), latency=Latency(token_ms), slots=slots)
        jobs = list(_jobs(problems, samples, seed))
        lengths = run_virtual(_drive(engine, iter(jobs)))
        seconds = [lengths[key] * token_ms / 1e3 for key in sorted(lengths)]
        ratios.append(engine.stats.span / list_schedule(seconds, slots))
        occupancies.append(engine.stats.occupancy)
    return Schedule(Spread.of(ratios), Spread.of(occupancies), problems, samples, slots)


def list_schedule(seconds: Sequence[float], slots: int) -> float:
    """Makespan of jobs served first in, first out by identical slots.

    >>> list_schedule([3.0, 1.0, 1.0, 2.0], 2)
    4.0
    """
    free = [0.0] * slots
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def flat_memory(problems: int = 10_000, samples: int = 64) -> Memory:
    """Peak memory of ``problems`` votes of ``samples``, in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_report_memory, args=(theirs, problems, samples))
    child.start()
    theirs.close()
    try:
        figure: Memory = ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the measuring process died with code {child.exitcode}") from None
    child.join()
    return figure


def _report_memory(answer: Connection, problems: int, samples: int) -> None:
    start, begun = _peak_mb(), time.perf_counter()
    engine = SimulatedEngine(Echo(TEXT))
    asyncio.run(_consume(engine, _jobs(problems, samples, 0)))
    seconds = time.perf_counter() - begun
    answer.send(Memory(start, _peak_mb(), problems * samples, seconds))


def _peak_mb() -> float:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent that this process was forked from
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**2


def _jobs(problems: int, samples: int, seed: int) -> Iterator[Job]:
    task, vote = load_task("text"), Vote(n=samples)
    for number in range(problems):
        problem = task.problem(f"Problem {number}: what is six times seven?", str(number))
        yield Job(vote, Start(problem, task), seed, number)


async def _drive(engine: SimulatedEngine, jobs: Iterator[Job]) -> dict[tuple[int, int], int]:
    """Tokens of every completion, by problem and sample."""
    lengths = {}
    async for solved in drive(jobs, {"policy": engine}):
        for candidate in solved.result.candidates:
            lengths[solved.job.tag, candidate.key[0]] = candidate.tokens
    return lengths


async def _consume(engine: SimulatedEngine, jobs: Iterator[Job]) -> None:
    async for _ in drive(jobs, {"policy": engine}):
        pass


async def _iterate(engine: SimulatedEngine, jobs: Sequence[Job], samples: int) -> None:
    """The engine alone, with the requests that the driver would send."""
    for job in jobs:
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        request = Request(
            job.start.problem.prompt, job.start.limit, n=samples, decoding=job.start.sampling
        )
        async for _ in engine.generate(request, meter):
            pass


def _cpu(work: Callable[[], Coroutine[Any, Any, object]]) -> float:
    """CPU seconds that a coroutine takes."""
    begun = time.process_time()
    asyncio.run(work())
    return time.process_time() - begun
