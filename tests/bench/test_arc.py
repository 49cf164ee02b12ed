"""The batching table on puzzles: every mode makes the same answers, a bare loop beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.tasks.arc.world import random_puzzle, tiny_model  # noqa: E402

from mull.bench.arc import BARE, MODES, arc_batching  # noqa: E402
from mull.bench.engine import batching_table  # noqa: E402
from mull.errors import InputError  # noqa: E402
from mull.tasks.arc.grids import Puzzle  # noqa: E402
from mull.tasks.arc.task import ArcTask  # noqa: E402

pytestmark = pytest.mark.timeout(60)


def puzzles(side: int = 2) -> list[Puzzle]:
    return [random_puzzle(seed, side) for seed in range(4)]


def test_the_table_has_its_rows_and_counts_the_whole_job(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "tiny", context=256))
    rows = arc_batching(
        puzzles(), model, task=ArcTask(max_tokens=4), count=4, views=2,
        repeats=1, share=0.5, dtypes=("float32",),
    )  # fmt: skip
    assert [row.mode for row in rows] == [*MODES, BARE]
    assert [row.measured for row in rows] == [4, 4, 8, 8]
    tokens = [row.seconds * row.rate.median for row in rows]
    assert tokens == pytest.approx([tokens[0]] * 4), "the same job in every row"
    assert tokens[0] <= 4 * 2 * 4
    assert batching_table(rows).row_count == 4


def test_puzzles_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "tiny", context=64))
    with pytest.raises(InputError, match="none of 4 puzzles fits the model's context of 64"):
        arc_batching(puzzles(side=9), model, dtypes=("float32",))
