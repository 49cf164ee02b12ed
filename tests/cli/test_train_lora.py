"""`mull train lora | merge`: files to an adapter and to a merged model, from the command line."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, jsonl, refused

from mull.catalog import load_engine, model_card
from mull.cli.train import directory
from mull.errors import UsageError
from mull.training import CHECKPOINT

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tests.training.tiny import SUMS, checkpoint  # noqa: E402

ROWS = [{"prompt": e.prompt.strip(), "answer": e.solution} for e in SUMS]
PUZZLE: dict[str, Any] = {
    "train": [{"input": [[1, 2]], "output": [[2, 1]]}, {"input": [[3, 0]], "output": [[0, 3]]}],
    "test": [{"input": [[4, 5]], "output": [[5, 4]]}],
}
FEW = ("--steps", 4, "--batch", 2, "--rank", 2, "--dropout", 0, "--threads", 1)


@pytest.fixture
def base(folder: Path) -> Path:
    return checkpoint(folder / "base")


@pytest.mark.timeout(60)
def test_prompts_and_answers_become_an_adapter_and_a_model(
    mull: Mull, folder: Path, base: Path
) -> None:
    jsonl(Path("sums.jsonl"), *ROWS[:50])
    jsonl(Path("held.jsonl"), *ROWS[50:60])
    said = mull(
        *("train", "lora", "--model", base, "--data", "sums.jsonl", "--out", "a", *FEW),
        *("--validation", "held.jsonl", "--generate", 3, "--every", 2, "--merged", "m"),
        *("--dora", "--target", "all-linear", "--schedule", "cyclic", "--cycles", 2),
    )
    assert said.code == 0, said.err
    assert "parameters" in said.out
    assert "merged: m" in said.out
    assert "training.svg" in said.out
    record = json.loads(Path("a/trained.json").read_text())
    assert record["config"]["shape"]["dora"] is True
    assert [set(check["measures"]) for check in record["checks"]] == [{"exact", "tokens"}] * 2
    assert load_engine("m", device="cpu").info.model == "m"
    assert load_engine(str(base), adapter="a", device="cpu").info.adapter.startswith("a@")
    again = mull("train", "merge", "--model", base, "--adapter", "a", "--out", "m2")
    assert again.code == 0, again.err
    weights = "model.safetensors"
    assert Path("m", weights).read_bytes() == Path("m2", weights).read_bytes()
    merging = ("train", "merge", "--model", base, "--adapter", "a", "--out")
    training = ("train", "lora", "--model", base, "--data", "sums.jsonl", *FEW, "--out")
    for out, command in ((base, merging), ("a", merging), (base, training), ("a", training)):
        assert "holds a finished model" in refused(folder, mull, *command, out).err


@pytest.mark.timeout(60)
@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_training_killed_at_a_check_goes_on_with_the_same_command(
    mull: Mull, base: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool
) -> None:
    from mull.training.generation import ExactAnswers

    whole, asked = ExactAnswers.__call__, list[Path]()

    def killed(self: ExactAnswers, adapter: Path) -> Any:
        asked.append(adapter)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return whole(self, adapter)

    monkeypatch.setattr(ExactAnswers, "__call__", killed)
    if checkpoint:
        monkeypatch.setattr("time.monotonic", count(0, 100).__next__)
    jsonl(Path("sums.jsonl"), *ROWS[:50])
    command = ("train", "lora", "--model", base, "--data", "sums.jsonl", "--out", "a", *FEW,
               "--validation", "sums.jsonl", "--generate", 2, "--every", 2)  # fmt: skip
    assert mull(*command).code == 130
    assert Path("a", CHECKPOINT).exists() is checkpoint
    said = mull(*command)
    assert said.code == 0, said.err
    assert len(json.loads(Path("a/trained.json").read_text())["checks"]) == 2
    assert not [path for path in Path("a").iterdir() if path.is_dir()]


@pytest.mark.parametrize("weights", ["model.safetensors", "adapter_model.safetensors"])
def test_where_there_is_a_checkpoint_there_is_no_finished_model(
    tmp_path: Path, weights: str
) -> None:
    for name in (weights, CHECKPOINT):
        (tmp_path / name).touch()
    assert directory(tmp_path) == tmp_path
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(UsageError, match="holds a finished model"):
        directory(tmp_path)


@pytest.mark.timeout(60)
def test_puzzles_become_an_adapter_that_names_its_task(mull: Mull, base: Path) -> None:
    Path("p.json").write_text(json.dumps(PUZZLE))
    said = mull(
        *("train", "lora", "--model", base, "--arc", "p.json", "--out", "a", *FEW),
        *("--loss", "outputs", "--n-minus-1", "--validation", "p.json", "--merged", "m"),
    )
    assert said.code == 0, said.err
    card = model_card("m")
    assert card is not None
    assert card["task"] == 'arc(format="marked", layout=short)'


BAD = {**PUZZLE, "test": [{"input": [[4, 5], [6]], "output": [[5, 4]]}]}
ONE_PAIR = {**PUZZLE, "train": PUZZLE["train"][:1]}
BLIND = {**PUZZLE, "test": [{"input": [[4, 5]]}]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ((), {"blind": "test: no pair has an output to learn"}),
        (("--n-minus-1",), {"one": "train: a single pair, none to ask for"}),
    ],
)
def test_puzzles_that_cannot_be_trained_on_are_named_and_the_rest_goes_on(
    mull: Mull, base: Path, options: tuple[str, ...], left_out: dict[str, str]
) -> None:
    every = {"good": PUZZLE, "bad": BAD, "one": ONE_PAIR, "blind": BLIND}
    Path("p.json").write_text(json.dumps(every))
    Path("held.json").write_text(json.dumps({"good": PUZZLE, "odd": BAD}))
    said = mull("train", "lora", "--model", base, "--arc", "p.json", "--validation", "held.json",
                "--out", "a", *FEW, *options)  # fmt: skip
    assert said.code == 3
    left_out = {**left_out, "p.json: bad": "test 0 input: rows", "held.json: odd": "test 0 input"}
    assert all(f"mull: {name}: {why}" in said.err for name, why in left_out.items()), said.err
    assert said.err.count("\nmull: ") + said.err.startswith("mull: ") == len(left_out)
    stream = json.loads(Path("a/trained.json").read_text())["stream"]
    assert stream.startswith(f"{len(every) - 2} puzzles")


@pytest.mark.parametrize(
    ("puzzles", "options", "says"),
    [
        ({"bad": BAD}, (), "bad: test 0 input"),
        ({"blind": BLIND}, (), "blind: test: no pair has an output"),
        ({"one": ONE_PAIR}, ("--n-minus-1",), "one: train: a single pair"),
    ],
)
def test_no_puzzle_to_train_on_is_an_error(
    folder: Path, mull: Mull, base: Path, puzzles: object, options: tuple[str, ...], says: str
) -> None:
    Path("p.json").write_text(json.dumps(puzzles))
    said = refused(folder, mull, "train", "lora", "--model", base, "--arc", "p.json", "--out", "a",
                   *FEW, *options)  # fmt: skip
    assert says in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--data files or --arc puzzles"),
        (("--data", "x.jsonl", "--arc", "p.json"), "one kind of texts"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--data", "x.jsonl", "--generate", "3"), "give --validation"),
        (("--data", "x.jsonl", "--loss", "outputs"), "chats have answer or turns"),
        (("--arc", "p.json", "--loss", "turns"), "puzzles have answer or outputs"),
        (("--arc", "p.json", "--format", "runes"), "unknown puzzle format"),
        (("--data", "x.jsonl", "--schedule", "step"), "unknown schedule"),
        (("--data", "x.jsonl", "--rank", "2", "--start", "a"), "not both"),
        (("--data", "x.jsonl", "--steps", "0"), "steps must be positive"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(
    mull: Mull, base: Path, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = refused(folder, mull, "train", "lora", "--model", base, "--out", "a", *arguments)
    assert message in said.err


@pytest.mark.timeout(30)
def test_four_bits_without_a_gpu_are_refused(mull: Mull, base: Path) -> None:
    jsonl(Path("sums.jsonl"), *ROWS)
    said = mull(
        *("train", "lora", "--model", base, "--data", "sums.jsonl", "--out", "a", "--four-bit")
    )
    assert said.code == 2
    assert "need a CUDA device" in said.err
    assert not Path("a").exists()
