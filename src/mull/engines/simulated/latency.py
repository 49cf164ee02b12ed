"""The simulator's time: how long a completion holds a slot, and who gets the next one."""

from __future__ import annotations

import asyncio
import heapq
import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Latency:
    """What generation takes, in milliseconds. All zero: no waiting and no slots at all.

    A completion holds its slot for ``request_ms`` (a fixed overhead), ``prefill_ms`` for every
    prompt token that is computed anew, and ``token_ms`` for every generated token. The samples of
    one request share its prefill. ``delta_tokens`` is how many tokens a delta carries.
    """

    token_ms: float = 0.0
    prefill_ms: float = 0.0
    request_ms: float = 0.0
    delta_tokens: int = 8

    def __post_init__(self) -> None:
        for name in ("token_ms", "prefill_ms", "request_ms"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"latency.{name} must be 0 or more milliseconds, not {value}")
        if self.delta_tokens < 1:
            raise ValueError(f"latency.delta_tokens must be at least 1, not {self.delta_tokens}")

    @property
    def none(self) -> bool:
        """Whether generation takes no time."""
        return not (self.token_ms or self.prefill_ms or self.request_ms)


@dataclass(slots=True)
class SlotStats:
    """What the slots have done since the engine was made; seconds on the loop's clock.

    ``busy`` sums the seconds that completions held slots, cancelled ones included; ``span`` is the
    time from the first start to the latest end.
    """

    slots: int
    busy: float = 0.0
    started: int = 0
    finished: int = 0
    cancelled: int = 0
    generated: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    waiting: int = 0
    max_waiting: int = 0
    first_start: float = math.inf
    last_end: float = -math.inf

    @property
    def span(self) -> float:
        """Seconds between the first start and the latest end."""
        return max(0.0, self.last_end - self.first_start)

    @property
    def occupancy(self) -> float:
        """Share of slot time that was busy, 0..1."""
        return self.busy / (self.slots * self.span) if self.span else 0.0


class Job(Protocol):
    """One completion that wants a slot."""

    cancelled: bool

    def start(self, now: float) -> None:
        """The slot is yours from ``now``; release it when done."""
        ...


class Slots:
    """A fixed number of places; who waits is served by priority, then first in, first out."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"slots must be at least 1, not {count}")
        self.stats = SlotStats(count)
        self._waiting: list[tuple[int, int, Job]] = []
        self._arrivals = 0

    def submit(self, job: Job, priority: int) -> None:
        """Start the job now if a slot is free, else queue it."""
        stats = self.stats
        if stats.in_flight < stats.slots:
            self._start(job)
            return
        self._arrivals += 1
        heapq.heappush(self._waiting, (priority, self._arrivals, job))
        stats.waiting += 1
        stats.max_waiting = max(stats.max_waiting, stats.waiting)

    def withdraw(self, job: Job) -> None:
        """A waiting job will not run; it is skipped when its turn comes."""
        job.cancelled = True
        self.stats.waiting -= 1
        self.stats.cancelled += 1

    def release(self, started: float) -> None:
        """Give back the slot held since ``started`` and serve the next in line."""
        now = asyncio.get_running_loop().time()
        stats = self.stats
        stats.in_flight -= 1
        stats.busy += now - started
        stats.last_end = max(stats.last_end, now)
        while self._waiting and stats.in_flight < stats.slots:
            _, _, job = heapq.heappop(self._waiting)
            if not job.cancelled:
                stats.waiting -= 1
                self._start(job)

    def _start(self, job: Job) -> None:
        now = asyncio.get_running_loop().time()
        stats = self.stats
        stats.in_flight += 1
        stats.started += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        stats.first_start = min(stats.first_start, now)
        job.start(now)
