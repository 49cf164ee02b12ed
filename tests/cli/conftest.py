"""Commands run in an empty folder, without keys in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Mull, caller


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("MULL_API_KEY", raising=False)
    return tmp_path


@pytest.fixture
def mull(capsys: pytest.CaptureFixture[str]) -> Mull:
    return caller(capsys)
