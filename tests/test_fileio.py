"""Files: whole or not at all; locked by one; named so that they stay where they belong."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import PATIENCE

import mull.fileio
from mull.errors import RunLockedError, StoreError
from mull.fileio import NAME_BYTES, FileLock, safe_name, write_atomic


@pytest.mark.parametrize("data", [b"", b"new", "text: ä", b"x" * 3_000_000])
def test_a_written_file_holds_exactly_what_was_given(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomic(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mull.fileio.os, name, fail)
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_write_goes_on_where_the_system_takes_only_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(mull.fileio.os, "write", lambda fd, data: real(fd, data[:3]))
    write_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


HOSTILE = st.text(st.characters(codec=None), max_size=300) | st.sampled_from(
    ["", ".", "..", "../x", "/etc/passwd", "a\0b", "CON", "nul.txt", "~", "-rf", "x" * 300, "a/b"]
)


@given(HOSTILE)
def test_a_safe_name_is_one_plain_part(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= NAME_BYTES
    assert set(name) <= set(string.ascii_letters + string.digits + "._=+-")
    assert not name.startswith((".", "-")) and name.upper() not in ("CON", "NUL")
    assert Path(name).name == name


@given(HOSTILE, HOSTILE)
def test_two_texts_never_share_a_name(a: str, b: str) -> None:
    assert (safe_name(a) == safe_name(b)) == (a == b)
    assert safe_name(safe_name(a)) != safe_name(a) or safe_name(a) == a


def test_a_lock_is_held_by_one_and_free_after_it(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with first:
        assert first.held
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on "):
            second.acquire()
        assert not second.held
    with second:
        assert second.held
    second.release()


def test_a_lock_on_a_file_that_its_owner_removed_is_taken_on_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner removes it just when another has opened it: both must not hold a lock then."""
    path = tmp_path / "lock"
    owner, second, third = (FileLock(path) for _ in range(3))
    owner.acquire()
    real = os.open

    def late(*given: Any) -> int:
        descriptor = real(*given)
        owner.release(remove=True)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(mull.fileio.os, "open", late)
        second.acquire()
    assert path.exists()
    with pytest.raises(RunLockedError):
        third.acquire()
    second.release()


def test_a_lock_ends_with_its_process_even_if_a_forked_child_lives_on(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from mull.fileio import FileLock
FileLock({str(tmp_path / "lock")!r}).acquire()
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(1)
    os.write(writer, b"!")
    time.sleep(60)
os.read(reader, 1)  # the child runs, so it has let go of what it inherited
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        try:
            assert parent.stdout is not None and parent.stdout.readline() == b"held\n"
            with pytest.raises(RunLockedError, match=f"process {parent.pid} on "):
                FileLock(tmp_path / "lock").acquire()
            parent.kill()
            parent.wait()
            started = time.monotonic()
            with FileLock(tmp_path / "lock"):
                assert time.monotonic() - started < PATIENCE
        finally:
            os.killpg(parent.pid, 9)


def test_a_lock_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open the lock"):
        FileLock(tmp_path / "absent" / "lock").acquire()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot open the lock"):
        FileLock(tmp_path / "link").acquire()
    assert not (tmp_path / "elsewhere").exists()
