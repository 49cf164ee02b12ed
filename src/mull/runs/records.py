"""A run's records, read back: what reports, labels and replay are made from.

Everything is recomputed from the store, nothing is remembered from the run. ``export`` holds what
was asked and answered and no clock reading, so two runs of equal work export equal bytes, however
often either was interrupted; what interruptions cost stands in ``sessions`` and ``waste``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mull.errors import StoreError
from mull.runs.cells import Cell
from mull.runs.result import ResultRecord
from mull.store import Reader, canonical, usage_of
from mull.store.store import Waste
from mull.types import EngineInfo, Usage


@dataclass(frozen=True, slots=True)
class ProblemRecord:
    """One problem of a run; ``text`` is the prompt for a human reader."""

    position: int
    id: str
    text: str
    answer: str | None
    meta: Mapping[str, Any]

    @property
    def level(self) -> int | str | None:
        """The task's difficulty, where it says one."""
        level = self.meta.get("level")
        return level if isinstance(level, int | str) else None


@dataclass(frozen=True, slots=True)
class Session:
    """One process that wrote the run; times are ISO texts, ``ended`` is ``None`` after a kill."""

    started: str
    ended: str | None
    reason: str | None
    version: str
    dropped: int


class Records:
    """The records of a run directory, read-only, also while the run goes on.

    ``damaged`` counts rows that did not match their hash, or could not be read, and were left out;
    running the config again makes them anew, but for sessions and waste.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._reader = Reader(directory)
        config = self._reader.meta("config")
        cells = self._reader.meta("cells")
        if config is None or cells is None:
            self._reader.close()
            raise StoreError(f"{directory} holds no run's config: it was stopped before it began")
        self.config: Mapping[str, Any] = config
        self.config_hash: str = self._reader.meta("config_hash")
        self.cells: tuple[Cell, ...] = tuple(Cell.from_json(cell) for cell in cells)

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.config["name"])

    @property
    def damaged(self) -> int:
        """Rows left out so far."""
        return self._reader.damaged

    def problems(self) -> Iterator[ProblemRecord]:
        """The problems in order."""
        for position, _, raw in self._reader.rows("problems"):
            data = json.loads(raw)
            yield ProblemRecord(position, data["id"], data["text"], data["answer"], data["meta"])

    def raw_problems(self) -> Iterator[dict[str, Any]]:
        """The problems in order as they were recorded, for ``problem_from_json``."""
        for _, _, raw in self._reader.rows("problems"):
            yield json.loads(raw)

    def results(self, cell: Cell) -> Iterator[ResultRecord]:
        """The results of a cell in the order of its problems, one at a time."""
        for _, _, raw in self._reader.rows("results", "WHERE cell = ?", (cell.id.encode(),)):
            yield ResultRecord.unpack(raw)

    def done(self, cell: Cell) -> int:
        """How many problems of a cell have a result."""
        return sum(1 for _ in self.results(cell))

    def engines(self) -> list[EngineInfo]:
        """Who answered."""
        return self._reader.engines()

    def sessions(self) -> list[Session]:
        """The processes that wrote the run, in order."""
        return self._reader.plain_rows("sessions", _session)

    def waste(self) -> list[Waste]:
        """What was paid for nothing, over all sessions: interruptions and problems tried again.

        Work in flight at a ``kill -9`` is not in it: nobody was left to write it down.
        """
        return self._reader.plain_rows("waste", _waste)

    def export(self) -> Iterator[bytes]:
        """The records as canonical JSON lines: config, problems, then results by cell."""
        yield canonical({"config": self.config, "config_hash": self.config_hash}) + b"\n"
        for _, _, raw in self._reader.rows("problems"):
            yield b'{"problem":' + raw + b"}\n"
        for cell in self.cells:
            for record in self.results(cell):
                yield canonical({"cell": cell.id, "result": record.to_json()}) + b"\n"

    def close(self) -> None:
        """Free the file."""
        self._reader.close()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _session(row: Mapping[str, Any]) -> Session:
    dropped = int(row["dropped"])
    return Session(row["started"], row["ended"], row["reason"], row["version"], dropped)


def _waste(row: Mapping[str, Any]) -> Waste:
    usage = Usage() + usage_of(json.loads(row["usage"]))  # what cannot be summed is damaged
    count = int(row["completions"])
    return Waste(row["reason"], row["purpose"], row["model"], usage, count)
