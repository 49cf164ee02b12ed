"""Laws of adapters: merged at load they say what peft's model says; half of one is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mull.catalog import load_engine
from mull.engines.torch.adapter import CONFIG, WEIGHTS
from mull.engines.torch.config import read_config
from mull.engines.torch.load import load_model
from mull.errors import ModelLoadError

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rs-lora": {"use_rslora": True},
    "dora": {"use_dora": True, "target_modules": "all-linear"},
}


def adapter_of(base: Path, folder: Path, **options: Any) -> Any:
    """A random adapter of a model, saved by peft itself; the model with it."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], **options}
    model = transformers.AutoModelForCausalLM.from_pretrained(str(base))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft uses a name that transformers will drop
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0.0, 0.1)
                elif "magnitude" in name:
                    weight.mul_(1.0 + 0.2 * torch.rand_like(weight))
        model.save_pretrained(str(folder), save_embedding_layers=False)
    return model.eval()


@pytest.fixture(scope="module")
def base(checkpoints: Callable[..., Path]) -> Path:
    return checkpoints("qwen2")


@pytest.fixture
def saved(base: Path, tmp_path: Path) -> Path:
    adapter_of(base, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_engine_with_an_adapter_has_the_logits_of_peft(
    kind: str, base: Path, tmp_path: Path
) -> None:
    model = adapter_of(base, tmp_path / "a", **KINDS[kind])
    ids = torch.randint(4, 30, (1, 17))
    engine = load_engine(str(base), adapter=str(tmp_path / "a"), dtype="float32", device="cpu")
    ours = engine.model  # type: ignore[attr-defined]
    c = ours.config
    keys = torch.zeros(c.layers, 1, c.kv_heads, c.head_dim, 32)
    values = torch.zeros(c.layers, 1, c.kv_heads, 32, c.head_dim)
    logits = ours.logits(ours.forward(ids, torch.arange(17)[None], keys, values, 17))
    torch.testing.assert_close(logits, model(ids).logits, atol=1e-4, rtol=1e-4)
    plain = transformers.AutoModelForCausalLM.from_pretrained(str(base))
    assert (plain(ids).logits - logits).abs().max() > 1e-2


def test_the_identity_names_the_adapter_and_its_weights(base: Path, saved: Path) -> None:
    def identity() -> tuple[str, ...]:
        return load_engine(str(base), adapter=str(saved), device="cpu").info.identity

    before = identity()
    assert any(part.startswith("adapter@") for part in before)
    assert identity() == before != load_engine(str(base), device="cpu").info.identity
    save_file({n: t * 2 for n, t in load_file(saved / WEIGHTS).items()}, saved / WEIGHTS)
    assert identity() != before


def set_config(folder: Path, **fields: Any) -> None:
    raw = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**raw, **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "kind 'IA3'; expected LORA"),
        ({"modules_to_save": ["lm_head"], "bias": "all"}, "modules_to_save, bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"r": 5}, "expected \\(5, 32\\)"),
        ({"r": 0}, "missing or bad field"),
        ({"use_dora": True}, "lora_magnitude_vector is missing"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    base: Path, saved: Path, fields: dict[str, Any], said: str
) -> None:
    set_config(saved, **fields)
    with pytest.raises(ModelLoadError, match=said):
        load_engine(str(base), adapter=str(saved), device="cpu")


def test_an_adapter_of_another_model_is_refused(
    checkpoints: Callable[..., Path], saved: Path
) -> None:
    other = checkpoints("qwen2", num_hidden_layers=1)
    with pytest.raises(ModelLoadError, match="no place in this model"):
        load_engine(str(other), adapter=str(saved), device="cpu")


def test_a_pickle_and_an_empty_directory_are_refused(base: Path, saved: Path) -> None:
    (saved / WEIGHTS).rename(saved / "adapter_model.bin")
    with pytest.raises(ModelLoadError, match="a pickle can run code"):
        load_engine(str(base), adapter=str(saved), device="cpu")
    shutil.rmtree(saved)
    with pytest.raises(ModelLoadError, match="no adapter directory"):
        load_engine(str(base), adapter=str(saved), device="cpu")


def test_values_that_are_no_numbers_are_refused(base: Path, saved: Path) -> None:
    save_file({n: t * torch.nan for n, t in load_file(saved / WEIGHTS).items()}, saved / WEIGHTS)
    with pytest.raises(ModelLoadError, match="no numbers"):
        load_engine(str(base), adapter=str(saved), device="cpu")


def test_an_adapter_given_as_a_model_says_how_it_is_loaded(saved: Path) -> None:
    with pytest.raises(ModelLoadError, match="load the model that it was trained on"):
        load_engine(str(saved), device="cpu")


def test_without_an_adapter_nothing_changes(base: Path) -> None:
    config = read_config(base)
    place = torch.device("cpu")
    one = load_model(base, config, torch.float32, place)
    two = load_model(base, config, torch.float32, place, None)
    assert torch.equal(one.embedding, two.embedding)
