"""Training a model on at test time: it learns what the texts say, the same way every time."""

from __future__ import annotations

import json
import random
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests.tiny_model import tiny_model

from mull.engines.adapt import AdaptRecipe, Parts, TrainStep
from mull.errors import ConfigError, InputError, SpecError
from mull.training.adapt import adapt_model, adapted, adapted_weights, trainable
from mull.training.data import encode_parts
from mull.training.loop import held_out_loss
from mull.training.model import load_model
from mull.training.tokenizer import load_tokenizer

# The first optimizer of a process loads this, slowly: here no test's time limit runs.
import_module("torch._dynamo")
QUICK = AdaptRecipe(steps=100, batch_tokens=512, matrix_rate=2e-2, rate=1e-2)
SHORT = AdaptRecipe(steps=3, batch_tokens=128)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def copies(count: int, seed: int) -> list[Parts]:
    """Texts of one rule: what stands before the sign comes again behind it."""
    rng = random.Random(seed)
    grids = ["".join(rng.choices("123456789", k=4)) for _ in range(count)]
    return [Parts(((f"<{grid}=", False), (f"{grid}>", True))) for grid in grids]


def test_a_tiny_model_learns_to_copy_what_it_never_saw(base: Path) -> None:
    held = encode_parts(copies(50, seed=1), load_tokenizer(base), 1 << 62)
    before = held_out_loss(load_model(base), held)
    after = held_out_loss(adapted(base, copies(400, seed=0), QUICK), held)
    assert before > 2.0
    assert after < 0.05


def test_equal_texts_and_recipes_give_equal_weights(base: Path) -> None:
    first, again = (adapted_weights(base, copies(9, 0), SHORT, "cpu", go) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = adapted_weights(base, copies(9, 1), SHORT, "cpu", go)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def go(step: TrainStep) -> bool:
    return True


def test_it_tells_of_every_step_and_may_be_ended(base: Path) -> None:
    told: list[TrainStep] = []

    def two(step: TrainStep) -> bool:
        told.append(step)
        return len(told) < 2

    adapted(base, copies(40, 0), SHORT, on_step=two)
    assert len(told) == 2
    told.clear()
    adapted(base, copies(40, 0), SHORT, on_step=lambda step: not told.append(step))  # type: ignore[func-returns-value]
    assert len(told) == SHORT.steps
    # <bos>, a mark, four cells, a sign, four cells, a mark: twelve tokens a text.
    assert all(step.tokens == 12 * step.texts <= SHORT.batch_tokens for step in told)


def test_the_base_is_left_as_it_was(base: Path) -> None:
    before = (base / "model.safetensors").read_bytes()
    adapted(base, copies(9, 0), SHORT)
    assert (base / "model.safetensors").read_bytes() == before


def test_a_folder_is_written_that_loads_again(base: Path, tmp_path: Path) -> None:
    made = adapt_model(base, copies(9, 0), SHORT, tmp_path / "out")
    read = load_model(tmp_path / "out")
    assert read.shape == made.shape
    assert trainable(tmp_path / "out")


def test_texts_that_are_too_long_are_left_out(base: Path) -> None:
    long = Parts((("1" * 200, True),))
    adapted(base, [long, *copies(3, 0)], SHORT)
    for texts in ([long], []):
        with pytest.raises(InputError):
            adapted(base, texts, SHORT)


def test_what_is_outside_the_vocabulary_is_said(base: Path) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        adapted(base, [Parts((("hello", True),))], SHORT)


def test_a_training_that_diverges_is_an_error(base: Path) -> None:
    with pytest.raises(ConfigError, match="lower matrix_rate"):
        adapted(base, copies(40, 0), AdaptRecipe(40, 128, 1e30, 1e30))


def test_only_models_of_the_shape_trained_here_are_trainable(base: Path, tmp_path: Path) -> None:
    assert trainable(base)
    assert not trainable(tmp_path)
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    for field, value in [
        ("model_type", "qwen2"),
        ("attention_bias", False),
        ("num_key_value_heads", 1),
        ("tie_word_embeddings", False),
        ("rope_theta", 500_000.0),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("head_dim", 64),
        ("num_attention_heads", 0),
        ("hidden_size", "wide"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
        assert not trainable(tmp_path), field
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert trainable(tmp_path)


@pytest.mark.parametrize("field", ["steps", "batch_tokens", "matrix_rate", "rate"])
def test_a_recipe_that_cannot_be_is_refused(field: str) -> None:
    for value in (0, -1):
        with pytest.raises(SpecError, match=field):
            AdaptRecipe(**{field: value})
