"""The training loop: batches → gradients → weights, continued exactly after any kill.

Matrices of the layers are trained by Muon (Jordan et al. 2024: momentum, orthogonalised by Newton-
Schulz), everything else by AdamW.  On the 0.2M word-problem policy Muon at 4e6 tokens reached
a loss that AdamW would have needed more than twice the tokens for (recipes/README.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mull.errors import ConfigError
from mull.training.data import IGNORED, Batch, Corpus, batches
from mull.training.device import check_device
from mull.training.gradient import clip
from mull.training.journal import Journal, OnProgress, Part
from mull.training.journal import Progress as Progress  # noqa: PLC0414  (what ``fit`` tells)
from mull.training.model import Llama
from mull.training.muon import Muon
from mull.training.schedule import linear

RATES: Final = "matrix_rate and rate"
"""What to lower where a training diverged."""

Objective = Callable[[Llama, Batch], Tensor]
"""What is minimised: the loss of a model on a batch."""


@dataclass(frozen=True)
class Recipe:
    """How weights are trained.

    ``tokens`` to see in all (padding not counted), ``batch_tokens`` per step, padded to its longest
    text (see :func:`mull.training.data.batches`).
    ``matrix_rate`` is Muon's peak rate, ``rate`` AdamW's; both follow
    :func:`mull.training.schedule.linear` with ``warmup``.  ``clip`` bounds the gradient norm.
    ``precision`` ``bfloat16`` computes in autocast, and Muon's orthogonalisation in bfloat16;
    weights stay float32 while training.
    """

    tokens: int
    batch_tokens: int = 1024
    matrix_rate: float = 4e-3
    rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    precision: str = "float32"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "matrix_rate", "rate", "clip"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"train: {name} must be positive, not {value}")
        if self.precision not in ("bfloat16", "float32"):
            raise ConfigError(
                f"train: precision must be bfloat16 or float32, not {self.precision!r}"
            )
        check_device(self.device)


class Trainer:
    """A model on its way through a corpus; ``step``, ``seen`` and ``seconds`` say how far it is.

    ``base`` is the revision of the model that the weights are from, where they are from one.
    """

    def __init__(
        self,
        model: Llama,
        corpus: Corpus,
        recipe: Recipe,
        objective: Objective | None = None,
        base: str | None = None,
    ) -> None:
        self.model = model.to(recipe.device)
        self.objective = objective or next_token
        self.corpus = corpus
        self.recipe = recipe
        self.base = base
        self.optimizers = _optimizers(model, recipe)
        self.step = 0
        self.seen = 0
        self.seconds = 0.0
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    @property
    def progress(self) -> float:
        """Share of the recipe's tokens seen, 0..1."""
        return min(self.seen / self.recipe.tokens, 1.0)

    @property
    def rate(self) -> float:
        """Muon's rate in the step that was made last."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    @property
    def done(self) -> bool:
        """Whether all of the recipe's tokens are seen."""
        return self.seen >= self.recipe.tokens

    def run(self) -> Iterator[float]:
        """Train to the end of the recipe, yielding the loss of each step.

        Raises:
            ConfigError: the training diverged.
        """
        source = batches(self.corpus, self.recipe.batch_tokens, self.recipe.seed, first=self.step)
        while not self.done:
            began = time.perf_counter()
            value = self._update(next(source))
            self.seconds += time.perf_counter() - began
            yield value

    def _update(self, batch: Batch) -> float:
        factor = linear(self.progress, self.recipe.warmup)
        # The very first step would otherwise have rate zero and be wasted.
        factor = max(factor, 1e-3)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        device = torch.device(self.recipe.device)
        narrow = self.recipe.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            loss = self.objective(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        clip(self.model.parameters(), self.recipe.clip, value, RATES)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seen += batch.tokens
        return value

    @property
    def identity(self) -> dict[str, Any]:
        """Recipe (but the device), data, base and objective."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if name != "device"}
        objective = getattr(self.objective, "__name__", None) or repr(self.objective)
        return {
            **recipe,
            "corpus": self.corpus.identity,
            "base": self.base,
            "objective": objective,
        }

    def state(self) -> dict[str, Any]:
        """Counters, weights, and the optimizers' own."""
        return {
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that :meth:`state` gave; ``RuntimeError`` for weights that misfit."""
        self.step, self.seen = state["step"], state["seen"]
        self.seconds = state["seconds"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": saved, "param_groups": groups})


def next_token(model: Llama, batch: Batch) -> Tensor:
    """The objective of a policy: ``loss_of`` a batch."""
    device = model.model.embed_tokens.weight.device
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    return loss_of(model, inputs.to(device), targets.to(device))


def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the targets that count, nats a token.

    Logits are computed for those positions only: half of a batch is prompt.
    """
    counted = targets != IGNORED
    logits = model.logits(model.hidden(inputs)[counted])
    return F.cross_entropy(logits.float(), targets[counted])


@torch.no_grad()
def held_out_loss(
    model: Llama,
    corpus: Corpus,
    objective: Objective = next_token,
    batch_tokens: int = 8192,
) -> float:
    """The mean of an objective over a corpus, each place that it counts weighing the same, nats.

    Places are labels where the examples have them, else the tokens that are said.
    """
    total, count, seen = 0.0, 0, 0
    for batch in batches(corpus, batch_tokens, seed=0):
        counted = batch.targets != IGNORED if batch.labels is None else np.isfinite(batch.labels)
        places = int(counted.sum())
        total += float(objective(model, batch)) * places
        count += places
        seen += len(batch.inputs)
        if seen >= len(corpus):
            break
    return total / max(1, count)


class Watcher(Part, Protocol):
    """What looks at a training at its log lines; its state is part of the checkpoint."""

    def enough(self, trainer: Trainer) -> bool:
        """Whether the training may end here."""


@contextmanager
def fitted(
    trainer: Trainer,
    folder: Path,
    *,
    log_every: int = 50,
    checkpoint_seconds: float = 60.0,
    on_progress: OnProgress = lambda progress: None,
    watch: Watcher | None = None,
) -> Iterator[Progress]:
    """Train to the end, then give the last line of the log to a block that writes the weights.

    Logs to ``train.jsonl`` and checkpoints into ``folder``. If ``folder`` holds a checkpoint of the
    same training, it goes on from there; the weights at the end are those of an unbroken training
    (same machine, same number of threads). The checkpoint is removed when the block is done: a kill
    in it loses no more than the steps since then. ``watch`` is asked at every log line and may end
    the training early.

    Raises:
        ConfigError: the training diverged.
        ModelLoadError: the folder's checkpoint is another training's.
    """
    journal = Journal(
        folder,
        trainer,
        watch,
        log_every=log_every,
        seconds=checkpoint_seconds,
        on_progress=on_progress,
    )
    for loss in trainer.run():
        logged = journal.add(loss)
        if logged and not trainer.done and watch is not None and watch.enough(trainer):
            break
        journal.save_if_due()
    yield journal.latest
    journal.close()


def fit(
    trainer: Trainer,
    folder: Path,
    *,
    log_every: int = 50,
    checkpoint_seconds: float = 60.0,
    on_progress: OnProgress = lambda progress: None,
) -> Progress:
    """As ``fitted``, where there is nothing to write at the end."""
    with fitted(
        trainer,
        folder,
        log_every=log_every,
        checkpoint_seconds=checkpoint_seconds,
        on_progress=on_progress,
    ) as final:
        return final


def _optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding and gains."""
    matrices = [w for w in model.model.layers.parameters() if w.dim() == 2]
    inside = {id(w) for w in matrices}
    others = [w for w in model.parameters() if w.requires_grad and id(w) not in inside]
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
    muon = Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, dtype=dtype)
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]
