"""A simulated endpoint in a process of its own, in real time, that meters what it makes.

The meter is the engine's: every token that a slot made counts, cancelled ones included, whoever
asked for it and whatever was told of it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from mull.engines.simulated import Latency, SimulatedEngine, StepModel
from mull.engines.simulated.content import Piece
from mull.engines.simulated.server import FaultServer
from mull.errors import EngineError
from mull.rng import derive
from mull.types import Request

BREAK, CLOSING = "\n\n", "answer: "
"""Closes a step; begins the answer, which belongs to the last step."""


@dataclass
class _Anew:
    """A content model that draws every request anew, as a server does that batches."""

    model: StepModel
    seed: int
    asked: int = 0

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        self.asked += 1
        fresh = replace(request, seed=derive(self.seed, self.asked))
        return self.model.write(fresh, index)


@contextmanager
def metering_endpoint(token_ms: float, slots: int) -> Iterator[Connection]:
    """The endpoint's process: a seed in, an address out; ``done`` in, what was metered out."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, token_ms, slots), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    except EOFError:
        raise EngineError("the endpoint's process died") from None
    finally:
        ours.close()
        process.join(5)
        process.kill()


def _serve(pipe: Connection, token_ms: float, slots: int) -> None:
    with suppress(EOFError, BrokenPipeError):
        asyncio.run(_serving(pipe, token_ms, slots))


async def _serving(pipe: Connection, token_ms: float, slots: int) -> None:
    """Serve one engine after the other; ``EOFError`` once the pipe is closed."""
    loop = asyncio.get_running_loop()
    while True:
        seed = await loop.run_in_executor(None, pipe.recv)
        model = _Anew(StepModel(separator=BREAK, closing=CLOSING), seed)
        engine = SimulatedEngine(model, latency=Latency(token_ms), slots=slots)
        async with FaultServer(engine) as server:
            pipe.send(server.url())
            await loop.run_in_executor(None, pipe.recv)
        # Closed: what was cancelled has left its slot.
        stats = engine.stats
        pipe.send(
            {
                "busy": stats.occupancy,
                "calls": stats.started,
                "cancelled": stats.started - stats.finished,
                "metered": stats.generated,
                "prompt": server.metered.prompt,
            }
        )
