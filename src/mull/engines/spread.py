"""Several engines that serve the same model as one: each request goes to the least loaded.

For endpoints behind which the same model runs. A request for samples that meets a dead connection
before it gave anything is sent to another engine, and the dead one is left alone for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from mull.budget import Meter
from mull.engines.base import Engine, notes_of
from mull.errors import EngineConnectionError, SpecError
from mull.types import Completion, Delta, EngineInfo, Request, Scored, ScoreRequest

REST_S = 30.0
"""Seconds that an engine is not asked after its connection failed, while others are there."""


class SpreadEngine:
    """Spreads requests over engines of one model; ``slots`` is their sum.

    Load is samples in flight by slots; ties go to the first. Engines must agree in kind, model,
    revision, tokenizer and capabilities, or ``SpecError`` names the field that differs.

    >>> from mull.engines.simulated import Echo, SimulatedEngine
    >>> engines = [SimulatedEngine(Echo(), slots=8), SimulatedEngine(Echo(), slots=4)]
    >>> SpreadEngine(engines).info.slots
    12
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        if not engines:
            raise SpecError("a spread needs at least one engine")
        first = engines[0].info
        same = ("kind", "model", "revision", "tokenizer", "template", "adapter", "capabilities")
        for engine in engines[1:]:
            for name in same:
                a, b = getattr(first, name), getattr(engine.info, name)
                if a != b:
                    raise SpecError(f"engines of a spread must agree in {name}: {a!r} and {b!r}")
        self.engines = tuple(engines)
        self.loads = [0] * len(engines)
        self._rests: dict[int, tuple[asyncio.AbstractEventLoop, float]] = {}
        self._info = replace(
            first,
            url=",".join(sorted({engine.info.url for engine in engines})),
            slots=sum(engine.info.slots for engine in engines),
            context=min(engine.info.context for engine in engines),
            # Adapted weights live on one engine, and the next request may go to another.
            capabilities=replace(first.capabilities, adapts=False),
        )

    @property
    def info(self) -> EngineInfo:
        """The first engine's, with the slots of all and the shortest context."""
        return self._info

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """As the chosen engine's; another one's where its connection is dead from the start."""
        tried: set[int] = set()
        while True:
            place = self._choose(tried)
            tried.add(place)
            begun, left = False, request.n
            self.loads[place] += left
            try:
                async with aclosing(self.engines[place].generate(request, meter)) as items:
                    async for item in items:
                        begun = True
                        if isinstance(item, Completion):
                            left -= 1
                            self.loads[place] -= 1
                        yield item
                return
            except EngineConnectionError:
                if begun or len(tried) == len(self.engines):
                    raise
                loop = asyncio.get_running_loop()
                self._rests[place] = (loop, loop.time() + REST_S)
            finally:
                self.loads[place] -= left

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """As the least loaded engine's; a dead connection is an error here."""
        place = self._choose(set())
        self.loads[place] += len(requests)
        try:
            return await self.engines[place].score(requests, meter)
        finally:
            self.loads[place] -= len(requests)

    def notes(self) -> tuple[str, ...]:
        """What each engine has to say; see ``engines.base.notes_of``."""
        return tuple(note for engine in self.engines for note in notes_of(engine))

    async def aclose(self) -> None:
        """Close every engine."""
        for engine in self.engines:
            await engine.aclose()

    def _choose(self, tried: set[int]) -> int:
        loop = asyncio.get_running_loop()
        now = loop.time()

        def cost(place: int) -> tuple[bool, float, int]:
            resting = self._rests.get(place)
            rests = resting is not None and resting[0] is loop and now < resting[1]
            return rests, self.loads[place] / self.engines[place].info.slots, place

        return min((p for p in range(len(self.engines)) if p not in tried), key=cost)
