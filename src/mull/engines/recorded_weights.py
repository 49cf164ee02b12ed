"""Adapted weights of a recording engine: what was trained once is not trained again until needed.

A recorded training is charged as it was when it was done, and that is all: its samples come from
the store. Only when one of them is missing are the weights made anew, and that is charged to nobody
but told as repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mull.budget import Meter
from mull.engines.adapt import AdaptRecipe, Parts, adapting, weights_name
from mull.engines.base import Engine
from mull.errors import EngineError
from mull.store.keys import adapt_key
from mull.store.store import Store
from mull.types import Completion, StopReason, Usage


class Lose(Protocol):
    """Told of what was paid for and is not recorded."""

    def __call__(self, meter: Meter, usage: Usage, *, repeated: bool) -> None: ...


@dataclass(slots=True, eq=False)
class _Held:
    """Weights that searches hold; ``live`` once the inner engine holds them as well.

    ``meter`` is that of the first search that asked.
    """

    examples: tuple[Parts, ...]
    recipe: AdaptRecipe
    meter: Meter
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    holders: int = 0
    live: bool = False


class RecordedWeights:
    """The ``adapt``, ``ready`` and ``release`` of a recording engine around ``inner``."""

    def __init__(self, inner: Engine, store: Store, lose: Lose) -> None:
        self._inner = inner
        self._store = store
        self._lose = lose
        self._held: dict[str, _Held] = {}

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """As the inner engine's; a recorded training costs what it cost and is not done."""
        adapting(self._inner)
        name = weights_name(examples, recipe)
        held = self._held.setdefault(name, _Held(tuple(examples), recipe, meter))
        held.holders += 1
        try:
            async with held.lock:
                await self._charge(name, held, meter)
        except BaseException:
            self.release(name)
            raise
        return name

    async def _charge(self, name: str, held: _Held, meter: Meter) -> None:
        key = adapt_key(name, self._inner.info)
        found = self._store.samples(key, range(1)).get(0)
        if found is not None:
            meter.restore(0, found.usage)
            return
        try:
            await adapting(self._inner).adapt(held.examples, held.recipe, meter)
        except BaseException:
            self._lose(meter, meter.usage(0), repeated=False)
            raise
        if held.live:  # its record was damaged: one hold is enough
            adapting(self._inner).release(name)
        held.live = True
        await self._store.add_sample(key, Completion(0, name, StopReason.END, meter.usage(0)))

    async def ready(self, name: str) -> None:
        """Train recorded weights after all, if nothing has yet."""
        engine, held = adapting(self._inner), self._held.get(name)
        if held is None:
            raise EngineError(f"the weights {name} are not held: adapt first")
        async with held.lock:
            if not held.live:
                await self._again(name, held)
        await engine.ready(name)

    async def _again(self, name: str, held: _Held) -> None:
        engine = adapting(self._inner)
        aside = held.meter.aside()
        try:
            await engine.adapt(held.examples, held.recipe, aside)
        finally:
            self._lose(aside, aside.usage(0), repeated=True)
        held.live = True
        if self._held.get(name) is not held:
            engine.release(name)
            raise EngineError(f"the weights {name} were released while they were made ready")

    def release(self, name: str) -> None:
        """Give one hold back; with the last the inner engine's."""
        held = self._held.get(name)
        if held is None:
            return
        held.holders -= 1
        if not held.holders:
            del self._held[name]
            if held.live:
                adapting(self._inner).release(name)
