"""Reliability test 7: Ctrl-C once keeps everything within ten seconds, twice ends within two."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.faults.test_reliability_01_kill import VICTIM, victim
from tests.patience import PATIENCE
from tests.runs.world import exported

from mull.runs.records import Records

CONFIG = {"problems": 40, "samples": 8}
ROUNDS = 50 if "MULL_NIGHTLY" in os.environ else 3


def interrupted(directory: Path, times: int, after: float, **options: Any) -> tuple[int, float]:
    """Interrupt a victim; its exit code, and the seconds from the last Ctrl-C to its end."""
    given = {"config": CONFIG, "virtual": False, "token_ms": 2.0, **options}
    command = [sys.executable, str(VICTIM), str(directory), json.dumps(given)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            time.sleep(0.3 + after)  # the handler is set once the store is open
            for _ in range(times):
                started = time.monotonic()
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            _, errors = process.communicate(timeout=2 * PATIENCE)
            assert errors == b"", errors.decode()
            return process.returncode, time.monotonic() - started
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_once_finishes_or_cancels_what_is_in_flight_and_keeps_the_rest(tmp_path: Path) -> None:
    victim(tmp_path / "whole", config=CONFIG, token_ms=2.0)
    chance = random.Random(7)
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        code, seconds = interrupted(directory, 1, chance.uniform(0, 0.5), grace=1.0)
        assert code == 130
        assert seconds < PATIENCE
        with Records(directory) as records:
            assert records.sessions()[-1].reason == "interrupted"
        code, _ = victim(directory, config=CONFIG, token_ms=2.0)
        assert code == 0
        assert exported(directory) == exported(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_what_the_cancelled_samples_had_cost_is_kept(tmp_path: Path) -> None:
    code, seconds = interrupted(tmp_path, 1, 0.5, token_ms=40.0, grace=0.5)
    assert code == 130
    assert seconds < PATIENCE
    with Records(tmp_path) as records:
        rows = [row for row in records.waste() if row.reason == "interrupted"]
        assert sum(row.usage.generated for row in rows) > 0
        assert sum(row.count for row in rows) == 16  # a sample a slot


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("stubborn", [False, True], ids=["willing", "stubborn"])
def test_twice_ends_at_once_even_if_the_engine_does_not_let_go(
    tmp_path: Path, stubborn: bool
) -> None:
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        code, seconds = interrupted(
            directory, 2, 0.1, token_ms=2000.0, grace=600.0, stubborn=stubborn
        )
        assert code == 130
        assert seconds < PATIENCE
        if not stubborn:
            code, _ = victim(directory, config=CONFIG)
            assert code == 0
