"""The records of a run, for reading only: beside a writer, from a read-only place, no lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mull.errors import StoreError
from mull.store.rows import Column, unpack_completion, unpack_scored
from mull.store.schema import FILE, connect_reader
from mull.store.store import intact, select, store_errors
from mull.types import Capabilities, Completion, EngineInfo, Scored

T = TypeVar("T")


class Reader:
    """A run directory's records. Damaged rows are left out and counted in ``damaged``."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.damaged = 0
        with store_errors(f"cannot read {self.directory / FILE}"):
            self._connection = connect_reader(self.directory / FILE)

    def close(self) -> None:
        """Free the file."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, table: str, where: str = "", values: Sequence[Column] = ()) -> Iterator[Any]:
        """The sound rows of a hashed table, without their hash, in key order, one at a time."""
        with store_errors(f"cannot read {self.directory / FILE}"):
            for *columns, mark in self._connection.execute(select(table, where), tuple(values)):
                if intact(columns, mark):
                    yield columns
                else:
                    self.damaged += 1

    def plain_rows(self, table: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        """What ``read`` makes of the rows of a table without hashes (``sessions``, ``waste``).

        It is given a row by column name; one that it cannot read is damaged.
        """
        if table not in ("sessions", "waste"):
            raise ValueError(f"{table} is not sessions or waste")
        with store_errors(f"cannot read {self.directory / FILE}"):
            cursor = self._connection.execute(f"SELECT * FROM {table} ORDER BY id")  # noqa: S608
            names = [column[0] for column in cursor.description]
            found = []
            for row in cursor:
                try:
                    texts = [x.decode() if isinstance(x, bytes) else x for x in row]
                    found.append(read(dict(zip(names, texts, strict=True))))
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    self.damaged += 1
            return found

    def meta(self, name: str) -> Any:
        """A value of ``meta`` from its JSON; ``None`` where there is none."""
        for _, value in self.rows("meta", "WHERE name = ?", (name.encode(),)):
            return json.loads(value)
        return None

    def samples(self, key: bytes, indices: range) -> dict[int, Completion]:
        """The committed completions of a request among sample ``indices``, by index."""
        where = "WHERE key = ? AND idx >= ? AND idx < ?"
        rows = self.rows("samples", where, (key, indices.start, indices.stop))
        return {row[1]: unpack_completion(tuple(row[2:])) for row in rows}

    def scored(self, key: bytes) -> Scored | None:
        """A committed scoring, if there is one."""
        for row in self.rows("scores", "WHERE key = ?", (key,)):
            return unpack_scored(tuple(row[1:]))
        return None

    def engines(self) -> list[EngineInfo]:
        """Who answered in this run."""
        return [_info(json.loads(raw)) for _, raw in self.rows("engines")]

    def engine(self, model: str | None = None) -> EngineInfo:
        """The one engine that answered, or the one of this model. ``StoreError`` if unclear."""
        infos = [info for info in self.engines() if model in (None, info.model)]
        if len(infos) != 1:
            known = ", ".join(sorted(info.model for info in self.engines())) or "none"
            raise StoreError(f"name one of the models recorded in {self.directory}: {known}")
        return infos[0]


def _info(data: dict[str, Any]) -> EngineInfo:
    given = {name: value for name, value in data.items() if name != "type"}
    able = {name: value for name, value in given["capabilities"].items() if name != "type"}
    if "adapters" in able:  # as older versions called it
        able["adapts"] = able.pop("adapters")
    price = tuple(float(part) for part in given["price"])
    return EngineInfo(**{**given, "price": price, "capabilities": Capabilities(**able)})
