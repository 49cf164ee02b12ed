"""Reliability test 4: a bit that flips in a stored row is noticed, and the row made again."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.runs.world import Steps, engine, exported, small

from mull.runs.records import Records
from mull.runs.run import Summary, run
from mull.store import Store
from mull.store.schema import HASHED

FLIPS = 200
TABLES = ("meta", "engines", "problems", "samples", "results")


def compact(file: Path) -> None:
    """Leave no stale copies of rows in unused space, where a flipped bit is nobody's loss."""
    connection = sqlite3.connect(file)
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def whole(directory: Path) -> Summary:
    return run(small(problems=6), directory, engine=engine(), task=Steps(), virtual=True)


def places(file: Path) -> list[tuple[int, int]]:
    """(offset, length) of stored column values in the file, copies in indexes included."""
    raw = file.read_bytes()
    connection = sqlite3.connect(file)
    found = []
    for table in TABLES:
        for name in (*HASHED[table], "hash"):
            for (value,) in connection.execute(f"SELECT {name} FROM {table}"):  # noqa: S608
                if not isinstance(value, bytes) or len(value) < 12:
                    continue
                # A long value goes on in overflow pages; its start stands in the row itself.
                start = value[:64]
                if len(set(start)) < 8:  # a run of zeros stands in unused space as well
                    continue
                at = raw.find(start)
                while at >= 0:
                    found.append((at, len(start)))
                    at = raw.find(start, at + 1)
    connection.close()
    return sorted(set(found))


def flip(file: Path, chance: random.Random, where: list[tuple[int, int]]) -> None:
    offset, length = chance.choice(where)
    with file.open("r+b") as opened:
        at = offset + chance.randrange(length)
        opened.seek(at)
        byte = opened.read(1)[0] ^ (1 << chance.randrange(8))
        opened.seek(at)
        opened.write(bytes([byte]))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    whole(tmp_path)
    file, sound = tmp_path / "run.db", tmp_path / "sound.db"
    compact(file)
    shutil.copy(file, sound)
    where = places(file)
    assert len(where) > 100
    for number in range(FLIPS):
        shutil.copy(sound, file)
        flip(file, random.Random(number), where)
        with Store.open(tmp_path) as store:
            before = store._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            assert store.check() or before != b"ok", number
            assert store._connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == b"ok"
            assert store.check() == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_what_was_damaged_is_made_again_and_counted(tmp_path: Path) -> None:
    whole(tmp_path)
    expected = exported(tmp_path)
    file, sound = tmp_path / "run.db", tmp_path / "sound.db"
    compact(file)
    shutil.copy(file, sound)
    where = places(file)
    for number in range(50):
        shutil.copy(sound, file)
        chance = random.Random(1000 + number)
        for _ in range(3):
            flip(file, chance, where)
        summary = whole(tmp_path)
        assert summary.exit_code == 0
        assert exported(tmp_path) == expected
        with Records(tmp_path) as records:
            assert records.sessions()[-1].dropped == summary.dropped
            assert records.damaged == 0


def test_a_reader_leaves_a_damaged_row_out_and_counts_it(tmp_path: Path) -> None:
    whole(tmp_path)
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("UPDATE results SET payload = zeroblob(20) WHERE position = 2")
    connection.commit()
    connection.close()
    with Records(tmp_path) as records:
        assert sum(records.done(cell) for cell in records.cells) == 10
        assert records.damaged == 2
