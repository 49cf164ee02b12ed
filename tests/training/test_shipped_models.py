"""What ships: small, whole, and as its cards say."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

import mull
from mull.catalog import load_task
from mull.engines.torch.load import revision
from mull.tasks.arc.compact import CHARACTERS
from mull.training.data import Example
from mull.training.model import load_model

MODELS = Path(mull.__file__).parent / "models"
CARDS = sorted(MODELS.glob("*/card.json"))
KINDS = {path: json.loads(path.read_text()).get("kind", "policy") for path in CARDS}
SOLVERS = [path for path in CARDS if json.loads(path.read_text())["task"].startswith("arc")]
"""Models of grid puzzles, which come from files and not from a generator."""
POLICIES = [path for path in CARDS if KINDS[path] == "policy" and path not in SOLVERS]
BELONGING = [path for path in CARDS if KINDS[path] != "policy"]


def card(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def names(path: Path) -> str:
    return path.parent.name


def test_all_models_together_stay_under_30_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) < 30e6


def test_every_model_folder_has_a_card() -> None:
    folders = {file.parent for file in MODELS.glob("*/model.safetensors")}
    assert folders == {path.parent for path in CARDS}
    assert {"words-s", "countdown-s"} <= {folder.name for folder in folders}


@pytest.mark.parametrize("path", CARDS, ids=names)
def test_a_card_says_what_the_weights_are(path: Path) -> None:
    facts = card(path)
    assert facts["name"] == path.parent.name
    with safe_open(path.parent / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        kinds = {weights.get_slice(name).get_dtype() for name in names}
        parameters = sum(weights.get_tensor(name).numel() for name in names)
    assert kinds == {"BF16"}
    assert parameters == facts["parameters"]
    sets = facts["measured"].values() if path in SOLVERS else [facts["measured"]]
    assert max(each["puzzles" if path in SOLVERS else "problems"] for each in sets) >= 200


@pytest.mark.parametrize("path", SOLVERS, ids=names)
def test_a_solvers_card_has_what_each_step_solves(path: Path) -> None:
    measured = card(path)["measured"]
    assert {"rows", "other-rows", "evaluation"} <= set(measured)
    for found in measured.values():
        tuned = found["tuned"]
        for low, value, high in (
            (triple[1], triple[0], triple[2])
            for triple in (*found["steps"].values(), tuned["before"], tuned["after"])
        ):
            assert 0.0 <= low <= value <= high <= 1.0
    tokenizer = AutoTokenizer.from_pretrained(path.parent)
    assert tokenizer.unk_token_id not in tokenizer(CHARACTERS)["input_ids"]


@pytest.mark.parametrize("path", POLICIES, ids=names)
def test_a_policys_card_has_its_accuracy(path: Path) -> None:
    facts = card(path)
    assert load_model(path.parent).shape.parameters == facts["parameters"]
    measured = facts["measured"]
    value, low, high = measured["pass_at_1"]
    assert low <= value <= high
    assert facts["pass_at_1"] == value
    assert measured["split"] == "test"


@pytest.mark.parametrize("path", BELONGING, ids=names)
def test_what_belongs_to_a_policy_names_its_weights(path: Path) -> None:
    facts = card(path)
    policy = MODELS / facts["policy"]["model"]
    assert facts["policy"]["revision"] == revision(policy)
    assert facts["task"] == card(policy / "card.json")["task"]
    assert facts["measured"]["split"] == "validation"
    with safe_open(path.parent / "model.safetensors", "pt") as weights:
        assert ("value_head.weight" in weights.keys()) == (facts["kind"] in ("prm", "orm"))  # noqa: SIM118


@pytest.mark.parametrize("path", [path for path in CARDS if path not in SOLVERS], ids=names)
def test_its_tokenizer_covers_its_task(path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path.parent)
    task: Any = load_task(card(path)["task"])
    for problem in task.problems("test", 60):
        example = Example(problem.prompt.plain, task.reference(problem))
        text = example.prompt + example.solution
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["words-s", "countdown-s"])
def test_the_small_policies_leave_room_for_more_compute(name: str) -> None:
    facts = card(MODELS / name / "card.json")
    measured = facts["measured"]
    assert 0.30 <= facts["pass_at_1"] <= 0.55
    assert measured["coverage_minus_vote"][1] > 0.10
    assert measured["vote_minus_single"][1] > 0.0
