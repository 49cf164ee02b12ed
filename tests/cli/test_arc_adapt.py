"""`mull arc adapt`: demonstrations and a model in, a model that has learnt them out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, refused
from tests.tiny_model import tiny_model

from mull.engines.adapt import Parts
from mull.training import data, loop, model, tokenizer

torch = import_module("torch")
# The first optimizer of a process loads this, slowly: here no test's time limit runs.
import_module("torch._dynamo")
QUICK = ("--steps", 3, "--batch-tokens", 256, "--examples", 4)


def grid(rng: random.Random) -> list[list[int]]:
    return [rng.choices(range(1, 10), k=2) for _ in range(2)]


def puzzles(count: int, answer: Any = None) -> dict[str, Any]:
    """Puzzles of one rule: the output is the input."""
    rng = random.Random(0)
    made = {}
    for number in range(count):
        train = [{"input": g, "output": g} for g in (grid(rng) for _ in range(3))]
        made[f"p{number}"] = {"train": train, "test": [{"input": grid(rng), "output": answer}]}
    return made


@pytest.fixture(autouse=True)
def files(folder: Path) -> Iterator[None]:
    """One thread: tiny products gain nothing from more, and a busy machine makes them wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny_model(Path("base"))
    Path("puzzles.json").write_text(json.dumps(puzzles(5)))
    yield
    torch.set_num_threads(before)


def loss(folder: str) -> float:
    """How hard the rule is for a model on a puzzle that it never saw, nats a token."""
    held = Parts((("<12\n34=12\n34><98\n76=", False), ("98\n76>", True)))
    corpus = data.encode_parts([held], tokenizer.load_tokenizer(Path(folder)), 1 << 62)
    return loop.held_out_loss(model.load_model(Path(folder)), corpus)


def test_the_model_learns_what_the_puzzles_demonstrate(mull: Mull) -> None:
    rates = ("--matrix-rate", 2e-2, "--rate", 1e-2)
    said = mull(
        *("arc", "adapt", "puzzles.json", "--model", "./base", "--out", "out"),
        *("--steps", 100, "--batch-tokens", 512, "--examples", 40, *rates),
    )
    assert said.code == 0
    assert "parameters" in said.out
    assert loss("out") < 0.2
    assert loss("base") > 2.0
    card = json.loads(Path("out/card.json").read_text())
    assert (card["task"], card["base"], card["adapted"]["steps"]) == (
        "arc(format=marked)",
        "./base",
        100,
    )


def test_groups_are_a_model_each(mull: Mull) -> None:
    said = mull(
        *("arc", "adapt", "puzzles.json", "--model", "./base", "--out", "out"),
        *("--groups", 2, *QUICK),
    )
    assert said.code == 0
    made = [Path(f"out/group-{number}/model.safetensors").read_bytes() for number in range(2)]
    assert made[0] != made[1]
    assert not Path("out/model.safetensors").exists()
    for number, ids in enumerate((["p0", "p1"], ["p2", "p3", "p4"])):
        told = json.loads(Path(f"out/group-{number}/card.json").read_text())["adapted"]
        assert told["puzzles"] == ids
        weights = model.load_model(Path(f"out/group-{number}")).shape.parameters
        assert told["flops"] == 6 * weights * told["tokens"] > 0


def test_views_of_the_base_are_views_of_the_training(mull: Mull) -> None:
    """What the base's card leaves out stays left out, and is on the new card; options say more."""
    Path("base/card.json").write_text(json.dumps({"task": "arc(geometry=false)"}))
    made = {}
    for name, options in (("as-card", ()), ("same", ("--no-geometry",)),
                          ("turned", ("--geometry",)), ("plain", ("--no-colours",))):  # fmt: skip
        said = mull("arc", "adapt", "puzzles.json", "--model", "./base", "--out", name, *options,
                    *QUICK)  # fmt: skip
        assert said.code == 0, said.err
        card = json.loads(Path(name, "card.json").read_text())
        made[name] = (card["task"], Path(name, "model.safetensors").read_bytes())
    assert made["as-card"] == made["same"]
    assert made["as-card"][0] == "arc(format=marked, geometry=false)"
    assert made["turned"][0] == "arc(format=marked)"
    assert made["plain"][0] == "arc(format=marked, geometry=false, colours=false)"
    assert len({weights for _, weights in made.values()}) == 3


def test_what_teaches_nothing_is_named_and_the_rest_goes_on(mull: Mull) -> None:
    some = puzzles(3)
    some["p0"]["train"] = some["p0"]["train"][:1]
    some["p1"]["train"][0]["input"] = [[10]]
    Path("puzzles.json").write_text(json.dumps(some))
    said = mull("arc", "adapt", "puzzles.json", "--model", "./base", "--out", "out", *QUICK)
    assert said.code == 3
    assert "p1: train 0 input: expected colours 0..9, not 10" in said.err
    assert "p0: train: a single pair" in said.err
    assert json.loads(Path("out/card.json").read_text())["adapted"]["puzzles"] == ["p2"]


def test_nothing_to_learn_from_is_an_error(folder: Path, mull: Mull) -> None:
    some = puzzles(2)
    for each in some.values():
        del each["train"][1:]
    Path("puzzles.json").write_text(json.dumps(some))
    said = refused(folder, mull, "arc", "adapt", "puzzles.json", "--model", "./base", "--out",
                   "out", *QUICK)  # fmt: skip
    assert "none of 2 puzzles has two demonstrations" in said.err


def test_test_outputs_change_nothing(mull: Mull) -> None:
    made = []
    for out, answer in (("a", [[1]]), ("b", [[2, 3]]), ("c", None)):
        Path("puzzles.json").write_text(json.dumps(puzzles(3, answer)))
        assert (
            mull("arc", "adapt", "puzzles.json", "--model", "./base", "--out", out, *QUICK).code
            == 0
        )
        made.append(Path(out, "model.safetensors").read_bytes())
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--groups", 6), "groups"),
        (("--rate", 0), "rate"),
        (("--format", "chat"), "format"),
        (("--model", "nowhere"), "nowhere"),
        (("--out", "puzzles.json"), "is a file"),
        (("--out", "base"), "holds a finished model"),
    ],
)
def test_bad_input_is_refused(mull: Mull, folder: Path, arguments: Any, says: str) -> None:
    given = {"--model": "./base", "--out": "out", **dict([arguments])}
    flat = [word for pair in given.items() for word in pair]
    assert says in refused(folder, mull, "arc", "adapt", "puzzles.json", *flat, *QUICK).err


def test_the_models_of_groups_are_not_overwritten_either(mull: Mull, folder: Path) -> None:
    asked = ("arc", "adapt", "puzzles.json", "--model", "./base", "--out", "out", "--groups", 2)
    assert mull(*asked, *QUICK).code == 0
    assert "out/group-0 holds a finished model" in refused(folder, mull, *asked, *QUICK).err
