"""What is no safe model of ours is refused in one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mull.engines.torch import load_torch_engine
from mull.errors import ModelLoadError

torch = pytest.importorskip("torch")


@pytest.fixture
def copy(checkpoints: Callable[..., Path], tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(checkpoints("qwen2"), target)
    return target


def edit(path: Path, name: str, **changes: Any) -> None:
    raw = json.loads((path / name).read_text())
    raw.update(changes)
    (path / name).write_text(json.dumps(raw))


def refuse(path: Path, words: str, **options: Any) -> None:
    with pytest.raises(ModelLoadError, match=words) as caught:
        load_torch_engine(path, **options)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    refuse(tmp_path, "no model directory.*expected a Hugging Face checkpoint")
    refuse(tmp_path / "absent", "no model directory")


def test_35_a_pickle_checkpoint_is_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    # Were it opened, it would raise something else than our refusal.
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04c__builtin__\nexec\n")
    refuse(copy, "pickle checkpoint.*safetensors only")


def test_35_remote_code_is_refused(copy: Path) -> None:
    edit(copy, "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    refuse(copy, "remote code")


def test_35_a_tokenizer_with_remote_code_is_refused(copy: Path) -> None:
    edit(copy, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    refuse(copy, "remote code")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported.*llama, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "'gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_attention_heads": "many"}, "missing or bad field"),
        ({"hidden_size": 64}, "has shape .*config.json says"),
        ({"num_hidden_layers": 3}, "layers.2.* is missing"),
        ({"num_hidden_layers": 1}, "has no place"),
    ],
)
def test_a_config_that_does_not_fit_is_named(
    copy: Path, changes: dict[str, Any], words: str
) -> None:
    edit(copy, "config.json", **changes)
    refuse(copy, words)


def test_a_cut_weight_file_is_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    refuse(copy, "no readable safetensors")


def test_an_index_cannot_point_outside_the_directory(copy: Path) -> None:
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": "../secret.safetensors"}})
    )
    refuse(copy, "outside its directory")


def test_weights_that_are_no_numbers_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(copy / "model.safetensors"))
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, str(copy / "model.safetensors"))
    refuse(copy, "model.norm.weight holds values that are no numbers")


def test_a_missing_tokenizer_is_named(copy: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    refuse(copy, "no tokenizer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, "dtype must be"),
        ({"device": "tpu"}, "device must be"),
        ({"slots": 0}, "slots must be"),
        ({"memory_cap": 0}, "memory_cap must be"),
        ({"context": 100000}, "context must lie in"),
    ],
)
def test_bad_options_are_named(copy: Path, options: dict[str, Any], words: str) -> None:
    refuse(copy, words, **options)


def test_two_loads_have_one_identity_and_other_weights_another(
    checkpoints: Callable[..., Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 24}
    path = checkpoints("qwen2")
    first, second = (load_torch_engine(path, **options) for _ in range(2))
    other = load_torch_engine(checkpoints("qwen2", seed=1), name=first.info.model, **options)
    assert first.info.identity == second.info.identity
    assert first.info.identity != other.info.identity


def test_parameters_counted_are_those_that_multiply(
    checkpoints: Callable[..., Path], engines: Callable[..., Any]
) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(str(checkpoints("qwen3")))
    matrices = sum(
        p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name
    )
    assert engines("qwen3").info.parameters == matrices
