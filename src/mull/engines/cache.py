"""The engine that never pays twice: recorded samples come from a store, the others are recorded.

Resume, cache and replay are this one mechanism. A resumed run drives its strategies again from the
start; what is committed comes back from the store and is charged as it was when it was made, and
the inner engine is asked only for what is missing. Knows stores and engines; knows no run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from mull.budget import Ledger, Meter, Purpose
from mull.engines.adapt import AdaptRecipe, Parts
from mull.engines.base import Engine, notes_of
from mull.engines.recorded_weights import RecordedWeights
from mull.errors import ContextError
from mull.store.keys import refusal_key, request_key, score_key, searches
from mull.store.store import Store
from mull.types import (
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    Usage,
)


@dataclass(frozen=True, slots=True)
class _Failed:
    """The end of a part that its engine could not finish."""

    first: int
    error: Exception


_Item = tuple[Delta | Completion, asyncio.Future[None] | None] | _Failed | None


@dataclass(frozen=True, slots=True)
class Lost:
    """Work that was paid for and is not recorded.

    ``repeated``: a prompt computed again because an interruption had split its request, or ranks of
    a search that was made again because some were missing; no ledger is charged for it. Otherwise a
    sample that was closed unfinished, which stands in ``ledger`` as well: whoever keeps that ledger
    needs no second account of it.
    """

    ledger: Ledger
    purpose: Purpose
    model: str
    usage: Usage
    repeated: bool


OnLost = Callable[[Lost], None]
OnServed = Callable[[Ledger, Request, Completion], None]


class RecordingEngine:
    """An engine around another that serves recorded samples and records the rest.

    A completion is on the disk before it is yielded. Samples that are closed unfinished are not
    recorded; ``on_lost`` is told what they had cost.

    Where samples share a prompt (``Capabilities.shares_prompt``), it is part of the cost of the
    first. Where an interruption splits a request, the later part computes the prompt again; that is
    told to ``on_lost`` and not charged to the search, so that a resumed search has spent what an
    unbroken one spends.

    The ranks of a search over tokens are recorded together, once it is over, and served together:
    its tokens are spread over them. Where some are missing (damaged, or never found) it is made
    again and charged once; what the others had cost is told to ``on_lost``.

    ``on_served`` sees every completion before it is yielded: recorded or new.
    """

    def __init__(
        self,
        inner: Engine,
        store: Store,
        on_lost: OnLost | None = None,
        on_served: OnServed | None = None,
    ) -> None:
        self.inner = inner
        self.store = store
        self._on_lost = on_lost or (lambda lost: None)
        self._on_served = on_served or (lambda ledger, request, completion: None)
        self._adapted = RecordedWeights(inner, store, self._lose)
        store.add_engine(inner.info)

    @property
    def info(self) -> EngineInfo:
        """The inner engine's."""
        return self.inner.info

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """As the inner engine's; recorded samples first, in index order."""
        key = request_key(request, self.info)
        wanted = range(request.first, request.first + request.n)
        recorded = self.store.samples(key, wanted)
        replaced: dict[int, Completion] = {}
        if searches(request) and len(recorded) < request.n:
            recorded, replaced = replaced, recorded
        for index in sorted(recorded):
            meter.restore(index, recorded[index].usage)
            self._on_served(meter.ledger, request, recorded[index])
            for item in served(request, recorded[index]):
                yield item
        parts = missing(wanted, recorded)
        if parts:
            await self._ready(request)
            try:
                async with aclosing(self._make(key, request, parts, meter, replaced)) as made:
                    async for item in made:
                        if isinstance(item, Completion):
                            self._on_served(meter.ledger, request, item)
                        yield item
            except ContextError as error:
                await self._refused(key, error)
                raise

    async def _make(
        self,
        key: bytes,
        request: Request,
        parts: Sequence[range],
        meter: Meter,
        replaced: Mapping[int, Completion],
    ) -> AsyncGenerator[Delta | Completion, None]:
        queue: asyncio.Queue[_Item] = asyncio.Queue()
        unfinished = {index for part in parts for index in part}
        if searches(request):
            pumps = [self._search(key, request, meter, queue, unfinished, replaced)]
        else:
            pumps = [self._pump(key, request, part, meter, queue, unfinished) for part in parts]
        tasks = [asyncio.create_task(pump) for pump in pumps]
        running = len(tasks)
        errors: dict[int, Exception] = {}
        try:
            while running:
                item = await queue.get()
                if not isinstance(item, tuple):
                    running -= 1
                    if item is not None:
                        errors[item.first] = item.error
                    continue
                made, committed = item
                if committed is not None:
                    await committed
                yield made
            if errors:  # what one part lacks is no reason to stop the others
                raise errors[min(errors)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for index in sorted(unfinished):
                self._lose(meter, meter.usage(index), repeated=False)

    async def _pump(
        self,
        key: bytes,
        request: Request,
        part: range,
        meter: Meter,
        queue: asyncio.Queue[_Item],
        unfinished: set[int],
    ) -> None:
        """Read one part as fast as it comes: the engine never waits for the disk."""
        asked = replace(request, first=part.start, n=len(part))
        gauge = meter
        if part.start != request.first and self.info.capabilities.shares_prompt:
            gauge = _Proxy(meter, again=part.start, on_again=partial(self._lose, repeated=True))
        try:
            async with aclosing(self.inner.generate(asked, gauge)) as stream:
                async for item in stream:
                    committed = None
                    if isinstance(item, Completion) and item.stop is not StopReason.CANCELLED:
                        unfinished.discard(item.index)
                        committed = self.store.add_sample(key, item)
                    queue.put_nowait((item, committed))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(_Failed(part.start, error))

    async def _search(
        self,
        key: bytes,
        request: Request,
        meter: Meter,
        queue: asyncio.Queue[_Item],
        unfinished: set[int],
        replaced: Mapping[int, Completion],
    ) -> None:
        """Make a search; its ranks are held until it is over, in order or by an error."""
        ranks: list[Completion] = []
        end: _Failed | None = None
        try:
            async with aclosing(self.inner.generate(request, meter)) as stream:
                async for item in stream:
                    if isinstance(item, Completion) and item.stop is not StopReason.CANCELLED:
                        ranks.append(item)
                    else:
                        queue.put_nowait((item, None))
        except Exception as error:
            end = _Failed(request.first, error)
        if ranks:
            committed = self.store.add_search(key, ranks)
            for old in replaced.values():  # no result's ledger holds what they cost
                self._lose(meter, old.usage, repeated=True)
            for rank in ranks:
                unfinished.discard(rank.index)
                queue.put_nowait((rank, committed))
        queue.put_nowait(end)

    async def _refused(self, key: bytes, error: ContextError) -> None:
        """Record that something is too long, for replay: it is no answer, and asked again here."""
        said = Completion(0, str(error), StopReason.CONTEXT, Usage())
        await self.store.add_sample(refusal_key(key), said)

    def _lose(self, meter: Meter, usage: Usage, *, repeated: bool) -> None:
        if usage != Usage():
            self._on_lost(Lost(meter.ledger, meter.purpose, self.info.model, usage, repeated))

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """As the inner engine's, in order; recorded texts are not scored again."""
        keys = [score_key(request, self.info) for request in requests]
        found: dict[int, Scored] = {}
        for at, key in enumerate(keys):
            scored = self.store.scored(key)
            if scored is not None:
                found[at] = scored
        old, rest = list(found), [at for at in range(len(requests)) if at not in found]
        if rest:
            for request in dict.fromkeys(requests[at] for at in rest):
                await self._ready(request)
            try:
                gauge = _Proxy(meter, names=rest)
                fresh = await self.inner.score([requests[at] for at in rest], gauge)
            except ContextError as error:
                if len({keys[at] for at in rest}) == 1:
                    await self._refused(keys[rest[0]], error)
                raise  # nothing is served, and nothing charged
            commits = []
            for at, scored in zip(rest, fresh, strict=True):
                found[at] = scored
                commits.append(self.store.add_scored(keys[at], scored))
            for commit in commits:
                await commit
        for at in old:
            meter.restore(at, found[at].usage)
        return [found[at] for at in range(len(requests))]

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """As the inner engine's; what was trained before is charged again and not trained."""
        return await self._adapted.adapt(examples, recipe, meter)

    async def ready(self, weights: str) -> None:
        """Make sure that adapted weights are there: recorded ones are trained now."""
        await self._adapted.ready(weights)

    def release(self, weights: str) -> None:
        """Give one hold back."""
        self._adapted.release(weights)

    async def _ready(self, request: Request | ScoreRequest) -> None:
        if request.weights is not None and self.info.capabilities.adapts:
            await self._adapted.ready(request.weights)

    def notes(self) -> tuple[str, ...]:
        """What the inner engine has to say; see ``engines.base.notes_of``."""
        return notes_of(self.inner)

    async def aclose(self) -> None:
        """Close the inner engine; the store belongs to its opener."""
        await self.inner.aclose()


def missing(wanted: range, recorded: Mapping[int, object]) -> list[range]:
    """The indices of ``wanted`` that are not recorded, as contiguous ranges.

    >>> missing(range(0, 6), {1: "", 2: ""})
    [range(0, 1), range(3, 6)]
    """
    parts: list[range] = []
    for index in wanted:
        if index in recorded:
            continue
        if parts and parts[-1].stop == index:
            parts[-1] = range(parts[-1].start, index + 1)
        else:
            parts.append(range(index, index + 1))
    return parts


def served(request: Request, completion: Completion) -> list[Delta | Completion]:
    """A recorded completion as an engine gives it: behind one delta where those are asked."""
    if not request.deltas:
        return [completion]
    ids, logprobs = completion.token_ids or (), completion.logprobs or ()
    return [Delta(completion.index, completion.text, ids, logprobs), completion]


class _Proxy(Meter):
    """Another meter under other sample indices, or without the prompt of one sample.

    Sample ``i`` here is ``names[i]`` there. The prompt of sample ``again`` goes to ``on_again``.
    """

    __slots__ = ("_again", "_meter", "_names", "_on_again")

    def __init__(
        self,
        meter: Meter,
        *,
        names: Sequence[int] | None = None,
        again: int | None = None,
        on_again: Callable[[Meter, Usage], None] | None = None,
    ) -> None:
        super().__init__(meter.ledger, meter.purpose, meter.info)
        self._meter, self._names, self._again, self._on_again = meter, names, again, on_again

    def charge(
        self,
        index: int,
        *,
        prompt: int = 0,
        cached: int = 0,
        generated: int = 0,
        context: int = 0,
        texts: int = 1,
        seconds: float = 0.0,
        estimated: bool = False,
    ) -> None:
        if prompt and index == self._again and self._on_again is not None:
            aside = self.aside()
            aside.charge(index, prompt=prompt, cached=cached, estimated=estimated)
            self._on_again(self._meter, aside.usage(index))
            prompt = cached = 0
        self._meter.charge(
            self._there(index),
            prompt=prompt,
            cached=cached,
            generated=generated,
            context=context,
            texts=texts,
            seconds=seconds,
            estimated=estimated,
        )

    def restore(self, index: int, usage: Usage) -> None:
        self._meter.restore(self._there(index), usage)

    def usage(self, index: int) -> Usage:
        return self._meter.usage(self._there(index))

    @property
    def total(self) -> Usage:
        return self._meter.total

    def move(self, index: int, target: Purpose) -> None:
        self._meter.move(self._there(index), target)

    def _there(self, index: int) -> int:
        return index if self._names is None else self._names[index]
