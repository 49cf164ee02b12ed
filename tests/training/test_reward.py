"""A reward model: labels stand where steps end, the loss is theirs, the engine reads it alike."""

from __future__ import annotations

import asyncio
import math
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mull.budget import Ledger, Meter, Purpose
from mull.catalog.models import model_folder
from mull.engines.torch import load_torch_engine
from mull.errors import ConfigError, InputError, ModelLoadError
from mull.tasks.demonstrations import demonstrations
from mull.tasks.words import WordsTask
from mull.training import policy, reward
from mull.training.data import Batch, Labelled, batches
from mull.training.loop import next_token
from mull.training.model import Shape
from mull.training.reward import (
    RewardLoss,
    RewardModel,
    TrainReward,
    encode_labelled,
    read_values,
    train_reward,
    value_loss,
)
from mull.training.tokenizer import build_tokenizer, save_tokenizer
from mull.types import Prompt, ScoreRequest

TINY = {"width": 16, "layers": 2, "heads": 2, "hidden": 32}
TASK = WordsTask(levels=(1, 2))


def examples(count: int, seed: int = 0) -> list[Labelled]:
    """Right solutions, and the same with a last line that is not: told apart by one word."""
    rng = random.Random(seed)
    out = []
    for each in islice(demonstrations(TASK, seed), count):
        steps = each.solution.splitlines(keepends=True)
        right = rng.random() < 0.5
        if not right:
            steps[-1] = "answer 0\n"
        labels = (*[1.0] * (len(steps) - 1), float(right))
        out.append(Labelled(each.prompt, "".join(steps), labels))
    return out


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [e.prompt + e.solution + "answer 0\n" for e in islice(demonstrations(TASK), 400)]
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(build_tokenizer(texts), folder, 512)
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(policy.SIZES, "s", TINY)


def test_labels_stand_on_the_tokens_that_end_the_steps(tokenizer_folder: Path) -> None:
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    (given,) = examples(1)
    corpus = encode_labelled([given], tokenizer)
    assert corpus.labels is not None
    at = np.flatnonzero(np.isfinite(corpus.labels))
    newline = tokenizer.token_to_id("\n")
    solution = corpus.ids[corpus.prompts[0] :]
    ends = corpus.prompts[0] + np.flatnonzero(solution == newline)
    assert at.tolist() == [*ends.tolist(), corpus.tokens - 1]
    assert corpus.labels[at].tolist() == [*given.labels, given.labels[-1]]


def test_exact_tokens_are_labelled_as_the_text_is(tokenizer_folder: Path) -> None:
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    given = examples(20)
    end = tokenizer.token_to_id("<eos>")
    made = [
        Labelled(
            e.prompt,
            e.solution,
            e.labels,
            ids=(*tokenizer.encode(e.solution, add_special_tokens=False).ids, end),
        )
        for e in given
    ]
    a, b = encode_labelled(given, tokenizer), encode_labelled(made, tokenizer)
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("labels", [(1.0,), (1.0, 1.0, 1.0), (1.0, 2.0), (1.0, -0.1)])
def test_labels_that_do_not_fit_are_refused(
    labels: tuple[float, ...], tokenizer_folder: Path
) -> None:
    given = next(e for e in examples(50) if len(e.labels) == 2)
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    with pytest.raises(InputError, match="labels"):
        encode_labelled([Labelled(given.prompt, given.solution, labels)], tokenizer)


def test_a_head_that_knows_nothing_says_one_half(tokenizer_folder: Path) -> None:
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    corpus = encode_labelled(examples(8), tokenizer)
    model = RewardModel(Shape(tokenizer.get_vocab_size(), context=512, **TINY))
    model.initialise(0)
    torch.nn.init.zeros_(model.value_head.weight)
    (batch,) = islice(batches(corpus, 100_000, 0), 1)
    assert value_loss(model, batch).item() == pytest.approx(math.log(2))


def test_a_language_modelling_loss_of_right_solutions_alone_is_added(
    tokenizer_folder: Path,
) -> None:
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    model = RewardModel(Shape(tokenizer.get_vocab_size(), context=512, **TINY))
    model.initialise(0)
    shown = examples(40)
    right = [each for each in shown if each.labels[-1] == 1.0]
    wrong = [each for each in shown if each.labels[-1] == 0.0]
    assert right and wrong

    def one(those: list[Labelled]) -> Batch:
        (batch,) = islice(batches(encode_labelled(those, tokenizer), 1_000_000, 0), 1)
        return batch

    for those in (right, wrong, shown):
        batch = one(those)
        added = RewardLoss(0.5)(model, batch) - value_loss(model, batch)
        expected = 0.5 * next_token(model, one(right)) if those is not wrong else torch.zeros(())
        assert added.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("tiny")
def test_it_learns_and_the_engine_reads_what_training_read(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    config = TrainReward(tokens=80_000, checks=4, batch_tokens=512, matrix_rate=8e-3, rate=8e-3)
    trained = train_reward(config, examples(400), examples(60, 9), tokenizer_folder, tmp_path)
    assert trained.best == min(trained.validation)
    assert trained.best < 0.7 * trained.validation[0]

    shown = examples(6, 5)
    model = RewardModel.of_folder(tmp_path)
    expected = read_values(model, encode_labelled(shown, reward.load_tokenizer(tokenizer_folder)))

    async def read() -> list[tuple[float, ...]]:
        engine = load_torch_engine(tmp_path, dtype="float32")
        meter = Meter(Ledger(), Purpose.VERIFIER, engine.info)
        asked = [ScoreRequest(Prompt.of(e.prompt), e.solution, values=True) for e in shown]
        scored = await engine.score(asked, meter)
        await engine.aclose()
        return [each.values for each in scored]

    for ours, theirs in zip(expected, asyncio.run(read()), strict=True):
        assert theirs == pytest.approx(ours[:-1].tolist(), abs=1e-4)


@pytest.mark.parametrize(("name", "size"), [("words-s", "s"), ("words-m", "m"), ("words-l", "l")])
def test_a_base_fixes_the_size_and_so_the_rates(name: str, size: str) -> None:
    config = TrainReward(base=model_folder(name))
    alone = TrainReward(size=size)
    assert config.facts()["size"] == alone.facts()["size"] == size
    assert config.recipe() == alone.recipe()


def test_a_bad_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown size"):
        TrainReward(size="xxl")
    with pytest.raises(ConfigError, match="size l: the size is that of the base words-s"):
        TrainReward(base=model_folder("words-s"), size="l")
    with pytest.raises(ModelLoadError, match="holds no model"):
        TrainReward(base=Path("nowhere"))
    with pytest.raises(ConfigError, match="patience must be at least 1"):
        TrainReward(patience=0)
    for weight in (-0.1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="lm_weight must be 0 or more"):
            TrainReward(lm_weight=weight)
