"""A virtual clock: an event loop whose time jumps to the next timer when nothing is ready.

An hour of simulated generation takes as long as the Python in between, and two runs see the same
instants. Everything that sleeps by the loop (``asyncio.sleep``, ``wait_for``, ``timeout``,
``call_later``) is on this clock; ``time.monotonic`` is not, so code that wants to be simulated asks
``asyncio.get_running_loop().time()``.

Work handed to an executor takes no virtual time: the clock stands until it is back. Sockets and
threads of one's own are outside the clock: their events are seen, but the clock does not wait for
them while a timer is set.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Self, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 5.0
"""Real seconds that a loop with no timer waits for a thread before it reports a deadlock."""


class VirtualDeadlock(RuntimeError):
    """Every task waits, no timer is set and no thread came back: nothing can ever happen."""


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector; where that has nothing, passes the timeout to the clock instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now = 0.0
        self.outside = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        if self.outside:
            return self._real.select(None)
        if timeout is None:
            events = self._real.select(PATIENCE)
            if not events:
                raise VirtualDeadlock(
                    "every task waits and no timer is set: nothing can wake this loop; "
                    "look for a future that nobody completes"
                )
            return events
        events = self._real.select(0)
        if not events:
            self.now += timeout
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, which starts at 0 seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As asyncio's; the clock stands still until ``func`` is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.outside += 1
        future.add_done_callback(self._returned)
        return future

    def _returned(self, _: asyncio.Future[Any]) -> None:
        self._jumping.outside -= 1


class VirtualClock:
    """A scope with one virtual loop; ``run`` may be called several times, time goes on.

    >>> import asyncio
    >>> with VirtualClock() as clock:
    ...     clock.run(asyncio.sleep(3600))
    ...     clock.now
    3600.0
    """

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self._runner = asyncio.Runner(loop_factory=lambda: self._loop)

    @property
    def now(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._loop.time()

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on this clock."""
        return self._runner.run(coro)

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()


def run_virtual(coro: Coroutine[Any, Any, T]) -> T:
    """Like ``asyncio.run``, on a virtual clock that starts at 0 seconds.

    >>> import asyncio
    >>> async def nap() -> float:
    ...     await asyncio.sleep(86_400)
    ...     return asyncio.get_running_loop().time()
    >>> run_virtual(nap())
    86400.0
    """
    with VirtualClock() as clock:
        return clock.run(coro)
