"""How many requests an endpoint takes at once: found out by asking, not by configuration.

The limit starts at 20. A refusal by rate (429) shrinks it to 0.8 of itself, once an episode; errors
of other kinds never shrink it: a broken request says nothing about load. Success lets it grow: by
one a success until the first refusal, then by one for every whole window of successes.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Permit:
    """Leave to send one request. Say how it went before you give it back."""

    started: float
    succeeded: bool = False
    refused: bool = False


class AdaptiveLimit:
    """An adaptive number of permits; who waits is served by priority, then first in, first out.

    ``start`` permits at first, never under ``least`` nor over ``most``; ``shrink`` is the factor
    on a refusal, and further refusals within ``cooldown_s`` seconds belong to the same episode.

    >>> import asyncio
    >>> async def refused_once():
    ...     limit = AdaptiveLimit()
    ...     async with limit.permit() as permit:
    ...         permit.refused = True
    ...     return limit.limit
    >>> asyncio.run(refused_once())
    16
    """

    def __init__(
        self,
        *,
        start: int = 20,
        least: int = 1,
        most: int = 256,
        shrink: float = 0.8,
        cooldown_s: float = 5.0,
    ) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"a limit needs 1 <= least <= most, not {least}, {most}")
        if not 0 < shrink < 1 or not cooldown_s >= 0:
            raise ValueError("a limit needs shrink in (0, 1) and cooldown_s >= 0")
        self.least, self.most, self.shrink, self.cooldown_s = least, most, shrink, cooldown_s
        self.in_flight = 0
        self.refusals = 0
        self.episodes = 0
        self._level = float(min(max(start, least), most))
        self._window = 0
        self._shrunk_at = -math.inf
        self._waiting: list[tuple[bool, int, int, asyncio.Future[None]]] = []
        self._arrivals = 0
        self._queued = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._level + 1e-9)

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit."""
        return self._queued

    async def acquire(self, priority: int = 0, *, again: bool = False) -> Permit:
        """Wait for a permit; a lower ``priority`` number is served first. ``release`` it.

        ``again`` asks for a request that was sent before: its deadline is running, so it is served
        before all that have not begun.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Futures and clock readings of an earlier loop mean nothing in this one.
            self._loop, self._shrunk_at = loop, -math.inf
            self._waiting, self._queued, self.in_flight = [], 0, 0
        if self.in_flight < self.limit and not self._queued:
            self.in_flight += 1
            return Permit(loop.time())
        self._arrivals += 1
        self._queued += 1
        future: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._waiting, (not again, priority, self._arrivals, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._queued -= 1
            else:
                # The permit was granted in the same instant: hand it on.
                self.in_flight -= 1
                self._serve()
            raise
        return Permit(loop.time())

    def release(self, permit: Permit) -> None:
        """Give a permit back and learn from how its request went."""
        self._learn(permit, asyncio.get_running_loop().time())
        self.in_flight -= 1
        self._serve()

    @asynccontextmanager
    async def permit(self, priority: int = 0) -> AsyncIterator[Permit]:
        """Hold a permit for the length of a block."""
        permit = await self.acquire(priority)
        try:
            yield permit
        finally:
            self.release(permit)

    def _serve(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            *_, future = heapq.heappop(self._waiting)
            if not future.done():
                self._queued -= 1
                self.in_flight += 1
                future.set_result(None)

    def _learn(self, permit: Permit, now: float) -> None:
        if permit.refused:
            self.refusals += 1
            self._window = 0
            if now - self._shrunk_at >= self.cooldown_s:
                self.episodes += 1
                self._shrunk_at = now
                self._level = max(float(self.least), self._level * self.shrink)
        elif permit.succeeded and self.in_flight >= self.limit:
            # A limit that was not reached has not been tested, and does not grow.
            self._window += 1
            if not self.refusals or self._window >= self.limit:
                self._window = 0
                self._level = min(float(self.most), self._level + 1)
