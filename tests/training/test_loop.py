"""Laws of the training loop: padding is free, a resumed training is the unbroken one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mull.errors import ConfigError, ModelLoadError
from mull.training import CHECKPOINT
from mull.training.data import IGNORED, Corpus, Example, encode
from mull.training.journal import LOG, Progress
from mull.training.loop import Recipe, Trainer, fit, loss_of
from mull.training.model import Llama, Shape
from mull.training.reward import ValueLoss
from mull.training.tokenizer import build_tokenizer

RECIPE = Recipe(tokens=2000, batch_tokens=160)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    examples = [Example(f"{n} plus 1", f" = {n + 1}\n") for n in range(100)]
    tokenizer = build_tokenizer(e.prompt + e.solution for e in examples)
    return encode(examples, tokenizer, 10**6)


def fresh(corpus: Corpus, recipe: Recipe = RECIPE) -> Trainer:
    model = Llama(Shape(vocabulary=64, width=16, layers=2, heads=2, hidden=32, context=64))
    model.initialise(seed=0)
    return Trainer(model, corpus, recipe)


def test_padding_changes_no_loss(corpus: Corpus) -> None:
    model = fresh(corpus).model
    ids = torch.randint(4, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    targets = ids.roll(-1, 1)
    targets[:, -1] = IGNORED
    padded = torch.nn.functional.pad(ids, (0, 9), value=0)
    ignored = torch.nn.functional.pad(targets, (0, 9), value=IGNORED)
    torch.testing.assert_close(loss_of(model, ids, targets), loss_of(model, padded, ignored))


def test_a_batch_of_padding_only_moves_nothing(corpus: Corpus) -> None:
    model = fresh(corpus).model
    ids = torch.zeros((2, 8), dtype=torch.long)
    targets = torch.full((2, 8), IGNORED)
    targets[0, 0] = 5
    loss_of(model, ids, targets).backward()
    one = [w.grad.clone() for w in model.parameters() if w.grad is not None]
    model.zero_grad()
    loss_of(model, ids[:1, :4], targets[:1, :4]).backward()
    two = [w.grad for w in model.parameters() if w.grad is not None]
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)


class PowerCut(Exception):
    """Stands for whatever ends a process."""


def checkpointed(trainer: Trainer, folder: Path, step: int = 8) -> None:
    """Cut a training at a log line, and leave its checkpoint in a folder."""

    def cut(progress: Progress) -> None:
        if progress.step >= step:
            raise PowerCut

    with pytest.raises(PowerCut):
        fit(trainer, folder, log_every=2, checkpoint_seconds=0, on_progress=cut)
    assert (folder / CHECKPOINT).exists()


def test_a_resumed_training_gives_the_weights_of_an_unbroken_one(
    corpus: Corpus, tmp_path: Path
) -> None:
    unbroken = fresh(corpus)
    fit(unbroken, tmp_path / "one", log_every=2)
    checkpointed(fresh(corpus), tmp_path / "two")
    resumed = fresh(corpus)
    fit(resumed, tmp_path / "two", log_every=2)
    assert resumed.step == unbroken.step
    for one, two in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)

    def losses(folder: str) -> list[tuple[int, float]]:
        rows = map(json.loads, (tmp_path / folder / LOG).read_text().splitlines())
        return [(row["step"], row["loss"]) for row in rows]

    assert losses("one") == losses("two")
    assert not (tmp_path / "two" / CHECKPOINT).exists()


def test_training_lowers_the_loss(corpus: Corpus) -> None:
    values = list(fresh(corpus, replace(RECIPE, tokens=12_000)).run())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


def test_a_checkpoint_of_another_shape_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    other = Llama(Shape(vocabulary=64, width=32, layers=1, heads=2, hidden=32, context=64))
    checkpointed(Trainer(other, corpus, RECIPE), tmp_path)
    with pytest.raises(ModelLoadError, match="remove it to start over"):
        fit(fresh(corpus), tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", 0), ("batch_tokens", -1), ("rate", float("nan")), ("precision", "float16")],
)
def test_bad_recipes_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(RECIPE, **{field: value})


def test_a_checkpoint_of_another_recipe_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """Otherwise the weights would be of neither recipe, and the record would name the second."""
    trainer = fresh(corpus)
    checkpointed(trainer, tmp_path)
    other = Trainer(trainer.model, corpus, replace(trainer.recipe, rate=7e-3))
    with pytest.raises(ModelLoadError, match=r"another training: rate .* -> 0.007"):
        fit(other, tmp_path)
    fewer = Trainer(trainer.model, corpus.rows(range(3)), trainer.recipe)
    with pytest.raises(ModelLoadError, match=r"corpus 100 examples .* -> 3 examples"):
        fit(fewer, tmp_path)
    aimed = Trainer(trainer.model, corpus, trainer.recipe, ValueLoss())
    with pytest.raises(ModelLoadError, match=r"next_token -> ValueLoss\(logprobs=True\)"):
        fit(aimed, tmp_path)


def test_a_training_that_diverges_is_an_error_and_its_weights_are_those_before(
    corpus: Corpus, tmp_path: Path
) -> None:
    trainer = fresh(corpus, replace(RECIPE, rate=1e30, matrix_rate=1e30))
    with pytest.raises(ConfigError, match=r"diverged: .*: lower matrix_rate and rate"):
        fit(trainer, tmp_path, log_every=1, checkpoint_seconds=0)
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())
    assert "NaN" not in (tmp_path / LOG).read_text()


@pytest.mark.parametrize("name", ["ids", "prompts", "labels", "said"])
def test_a_checkpoint_of_other_data_is_refused_though_as_long(
    corpus: Corpus, tmp_path: Path, name: str
) -> None:
    tokens = len(corpus.ids)
    whole = replace(corpus, labels=np.zeros(tokens, np.float32), said=np.ones(tokens, np.bool_))
    array = getattr(whole, name).copy()
    array[-1] = not array[-1]
    trainer = fresh(whole)
    checkpointed(trainer, tmp_path)
    with pytest.raises(ModelLoadError, match="another training: corpus"):
        fit(fresh(replace(whole, **{name: array})), tmp_path)


def test_a_checkpoint_from_another_base_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    checkpointed(fresh(corpus), tmp_path)
    model = fresh(corpus).model
    with pytest.raises(ModelLoadError, match="another training: base None -> 1f"):
        fit(Trainer(model, corpus, RECIPE, base="1f"), tmp_path)
