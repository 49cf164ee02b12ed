"""A reward model: labels stand where steps end, the loss is theirs, the engine reads it alike."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mull.budget import Ledger, Meter, Purpose
from mull.catalog.models import model_folder
from mull.engines.torch import load_torch_engine
from mull.errors import ConfigError, InputError, ModelLoadError
from mull.tasks.demonstrations import demonstrations
from mull.tasks.words import WordsTask
from mull.training import policy, reward
from mull.training.data import Labelled, batches, collate
from mull.training.model import Shape, save_model
from mull.training.reward import (
    RewardModel,
    TrainReward,
    ValueLoss,
    encode_labelled,
    train_reward,
)
from mull.training.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
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
    (batch,) = islice(batches(corpus, 100_000, 0), 1)
    assert ValueLoss()(model, batch).item() == pytest.approx(math.log(2))


def test_the_likelihood_is_of_the_solution_up_to_each_token(tokenizer_folder: Path) -> None:
    tokenizer = reward.load_tokenizer(tokenizer_folder)
    model = RewardModel(Shape(tokenizer.get_vocab_size(), context=512, **TINY))
    model.initialise(0)
    corpus = encode_labelled(examples(3), tokenizer)
    batch = collate(corpus, np.arange(3))
    ids, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    with torch.no_grad():
        table = torch.log_softmax(model(ids), -1)
        likely = model.likelihood(model.hidden(ids), targets)
    for row, (prompt, length) in enumerate(zip(corpus.prompts, corpus.lengths, strict=True)):
        assert likely[row, :prompt].abs().max() == 0
        for at in range(prompt, length):
            expected = sum(table[row, i - 1, ids[row, i]] for i in range(prompt, at + 1))
            assert likely[row, at].item() == pytest.approx(float(expected), rel=1e-4)


def test_a_head_starts_from_what_the_likelihood_says() -> None:
    """Better than one half throughout, and no weight of the trunk has moved."""
    tokenizer = load_tokenizer(model_folder("words-m"))
    model = RewardModel.of_policy(model_folder("words-m"))
    before = {name: w.clone() for name, w in model.model.state_dict().items()}
    given = [replace(e, solution=e.solution.replace("answer 0", "answer 1")) for e in examples(60)]
    corpus = encode_labelled(given, tokenizer)
    assert len(corpus) == len(given)
    batch = collate(corpus, np.arange(len(corpus)))
    assert ValueLoss()(model, batch).item() == pytest.approx(math.log(2))
    model.calibrate(batch)
    assert ValueLoss()(model, batch).item() < 0.3
    assert model.value_head.logprob_weight.item() > 0
    for name, weight in model.model.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.usefixtures("tiny")
def test_it_may_be_told_to_read_the_hidden_state_alone(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    config = TrainReward(tokens=4_000, checks=1, batch_tokens=512, logprobs=False)
    train_reward(config, examples(40), examples(20, 9), tokenizer_folder, tmp_path)
    head = RewardModel.of_folder(tmp_path).value_head
    assert head.logprob_weight.item() == 0.0
    assert head.weight.abs().max() > 0.0


def test_a_checkpoint_without_the_weight_reads_the_hidden_state_alone(tmp_path: Path) -> None:
    model = RewardModel.of_policy(model_folder("words-s"))
    torch.nn.init.ones_(model.value_head.weight)
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["value_head.logprob_weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    again = RewardModel.of_folder(tmp_path)
    assert again.value_head.logprob_weight.item() == 0.0
    assert torch.equal(again.value_head.weight, model.value_head.weight)


def test_a_model_of_grids_is_no_trunk_of_one() -> None:
    """Its places would be lost without a word."""
    with pytest.raises(ConfigError, match=r"arc-m: a model of grids; .*: name another base"):
        RewardModel.of_policy(model_folder("arc-m"))


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
    assert model.value_head.logprob_weight.item() != 0.0
    corpus = encode_labelled(shown, reward.load_tokenizer(tokenizer_folder))
    batch = collate(corpus, np.arange(len(shown)))
    with torch.no_grad():
        logits = model.values(torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets))
    places = np.isfinite(batch.labels)
    expected = [torch.sigmoid(row[at]) for row, at in zip(logits, places, strict=True)]

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
    config, alone = TrainReward(base=model_folder(name)), TrainReward(size=size)
    assert config.facts()["size"] == alone.facts()["size"] == size
    assert alone.good_rates == policy.TrainPolicy(size=size).good_rates
    assert config.good_rates[0] <= alone.good_rates[0] / 4


def test_a_bad_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown size"):
        TrainReward(size="xxl")
    with pytest.raises(ConfigError, match="size l: the size is that of the base words-s"):
        TrainReward(base=model_folder("words-s"), size="l")
    with pytest.raises(ModelLoadError, match="holds no model"):
        TrainReward(base=Path("nowhere"))
    with pytest.raises(ConfigError, match="patience must be at least 1"):
        TrainReward(patience=0)
