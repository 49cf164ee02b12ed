"""One small recorded run, shared: what labels are made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mull.labels.samples import Recorded, read_run
from mull.runs import make_config, run

PROBLEMS, SAMPLES = 24, 6


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of the smallest shipped policy on easy problems of its training split."""
    folder = tmp_path_factory.mktemp("run")
    config = make_config(
        {
            "name": "labels",
            "task": "words",
            "model": "words-s",
            "strategies": ["vote", "sample"],
            "split": "train",
            "problems": PROBLEMS,
            "samples": [2, SAMPLES],
            "engine": {"dtype": "float32"},
        }
    )
    run(config, folder)
    return folder


@pytest.fixture(scope="session")
def recorded(run_directory: Path) -> Recorded:
    return read_run(run_directory)
