"""Runs on grid puzzles → rows: what every prediction of every puzzle was worth, one JSON line each.

A row is one cell of a study: counts for each test pair, enough for every number of the page and
for pairing it with any other row on the same puzzles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.errors import UsageError
from mull.fileio import safe_name, write_atomic
from mull.metrics import pass_at_k
from mull.report.arc import SolvedCell, solved_of
from mull.report.load import Runs
from mull.runs import make_config, run
from mull.tasks.arc.given import Given
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.predictions import by_pair
from mull.tasks.arc.task import ArcTask

Floats = NDArray[np.float64]
ROWS = Path(__file__).parents[2] / "docs" / "arc" / "rows"


@dataclass(frozen=True)
class Row:
    """One cell: ``n`` predictions for each test pair, of which so many are right, sized, answered.

    ``cells`` are the summed shares of right cells in percent, ``vote`` the number of the attempt
    that is right (0: neither), ``logprob`` the log-probability of the likeliest prediction (empty
    where unknown). ``puzzles`` is a digest of the test pairs' ids in their order; ``facts`` are
    other numbers of the cell (tokens, validation loss, seconds …); a cell of facts alone has ``n``
    0.
    """

    study: str
    cell: str
    seed: int
    model: str
    puzzles: str
    n: int
    right: tuple[int, ...]
    sized: tuple[int, ...]
    answered: tuple[int, ...]
    cells: tuple[int, ...]
    vote: tuple[int, ...]
    logprob: tuple[float, ...] = ()
    facts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        solved: SolvedCell,
        study: str,
        cell: str,
        seed: int,
        facts: Mapping[str, float],
        model: str = "",
    ) -> Row:
        """The row of what a run's cell made; a prediction that is not there failed."""
        pairs = solved.graded.pairs
        n = max(pair.n for pair in pairs)
        ids = json.dumps([(pair.puzzle, pair.index) for pair in pairs])
        return cls(
            study,
            cell,
            seed,
            model,
            hashlib.blake2b(ids.encode(), digest_size=8).hexdigest(),
            n,
            right=tuple(int(pair.right.sum()) for pair in pairs),
            sized=tuple(int(pair.sized.sum()) for pair in pairs),
            answered=tuple(int(pair.answered.sum()) for pair in pairs),
            cells=tuple(round(100 * float(pair.pixels.sum())) for pair in pairs),
            vote=tuple(1 + pair.voted.index(True) if any(pair.voted) else 0 for pair in pairs),
            logprob=_likeliest(solved),
            facts={"samples": solved.spent[0], "run_tokens": solved.spent[1], **facts},
        )

    @cached_property
    def values(self) -> dict[str, Floats]:
        """Metric → a value for each test pair; names as in ``mull.tasks.arc.grade``."""
        right = np.array(self.right)
        n = np.full(len(right), self.n)
        vote = np.array(self.vote)
        return {
            "accuracy": right / self.n,
            "pass_n": (right > 0).astype(np.float64),
            "random_2": pass_at_k(n, right, min(2, self.n)),
            "vote_1": (vote == 1).astype(np.float64),
            "vote_2": (vote > 0).astype(np.float64),
            "size": np.array(self.sized) / self.n,
            "cells": np.array(self.cells) / (100.0 * self.n),
            "unanswered": 1.0 - np.array(self.answered) / self.n,
        }

    def passes(self, k: int) -> Floats:
        """The chance that ``k`` of the predictions hold a right one, for each test pair."""
        return pass_at_k(np.full(len(self.right), self.n), np.array(self.right), k)

    def mean(self, metric: str) -> float:
        """The mean of a metric over test pairs."""
        return float(self.values[metric].mean())

    def line(self) -> str:
        """The row as one JSON line."""
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


def _likeliest(solved: SolvedCell) -> tuple[float, ...]:
    found = by_pair(solved.predictions)
    keys = [(pair.puzzle, pair.index) for pair in solved.graded.pairs]
    known = [[p.logprob for p in found[key] if p.logprob is not None] for key in keys]
    return tuple(round(max(each), 3) for each in known) if all(known) else ()


def load(folder: Path, study: str = "") -> list[Row]:
    """The rows of a study, or of all, by study, cell and seed."""
    found = []
    for path in sorted(folder.glob(f"{safe_name(study)}.jsonl" if study else "*.jsonl")):
        for line in path.read_text().splitlines():
            value = json.loads(line)
            known = {each.name for each in fields(Row)} & set(value)
            listed: dict[str, Any] = {
                name: tuple(value[name]) if isinstance(value[name], list) else value[name]
                for name in known
            }
            found.append(Row(**listed))
    return found


def save(row: Row, folder: Path) -> None:
    """Put a row into its study's file, in place of an older one of the same cell and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {(each.cell, each.seed): each for each in load(folder, row.study)}
    kept[row.cell, row.seed] = row
    path = folder / f"{safe_name(row.study)}.jsonl"
    write_atomic(path, "".join(kept[key].line() for key in sorted(kept)))


def seen(folder: Path, study: str) -> set[tuple[str, int]]:
    """Cell and seed of the rows that are there."""
    return {(row.cell, row.seed) for row in load(folder, study)}


def measured(
    model: str | Path,
    task: str,
    puzzles: Iterable[Puzzle],
    strategies: Sequence[str],
    temperatures: Sequence[float],
    directory: Path,
    **fields_: Any,
) -> list[SolvedCell]:
    """Run or resume strategies on puzzles; what each cell made, in order."""
    from mull.catalog import load_task

    base = load_task(task)
    if not isinstance(base, ArcTask):
        raise UsageError(f"task {task}: expected arc with options")
    config = make_config(
        {
            "name": directory.name,
            "task": task,
            "model": str(model),
            "file": "puzzles",
            "strategies": list(strategies),
            "temperatures": list(temperatures),
            **fields_,
        }
    )
    run(config, directory, task=Given.of(base, puzzles))
    with Runs([directory]) as loaded:
        return solved_of(loaded.runs[0])
