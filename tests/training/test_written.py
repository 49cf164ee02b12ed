"""A training killed while it writes what it made: weights come last, the checkpoint goes after."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.training.tiny import SUMS, WORDS, checkpoint

from mull.training import CHECKPOINT, journal, policy
from mull.training.data import Labelled
from mull.training.finetune import FineTune, fine_tune
from mull.training.journal import OnProgress, Progress
from mull.training.policy import TrainPolicy, train_policy
from mull.training.reward import TrainReward, train_reward
from mull.training.trained import Origin

pytestmark = pytest.mark.timeout(60)
LABELLED = [Labelled(e.prompt, e.solution, (float(int(e.solution) % 2),)) for e in SUMS]
TOKENS = 600
ORIGIN = Origin({"task": "sums"}, {"source": "every one of them"})


class Killed(Exception):
    """Stands for whatever ends a process."""


class Cuts:
    """Kills a training after its last step, each time one file later than before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = self.written = 0
        self.over = False
        self.replace = os.replace
        monkeypatch.setattr(os, "replace", self)

    def watch(self, progress: Progress) -> None:
        self.written, self.over = 0, progress.tokens >= TOKENS

    def __call__(self, *arguments: Any) -> None:
        if self.over and self.written == self.made:
            self.made, self.over = self.made + 1, False
            raise Killed
        self.written += self.over
        self.replace(*arguments)


def a_policy(base: Path, folder: Path, on_progress: OnProgress) -> Any:
    config = replace(TrainPolicy(tokens=TOKENS), batch_tokens=64)
    texts = [*(e.prompt + e.solution for e in SUMS), *WORDS]
    return train_policy(config, SUMS, texts, folder, on_progress=on_progress, origin=ORIGIN)


def a_reward_model(base: Path, folder: Path, on_progress: OnProgress) -> Any:
    config = TrainReward(base=base, tokens=TOKENS, batch_tokens=64, checks=2)
    return train_reward(
        config, LABELLED, LABELLED[:9], base, folder, on_progress=on_progress, origin=ORIGIN
    )


def a_reviser(base: Path, folder: Path, on_progress: OnProgress) -> Any:
    config = FineTune(base, tokens=TOKENS, batch_tokens=64, checks=2, context=64)
    return fine_tune(config, SUMS, SUMS[:9], folder, on_progress=on_progress, origin=ORIGIN)


@pytest.mark.parametrize("train", [a_policy, a_reward_model, a_reviser])
def test_a_training_killed_while_it_writes_goes_on_and_its_weights_come_last(
    train: Callable[[Path, Path, OnProgress], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at every file that is written after the last step, one after the other."""
    tiny = {"width": 16, "layers": 1, "heads": 2, "hidden": 16}
    monkeypatch.setitem(policy.SIZES, "s", tiny)
    clock = SimpleNamespace(monotonic=count(0, 25).__next__)
    monkeypatch.setattr(journal, "time", clock)  # a checkpoint every few steps
    base, broken = checkpoint(tmp_path / "base"), tmp_path / "broken"
    train(base, tmp_path / "whole", lambda progress: None)
    whole = {path.name for path in (tmp_path / "whole").iterdir()}
    assert whole > {"card.json", "trained.json", "tokenizer.json"}
    cuts = Cuts(monkeypatch)
    while True:
        try:
            train(base, broken, cuts.watch)
        except Killed:
            there = {path.name for path in broken.iterdir()}
            assert CHECKPOINT in there
            assert "model.safetensors" not in there or whole <= there
        else:
            break
    assert cuts.made > 5
    assert {path.name for path in broken.iterdir()} == whole
    weights = "model.safetensors"
    assert (broken / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
