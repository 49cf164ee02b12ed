"""Reliability test 1: kill -9 at random moments loses nothing, doubles nothing, changes nothing."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import exported

from mull.runs.records import Records

VICTIM = Path(__file__).with_name("victim.py")
KILLS = 20
CONFIG = {
    "problems": 200,
    "samples": 16,
    "strategies": ["vote", "vote(stop=beta)", "best-of-n"],
}


def victim(directory: Path, **options: Any) -> tuple[int, list[str]]:
    """Run the victim; its exit code and the lines that it wrote."""
    command = [sys.executable, str(VICTIM), str(directory), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, done.stdout.decode().splitlines()


def committed(directory: Path) -> dict[tuple[str, int], bytes]:
    """Every sample row in the file, by key and index; an index that came twice fails."""
    if not (directory / "run.db").exists():
        return {}
    connection = sqlite3.connect(f"file:{directory / 'run.db'}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT key, idx, hash FROM samples").fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        rows = []
    finally:
        connection.close()
    found = {(key.hex(), index): mark for key, index, mark in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_committed_is_lost_or_doubled_and_the_report_is_the_same(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, lines = victim(whole, config=CONFIG)
    outcome = json.loads(lines[-1])
    assert (code, outcome["done"]) == (0, 600)
    # Twenty kills eat less than the whole run's time, so that every one of them strikes.
    within = outcome["seconds"] / KILLS

    before: dict[tuple[str, int], bytes] = {}
    for kill in range(KILLS):
        code, lines = victim(broken, config=CONFIG, seen=True, kill_within=within, seed=kill)
        assert code == -9
        after = committed(broken)
        assert before.items() <= after.items()
        seen = [line.split() for line in lines if line.startswith("seen ") and len(line) > 69]
        assert {(key, int(index)) for _, key, index in seen} <= set(after)
        before = after
    code, lines = victim(broken, config=CONFIG)
    assert code == 0
    assert json.loads(lines[-1])["generated"] < outcome["generated"]
    assert before.items() <= committed(broken).items()
    assert len(committed(broken)) == len(committed(whole)) == 200 * 16
    assert exported(broken) == exported(whole)
    with Records(broken) as records:
        killed = [session for session in records.sessions() if session.ended is None]
        assert records.sessions()[-1].reason == "complete"
        assert 0 < len(killed) <= KILLS
