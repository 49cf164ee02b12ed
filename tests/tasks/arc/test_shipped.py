"""The shipped ARC model solves puzzles that nobody has seen: made anew, of kinds that it knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mull.runs import Records, make_config, run
from mull.tasks.arc.grids import as_json
from mull.tasks.arc.one_d import KINDS, puzzles

pytest.importorskip("torch")
SEED = 20_000


@pytest.mark.timeout(120)
def test_rows_of_the_trained_kinds_are_solved(tmp_path: Path) -> None:
    made = [puzzle for kind in KINDS for puzzle in puzzles(kind, SEED, 2)]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({puzzle.id: as_json(puzzle) for puzzle in made}))
    given = {
        "name": "rows",
        "task": "arc(geometry=false)",
        "model": "arc-m",
        "file": str(file),
        "strategies": ["airv(n=2)"],
        "temperatures": [0.0],
    }
    run(make_config(given), tmp_path / "run")
    with Records(tmp_path / "run") as records:
        (cell,) = records.cells
        right = [result.correct is True for result in records.results(cell)]
    assert len(right) == 2 * len(KINDS)
    assert sum(right) >= 22  # 99 % on the puzzles of its card
