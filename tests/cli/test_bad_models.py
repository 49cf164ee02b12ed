"""No model in a directory, or a training that cannot be: one line, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command import Mull, refused, toml

# Imported while tests are collected, so that no test pays for it.
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("mull.engines.torch.open")
pytest.importorskip("mull.training.policy")


def models() -> dict[str, tuple[Callable[[Path], None], list[str]]]:
    """Directories that hold no model, and what must be said of them."""

    def config(path: Path) -> None:
        fields = {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": 8,
            "max_position_embeddings": 16,
        }
        (path / "config.json").write_text(json.dumps(fields))

    def tokenizer(path: Path) -> None:
        model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
        (path / "tokenizer.json").write_text(
            json.dumps({"version": "1.0", "added_tokens": [], "model": model})
        )

    def empty(path: Path) -> None:
        pass

    def no_json(path: Path) -> None:
        (path / "config.json").write_text("{")

    def pickled(name: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            config(path)
            tokenizer(path)
            (path / name).write_bytes(b"\x80\x04cos\nsystem\n")

        return make

    def no_weights(path: Path) -> None:
        config(path)
        tokenizer(path)

    def broken(path: Path) -> None:
        no_weights(path)
        (path / "model.safetensors").write_bytes(b"\xff" * 64)

    def foreign(path: Path) -> None:
        (path / "config.json").write_text('{"model_type": "mamba"}')

    return {
        "empty": (empty, ["config.json", "safetensors"]),
        "no-json": (no_json, ["config.json", "JSON"]),
        "bin": (pickled("pytorch_model.bin"), ["pickle", "pytorch_model.bin", "safe"]),
        "pt": (pickled("model.pt"), ["pickle", "model.pt", "safe"]),
        "no-weights": (no_weights, ["safetensors"]),
        "broken": (broken, ["safetensors"]),
        "foreign": (foreign, ["mamba", "llama"]),
    }


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", models())
def test_a_directory_that_is_no_model(kind: str, folder: Path, mull: Mull) -> None:
    make, words = models()[kind]
    place = folder / "model"
    place.mkdir()
    make(place)
    config = toml(folder / "run.toml", model=str(place))
    for command in (
        ["solve", "x", "--model", place],
        ["run", config, "--out", "made"],
        ["run", config, "--dry-run"],
    ):
        said = refused(folder, mull, *command)
        assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "nosuch"], ["unknown task"]),
        (["--task", "gsm8k"], ["gsm8k", "words or countdown"]),
        (["--size", "xl"], ["'xl'", "s, m, l"]),
        (["--tokens", "0"], ["tokens", "positive"]),
        (["--batch-tokens", "-4"], ["batch_tokens", "positive"]),
        (["--precision", "int8"], ["bfloat16 or float32"]),
        (["--threads", "0"], ["threads", "at least 1"]),
        (["--out", "file"], ["file", "directory"]),
    ],
)
def test_train(options: list[str], words: list[str], folder: Path, mull: Mull) -> None:
    (folder / "file").write_text("x")
    given = ["--task", "words", "--out", "made", *options]
    said = refused(folder, mull, "train", "policy", *given)
    assert all(word in said.err for word in words), said.err
