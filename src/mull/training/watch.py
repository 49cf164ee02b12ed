"""Held-out loss along a training: when it is taken, which weights were best, when it is enough.

What a watch knows is part of the training's checkpoint, the best weights among it: an interrupted
training ends with the weights and the losses of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mull.training.data import Corpus
from mull.training.gradient import check_loss
from mull.training.journal import OnProgress, Progress
from mull.training.loop import RATES, Objective, Trainer, fitted, held_out_loss, next_token
from mull.training.options import TrainingOptions


class Watch:
    """The loss on ``held_out`` after every 1/``checks`` of a training, and at its end.

    With a ``patience`` the best weights are kept, and the training has had enough once so many
    checks in a row brought no better loss; without one the last weights are, and it goes to its
    end. ``losses`` are nats a place that the objective counts, one a check.
    """

    def __init__(
        self,
        held_out: Corpus,
        config: TrainingOptions,
        *,
        checks: int,
        patience: int | None = None,
        objective: Objective = next_token,
    ) -> None:
        self.held_out, self.objective = held_out, objective
        self.checks, self.patience = checks, patience
        self.every = config.tokens / checks
        # Log lines are where a training may be looked at: no fewer of them than checks.
        self.log_every = max(1, min(50, config.tokens // (config.batch_tokens * checks)))
        self.losses: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._checked = -1

    @property
    def best(self) -> float:
        """The smallest loss so far."""
        return min(self.losses)

    def enough(self, trainer: Trainer) -> bool:
        """Take the loss if it is due; whether the training may end here."""
        if trainer.seen < (len(self.losses) + 1) * self.every:
            return False
        self._check(trainer)
        if self.patience is None:
            return False
        return len(self.losses) - 1 - self.losses.index(self.best) >= self.patience

    def finish(self, trainer: Trainer) -> None:
        """Take the loss at the end, and give the model its best weights if they were kept."""
        if trainer.seen != self._checked:
            self._check(trainer)
        if self.patience is not None:
            trainer.model.load_state_dict(self._best)

    @property
    def identity(self) -> dict[str, Any]:
        """How often it looks, how long it waits, and at what it looks."""
        held_out = self.held_out.identity
        return {"checks": self.checks, "patience": self.patience, "held_out": held_out}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the watch: ``best`` are tensors by name."""
        return {"best": self._best, "losses": self.losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that ``state`` gave."""
        self.losses, self._best = list(state["losses"]), dict(state["best"])

    def _check(self, trainer: Trainer) -> None:
        loss = held_out_loss(trainer.model, self.held_out, self.objective)
        check_loss(loss, RATES, "held-out loss")
        if self.patience is not None and (not self.losses or loss < self.best):
            weights = trainer.model.state_dict()
            self._best = {name: weight.detach().clone() for name, weight in weights.items()}
        self.losses.append(loss)
        self._checked = trainer.seen


@contextmanager
def fitted_watched(
    trainer: Trainer, folder: Path, watch: Watch, on_progress: OnProgress
) -> Iterator[Progress]:
    """``fitted``, to the end or until the watch has had enough; the model holds what it kept."""
    log_every = watch.log_every
    with fitted(trainer, folder, log_every=log_every, on_progress=on_progress, watch=watch) as end:
        watch.finish(trainer)
        yield end
