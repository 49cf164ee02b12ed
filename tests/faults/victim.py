"""A run in a process of its own, to be killed: python victim.py DIRECTORY [options as JSON].

Says ``begun`` when it starts to work and ``seen KEY INDEX`` for every completion that a search was
given, straight to the pipe; ends with one line of JSON about how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.runs import world

from mull.budget import Ledger, Meter
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import MullError
from mull.runs.accounts import Accounts
from mull.runs.run import run
from mull.store import request_key
from mull.types import Completion, Delta, Request, StopReason


class Stubborn(SimulatedEngine):
    """Does not let go of a request when it is closed."""

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(3600)
            yield Completion(0, "", StopReason.END, meter.usage(0))


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def main(directory: str, options: dict[str, Any]) -> int:
    if "fsize" in options:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["fsize"], options["fsize"]))
    engine = world.engine(options.get("token_ms", 1.0), options.get("slots", 16))
    if options.get("stubborn"):
        engine = Stubborn(StepModel())
    if options.get("seen"):
        served = Accounts.served

        def watched(self: Accounts, ledger: Ledger, asked: Request, made: Completion) -> None:
            say(f"seen {request_key(asked, engine.info).hex()} {made.index}")
            served(self, ledger, asked, made)

        Accounts.served = watched  # type: ignore[method-assign]
    config = world.small(**options.get("config", {}))
    say("begun")
    if "kill_within" in options:
        delay = random.Random(options["seed"]).uniform(0, options["kill_within"])
        killer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        killer.daemon = True
        killer.start()
    started = time.perf_counter()
    outcome: dict[str, Any] = {}
    code = 1
    try:
        summary = run(
            config,
            directory,
            engine=engine,
            task=world.Steps(),
            signals=True,
            virtual=options.get("virtual", True),
            grace=options.get("grace", 5.0),
        )
        outcome, code = {"done": summary.done, "total": summary.total}, summary.exit_code
    except MullError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    outcome |= {"seconds": time.perf_counter() - started, "generated": engine.stats.generated}
    say(json.dumps(outcome))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
