"""The records of one run, held for writing: every row hashed, committed in groups, locked.

One process writes at a time. A sample is committed before anything else sees it; whatever is found
damaged is dropped and counted, so that it is made again. Knows rows; knows no engine and no run.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mull.errors import CorruptRecordError, StoreError
from mull.fileio import FileLock, sync_directory
from mull.store.rows import (
    Column,
    Packed,
    canonical,
    pack,
    recorded,
    row_hash,
    unpack_completion,
    unpack_scored,
)
from mull.store.schema import FILE, HASHED, LOCK, RESTORE, WORK, connect_writer
from mull.types import Completion, EngineInfo, Scored, Usage

Statement = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Waste:
    """One row of what was paid for nothing: why, for what, how much, how many samples."""

    reason: str
    purpose: str
    model: str
    usage: Usage
    count: int


GROUP = 32
"""Rows that are committed at once at the latest."""

WINDOW = 0.1
"""Seconds of the loop's clock that a row waits for company, where commits hold up the loop. That is
meant for a virtual clock, on which waiting is free."""

_UNUSABLE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS))
"""A path that no free space would make usable."""


class Store:
    """A run directory's ``run.db``, opened for writing under the run's lock.

    Use ``Store.open``. With ``threaded`` commits run beside the event loop, and what arrives in the
    meantime makes the next group; without, they run in the loop after ``WINDOW`` seconds or
    ``GROUP`` rows, at moments that the loop's clock alone decides (a virtual clock needs that).

    ``dropped`` counts the damaged rows that this object found and removed.
    """

    def __init__(self, directory: Path, lock: FileLock, threaded: bool) -> None:
        self.directory = directory
        self.dropped = 0
        self._lock = lock
        self._connection = connect_writer(directory / FILE)
        self._reader = self._connection
        self._executor: ThreadPoolExecutor | None = None
        if threaded:
            # A second connection: a read on the loop must not wait for the writer's fsync.
            try:
                self._reader = connect_writer(directory / FILE)
            except BaseException:
                self._connection.close()
                raise
            self._executor = ThreadPoolExecutor(1, "mull-store")
        self._pending: list[tuple[Statement, asyncio.Future[None]]] = []
        self._timer: asyncio.Handle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._broken: StoreError | None = None
        self._made: list[Path] | None = None
        """Folders that were made for a new file, the innermost first; ``None`` for an old file."""

    @classmethod
    def open(cls, directory: str | Path, *, threaded: bool = True) -> Store:
        """Open or create the store of a run directory; never waits.

        Raises ``RunLockedError`` while another process writes it, ``StoreError`` where the place is
        not writable, not durable, or holds something else.
        """
        path = Path(directory)
        made = [each for each in (path, *path.parents) if not each.exists()]
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; expected a directory for the run's records")
        with store_errors(f"cannot open {path / FILE}"):
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK).acquire()
            try:
                sync_directory(path)  # the lock's name; SQLite does as much for its own files
                new = not (path / FILE).exists()
                store = cls(path, lock, threaded)
                store._made = made if new else None
                return store
            except BaseException:
                lock.release()
                raise

    def close(self, *, forget: bool = False) -> None:
        """Commit what is pending, fold the log into the file, free the lock. Idempotent.

        With ``forget`` a store that this object made is removed where no work was recorded in it:
        a run that failed before it began leaves no folder behind.
        """
        if not self._lock.held:
            return
        try:
            if self._executor is not None:
                self._executor.shutdown(wait=True)
            self._flush_now()
        finally:
            forget = forget and self._made is not None and self._without_work()
            with suppress(sqlite3.Error):  # the log stays beside the file: nothing is lost by that
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with suppress(sqlite3.Error):
                self._reader.close()
                self._connection.close()
            if forget:
                for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
                    (self.directory / name).unlink(missing_ok=True)
            self._lock.release(remove=forget)
            with suppress(OSError):  # somebody else uses the folder
                for folder in (self._made or ()) if forget else ():
                    folder.rmdir()

    def _without_work(self) -> bool:
        with suppress(sqlite3.Error):
            asked = (f"SELECT 1 FROM {table} LIMIT 1" for table in WORK)  # noqa: S608
            return not any(self._reader.execute(each).fetchone() for each in asked)
        return False

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Samples ------------------------------------------------------------------------------

    def samples(self, key: bytes, indices: range) -> dict[int, Completion]:
        """The committed completions of a request among sample ``indices``, by index."""
        found: dict[int, Completion] = {}
        rows = self._rows(
            "SELECT key, idx, head, token_ids, logprobs, hash FROM samples "
            "WHERE key = ? AND idx >= ? AND idx < ?",
            (key, indices.start, indices.stop),
        )
        for *columns, mark in rows:
            if self._sound("samples", columns, mark):
                found[columns[1]] = unpack_completion(_packed(columns[2:]))
        return found

    def add_sample(self, key: bytes, completion: Completion) -> asyncio.Future[None]:
        """Record a completion; the future is done when it is on the disk."""
        columns = (key, completion.index, *pack(completion))
        return self.add(insert("samples", columns))

    def add_search(self, key: bytes, ranks: Sequence[Completion]) -> asyncio.Future[None]:
        """Record the ranks of one search in place of all that stood under its key, at one commit.

        So what stands there comes of one search, whenever a process is killed.
        """
        old: Statement = ("DELETE FROM samples WHERE key = ?", (key,))
        rows = [insert("samples", (key, rank.index, *pack(rank))) for rank in ranks]
        return self.add(old, *rows)

    def scored(self, key: bytes) -> Scored | None:
        """A committed scoring, if there is one."""
        rows = self._rows(
            "SELECT key, head, token_ids, logprobs, hash FROM scores WHERE key = ?", (key,)
        )
        for *columns, mark in rows:
            if self._sound("scores", columns, mark):
                return unpack_scored(_packed(columns[1:]))
        return None

    def add_scored(self, key: bytes, scored: Scored) -> asyncio.Future[None]:
        """Record a scoring; the future is done when it is on the disk."""
        return self.add(insert("scores", (key, *pack(scored))))

    def add_engine(self, info: EngineInfo) -> None:
        """Record who answers, so that replay needs no model. At once."""
        self.write([insert("engines", (canonical(list(info.identity)), canonical(recorded(info))))])

    # Writing ------------------------------------------------------------------------------

    def add(self, *statements: Statement) -> asyncio.Future[None]:
        """Queue rows for the next group commit of the running loop; done when on the disk.

        Statements of one call are committed together. The future fails with ``StoreError``, and
        after that so does every other: a disk that lost one write has to be looked at first.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._broken is not None:
            done.set_exception(self._broken)
            return done
        self._pending += [(statement, done) for statement in statements]
        if self._executor is not None:
            if self._writing is None:
                self._write_beside(loop)
        elif len(self._pending) >= GROUP:
            self._flush_now()
        elif self._timer is None:
            self._timer = loop.call_later(WINDOW, self._flush_now)
        return done

    def write(self, statements: Iterable[Statement]) -> None:
        """Commit rows at once, in one transaction, before returning."""
        if self._writing is not None:
            raise StoreError("a group commit is under way: use add() while samples are recorded")
        self._flush_now()
        if self._broken is not None:
            raise self._broken
        self._commit(list(statements))

    async def drain(self) -> None:
        """Wait until everything added so far is on the disk, or could not be written."""
        while self._writing is not None:  # the connection is busy: nothing is written beside it
            await asyncio.wait([self._writing])
            await asyncio.sleep(0)  # let its callback start the next group
        self._flush_now()

    def _write_beside(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._pending = self._pending, []
        statements = [statement for statement, _ in batch]
        self._writing = loop.run_in_executor(self._executor, self._commit, statements)
        self._writing.add_done_callback(lambda future: self._written(loop, batch, future))

    def _written(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[tuple[Statement, asyncio.Future[None]]],
        future: asyncio.Future[None],
    ) -> None:
        self._writing = None
        error = StoreError("the commit was cancelled") if future.cancelled() else future.exception()
        self._resolve(batch, error)
        if self._pending:
            self._write_beside(loop)

    def _flush_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._pending = self._pending, []
        if not batch:
            return
        error: BaseException | None = None
        try:
            self._commit([statement for statement, _ in batch])
        except StoreError as raised:
            error = raised
        self._resolve(batch, error)

    def _resolve(
        self,
        batch: Sequence[tuple[Statement, asyncio.Future[None]]],
        error: BaseException | None,
    ) -> None:
        if error is not None and self._broken is None:
            self._broken = error if isinstance(error, StoreError) else StoreError(str(error))
        for _, done in batch:
            if done.done() or done.get_loop().is_closed():
                continue
            if self._broken is None:
                done.set_result(None)
            else:
                done.set_exception(self._broken)
                done.exception()  # seen: a caller that was cancelled meanwhile never asks

    def _commit(self, statements: Sequence[Statement]) -> None:
        with store_errors(f"cannot write {self.directory / FILE}"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._connection.execute(sql, values)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def begin_session(self, started: str, version: str) -> int:
        """Note that a process began to write (ISO time, version of mull); gives its number."""
        sql = "INSERT INTO sessions (started, version, dropped) VALUES (?, ?, ?)"
        self.write([(sql, (started.encode(), version.encode(), self.dropped))])
        return int(self._rows("SELECT max(id) FROM sessions", ())[0][0])

    def end_session(self, session: int, ended: str, reason: str, waste: Sequence[Waste]) -> None:
        """Note how it ended, and what it paid for nothing."""
        sql = "UPDATE sessions SET ended = ?, reason = ?, dropped = ? WHERE id = ?"
        rows: list[Statement] = [(sql, (ended.encode(), reason.encode(), self.dropped, session))]
        sql = (
            "INSERT INTO waste (session, reason, purpose, model, usage, completions) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        for row in waste:
            texts = (row.reason, row.purpose, row.model)
            named = (*(text.encode() for text in texts), canonical(row.usage))
            rows.append((sql, (session, *named, row.count)))
        self.write(rows)

    # Reading ------------------------------------------------------------------------------

    def rows(self, table: str, where: str = "", values: Sequence[Column] = ()) -> Iterator[Any]:
        """The sound rows of a hashed table, without their hash, in key order; drops the others."""
        return self._sift(table, select(table, where), values)

    def _sift(self, table: str, sql: str, values: Sequence[Column] = ()) -> Iterator[Any]:
        """Rows one at a time; the damaged ones go once the reading is over."""
        damaged = []
        try:
            with store_errors(f"cannot read {self.directory / FILE}"):
                for *columns, mark in self._reader.execute(sql, tuple(values)):
                    if intact(columns, mark):
                        yield columns
                    else:
                        damaged.append(columns)
        finally:
            for columns in damaged:
                self._drop(table, columns)

    def check(self) -> int:
        """Read everything; drop every damaged row; give how many rows that were.

        Raises ``CorruptRecordError`` where the damage is in the file's own structure, beyond rows.
        """
        with store_errors(f"cannot check {self.directory / FILE}"):
            before = self.dropped
            report = self._reader.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if report != b"ok":
                self._rebuild_indexes(report)
            self._sift_all()
        return self.dropped - before

    def _sift_all(self) -> None:
        for table, names in HASHED.items():
            sql = f"SELECT {', '.join(names)}, hash FROM {table}"  # noqa: S608
            for _ in self._sift(table, sql):
                pass

    def _rebuild_indexes(self, report: bytes) -> None:
        """An index that disagrees with its table is made anew from the table, whose rows count."""
        try:
            self._sift_all()
            self._connection.execute("REINDEX")
            report = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            report = str(error).encode()
        if report != b"ok":
            raise CorruptRecordError(
                f"{self.directory / FILE} is damaged beyond single rows "
                f"({report.decode(errors='replace').strip()}); {RESTORE}"
            )

    def _rows(self, sql: str, values: Sequence[Column]) -> list[Any]:
        with store_errors(f"cannot read {self.directory / FILE}"):
            return self._reader.execute(sql, tuple(values)).fetchall()

    def _sound(self, table: str, columns: Sequence[Column], mark: Any) -> bool:
        if intact(columns, mark):
            return True
        self._drop(table, columns)
        return False

    def _drop(self, table: str, columns: Sequence[Column]) -> None:
        self.dropped += 1
        names = HASHED[table]
        match = " AND ".join(f"{name} IS ?" for name in names)
        with store_errors(f"cannot drop a damaged row of {self.directory / FILE}"):
            self._reader.execute(f"DELETE FROM {table} WHERE {match}", tuple(columns))  # noqa: S608


def select(table: str, where: str = "") -> str:
    """SQL for all hashed columns and the hash of a table, in key order."""
    names = HASHED[table]
    order = ", ".join(names[:2] if table in ("samples", "results") else names[:1])
    return f"SELECT {', '.join(names)}, hash FROM {table} {where} ORDER BY {order}"  # noqa: S608


def insert(table: str, columns: Sequence[Column], *, replace: bool = False) -> Statement:
    """The statement that adds a row with its hash; an equal key keeps the old row, or the new."""
    marks = ", ".join("?" * (len(columns) + 1))
    verb = "REPLACE" if replace else "IGNORE"
    sql = f"INSERT OR {verb} INTO {table} VALUES ({marks})"  # noqa: S608
    return sql, (*columns, row_hash(*columns))


def intact(columns: Sequence[Any], mark: Any) -> bool:
    """Whether a row still is what its hash was made from."""
    return all(isinstance(c, bytes | int | None) for c in columns) and row_hash(*columns) == mark


def _packed(columns: Sequence[Any]) -> Packed:
    head, token_ids, logprobs = columns
    return head, token_ids, logprobs


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """What SQLite and the system raise, as ``StoreError`` that says what was being done."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)  # absent where Python itself raised it
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CorruptRecordError(f"{doing}: {error}; {RESTORE}") from error
        raise StoreError(f"{doing}: {error}; check disk and free space, then run again") from error
    except (OSError, sqlite3.Error) as error:
        unusable = isinstance(error, OSError) and error.errno in _UNUSABLE
        advice = "name another directory" if unusable else "check disk and free space"
        raise StoreError(f"{doing}: {error}; {advice}, then run again") from error
