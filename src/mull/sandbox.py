"""Run a function in a child that can be killed: wall limit, CPU and memory limits.

A *nursery* process imports the heavy modules once and forks a worker whenever one is wanted, so a
killed worker is replaced in milliseconds.  The nursery is spawned, never forked from the caller:
threads, event loops and CUDA contexts of the caller do not matter, and a result is the same from
the main thread, a thread or another process.  Functions travel by name, arguments and results as
JSON: nothing that crosses the border can carry code.

This guards *trusted functions against hostile input* (a grader that hangs or eats the memory).  It
is no place for untrusted code: a worker sees the file system and the network of its user.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mull.errors import SandboxError, SandboxTimeoutError
from mull.types import Json

MAX_MESSAGE = 16 * 2**20
_HEADER = struct.Struct(">I")
_BOOT_SECONDS = 60.0
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from mull.sandbox import _nursery; _nursery(int(sys.argv[1]), json.loads(sys.argv[3]))"
)
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """A few killable workers, started on first use and shared by any number of threads.

    ``preload`` names modules (``"package.module"``) to import before the first fork, or functions
    (``"package.module:function"``) to call then, so that every worker starts warm.  ``size`` is
    the number of workers (default: one a core, at most four); ``memory_mib`` what a worker may
    allocate beyond its start; ``calls`` after how many calls it is replaced.

    >>> from math import factorial
    >>> with Pool() as pool:
    ...     pool.call(factorial, 5, seconds=10)
    120
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        *,
        size: int | None = None,
        memory_mib: int = 1024,
        calls: int = 1000,
    ) -> None:
        if not hasattr(os, "fork"):
            raise SandboxError("killable workers need a POSIX system (os.fork); use Linux or macOS")
        self.size = size if size is not None else min(4, os.cpu_count() or 1)
        for name, value in (("size", self.size), ("memory_mib", memory_mib), ("calls", calls)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self._preload = tuple(preload)
        self._memory = memory_mib * 2**20
        self._calls = calls
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._nursery: _Nursery | None = None
        self._free: list[_Worker] = []
        self._alive = 0
        self._closed = False
        self._turn = threading.Condition()
        self._birth = threading.Lock()

    def call(self, function: Callable[..., Json], *args: Json, seconds: float) -> Any:
        """The function's value, from a worker; ``seconds`` of wall time from when it starts.

        ``function`` is a top-level function of an importable module; its arguments and its value
        are JSON values.  Waiting for a free worker, or for the first one to start, does not count.

        Raises ``SandboxTimeoutError`` when the worker was killed at its limit, ``SandboxError``
        when the function raised, ran out of memory or took its worker down.
        """
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        request = {"call": _name(function), "args": args, "cpu": seconds}
        data = _encode(request)
        worker = self._acquire()
        try:
            reply = worker.ask(data, seconds)
        except TimeoutError:
            self._retire(worker)
            raise SandboxTimeoutError(
                f"{request['call']} did not end within {seconds:g} s: its worker was killed"
            ) from None
        except (OSError, EOFError):
            status = self._retire(worker)
            if status == -signal.SIGXCPU:
                raise SandboxTimeoutError(
                    f"{request['call']} used up its CPU time: its worker was killed"
                ) from None
            raise SandboxError(
                f"{request['call']} took its worker down: {_ended(status)}"
            ) from None
        except BaseException:
            # An interrupt: the reply would be read as the answer to the next call.
            self._retire(worker)
            raise
        if worker.calls >= self._calls or reply.get("worn"):
            self._retire(worker)
        else:
            self._release(worker)
        if "error" in reply:
            raise SandboxError(f"{request['call']}: {reply['error']}")
        return reply["value"]

    def warm(self) -> None:
        """Start the nursery and one worker now rather than at the first call."""
        self._release(self._acquire())

    def close(self) -> None:
        """Kill every worker and the nursery; the pool cannot be used afterwards."""
        with self._turn:
            self._closed = True
            workers, self._free = self._free, []
            nursery, self._nursery = self._nursery, None
            self._turn.notify_all()
        for worker in workers:
            worker.socket.close()
        if nursery is not None:
            nursery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _acquire(self) -> _Worker:
        with self._turn:
            while not self._closed and not self._free and self._alive >= self.size:
                self._turn.wait()
            if self._closed:
                raise SandboxError("this pool of workers is closed")
            worker = self._free.pop() if self._free else None
            if worker is None:
                self._alive += 1
        if worker is not None:
            if worker.answers():
                return worker
            self._retire(worker)  # somebody killed it while it was idle: not this call's fault
            return self._acquire()
        try:
            return self._make()
        except BaseException:
            with self._turn:
                self._alive -= 1
                self._turn.notify()
            raise

    def _make(self) -> _Worker:
        with self._birth:
            for attempt in range(2):
                nursery = self._nursery
                if nursery is None:
                    nursery = self._nursery = _Nursery.start(self._preload, self._memory)
                try:
                    return nursery.bear()
                except (OSError, EOFError, ValueError) as error:
                    # Somebody killed the nursery (out of memory): start another, once.
                    self._nursery = None
                    nursery.close()
                    if attempt:
                        raise SandboxError(f"no worker could be started: {error}") from error
        raise AssertionError("unreachable")

    def _release(self, worker: _Worker) -> None:
        with self._turn:
            if not self._closed:
                self._free.append(worker)
                self._turn.notify()
                return
        worker.socket.close()

    def _retire(self, worker: _Worker) -> int | None:
        worker.socket.close()
        status = worker.nursery.kill(worker.pid)
        with self._turn:
            self._alive -= 1
            self._turn.notify()
        return status

    def _forget(self) -> None:
        """In a forked copy of this process: the workers belong to the parent; start afresh."""
        nursery, workers = self._nursery, self._free
        self._reset()
        for worker in workers:
            worker.socket.close()
        if nursery is not None:
            nursery.disown()


@dataclass(slots=True)
class _Worker:
    nursery: _Nursery
    pid: int
    socket: socket.socket
    calls: int = 0

    def answers(self) -> bool:
        """Whether an idle worker is still there: silent, neither gone nor talking out of turn."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(self, data: bytes, seconds: float) -> dict[str, Any]:
        """Send a request, await the reply; TimeoutError, or EOFError when the worker is gone."""
        deadline = time.monotonic() + seconds
        self.calls += 1
        self.socket.settimeout(seconds)
        self.socket.sendall(data)
        reply = _receive(self.socket, deadline)
        if reply is None:
            raise EOFError
        return reply


class _Nursery:
    """The caller's handle on the process that forks the workers and buries them."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def start(cls, preload: Sequence[str], memory: int) -> _Nursery:
        ours, theirs = socket.socketpair()
        config = {"preload": list(preload), "memory": memory}
        with tempfile.TemporaryFile() as errors:
            command = [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno())]
            command += [
                json.dumps([path or str(Path.cwd()) for path in sys.path]),
                json.dumps(config),
            ]
            process = subprocess.Popen(  # noqa: S603 (our own interpreter, our own text)
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                env=_bare_environment(),
                start_new_session=True,  # Ctrl-C is for the caller, who then closes us
            )
            theirs.close()
            nursery = cls(process, ours)
            try:
                ready = _receive(ours, time.monotonic() + _BOOT_SECONDS)
            except (OSError, ValueError):
                ready = None
            if ready is None or "error" in ready:
                nursery.close()
                errors.seek(0)
                said = errors.read()[-500:].decode(errors="replace").strip()
                reason = ready["error"] if ready else said or f"exit code {process.returncode}"
                raise SandboxError(f"the workers could not be started: {reason}")
        return nursery

    def bear(self) -> _Worker:
        """A new worker."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                reply = self._order({"fork": True}, theirs)
            return _Worker(self, int(reply["pid"]), ours)
        except BaseException:
            ours.close()
            raise

    def kill(self, pid: int) -> int | None:
        """Kill a worker and what it started; its status as ``Popen.returncode`` gives it."""
        try:
            return int(self._order({"kill": pid})["status"])
        except (OSError, EOFError, ValueError):
            # The nursery is gone, and with it the one who knows the worker's fate.  If we closed
            # it, it has buried all its workers, and the number may be somebody else's by now.
            if not self._closed:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            return None

    def _order(self, order: dict[str, Json], fd: socket.socket | None = None) -> dict[str, Any]:
        # Strictly one order, one reply: an order fits one datagram-sized write with its descriptor.
        with self._lock:
            self._control.settimeout(_BOOT_SECONDS)
            socket.send_fds(
                self._control, [json.dumps(order).encode()], [fd.fileno()] if fd else []
            )
            reply = _receive(self._control, time.monotonic() + _BOOT_SECONDS)
        if reply is None:
            raise EOFError("the process that starts workers is gone")
        if "error" in reply:
            raise OSError(str(reply["error"]))
        return reply

    def close(self) -> None:
        self._closed = True
        self._control.close()
        try:
            self._process.wait(5)  # end of file on the control socket makes it bury its children
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """Drop our copy of the handle without touching the process, which is not our child."""
        self._control.close()
        self._process.returncode = 0


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


# ---------------------------------------------------------------- both sides of the border


def _encode(value: Json | dict[str, Any]) -> bytes:
    body = json.dumps(value, allow_nan=False).encode()
    if len(body) > MAX_MESSAGE:
        raise SandboxError(f"a message of {len(body)} bytes; a worker takes at most {MAX_MESSAGE}")
    return _HEADER.pack(len(body)) + body


def _receive(connection: socket.socket, deadline: float | None) -> dict[str, Any] | None:
    """One framed message; ``None`` at end of file; TimeoutError past the deadline."""
    header = _read(connection, _HEADER.size, deadline)
    if header is None:
        return None
    (size,) = _HEADER.unpack(header)
    if size > MAX_MESSAGE:
        raise ConnectionError(f"a message of {size} bytes")
    body = _read(connection, size, deadline)
    if body is None:
        return None
    message = json.loads(body)
    if not isinstance(message, dict):
        raise ConnectionError("a message that is no object")
    return message


def _read(connection: socket.socket, size: int, deadline: float | None) -> bytes | None:
    parts = []
    while size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        part = connection.recv(min(size, 2**16))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _name(function: Callable[..., Json]) -> str:
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "." in name or "<" in name:
        raise SandboxError(
            f"{module}.{name} cannot run in a worker: give a top-level function of a module"
        )
    return f"{module}:{name}"


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    return getattr(found, attribute) if attribute else None


def _ended(status: int | None) -> str:
    if status is None:
        return "it is gone"
    if status < 0:
        return f"it was killed by {signal.Signals(-status).name}"
    return f"it left with exit code {status}"


def _bare_environment() -> dict[str, str]:
    """What a worker needs to run, and none of the caller's secrets."""
    keep = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {name: os.environ[name] for name in keep if name in os.environ} | one


# ---------------------------------------------------------------- the nursery's side


def _nursery(fd: int, config: dict[str, Any]) -> None:
    """Main loop of the nursery: single-threaded, so forking from it is safe."""
    with socket.socket(fileno=fd) as control:
        try:
            for name in config["preload"]:
                function = _find(name)
                if function is not None:
                    function()
        except Exception as error:
            control.sendall(_encode({"error": f"{name}: {type(error).__name__}: {error}"[:500]}))
            return
        gc.collect()
        gc.freeze()  # the workers share these pages until they write to them
        control.sendall(_encode({"ready": True}))
        children: set[int] = set()
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(control, 4096, 1)
                if not data:
                    return
                order = json.loads(data)
                if "fork" in order:
                    reply = _fork(control, fds[0], int(config["memory"]), children)
                else:
                    reply = {"status": _bury(int(order["kill"]), children)}
                control.sendall(_encode(reply))
        finally:
            for pid in list(children):
                _bury(pid, children)


def _fork(control: socket.socket, fd: int, memory: int, children: set[int]) -> dict[str, Any]:
    try:
        pid = os.fork()
    except OSError as error:
        os.close(fd)
        return {"error": str(error)}
    if pid:
        os.close(fd)
        children.add(pid)
        return {"pid": pid}
    code = 1
    try:
        os.setsid()
        control.close()
        _work(socket.socket(fileno=fd), memory)
        code = 0
    finally:
        os._exit(code)  # never return into the nursery's loop


def _bury(pid: int, children: set[int]) -> int:
    # Only pids that were not waited for yet: they cannot have been given to somebody else.
    if pid not in children:
        return 0
    children.discard(pid)
    ended, status = os.waitpid(pid, os.WNOHANG)
    # The group, so that whatever the worker started goes too; it may not exist yet.
    for kill, target in ((os.killpg, pid), (os.kill, pid)):
        if kill is os.killpg or not ended:
            with contextlib.suppress(OSError):
                kill(target, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _work(connection: socket.socket, memory: int) -> None:
    """Main loop of a worker."""
    _limit(memory)
    while (request := _receive(connection, None)) is not None:
        _limit_cpu(float(request["cpu"]))
        reply: dict[str, Any]
        try:
            reply = {"value": _find(request["call"])(*request["args"])}
            data = _encode(reply)
        except BaseException as error:
            # Libraries raise what they like; whatever it is, it belongs to the caller.
            worn = isinstance(error, MemoryError | RecursionError)
            data = _encode({"error": f"{type(error).__name__}: {error}"[:500], "worn": worn})
        connection.sendall(data)


def _limit(memory: int) -> None:
    import resource

    page = resource.getpagesize()
    used = 0
    with contextlib.suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * page
    for what, value in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(what)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS refuses an address-space limit
            resource.setrlimit(what, (soft, hard))


def _limit_cpu(seconds: float) -> None:
    """The second net, for a worker whose caller died: it cannot spin for ever."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
