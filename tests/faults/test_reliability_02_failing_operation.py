"""Reliability test 2: whichever operation fails, the run ends cleanly or well, and goes on after.

The faults are put under SQLite itself: its unix file layer lets every system call be replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import Steps, engine, exported, small

import mull.fileio
from mull.errors import StoreError
from mull.runs.run import Summary, run

ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)
CONFIG = small(problems=3, samples=2, strategies=["vote"])

_int, _size, _offset, _pointer = ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int64, ctypes.c_void_p
_call = ctypes.CFUNCTYPE
SYSTEM: dict[bytes, Any] = {
    b"open": _call(_int, ctypes.c_char_p, _int, _int, use_errno=True),
    b"read": _call(_size, _int, _pointer, ctypes.c_size_t, use_errno=True),
    b"pread64": _call(_size, _int, _pointer, ctypes.c_size_t, _offset, use_errno=True),
    b"write": _call(_size, _int, _pointer, ctypes.c_size_t, use_errno=True),
    b"pwrite64": _call(_size, _int, _pointer, ctypes.c_size_t, _offset, use_errno=True),
    b"ftruncate": _call(_int, _int, _offset, use_errno=True),
    b"unlink": _call(_int, ctypes.c_char_p, use_errno=True),
}


class _Files(ctypes.Structure):
    """The head of ``sqlite3_vfs``, as its header documents it."""

    _fields_ = (
        ("version", _int),
        ("file_size", _int),
        ("path_length", _int),
        ("following", _pointer),
        ("name", ctypes.c_char_p),
        ("data", _pointer),
        ("methods", _pointer * 13),
        ("set_call", _call(_int, _pointer, ctypes.c_char_p, _pointer)),
        ("get_call", _call(_pointer, _pointer, ctypes.c_char_p)),
    )


class Faults:
    """Counts operations; makes number ``at`` fail with ``code``."""

    def __init__(self, at: int = -1, code: int = 0) -> None:
        self.count, self.at, self.code = 0, at, code
        self.names: list[str] = []

    def strikes(self, name: str) -> bool:
        self.count += 1
        self.names.append(name)
        return self.count - 1 == self.at


def files() -> _Files:
    """SQLite's file layer, in the library that Python uses; the test is skipped where hidden."""
    try:
        library = ctypes.CDLL("libsqlite3.so.0")
    except OSError:
        pytest.skip("Python's SQLite is not a shared library here: no system call to replace")
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Files)
    found: _Files = library.sqlite3_vfs_find(None).contents
    return found


@contextmanager
def failing(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the faults under SQLite and under ``mull.fileio``."""
    layer = files()
    kept = []
    for name, kind in SYSTEM.items():
        real = kind(layer.get_call(ctypes.addressof(layer), name))
        fake = kind(_faulty(faults, name.decode(), real))
        layer.set_call(ctypes.addressof(layer), name, ctypes.cast(fake, _pointer))
        kept.append(fake)
    wrapped = _Module(os, faults, ("open", "write", "fsync", "replace", "ftruncate", "close"))
    with monkeypatch.context() as patch:
        patch.setattr(mull.fileio, "os", wrapped)
        patch.setattr(mull.fileio, "fcntl", _Module(fcntl, faults, ("flock",)))
        try:
            yield
        finally:
            for name in SYSTEM:
                layer.set_call(ctypes.addressof(layer), name, None)


def _faulty(faults: Faults, name: str, real: Callable[..., int]) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        if faults.strikes(name):
            ctypes.set_errno(faults.code)
            return -1
        return real(*arguments)

    return call


class _Module:
    """A module some of whose functions count and fail."""

    def __init__(self, real: Any, faults: Faults, names: tuple[str, ...]) -> None:
        self._real, self._faults, self._names = real, faults, names

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name not in self._names:
            return value

        def call(*arguments: Any) -> Any:
            struck = self._faults.strikes(name)
            if struck and name != "close":
                raise OSError(self._faults.code, os.strerror(self._faults.code))
            result = value(*arguments)
            if struck:  # a failed close has closed the descriptor all the same
                raise OSError(self._faults.code, os.strerror(self._faults.code))
            return result

        return call


def attempt(directory: Path) -> Summary:
    return run(CONFIG, directory, engine=engine(slots=2), task=Steps(), virtual=True)


def operations(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the operations of a run that nothing disturbs."""
    faults = Faults()
    with failing(faults, monkeypatch):
        attempt(directory)
    return faults.names


def test_the_faults_reach_what_they_are_meant_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = operations(tmp_path, monkeypatch)
    assert {"pwrite64", "open", "fsync", "flock"} <= set(names)
    assert len(names) > 50


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_failing_operation_ends_in_an_error_or_success_and_a_store_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation fails once, the errors in turn; with MULL_NIGHTLY set, with every error."""
    attempt(tmp_path / "whole")
    expected = exported(tmp_path / "whole")
    total = len(operations(tmp_path / "counted", monkeypatch))
    refused = 0
    for at in range(total):
        for code in ERRORS if "MULL_NIGHTLY" in os.environ else [ERRORS[at % 3]]:
            broken = tmp_path / f"broken-{at}-{code}"
            with failing(Faults(at, code), monkeypatch):
                try:
                    attempt(broken)
                except StoreError as error:
                    refused += 1
                    assert str(error)
            summary = attempt(broken)
            assert (summary.done, summary.dropped, summary.failed) == (3, 0, 0)
            assert exported(broken) == expected
    assert refused > total / 6
