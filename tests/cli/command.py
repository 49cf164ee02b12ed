"""A command, run in this process, and what it said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mull.cli.main import call


@dataclass(frozen=True)
class Said:
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of standard output, as JSON without Infinity and NaN."""
        assert self.out.count("\n") == 1
        return parse(self.out)

    @property
    def rows(self) -> list[Any]:
        return [parse(line) for line in self.out.splitlines()]


Mull = Callable[..., Said]


def parse(line: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refuse)


def caller(capsys: pytest.CaptureFixture[str]) -> Mull:
    def mull(*arguments: object) -> Said:
        capsys.readouterr()
        code = call([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return mull


def toml(path: Path, engine: Mapping[str, Any] | None = None, **fields: Any) -> Path:
    """A config of two problems, votes of 2, written to ``path``; ``None`` leaves a field out."""
    given: dict[str, Any] = {
        "name": "small",
        "task": "words",
        "model": "simulated:echo",
        "strategies": ["vote"],
        "problems": 2,
        "samples": 2,
        **fields,
    }
    lines = [f"{name} = {_toml(value)}" for name, value in given.items() if value is not None]
    if engine:
        lines += ["[engine]", *(f"{name} = {_toml(value)}" for name, value in engine.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    return json.dumps(value).replace("NaN", "nan").replace('": ', '" = ')


def jsonl(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[Path, int]:
    """What stands in a folder, and when it was written; SQLite's readers touch its -shm file."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".db-shm")
    return {path: path.stat().st_mtime_ns for path in paths}


def refused(folder: Path, mull: Mull, *arguments: object) -> Said:
    """Run a command that must be refused; it leaves the folder as it was."""
    before = contents(folder)
    said = mull(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mull: ")
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert len(said.err) < 1000
    assert contents(folder) == before
    return said
