"""Training a policy on: it starts where the policy was, takes longer texts, and records its way."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from mull.catalog.models import model_folder
from mull.errors import ConfigError, InputError
from mull.tasks.demonstrations import demonstrations
from mull.tasks.words import WordsTask
from mull.training import policy
from mull.training.data import Example, encode, fitting
from mull.training.finetune import FineTune, fine_tune
from mull.training.loop import held_out_loss
from mull.training.model import load_model
from mull.training.policy import TrainPolicy, train_policy
from mull.training.tokenizer import load_tokenizer

TASK = WordsTask(levels=(1,))
pytestmark = pytest.mark.timeout(60)  # whoever comes first trains the base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    examples = list(islice(demonstrations(TASK), 80))
    with pytest.MonkeyPatch.context() as patch:
        tiny = {"width": 16, "layers": 2, "heads": 2, "hidden": 32}
        patch.setitem(policy.SIZES, "s", tiny)
        texts = [e.prompt + e.solution for e in examples]
        train_policy(TrainPolicy(tokens=8_000), examples, texts, folder)
    return folder


def examples(count: int, seed: int) -> list[Example]:
    return list(islice(demonstrations(TASK, seed), count))


def test_it_goes_on_from_the_policy_and_gets_better(base: Path, tmp_path: Path) -> None:
    held = examples(30, 7)
    corpus = encode(held, load_tokenizer(base), 1 << 62)
    before = held_out_loss(load_model(base), corpus)
    config = FineTune(base, tokens=15_000, checks=3, context=600, batch_tokens=512)
    tuned = fine_tune(config, examples(200, 1), held, tmp_path)
    assert tuned.validation[-1] < before
    assert len(tuned.validation) >= 3
    assert tuned.config["base"] == base.name
    model = load_model(tmp_path)
    assert model.shape.context == 600
    # What is written is bfloat16: the loss is that of the training to three digits.
    assert held_out_loss(model, corpus) == pytest.approx(tuned.validation[-1], abs=0.02)


def test_a_longer_context_changes_no_number(base: Path, tmp_path: Path) -> None:
    config = FineTune(base, tokens=1, checks=1, matrix_rate=1e-12, rate=1e-12)
    fine_tune(config, examples(20, 1), examples(5, 2), tmp_path)
    ids = torch.arange(4, 30)[None]
    torch.testing.assert_close(load_model(tmp_path)(ids), load_model(base)(ids))


def test_what_is_too_long_is_left_out(base: Path) -> None:
    corpus = encode(examples(40, 3), load_tokenizer(base), 1 << 62)
    middle = int(sorted(corpus.lengths)[20])
    short = fitting(corpus, middle)
    assert 0 < len(short) < len(corpus)
    assert short.lengths.max() <= middle
    assert short.tokens == int(short.lengths.sum())
    with pytest.raises(InputError, match="longer than the context of 3"):
        fitting(corpus, 3)


def test_a_shorter_context_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="less than the base"):
        fine_tune(FineTune(base, tokens=10, context=64), examples(5, 1), examples(5, 2), tmp_path)


def test_a_model_of_grids_is_sent_to_the_command_that_trains_it_further(tmp_path: Path) -> None:
    config = FineTune(model_folder("arc-m"), tokens=10, context=8192)
    texts = [Example("0", "1")]
    with pytest.raises(ConfigError, match=r"arc-m: a model of grids; .* mull arc adapt"):
        fine_tune(config, texts, texts, tmp_path)
