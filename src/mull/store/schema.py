"""The tables of ``run.db`` and how it is opened: SQLite, write-ahead log, full sync.

Knows SQL; knows no engine and no run.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mull.errors import StoreError

FILE = "run.db"
LOCK = "run.lock"
FORMAT = 1
"""Version of the tables; a file of a higher one is refused."""

APPLICATION = 0x4D554C4C
"""'MULL': tells a run's file from any other SQLite file."""

RESTORE = "restore it from a copy, or start the run in a new directory"
"""What to do about a file that is damaged beyond single rows."""

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE engines (
    identity BLOB PRIMARY KEY, info BLOB NOT NULL, hash BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE samples (
    key BLOB NOT NULL, idx INTEGER NOT NULL,
    head BLOB NOT NULL, token_ids BLOB, logprobs BLOB, hash BLOB NOT NULL,
    PRIMARY KEY (key, idx)
);
CREATE TABLE scores (
    key BLOB PRIMARY KEY,
    head BLOB NOT NULL, token_ids BLOB, logprobs BLOB, hash BLOB NOT NULL
);
CREATE TABLE problems (
    position INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, payload BLOB NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE results (
    cell BLOB NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (cell, position)
);
CREATE TABLE failures (
    cell BLOB NOT NULL, position INTEGER NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL,
    PRIMARY KEY (cell, position)
);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, reason TEXT, version TEXT NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE waste (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, reason TEXT NOT NULL, purpose TEXT NOT NULL,
    model TEXT NOT NULL, usage TEXT NOT NULL, completions INTEGER NOT NULL
);
"""
"""``failures`` is always empty. It is here because older versions of this format read it."""

HASHED = {
    "meta": ("name", "value"),
    "engines": ("identity", "info"),
    "samples": ("key", "idx", "head", "token_ids", "logprobs"),
    "scores": ("key", "head", "token_ids", "logprobs"),
    "problems": ("position", "id", "payload"),
    "results": ("cell", "position", "payload"),
}
"""The columns that a row's hash covers, by table: all but the hash."""

WORK = ("samples", "scores", "results")
"""Tables of what was done; the others say what was to be done, and what came to nothing."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open or create a run's file for writing. Raises ``StoreError`` where it cannot be durable."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        connection.text_factory = bytes
        made = _check_format(connection, path)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode.lower() != b"wal":
            raise StoreError(
                f"the file system of {path.parent} refuses SQLite's write-ahead log "
                "(a network file system?); use a directory on a local disk"
            )
        connection.execute("PRAGMA synchronous=FULL")
        if not made:
            connection.executescript(
                f"BEGIN IMMEDIATE;{TABLES}PRAGMA application_id={APPLICATION};"
                f"PRAGMA user_version={FORMAT};COMMIT;"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a run's file for reading only, beside a writer or from a read-only place."""
    if not path.is_file():
        raise StoreError(f"{path.parent} holds no run: there is no {path.name} in it")
    uri = path.resolve().as_uri()
    # A file that was closed in order needs no log; only then may SQLite skip it, which is what
    # makes reading from a read-only medium possible.
    closed = not path.with_name(path.name + "-wal").exists()
    modes = ("mode=ro", "mode=ro&immutable=1") if closed else ("mode=ro",)
    for mode in modes:
        connection = sqlite3.connect(f"{uri}?{mode}", uri=True, isolation_level=None, timeout=5.0)
        connection.text_factory = bytes
        try:
            if not _check_format(connection, path):
                raise StoreError(f"{path} holds no records: its run was stopped before it began")
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            problem = error
        except BaseException:
            connection.close()
            raise
    raise StoreError(f"cannot read {path}: {problem}")


def _check_format(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables exist; ``StoreError`` for a file that is not ours."""
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.OperationalError:  # busy, read-only …: says nothing about the content
        raise
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is no run's file, or is damaged ({error}); {RESTORE}") from error
    if tables == 0:
        return False
    if application != APPLICATION:
        raise StoreError(f"{path} is an SQLite file, but not of a mull run; choose another folder")
    if version > FORMAT:
        raise StoreError(
            f"{path} has format {version}, this version of mull knows {FORMAT}: upgrade mull"
        )
    return True
