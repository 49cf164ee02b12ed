"""Reliability test 3: a disk that is full ends a run cleanly; with space again it completes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.faults.test_reliability_01_kill import victim
from tests.runs.world import exported

from mull.runs.records import Records

CONFIG = {"problems": 60, "samples": 8}


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_no_row_is_corrupt_after_a_full_disk_and_the_resume_completes(tmp_path: Path) -> None:
    victim(tmp_path / "whole", config=CONFIG)
    size = (tmp_path / "whole" / "run.db").stat().st_size
    # The limit is on each file, as a full disk would be on all: the log meets it first.
    for limit in (8_192, 65_536, size // 3, size // 2):
        directory = tmp_path / str(limit)
        code, lines = victim(directory, config=CONFIG, fsize=limit)
        outcome = json.loads(lines[-1])
        assert code == 1, limit
        assert outcome["error"] == "StoreError"
        assert "check disk and free space" in outcome["message"]
        code, lines = victim(directory, config=CONFIG)
        assert code == 0
        assert exported(directory) == exported(tmp_path / "whole")
        with Records(directory) as records:
            assert records.damaged == 0
            assert records.sessions()[-1].dropped == 0
