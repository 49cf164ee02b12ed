"""``mull train lora``: texts and a causal language model → an adapter that peft and Mull load.

The loss is on what is to be said alone. Validation loss is useful while it falls; what a model
gets right goes on rising long after (reference arc.md 4.1), so numbers of what it generates are
taken along the way too, each by the torch engine on the adapter as it stands.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from mull.engines.torch.load import revision
from mull.errors import InputError
from mull.training.adapters import (
    LoraShape,
    base_model,
    load_adapter,
    merge,
    recompute,
    save_adapter,
    with_adapter,
)
from mull.training.dialogue import Encoded, Encoder, TrainingText
from mull.training.gradient import check_loss
from mull.training.journal import Journal, OnProgress
from mull.training.lora_options import TrainLora
from mull.training.stream import Repeated, Stream
from mull.training.trained import Origin, Trained
from mull.training.tune import Tuner, mean_nll

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
    on_progress: OnProgress = lambda progress: None,
) -> TrainedLora:
    """Train an adapter and write it to ``folder`` (peft's format), with log, card and record.

    ``texts`` are a ``Stream``, or texts that are repeated, shuffled every epoch. If ``folder``
    holds a checkpoint of the same training, it goes on from there to the same weights as an
    unbroken one. ``validation`` texts too long for the model are left out. ``measure`` is called
    with the adapter's directory wherever validation is. ``task`` is the spec of the task that the
    texts are of, for the card.

    Raises:
        ConfigError: the config, 4-bit weights without a GPU, or a training that diverged.
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
    journal = Journal(
        folder,
        tuner,
        log_every=log_every,
        seconds=checkpoint_seconds,
        on_progress=on_progress,
    )
    for loss in tuner.run():
        due = tuner.done or tuner.step % config.every == 0
        journal.add(loss, due)
        if due and (held or measure is not None or config.keep):
            journal.check(_check(tuner, held, measure, folder))
        journal.save_if_due()
    trained = TrainedLora(
        folder=folder,
        parameters=sum(weight.numel() for weight in tuner.weights.values()),
        tokens=tuner.seen,
        examples=tuner.position,
        epochs=tuner.position / len(stream),
        seconds=tuner.seconds,
        loss=journal.latest.loss,
        config=config.facts(),
        too_long=tuner.too_long,
        checks=tuple(journal.checks),
        base=origin,
    )
    card = {"kind": "adapter", **({"task": task} if task else {}), "policy": origin}
    trained.write_origin(Origin(card, {"stream": stream.identity}))
    save_adapter(model, folder)
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
    line: dict[str, Any] = {"step": tuner.step, "tokens": tuner.seen}
    if held:
        loss = mean_nll(tuner.model, held, config.device, config.narrow)
        check_loss(loss, "rate", "validation loss")
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
