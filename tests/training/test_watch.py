"""What a watch knows outlives a kill: weights, losses and patience are those of an unbroken run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.training.tiny import SUMS, checkpoint

from mull.errors import ModelLoadError
from mull.training import CHECKPOINT, journal
from mull.training.data import Labelled
from mull.training.finetune import FineTune, FineTuned, fine_tune
from mull.training.journal import Progress
from mull.training.reward import TrainedReward, TrainReward, train_reward

RIGHT = [Labelled(e.prompt, e.solution, (float(int(e.solution) % 2),)) for e in SUMS]
WRONG = [replace(e, labels=(1 - e.labels[0],)) for e in RIGHT]


class PowerCut(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(autouse=True)
def _a_checkpoint_every_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=count(0, 25).__next__))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def broken_and_whole(
    train: Callable[[Path, Callable[[Progress], None]], Any], folder: Path, cuts: tuple[int, ...]
) -> tuple[Any, Any]:
    """The same training, cut at the log lines of these steps, and without a cut."""

    def cut_at(step: int) -> Callable[[Progress], None]:
        def cut(progress: Progress) -> None:
            if progress.step >= step:
                raise PowerCut

        return cut

    for step in cuts:
        with pytest.raises(PowerCut):
            train(folder / "broken", cut_at(step))
        assert (folder / "broken" / CHECKPOINT).exists()
    broken = train(folder / "broken", lambda progress: None)
    whole = train(folder / "whole", lambda progress: None)
    kept = {path.name for path in (folder / "whole").iterdir()}
    assert kept == {path.name for path in (folder / "broken").iterdir()}
    written = [folder / each / "model.safetensors" for each in ("broken", "whole")]
    assert written[0].read_bytes() == written[1].read_bytes()
    return broken, whole


@pytest.mark.parametrize("cuts", [(6,), (12,), (6, 20)])
def test_a_resumed_reward_training_keeps_the_best_weights_of_all(
    base: Path, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    """Taught the opposite of what is checked, the first weights are the best and never return."""
    config = TrainReward(base=base, tokens=3000, batch_tokens=64, checks=12, patience=6, rate=3e-3)

    def train(folder: Path, on_progress: Callable[[Progress], None]) -> TrainedReward:
        return train_reward(config, WRONG, RIGHT, base, folder, on_progress=on_progress)

    broken, whole = broken_and_whole(train, tmp_path, cuts)
    assert broken.validation == whole.validation
    assert broken.tokens == whole.tokens
    assert whole.best == whole.validation[0]
    assert len(whole.validation) == 1 + config.patience


def test_a_resumed_fine_tuning_has_the_losses_of_an_unbroken_one(
    base: Path, tmp_path: Path
) -> None:
    config = FineTune(base, tokens=1500, batch_tokens=64, checks=5, context=64)

    def train(folder: Path, on_progress: Callable[[Progress], None]) -> FineTuned:
        return fine_tune(config, SUMS[10:], SUMS[:10], folder, on_progress=on_progress)

    broken, whole = broken_and_whole(train, tmp_path, (7, 15))
    assert broken.validation == whole.validation
    assert len(whole.validation) == config.checks


def test_a_checkpoint_with_other_checks_is_refused(base: Path, tmp_path: Path) -> None:
    config = TrainReward(base=base, tokens=3000, batch_tokens=64, checks=12)

    def stop(progress: Progress) -> None:
        if progress.step >= 8:
            raise PowerCut

    with pytest.raises(PowerCut):
        train_reward(config, WRONG, RIGHT, base, tmp_path, on_progress=stop)
    with pytest.raises(ModelLoadError, match="another training: checks 12 -> 6"):
        train_reward(replace(config, checks=6), WRONG, RIGHT, base, tmp_path)
