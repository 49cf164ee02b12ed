"""Files that survive a crash: atomic writes, the lock of a run, names that stay where they belong.

Knows bytes and paths; knows no record and no config. Every system call is looked up in ``os`` at
the moment of the call, so that a test can make any one of them fail.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from mull.errors import RunLockedError, StoreError

NAME_BYTES = 100
"""Longest name that ``safe_name`` gives; file systems allow 255, suffixes need some of it."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
_DIGESTED = re.compile(r".*-[0-9a-f]{10}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Replace a file whole: a reader, or a crash, sees the old content or the new, never a part.

    Temporary file beside it, fsync, rename, fsync of the directory: in this order, because a
    rename that reaches the disk before the content does leaves an empty file after a power cut.
    Text is written as UTF-8. Raises ``OSError``; the temporary file is then removed.
    """
    target = Path(path)
    raw = data.encode() if isinstance(data, str) else data
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            view = memoryview(raw)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)  # noqa: PTH105 (looked up in os, as said above)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names of a directory durable (a new or renamed file is a change of its directory).

    File systems that cannot sync a directory say ``EINVAL``; that is taken as done.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def safe_name(text: str) -> str:
    """A portable file name for any text: one path part, ASCII, at most 100 bytes, never hidden.

    What is safe already stays as it is; anything else keeps its readable part and gets a digest of
    the whole, so that two texts never share a name.

    >>> safe_name("vote-64")
    'vote-64'
    >>> safe_name("../../etc/passwd")
    'etc-passwd-3754d6cb3a'
    """
    kept = _UNSAFE.sub("-", text).strip("-.")
    taken = _DEVICES.fullmatch(text) or _DIGESTED.fullmatch(text)
    if kept == text and text and len(text) <= NAME_BYTES and not taken:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{kept[: NAME_BYTES - 11].strip('-.') or 'x'}-{digest}"


class FileLock:
    """The right to write, held by one process: ``flock`` on a file that stays where it is.

    The kernel frees it when the process ends, however it ends. The file holds the owner's process
    id, for the message of the one that is refused. Only its owner may remove it; a lock that was
    won on a removed file would exclude nobody, and is taken again on the file that is there.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder, FileLock(pathlib.Path(folder, "run.lock")):
    ...     FileLock(pathlib.Path(folder, "run.lock")).acquire()
    Traceback (most recent call last):
    mull.errors.RunLockedError: ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    def acquire(self) -> FileLock:
        """Take the lock now or raise ``RunLockedError`` that names the owner; never waits."""
        while (descriptor := self._locked()) is None:
            pass
        self._descriptor = descriptor
        _HELD.add(self)
        return self

    def _locked(self) -> int | None:
        """A descriptor that holds the lock; ``None`` where its file was removed meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise StoreError(
                f"cannot open the lock {self.path}: {error.strerror}; "
                "use a directory that can be written"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:
                os.close(descriptor)
                return None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        except OSError as error:
            owner = _owner(descriptor) if isinstance(error, BlockingIOError) else ""
            os.close(descriptor)
            if owner:
                raise RunLockedError(
                    f"{self.path.parent} is being written by {owner}; "
                    "wait until it ends or stop it, then run again"
                ) from None
            raise StoreError(
                f"cannot lock {self.path}: {error.strerror}; use a directory on a local disk"
            ) from error
        return descriptor

    def release(self, *, remove: bool = False) -> None:
        """Free the lock, and ``remove`` its file first; harmless where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        _HELD.discard(self)
        if descriptor is not None:
            with suppress(OSError):  # closed all the same, and nothing in the file matters
                if remove:
                    os.unlink(self.path)  # noqa: PTH108 (looked up in os, as said above)
            with suppress(OSError):
                os.close(descriptor)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def __enter__(self) -> FileLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


_HELD: set[FileLock] = set()


def _owner(descriptor: int) -> str:
    fields = os.pread(descriptor, 300, 0).decode("utf-8", "replace").split()
    if len(fields) != 2 or not fields[0].isdigit():
        return "another process"
    return f"process {fields[0]} on {fields[1]}"


def _forget_in_child() -> None:
    # A forked worker inherits the descriptor, and with it the lock: it would outlive a parent that
    # was killed, and lock the run for everyone.
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
