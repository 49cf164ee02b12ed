"""Reliability 35: nothing that is read can run code.

No pickle, dill, marshal, ``torch.load``, ``yaml.load``, ``eval``, ``exec`` or shell in the package;
a poisoned checkpoint in any of its usual shapes is refused before anything of it runs.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from mull.catalog import load_engine
from mull.errors import ModelLoadError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/mull"


def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_rules", ROOT / "tools/house_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_unsafe_call_stands_in_the_package() -> None:
    checker = rules()
    assert checker.forbidden() == []
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(SOURCE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "house-rule:" in line
    ]
    assert found == [], "an exception to these rules needs an argument here"


@pytest.mark.parametrize(
    "line",
    ["import pickle", "torch.load(f)", "yaml.load(f)", "eval(x)", "exec(x)", "run(x, shell=True)"],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert any(rules().broken_rule(node) for node in ast.walk(ast.parse(line)))


def test_ruff_finds_nothing_unsafe_either() -> None:
    """Flake8-bandit: exec, eval, pickle, marshal, shell, YAML, torch.load, unsafe requests."""
    chosen = "S102,S301,S302,S307,S312,S321,S323,S501,S506,S602,S604,S605,S609"
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", chosen]
    done = subprocess.run(
        [*command, str(SOURCE)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


class Poison:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


pytestmark = pytest.mark.timeout(60)  # the first of them imports torch

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
CODE = "from pathlib import Path\nPath({canary!r}).touch()\nclass LlamaForCausalLM: ...\n"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A directory with a config and a tokenizer, and no weights."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    vocabulary = {f"w{number}": number for number in range(300)}
    Tokenizer(WordLevel(vocabulary, "w0")).save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def refused(path: Path, canary: Path, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        load_engine(str(path))
    assert str(path) in str(caught.value)
    assert not canary.exists(), "code of the checkpoint ran"


def test_without_poison_it_loads(checkpoint: Path) -> None:
    """Otherwise the refusals below could have other reasons."""
    weights(checkpoint)
    assert load_engine(str(checkpoint)).info.parameters > 0


NAMES = ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_checkpoint_is_refused(checkpoint: Path, canary: Path, name: str) -> None:
    (checkpoint / name).write_bytes(pickle.dumps(Poison(canary)))
    refused(checkpoint, canary, f"pickle checkpoint .{name}")


def test_the_poison_is_real(canary: Path) -> None:
    """Otherwise the tests above could not fail."""
    pickle.loads(pickle.dumps(Poison(canary)))  # noqa: S301 - our own poison
    assert canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_file_is_no_model(tmp_path: Path, canary: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Poison(canary)))
    refused(path, canary, path.name)


def test_a_pickle_that_calls_itself_safetensors_is_refused(checkpoint: Path, canary: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Poison(canary)))
    refused(checkpoint, canary, "safetensors")


def test_remote_code_in_the_config_is_refused(checkpoint: Path, canary: Path) -> None:
    """Even beside weights that would load."""
    remote = {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling_x.LlamaForCausalLM"}}
    (checkpoint / "config.json").write_text(json.dumps(remote))
    (checkpoint / "modeling_x.py").write_text(CODE.format(canary=str(canary)))
    weights(checkpoint)
    refused(checkpoint, canary, "auto_map")


def test_remote_code_in_the_tokenizer_is_refused(checkpoint: Path, canary: Path) -> None:
    remote = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenizer_class": "X"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(remote))
    (checkpoint / "tokenization_x.py").write_text(CODE.format(canary=str(canary)))
    weights(checkpoint)
    refused(checkpoint, canary, "auto_map")


def test_a_yaml_object_is_no_config(checkpoint: Path, canary: Path) -> None:
    poison = f"!!python/object/apply:os.system ['touch {canary}']\n"
    (checkpoint / "config.json").write_text(poison)
    (checkpoint / "config.yaml").write_text(poison)
    refused(checkpoint, canary, "config.json")


def test_an_index_that_leaves_the_directory_is_refused(checkpoint: Path, canary: Path) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": "../../outside.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, canary, "outside its directory")


def weights(path: Path) -> None:
    """Tensors of the config's shapes, in safetensors."""
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    layer = "model.layers.0"
    square = [f"{layer}.self_attn.{name}_proj.weight" for name in "qkvo"]
    tensors = {name: torch.zeros(width, width) for name in square}
    tensors |= {
        f"{layer}.mlp.{name}_proj.weight": torch.zeros(inner, width) for name in ("gate", "up")
    }
    tensors[f"{layer}.mlp.down_proj.weight"] = torch.zeros(width, inner)
    for name in (f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", "model.norm"):
        tensors[f"{name}.weight"] = torch.ones(width)
    tensors["model.embed_tokens.weight"] = torch.zeros(CONFIG["vocab_size"], width)
    save_file(tensors, str(path / "model.safetensors"))
