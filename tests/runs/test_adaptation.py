"""Test-time fine-tuning in a run, whole: puzzles in, a tiny model trained on each, records out."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import tiny_model

from mull.catalog import load_engine
from mull.runs import run
from mull.runs.config import Config, make_config
from mull.runs.records import Records

torch = import_module("torch")
# These load on first use, slowly: here no test's time limit runs.
for slow in ("torch._dynamo", "transformers", "mull.engines.torch.open", "mull.training.adapt"):
    import_module(slow)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
TTFT = "ttft(steps=90, examples=60, batch_tokens=512, matrix_rate=0.02, rate=0.01, n=4"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, and puzzles whose rule is one cell on another: all cells become the last."""
    folder = tmp_path_factory.mktemp("world")
    tiny_model(folder / "base")
    rng = random.Random(0)

    def pair() -> dict[str, Any]:
        cells = rng.choices(range(1, 10), k=3)
        return {"input": [cells], "output": [cells[-1:] * 3]}

    puzzle = {"train": [pair() for _ in range(4)], "test": [pair() for _ in range(2)]}
    (folder / "puzzles.json").write_text(json.dumps({"p": puzzle}))
    return folder


def config(world: Path, *strategies: str) -> Config:
    fields = {"name": "adapted", "task": "arc(geometry=false)", "model": str(world / "base")}
    given = {"file": str(world / "puzzles.json"), "strategies": list(strategies)}
    return make_config({**fields, **given, "temperatures": [0.0], "max_tokens": 8})


def engine(world: Path) -> Any:
    return load_engine(str(world / "base"), dtype="float32", slots=8, memory_cap=1 << 26)


def accuracy(folder: Path) -> dict[str, int]:
    with Records(folder) as records:
        return {
            cell.strategy: sum(bool(each.correct) for each in records.results(cell))
            for cell in records.cells
        }


def purposes(folder: Path) -> list[str]:
    with Records(folder) as records:
        (cell,) = records.cells
        return sorted(row.purpose for each in records.results(cell) for row in each.spent)


def test_a_puzzle_is_solved_by_what_its_demonstrations_teach(world: Path, tmp_path: Path) -> None:
    ttft = f"{TTFT})"
    assert run(config(world, "airv(n=4)", ttft), tmp_path, engine=engine(world)).exit_code == 0
    assert accuracy(tmp_path) == {"airv(n=4)": 0, ttft: 2}


def test_what_is_killed_before_its_results_is_resumed_without_training(
    world: Path, tmp_path: Path
) -> None:
    trained: list[str] = []
    asked = config(world, f"{TTFT})")
    first = engine(world)
    watch(first, trained)
    run(asked, tmp_path, engine=first)
    # Both test pairs of the puzzle learn the same: one training if they meet, else one each.
    assert 1 <= len(trained) <= 2
    before = purposes(tmp_path)
    assert before == ["adaptation"] * 2 + ["policy"] * 2
    forget_results(tmp_path)
    second = engine(world)
    watch(second, trained := [])
    run(asked, tmp_path, engine=second)
    assert trained == []
    assert purposes(tmp_path) == before


def test_scores_under_adapted_weights_are_made_again_with_them(world: Path, tmp_path: Path) -> None:
    trained: list[str] = []
    asked = config(world, f"{TTFT}, rank=views)")
    run(asked, tmp_path, engine=engine(world))
    assert accuracy(tmp_path) == {f"{TTFT}, rank=views)": 2}
    forget_results(tmp_path)
    again = engine(world)
    watch(again, trained)
    run(asked, tmp_path, engine=again)
    # Scores are not recorded: for them the weights are made anew, and that is told as waste.
    assert 1 <= len(trained) <= 2
    with Records(tmp_path) as records:
        assert {waste.reason for waste in records.waste()} == {"repeated training"}
    assert accuracy(tmp_path) == {f"{TTFT}, rank=views)": 2}
    assert again._adapted.names == []


def watch(engine: Any, trained: list[str]) -> None:
    """Note what an engine trains."""
    train = engine._adapted._train

    def noted(*given: Any) -> Any:
        trained.append("once")
        return train(*given)

    engine._adapted._train = noted


def forget_results(directory: Path) -> None:
    """As a kill leaves a run whose samples are on the disk and whose results are not."""
    connection = sqlite3.connect(directory / "run.db")
    connection.execute("DELETE FROM results")
    connection.commit()
    connection.close()
