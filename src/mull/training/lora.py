"""``mull train lora``: texts and a causal language model → an adapter that peft and Mull load.

The loss is on what is to be said alone. Validation loss is useful while it falls; what a model
gets right goes on rising long after (reference arc.md 4.1), so numbers of what it generates are
taken along the way too, each by the torch engine on the adapter as it stands.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError

from mull.engines.torch.load import revision
from mull.errors import InputError, ModelLoadError
from mull.fileio import write_atomic
from mull.training.adapters import (
    LoraShape,
    base_model,
    load_adapter,
    merge,
    recompute,
    save_adapter,
    with_adapter,
)
from mull.training.checkpoint import pack, unpack
from mull.training.dialogue import Encoded, Encoder, Repeated, Stream, TrainingText
from mull.training.loop import CHECKPOINT, LOG, Progress
from mull.training.policy import Trained
from mull.training.tune import TrainLora, Tuner, mean_nll

__all__ = ["LoraShape", "Measure", "TrainLora", "TrainedLora", "merge", "train_lora"]

Measure = Callable[[Path], Mapping[str, float]]
"""What is measured along a training: the directory of an adapter → numbers by name."""
# Settings that change no weight, or where the work is done.
_FREE: Final = ("device", "threads", "keep", "every")


@dataclass(frozen=True)
class TrainedLora(Trained):
    """``parameters`` are the adapter's; ``examples`` the texts drawn, ``too_long`` those left out.

    ``checks`` are the lines of the log with validation loss and measures, in order.
    """

    too_long: int = 0
    checks: tuple[Mapping[str, Any], ...] = ()
    base: Mapping[str, str] = field(default_factory=dict)


def train_lora(
    config: TrainLora,
    texts: Stream | Sequence[TrainingText],
    folder: Path,
    *,
    validation: Sequence[TrainingText] = (),
    measure: Measure | None = None,
    encoder: Encoder | None = None,
    task: str = "",
    log_every: int = 10,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainedLora:
    """Train an adapter and write it to ``folder`` (peft's format), with log, card and record.

    ``texts`` are a ``Stream``, or texts that are repeated, shuffled every epoch. If ``folder``
    holds a checkpoint of the same training, it goes on from there to the same weights as an
    unbroken one. ``validation`` texts too long for the model are left out. ``measure`` is called
    with the adapter's directory wherever validation is. ``task`` is the spec of the task that the
    texts are of, for the card.

    Raises:
        ConfigError: the config, or 4-bit weights without a GPU.
        InputError: no text, no validation text that fits, or nine tenths of the texts too long.
        ModelLoadError: the base or the adapter to start from cannot be read, or the folder's
            checkpoint is another training's.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    stream = Repeated(tuple(texts), config.seed) if isinstance(texts, Sequence) else texts
    encoder = encoder or Encoder.of(config.base)
    model = _model(config)
    longest = _longest(config, model)
    held = _held_out(validation, encoder, longest)
    origin = {"model": config.base.resolve().name, "revision": revision(config.base)}
    kept = {n: v for n, v in config.facts().items() if n not in _FREE}
    tuner = Tuner(model, stream, encoder, config, longest, {**kept, "origin": origin})
    journal = _Journal(tuner, folder, log_every, checkpoint_seconds, on_progress)
    for loss in tuner.run():
        due = tuner.step % config.every == 0 or tuner.step == config.steps
        journal.add(loss, due)
        if due and (held or measure is not None or config.keep):
            journal.check(_check(tuner, held, measure, folder))
        journal.save_if_due()
    save_adapter(model, folder)
    trained = TrainedLora(
        folder=folder,
        parameters=sum(weight.numel() for weight in tuner.weights.values()),
        tokens=tuner.tokens,
        examples=tuner.position,
        epochs=tuner.position / len(stream),
        seconds=tuner.seconds,
        loss=journal.loss,
        config=config.facts(),
        too_long=tuner.too_long,
        checks=tuple(journal.checks),
        base=origin,
    )
    _write_origin(trained, stream.identity, task)
    journal.close()
    return trained


def _model(config: TrainLora) -> Any:
    model = base_model(config.base, config.precision, config.device, config.four_bit)
    if config.recompute:
        recompute(model)
    if config.start is not None:
        return load_adapter(model, config.start, trainable=True)
    return with_adapter(model, config.base, config.shape or LoraShape(), config.seed)


def _longest(config: TrainLora, model: Any) -> int:
    """``max_length``, but no more than the model has positions."""
    context = getattr(model.config, "max_position_embeddings", None) or config.max_length
    return min(config.max_length, int(context))


def _held_out(texts: Sequence[TrainingText], encoder: Encoder, longest: int) -> list[Encoded]:
    held = [row for text in texts if len(row := encoder(text)) <= longest]
    if texts and not held:
        raise InputError(
            f"every one of {len(texts)} validation texts is longer than {longest} tokens"
        )
    return held


def _check(
    tuner: Tuner, held: Sequence[Encoded], measure: Measure | None, folder: Path
) -> dict[str, Any]:
    """One line of the log: validation loss and measures of the adapter as it stands."""
    config = tuner.config
    line: dict[str, Any] = {"step": tuner.step, "tokens": tuner.tokens}
    if held:
        loss = mean_nll(tuner.model, held, config.device, config.narrow)
        line["validation"] = round(loss, 5)
    if measure is not None or config.keep:
        # Never in the folder itself, where weights say that the training is over.
        where = folder / (f"step-{tuner.step}" if config.keep else "measured")
        save_adapter(tuner.model, where)
        if measure is not None:
            line["measures"] = {name: float(value) for name, value in measure(where).items()}
        if not config.keep:
            shutil.rmtree(where)
    return line


class _Journal:
    """The log and the checkpoint of a training in a folder; takes up what the folder holds."""

    def __init__(
        self,
        tuner: Tuner,
        folder: Path,
        log_every: int,
        seconds: float,
        on_progress: Callable[[Progress], None],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tuner, self.on_progress = tuner, on_progress
        self.log_every, self.seconds = log_every, seconds
        self.log, self.checkpoint = folder / LOG, folder / CHECKPOINT
        self.window: list[float] = []
        self.lines = self._resume()
        self.checks = [line for line in self.lines if "loss" not in line]
        self.loss = next((x["loss"] for x in reversed(self.lines) if "loss" in x), float("nan"))
        self.saved = time.monotonic()

    def add(self, loss: float, due: bool) -> None:
        """Take in a step's loss; ``due`` writes a line whatever the step's number."""
        self.window.append(loss)
        tuner = self.tuner
        if due or tuner.step % self.log_every == 0:
            self.loss = round(sum(self.window) / len(self.window), 5)
            rate = tuner.optimizer.param_groups[0]["lr"]
            line = Progress(
                tuner.step, tuner.tokens, self.loss, round(rate, 10), round(tuner.seconds, 2)
            )
            self.lines.append(asdict(line))
            self.window.clear()
            self.on_progress(line)

    def check(self, line: dict[str, Any]) -> None:
        """Take in a line of validation."""
        self.checks.append(line)
        self.lines.append(line)
        self._write()

    def save_if_due(self) -> None:
        """Checkpoint, the losses of the log's running window with it."""
        done = self.tuner.step >= self.tuner.config.steps
        if not done and time.monotonic() - self.saved >= self.seconds:
            self._write()
            write_atomic(self.checkpoint, pack({**self.tuner.state(), "window": self.window}))
            self.saved = time.monotonic()

    def close(self) -> None:
        """The training is over: the log stays, the checkpoint goes."""
        self._write()
        self.checkpoint.unlink(missing_ok=True)

    def _write(self) -> None:
        write_atomic(self.log, "".join(json.dumps(line) + "\n" for line in self.lines))

    def _resume(self) -> list[dict[str, Any]]:
        if not self.checkpoint.exists():
            return []
        try:
            state = unpack(self.checkpoint)
            self.tuner.restore(state)
            self.window = state["window"]
        except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
            raise ModelLoadError(
                f"{self.checkpoint} does not fit this training ({error}); remove it to start over"
            ) from error
        old = self.log.read_text().splitlines() if self.log.exists() else []
        lines: list[dict[str, Any]] = [json.loads(line) for line in old]
        return [line for line in lines if line["step"] <= self.tuner.step]


def _write_origin(trained: TrainedLora, stream: str, task: str) -> None:
    """``trained.json`` and a ``card.json`` that names the model which the adapter belongs to."""
    facts = {**asdict(trained), "folder": trained.folder.name, "stream": stream}
    card = {
        "name": trained.folder.name,
        "kind": "adapter",
        **({"task": task} if task else {}),
        "policy": trained.base,
        "parameters": trained.parameters,
        "tokens": trained.tokens,
        "recipe": trained.config,
    }
    folder = trained.folder
    write_atomic(folder / "trained.json", json.dumps(facts, indent=1, default=str) + "\n")
    write_atomic(folder / "card.json", json.dumps(card, indent=1, default=str) + "\n")
