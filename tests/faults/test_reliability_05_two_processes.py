"""Reliability test 5: one process writes a run; the next is refused at once, and let in later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.test_reliability_01_kill import VICTIM, victim

CONFIG = {"problems": 200, "samples": 16}
ROUNDS = 50 if "MULL_NIGHTLY" in os.environ else 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_second_process_is_refused_within_a_second_and_a_kill_frees_the_run(
    tmp_path: Path,
) -> None:
    options = {"config": CONFIG, "virtual": False, "token_ms": 5.0}
    command = [sys.executable, str(VICTIM), str(tmp_path), json.dumps({**options, "seen": True})]
    for _ in range(ROUNDS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
            try:
                assert first.stdout is not None
                while not first.stdout.readline().startswith(b"seen"):
                    assert first.poll() is None
                code, lines = victim(tmp_path, **options)
                outcome = json.loads(lines[-1])
                assert (code, outcome["error"]) == (1, "RunLockedError")
                assert f"process {first.pid} " in outcome["message"]
                assert outcome["seconds"] < 1.0
                assert outcome["generated"] == 0
            finally:
                first.kill()
                first.wait()
    code, _ = victim(tmp_path, config=CONFIG)
    assert code == 0
