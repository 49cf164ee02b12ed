"""The training loop: batches → gradients → weights, with checkpoints that continue exactly.

Matrices of the layers are trained by Muon (Jordan et al. 2024: momentum, orthogonalised by Newton-
Schulz), everything else by AdamW.  On the 0.2M word-problem policy Muon at 4e6 tokens reached
a loss that AdamW would have needed more than twice the tokens for (recipes/README.md).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from mull.errors import ConfigError, ModelLoadError
from mull.fileio import write_atomic
from mull.training.checkpoint import pack, unpack
from mull.training.data import IGNORED, Batch, Corpus, batches
from mull.training.device import check_device
from mull.training.model import Llama
from mull.training.muon import Muon
from mull.training.schedule import linear

CHECKPOINT: Final = "checkpoint.safetensors"
LOG: Final = "train.jsonl"


Objective = Callable[[Llama, Batch], Tensor]
"""What is minimised: the loss of a model on a batch."""


@dataclass(frozen=True)
class Recipe:
    """How weights are trained.

    ``tokens`` to see in all (padding not counted), ``batch_tokens`` per step with padding.
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


@dataclass(frozen=True)
class Progress:
    """One line of the training log; ``loss`` is the mean since the line before, nats a token."""

    step: int
    tokens: int
    loss: float
    rate: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Training speed so far."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Trainer:
    """A model on its way through a corpus; ``step``, ``seen`` and ``seconds`` say how far it is."""

    def __init__(
        self, model: Llama, corpus: Corpus, recipe: Recipe, objective: Objective | None = None
    ) -> None:
        self.model = model.to(recipe.device)
        self.objective = objective or next_token
        self.corpus = corpus
        self.recipe = recipe
        self.optimizers = _optimizers(model, recipe)
        self.step = 0
        self.seen = 0
        self.seconds = 0.0
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    @property
    def progress(self) -> float:
        """Share of the recipe's tokens seen, 0..1."""
        return min(self.seen / self.recipe.tokens, 1.0)

    def run(self) -> Iterator[float]:
        """Train to the end of the recipe, yielding the loss of each step."""
        source = batches(self.corpus, self.recipe.batch_tokens, self.recipe.seed, first=self.step)
        while self.seen < self.recipe.tokens:
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
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seen += batch.tokens
        return float(loss.detach())

    @property
    def identity(self) -> dict[str, Any]:
        """What two trainings must share to be one: recipe (but the device), data and objective."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if name != "device"}
        objective = getattr(self.objective, "__name__", None) or repr(self.objective)
        data = {"examples": len(self.corpus), "corpus_tokens": self.corpus.tokens}
        return {**recipe, **data, "objective": objective}

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`restore` needs to go on as if nothing had happened."""
        return {
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
            "recipe": self.identity,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state that :meth:`state` gave."""
        before = {**self.identity, **state.get("recipe", {})}  # older states hold less
        changed = [n for n, value in self.identity.items() if before[n] != value]
        if changed:
            was = ", ".join(f"{n} {before.get(n)} -> {self.identity[n]}" for n in changed)
            raise ValueError(f"another recipe: {was}")
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


class Watcher(Protocol):
    """What looks at a training at its log lines; its state is part of the checkpoint."""

    def enough(self, trainer: Trainer) -> bool:
        """Whether the training may end here."""

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state; ``ValueError`` for that of another training."""


def fit(
    trainer: Trainer,
    folder: Path,
    *,
    log_every: int = 50,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    watch: Watcher | None = None,
) -> Progress:
    """Train to the end, logging to ``train.jsonl`` and checkpointing into ``folder``.

    If ``folder`` holds a checkpoint, training goes on from it; the weights at the end are those of
    an unbroken training (same machine, same number of threads).  The checkpoint is removed at the
    end.  ``watch`` is asked at every log line and may end the training early.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    lines = _resume(trainer, watch, checkpoint, folder / LOG)
    window: list[float] = []
    saved = time.monotonic()
    latest = Progress(trainer.step, trainer.seen, float("nan"), 0.0, trainer.seconds)
    for value in trainer.run():
        window.append(value)
        done = trainer.seen >= trainer.recipe.tokens
        if trainer.step % log_every == 0 or done:
            latest = _progress(trainer, window)
            lines.append(json.dumps(latest.__dict__))
            window.clear()
            on_progress(latest)
            if not done and watch is not None and watch.enough(trainer):
                break
            # Only at a log line, so that no loss of the running window is lost on resume.
            if not done and time.monotonic() - saved >= checkpoint_seconds:
                _save(trainer, watch, checkpoint, folder / LOG, lines)
                saved = time.monotonic()
    write_atomic(folder / LOG, "".join(line + "\n" for line in lines))
    checkpoint.unlink(missing_ok=True)
    return latest


def _progress(trainer: Trainer, window: list[float]) -> Progress:
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    loss = sum(window) / len(window)
    return Progress(
        trainer.step, trainer.seen, round(loss, 5), round(rate, 8), round(trainer.seconds, 2)
    )


def _save(
    trainer: Trainer, watch: Watcher | None, checkpoint: Path, log: Path, lines: list[str]
) -> None:
    write_atomic(log, "".join(line + "\n" for line in lines))
    write_atomic(checkpoint, pack({**trainer.state(), **(watch.state() if watch else {})}))


def _resume(trainer: Trainer, watch: Watcher | None, checkpoint: Path, log: Path) -> list[str]:
    """Restore a checkpoint if there is one; the log lines up to it."""
    if not checkpoint.exists():
        return []
    try:
        state = unpack(checkpoint, trainer.recipe.device)
        if watch is not None:
            watch.restore(state)
        trainer.restore(state)
    except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
        raise ModelLoadError(
            f"{checkpoint} does not fit this training ({error}); remove it to start over"
        ) from error
    old = log.read_text().splitlines() if log.exists() else []
    return [line for line in old if json.loads(line)["step"] <= trainer.step]


def _optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding and gains."""
    matrices = [w for w in model.model.layers.parameters() if w.dim() == 2]
    inside = {id(w) for w in matrices}
    others = [w for w in model.parameters() if w.requires_grad and id(w) not in inside]
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
    muon = Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, dtype=dtype)
    adam = torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]
