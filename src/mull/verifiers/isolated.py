"""Runs a Python program of unknown intent in a child that can do nothing but compute and print.

``jail.py`` builds the walls; this starts the child, feeds it, reads what it prints up to a limit,
and kills it at its time. Where the walls cannot be built nothing is run at all.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import IO

from mull.errors import SandboxError, SandboxTimeoutError

JAIL = Path(__file__).with_name("jail.py")
STARTED = b"mull: the walls stand\n"
OUTPUT = 1 << 20
"""Bytes that are read of a program; one that prints more is killed."""
PROGRAM = 100_000
"""Bytes that a program may have."""
WALLS_S = 20.0
"""Seconds that the walls may take to stand: a busy machine is no program's fault."""
LOOK_S = 0.1
"""Seconds after which it is looked whether a program is still wanted."""


class Outcome(StrEnum):
    """How a program ended. Closed."""

    ENDED = "ended"
    """By itself, with exit code 0."""
    FAILED = "failed"
    """By an exception, an exit code or a signal; memory and CPU limits end here too."""
    TIMEOUT = "timeout"
    """It was killed at its wall limit."""
    FLOOD = "flood"
    """It was killed because it printed too much."""
    TOO_LONG = "too long"
    """Its text is longer than what is run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended and what it printed (bytes that are no UTF-8 are replaced)."""

    outcome: Outcome
    output: str = ""


def run_isolated(
    program: str,
    stdin: str = "",
    *,
    seconds: float = 5.0,
    memory_mib: int = 512,
    unwanted: threading.Event | None = None,
) -> Ended:
    """Run a Python program with the standard library alone; at most ``seconds`` of wall time from
    when the walls stand.

    No file of the user, no environment, no network, no other process, no process of its own.
    Raises ``SandboxError`` where such isolation is not to be had here, or not in time; once
    ``unwanted`` is set, by another thread, the child is killed, and that is a ``SandboxError`` too.
    """
    source = program.encode("utf-8", "replace")
    if len(source) > PROGRAM or b"\0" in source:
        return Ended(Outcome.TOO_LONG)
    with tempfile.TemporaryDirectory(prefix="mull-jail-") as root:
        watch = _Watch(seconds, unwanted or threading.Event())
        process = _start(source, root, seconds, memory_mib)
        try:
            output, said, cause = _talk(process, stdin.encode("utf-8", "replace"), watch)
        finally:
            _kill(process)
    if not said.startswith(STARTED):
        if cause is Outcome.TIMEOUT:
            raise SandboxTimeoutError(f"a child did not stand within {WALLS_S:g} s")
        reason = said.decode(errors="replace").strip().splitlines()
        raise SandboxError(f"code cannot be isolated here: {reason[-1] if reason else 'no reason'}")
    if cause is None:
        cause = Outcome.ENDED if process.returncode == 0 else Outcome.FAILED
    return Ended(cause, output.decode("utf-8", "replace"))


@lru_cache(maxsize=1)
def check_isolation() -> None:
    """Raise ``SandboxError`` that says why where no isolation is to be had; tried once."""
    linux = sys.platform.startswith("linux") and _children(os.getpid()).exists()
    if not linux or shutil.which("unshare") is None:
        raise SandboxError(
            "code is run in Linux namespaces alone (util-linux's unshare, and /proc): use Linux, "
            "or another verifier"
        )
    ended = run_isolated("print(6 * 7)", seconds=WALLS_S)
    if ended != Ended(Outcome.ENDED, "42\n"):
        raise SandboxError(f"code cannot be isolated here: a first program {ended.outcome}")


def _start(program: bytes, root: str, seconds: float, memory_mib: int) -> subprocess.Popen[bytes]:
    base = sys.base_prefix
    system = ("/usr", "/bin", "/lib", "/lib64")
    visible = [path for path in system if os.path.lexists(path)]
    if not base.startswith("/usr/") and base not in system:
        visible.append(base)
    config = {
        "root": root,
        "visible": visible,
        "seconds": seconds,
        "memory": memory_mib << 20,
        "python": os.path.realpath(sys.executable),
        "libraries": f"{base}/lib:/usr/local/lib",
        "mark": STARTED.decode(),
    }
    walls = "--user --map-root-user --mount --net --pid --ipc --uts --fork --kill-child=SIGKILL"
    unshare = shutil.which("unshare") or "unshare"
    try:
        Path(root, "main.py").write_bytes(program)  # an argument may have 128 KiB
        return subprocess.Popen(  # noqa: S603 (our own interpreter, our own script)
            [unshare, *walls.split(), sys.executable, "-I", "-S", str(JAIL), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"code cannot be isolated here: {error}") from error


class _Watch:
    """Until when a child may run: its walls have a time of their own."""

    def __init__(self, seconds: float, unwanted: threading.Event) -> None:
        self._seconds: float | None = seconds
        self._unwanted = unwanted
        self._deadline = time.monotonic() + WALLS_S

    def heard(self, said: bytearray) -> None:
        """Start the program's time when the child says that its walls stand."""
        if self._seconds is not None and said.startswith(STARTED):
            self._deadline, self._seconds = time.monotonic() + self._seconds, None

    def left(self) -> float:
        """Seconds after which to ask again; 0 at the end of the time. ``SandboxError`` where the
        program is not wanted any more.
        """
        if self._unwanted.is_set():
            raise SandboxError("the program was stopped: nobody waits for it")
        return min(LOOK_S, max(0.0, self._deadline - time.monotonic()))


def _talk(
    process: subprocess.Popen[bytes], stdin: bytes, watch: _Watch
) -> tuple[bytes, bytes, Outcome | None]:
    """Feed and read until the child closes its ends, its time is up, or it says too much."""
    read: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
    pipes = _pipes(process)
    with selectors.DefaultSelector() as waiting:
        for name, pipe in pipes.items():
            os.set_blocking(pipe.fileno(), False)
            events = selectors.EVENT_WRITE if name == "in" else selectors.EVENT_READ
            waiting.register(pipe, events, name)
        while any(key.data != "in" for key in waiting.get_map().values()):
            left = watch.left()
            if not left:
                return bytes(read["out"]), bytes(read["err"]), Outcome.TIMEOUT
            for key, _ in waiting.select(left):
                if key.data == "in":
                    stdin = _feed(waiting, pipes[key.data], stdin)
                    continue
                part = os.read(key.fd, 1 << 16)
                if not part:
                    waiting.unregister(key.fileobj)
                read[key.data] += part
            watch.heard(read["err"])
            if len(read["out"]) + len(read["err"]) > OUTPUT:
                return bytes(read["out"]), bytes(read["err"]), Outcome.FLOOD
    while left := watch.left():
        with suppress(subprocess.TimeoutExpired):
            process.wait(left)
            return bytes(read["out"]), bytes(read["err"]), None
    return bytes(read["out"]), bytes(read["err"]), Outcome.TIMEOUT


def _feed(waiting: selectors.BaseSelector, pipe: IO[bytes], stdin: bytes) -> bytes:
    """Write what the child takes; close its standard input behind the last byte."""
    try:
        stdin = stdin[os.write(pipe.fileno(), stdin[: 1 << 16]) :] if stdin else b""
    except OSError:  # the program reads no more
        stdin = b""
    if not stdin:
        waiting.unregister(pipe)
        pipe.close()
    return stdin


def _pipes(process: subprocess.Popen[bytes]) -> dict[str, IO[bytes]]:
    named = {"in": process.stdin, "out": process.stdout, "err": process.stderr}
    return {name: pipe for name, pipe in named.items() if pipe is not None}


def _children(pid: int) -> Path:
    """Where the kernel lists the children of a process."""
    return Path(f"/proc/{pid}/task/{pid}/children")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the first process of the namespace, and all others in it with that; then unshare.

    The program may have left unshare's group and its say over it, but not the namespace.
    """
    if process.poll() is None:
        for pid in _children(process.pid).read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in _pipes(process).values():
        with suppress(OSError):  # what it did not read any more
            pipe.close()
