"""`mull train policy`: a task's own solutions to a model that knows its task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import Mull

pytest.importorskip("mull.training.policy")

from mull.api import resolve_task
from mull.catalog import model_card
from mull.training import policy

TASK = "words(distractors=1)"


@pytest.mark.timeout(60)
def test_a_trained_policy_is_asked_its_own_task(
    mull: Mull, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(policy.SIZES, "s", {"width": 16, "layers": 1, "heads": 2, "hidden": 16})
    said = mull("train", "policy", "--task", TASK, "--tokens", 2000, "--context", 200, "--out", "p")
    assert said.code == 0, said.err
    card, record = model_card("p"), json.loads(Path("p/trained.json").read_text())
    assert card is not None
    assert (card["name"], card["task"]) == ("p", TASK)
    assert card["recipe"] == record["config"]
    assert card["tokens"] == record["tokens"] >= 2000
    assert card["recipe"]["context"] == 200
    assert resolve_task(None, "p").name == "words"
    said = mull(
        "solve",
        "In stock: cups 3, pens are 2 more than cups. How many pens are there?",
        "--model",
        "./p",
        "--samples",
        2,
        "--json",
    )
    assert said.code in (0, 3), said.err
