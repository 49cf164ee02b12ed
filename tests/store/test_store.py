"""The store: committed means on the disk; one writer; damage is seen; readers need no lock."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mull.errors import RunLockedError, StoreError
from mull.store import Reader, Store
from mull.store.schema import FILE, LOCK
from mull.store.store import GROUP, Statement, insert
from mull.types import Capabilities, Completion, EngineInfo, Scored, StopReason, Usage

KEY = b"k" * 32


def made(index: int, text: str = "text") -> Completion:
    return Completion(index, text, StopReason.END, Usage(3, 0, 4, 5.0), (1, 2), (-0.5, -0.25))


def in_file(directory: Path) -> list[int]:
    with Reader(directory) as reader:
        return sorted(reader.samples(KEY, range(10_000)))


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_sample_is_on_the_disk_when_its_future_is_done(
    tmp_path: Path, threaded: bool
) -> None:
    with Store.open(tmp_path, threaded=threaded) as store:
        waiting = [store.add_sample(KEY, made(index)) for index in range(3 * GROUP)]
        for index, future in enumerate(waiting):
            await future
            assert index in in_file(tmp_path)
        assert store.samples(KEY, range(5, 8)) == {index: made(index) for index in (5, 6, 7)}
        assert store.samples(b"x" * 32, range(8)) == {}


@pytest.mark.parametrize("threaded", [False, True])
async def test_what_was_added_before_the_end_is_committed_at_the_end(
    tmp_path: Path, threaded: bool
) -> None:
    store = Store.open(tmp_path, threaded=threaded)
    futures = [store.add_sample(KEY, made(index)) for index in range(5)]
    store.close()
    assert in_file(tmp_path) == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)
    assert all(future.done() for future in futures) or threaded


async def test_rows_of_one_loop_turn_share_a_commit(tmp_path: Path) -> None:
    with Store.open(tmp_path, threaded=False) as store:
        commits: list[str] = []
        store._connection.set_trace_callback(commits.append)
        await asyncio.gather(*(store.add_sample(KEY, made(index)) for index in range(GROUP)))
        assert commits.count("COMMIT") == 1


async def test_draining_waits_for_the_group_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one connection to write on: a second commit beside the first would lose both."""
    with Store.open(tmp_path) as store:
        commit, alone = store._commit, threading.Lock()

        def slow(statements: Sequence[Statement]) -> None:
            assert alone.acquire(blocking=False), "two commits at once"
            try:
                time.sleep(0.05)
                commit(statements)
            finally:
                alone.release()

        monkeypatch.setattr(store, "_commit", slow)
        futures = [store.add_sample(KEY, made(index)) for index in range(5)]
        await store.drain()
        assert all(future.done() and not future.exception() for future in futures)
        assert in_file(tmp_path) == [0, 1, 2, 3, 4]
        store.write([insert("meta", (b"name", b'"x"'))])


async def test_the_first_record_of_a_sample_stays(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        await store.add_sample(KEY, made(0, "first"))
        await store.add_sample(KEY, made(0, "second"))
        assert store.samples(KEY, range(1))[0].text == "first"


async def test_a_scoring_is_found_again(tmp_path: Path) -> None:
    scored = Scored((1, 2), (-0.5, -1.5), Usage(2), (0.25,))
    with Store.open(tmp_path) as store:
        assert store.scored(KEY) is None
        await store.add_scored(KEY, scored)
        assert store.scored(KEY) == scored
    with Reader(tmp_path) as reader:
        assert reader.scored(KEY) == scored
        assert reader.scored(b"x") is None


def test_a_second_writer_is_refused_by_name_and_let_in_after_the_first(tmp_path: Path) -> None:
    with Store.open(tmp_path), pytest.raises(RunLockedError, match=r"process [0-9]+ on"):
        Store.open(tmp_path)
    Store.open(tmp_path).close()
    assert (tmp_path / LOCK).exists()


def test_who_answered_is_recorded_whole(tmp_path: Path) -> None:
    info = EngineInfo("k", "m", price=(0.5, 0.0, 1.0), capabilities=Capabilities(chat=True))
    with Store.open(tmp_path) as store:
        store.add_engine(info)
        store.add_engine(info)
    with Reader(tmp_path) as reader:
        assert reader.engines() == [info]
        assert reader.engine("m") == info
        with pytest.raises(StoreError, match=r"recorded in .*: m"):
            reader.engine("other")


def test_a_capability_that_came_later_is_recorded_where_it_is_not_there(tmp_path: Path) -> None:
    """So that the records of engines that have it are byte for byte what they were before."""
    can = Capabilities(continue_chat=False, shares_prompt=False)
    less = EngineInfo("k", "less", capabilities=can)
    with Store.open(tmp_path) as store:
        store.add_engine(EngineInfo("k", "m"))
        store.add_engine(less)
    with Reader(tmp_path) as reader:
        first, second = sorted(bytes(raw) for _, raw in reader.rows("engines"))
        for name in (b"continue_chat", b"shares_prompt"):
            assert (name in first) != (name in second)
        assert reader.engine("less") == less


async def test_a_reader_sees_what_is_committed_beside_a_writer(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, Reader(tmp_path) as reader:
        assert len(list(reader.rows("samples"))) == 0
        await store.add_sample(KEY, made(0))
        assert len(list(reader.rows("samples"))) == 1


def test_a_closed_run_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.write([insert("meta", (b"name", b'"x"'))])
    assert not (tmp_path / f"{FILE}-wal").exists()
    tmp_path.chmod(0o555)
    try:
        with Reader(tmp_path) as reader:
            assert reader.meta("name") == "x"
    finally:
        tmp_path.chmod(0o755)


async def test_a_store_that_holds_no_work_can_be_forgotten_and_no_other(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    await store.add_sample(KEY, made(0))
    store.close(forget=True)
    assert in_file(tmp_path) == [0]


def test_a_forgotten_store_takes_along_the_folders_that_were_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for place in ("new/er", "old"):
        store = Store.open(tmp_path / place)
        store.write([insert("meta", (b"name", b'"x"'))])
        store.close(forget=True)
        assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
    Store.open(tmp_path / "old").close()
    Store.open(tmp_path / "old").close(forget=True)
    assert (tmp_path / "old" / FILE).exists(), "it was there before"


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        Reader(tmp_path)
    (tmp_path / FILE).write_text("this is not a database, but long enough to look at" * 20)
    with pytest.raises(StoreError, match="no run's file"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match="no run's file"):
        Reader(tmp_path)


@pytest.mark.parametrize("place", ["/proc/none", "run.toml/x"])
def test_a_place_that_cannot_be_is_not_laid_on_the_disk(tmp_path: Path, place: str) -> None:
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(StoreError, match="name another directory") as raised:
        Store.open(tmp_path / place)
    assert "free space" not in str(raised.value)


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0"])
def test_what_to_do_about_a_damaged_file_is_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage * 100)
    for opened in (Store.open, Reader):
        with pytest.raises(StoreError, match="restore it from a copy, or start the run in a new"):
            opened(tmp_path)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="not of a mull run"):
        Store.open(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    for opened in (Store.open, Reader):
        with pytest.raises(StoreError, match="upgrade mull"):
            opened(tmp_path)


def test_a_file_system_that_refuses_the_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What SQLite answers there is that the mode stays as it was; an in-memory file does that too.
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: real(":memory:", **options))
    with pytest.raises(StoreError, match="refuses SQLite's write-ahead log"):
        Store.open(tmp_path)


async def test_after_a_failed_commit_nothing_is_taken_any_more(tmp_path: Path) -> None:
    with Store.open(tmp_path, threaded=False) as store:
        await store.add_sample(KEY, made(0))
        store._connection.execute("PRAGMA query_only=ON")
        with pytest.raises(StoreError, match="cannot write"):
            await store.add_sample(KEY, made(1))
        store._connection.execute("PRAGMA query_only=OFF")
        with pytest.raises(StoreError, match="cannot write"):
            await store.add_sample(KEY, made(2))
    assert in_file(tmp_path) == [0]


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(StoreError, match=r"run\.toml is a file; expected a directory"):
        Store.open(tmp_path / "run.toml")
