"""A policy trained end to end, tiny: the folder holds all that anyone needs to load it."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mull.errors import ConfigError, InputError
from mull.tasks.countdown import CountdownTask
from mull.tasks.demonstrations import demonstrations
from mull.tasks.words import WordsTask
from mull.training import policy
from mull.training.data import encode
from mull.training.policy import TrainPolicy, train_policy
from mull.training.tokenizer import build_tokenizer


def test_a_trained_policy_loads_and_speaks_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"width": 16, "layers": 2, "heads": 2, "hidden": 32}
    monkeypatch.setitem(policy.SIZES, "s", tiny)
    examples = list(islice(demonstrations(WordsTask(levels=(1,))), 60))
    texts = [e.prompt + e.solution for e in examples]
    seen: list[int] = []
    trained = train_policy(
        TrainPolicy(tokens=3000),
        examples,
        texts,
        tmp_path,
        on_progress=lambda p: seen.append(p.tokens),
    )
    assert trained.tokens >= 3000
    assert seen[-1] == trained.tokens
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sum(w.numel() for w in model.parameters()) == trained.parameters
    assert model.dtype == torch.bfloat16
    ids = tokenizer(examples[0].prompt, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == tokenizer.bos_token_id
    assert model(ids).logits.shape[-1] == len(tokenizer)


def test_texts_longer_than_the_context_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(policy.SIZES, "s", {"width": 16, "layers": 1, "heads": 2, "hidden": 16})
    examples = list(islice(demonstrations(WordsTask(levels=(1, 2))), 40))
    texts = [e.prompt + e.solution for e in examples]
    lengths = encode(examples, build_tokenizer(texts), 1 << 62).lengths
    middle = int(sorted(lengths)[20])
    trained = train_policy(TrainPolicy(tokens=5000, context=middle), examples, texts, tmp_path)
    assert trained.examples == sum(int(length) <= middle for length in lengths)
    with pytest.raises(InputError, match=r"context of 8 tokens; .*: raise context"):
        train_policy(TrainPolicy(tokens=600, context=8), examples, texts, tmp_path / "none")


def test_demonstrations_are_right_repeat_and_go_on() -> None:
    for task in (WordsTask(), CountdownTask()):
        some = list(islice(demonstrations(task), 12))
        assert some == list(islice(demonstrations(task), 12))
        for example in some:
            problem = task.problem(example.prompt)
            assert task.first_error(problem, example.solution) is None
            answer = task.extract(problem, example.solution).answer
            assert task.grade(problem, answer).correct is True


def test_orders_of_steps_vary() -> None:
    task = WordsTask(levels=(8,))
    problem = next(task.problems("train", 1))
    assert len({task.reference(problem, seed) for seed in range(10)}) > 1


@pytest.mark.parametrize(("size", "millions"), [("s", 0.2), ("m", 0.8), ("l", 2.7)])
def test_sizes_are_what_they_are_called(size: str, millions: float) -> None:
    shape = TrainPolicy(size=size).shape(build_tokenizer([" ".join(map(chr, range(32, 96)))]))
    assert shape.parameters / 1e6 == pytest.approx(millions, rel=0.1)


def test_bad_configs_are_refused() -> None:
    with pytest.raises(ConfigError, match="size"):
        TrainPolicy(size="xl")
    with pytest.raises(ConfigError, match="threads"):
        TrainPolicy(threads=0)
    with pytest.raises(ConfigError, match="tokens"):
        TrainPolicy(tokens=0)
    with pytest.raises(ConfigError, match="context must be at least 2, not 1"):
        TrainPolicy(context=1)
