"""The lean Llama is the Llama of ``transformers``."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mull.errors import ModelLoadError
from mull.training.model import Llama, Shape, load_model, save_model

SHAPE = Shape(vocabulary=50, width=32, layers=3, heads=4, hidden=64, context=64)


@pytest.fixture
def model() -> Llama:
    model = Llama(SHAPE)
    model.initialise(seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float() * 3)
            weight.copy_(weight.bfloat16().float())
    return model


def test_saved_weights_give_the_same_logits_in_transformers(model: Llama, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(theirs, LlamaForCausalLM)
    ids = torch.randint(0, 50, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_saved_weights_come_back(model: Llama, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    back = load_model(tmp_path)
    assert back.shape == SHAPE
    for (name, one), two in zip(model.named_parameters(), back.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_parameters_are_counted(model: Llama) -> None:
    assert sum(w.numel() for w in model.parameters()) == SHAPE.parameters


def test_nothing_looks_ahead(model: Llama) -> None:
    ids = torch.randint(0, 50, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[0, 10:] = 7
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, :10], model(changed)[:, :10])


def test_initial_weights_depend_on_the_seed_only() -> None:
    one, two, other = Llama(SHAPE), Llama(SHAPE), Llama(SHAPE)
    for model, seed in ((one, 5), (two, 5), (other, 6)):
        model.initialise(seed)
    ids = torch.arange(10)[None]
    assert torch.equal(one(ids), two(ids))
    assert not torch.equal(one(ids), other(ids))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="holds no model"):
        load_model(tmp_path)


def test_width_and_heads_must_fit() -> None:
    with pytest.raises(ValueError, match="heads"):
        Shape(vocabulary=10, width=30, heads=4)
