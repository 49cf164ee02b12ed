"""Weights of a torch engine that are trained on at test time, each with a batch of its own.

One training runs at a time, on a thread of its own beside the model's; rows under other weights go
on meanwhile. Whoever asks for the same texts and recipe while they are held shares the training.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from torch import Tensor

from mull.budget import Meter
from mull.engines.adapt import AdaptRecipe, Parts, Train, TrainStep, weights_name
from mull.engines.torch.batch import Batch
from mull.engines.torch.worker import Worker
from mull.errors import EngineError, MullError


@dataclass(slots=True, eq=False)
class _Copy:
    """A trained copy of the weights: its holders, how far its training is, what it answers by."""

    examples: tuple[Parts, ...]
    recipe: AdaptRecipe
    holders: int = 0
    steps: list[TrainStep] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    done: Future[Worker] = field(default_factory=Future)


class AdaptedWeights:
    """An engine's adapted weights, at most ``most`` at a time; who asks for more waits in line.

    ``train`` makes weights, ``build`` a batch that runs them. May be used from any event loop.
    """

    def __init__(
        self, train: Train, build: Callable[[Mapping[str, Tensor]], Batch], device: str, most: int
    ) -> None:
        self._train, self._build, self._device = train, build, device
        self._free = most
        self._lock = threading.Lock()
        self._held: dict[str, _Copy] = {}
        self._line: deque[_Copy] = deque()
        self._thread = ThreadPoolExecutor(1, "mull-torch-adapt")
        self._closed = False

    @property
    def names(self) -> list[str]:
        """The names of what is held now."""
        return list(self._held)

    async def acquire(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """Train, or share a training; see ``AdaptingEngine.adapt``."""
        name = weights_name(examples, recipe)
        copy = self._hold(name, tuple(examples), recipe)
        try:
            await _over(copy.done)
            copy.done.result()
        except BaseException:
            self.release(name)
            if copy.stop.is_set():  # the step that runs is charged as well
                await _over(copy.done)
            raise
        finally:
            for step in list(copy.steps):
                meter.train(0, tokens=step.tokens, texts=step.texts, seconds=step.seconds)
        return name

    def worker(self, name: str) -> Worker:
        """What answers under weights; ``EngineError`` for any that are not there."""
        copy = self._held.get(name)
        if copy is None or not copy.done.done():
            raise EngineError(f"the weights {name!r} are not held by this engine: adapt first")
        return copy.done.result()

    def release(self, name: str) -> None:
        """Give one hold back; with the last one the weights go."""
        with self._lock:
            copy = self._held.get(name)
            if copy is None:
                return
            copy.holders -= 1
            if copy.holders:
                return
            del self._held[name]
            copy.stop.set()
            if copy in self._line:
                self._line.remove(copy)
                copy.done.cancel()
                return
        copy.done.add_done_callback(self._freed)

    def forget(self) -> None:
        """Empty the prefix trees."""
        for copy in list(self._held.values()):
            if copy.done.done() and copy.done.exception() is None:
                copy.done.result().forget()

    def close(self) -> None:
        """Stop what trains and free all weights."""
        with self._lock:
            self._closed = True
            copies = [*self._held.values()]
            waiting = list(self._line)
            self._held.clear()
            self._line.clear()
        for copy in copies:
            copy.stop.set()
            if copy in waiting:
                copy.done.set_exception(EngineError("the engine was closed"))
            else:
                copy.done.add_done_callback(self._freed)
        self._thread.shutdown(wait=False)

    def _hold(self, name: str, examples: tuple[Parts, ...], recipe: AdaptRecipe) -> _Copy:
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed: load it again")
            copy = self._held.get(name)
            if copy is None:
                copy = self._held[name] = _Copy(examples, recipe)
                self._line.append(copy)
                self._start()
            copy.holders += 1
            return copy

    def _start(self) -> None:
        """Train the first in line, if there is room for its weights. Under the lock."""
        while self._free and self._line and not self._closed:
            self._free -= 1
            self._thread.submit(self._work, self._line.popleft())

    def _work(self, copy: _Copy) -> None:
        def on_step(step: TrainStep) -> bool:
            copy.steps.append(step)
            return not copy.stop.is_set()

        try:
            if copy.stop.is_set():
                raise EngineError("nobody waits for these weights any more")
            weights = self._train(copy.examples, copy.recipe, self._device, on_step)
            if copy.stop.is_set():
                raise EngineError("nobody waits for these weights any more")
            worker = Worker(self._build(weights))
        except EngineError as error:
            copy.done.set_exception(error)
        except MullError as error:
            copy.done.set_exception(EngineError(f"the weights could not be trained on: {error}"))
        except Exception as error:
            copy.done.set_exception(EngineError(f"training broke: {error!r}"))
        else:
            copy.done.set_result(worker)

    def _freed(self, done: Future[Worker]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().close(wait=False)
        with self._lock:
            self._free += 1
            self._start()


async def _over(done: Future[Worker]) -> None:
    """Return once a training is over, however it ended; cancelling this touches nobody else."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def tell(_: Future[Worker]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(wake)

    done.add_done_callback(tell)
    await woken
