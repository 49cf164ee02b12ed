"""A training's log and checkpoint in a folder: after any kill it goes on as an unbroken one.

The checkpoint is the last thing to go: as long as it is there, so is work that is not done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from safetensors import SafetensorError

from mull.errors import ModelLoadError
from mull.fileio import write_atomic
from mull.training import CHECKPOINT
from mull.training.checkpoint import pack, unpack

LOG: Final = "train.jsonl"


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


OnProgress = Callable[[Progress], None]


class Part(Protocol):
    """Something of a training that a checkpoint holds."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What two trainings must share to be one, by name."""

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs to go on as if nothing had happened."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that ``state`` gave; ``ValueError`` where it does not fit."""


class Training(Part, Protocol):
    """What is trained: ``step`` counts updates, ``seen`` their tokens, ``seconds`` their time."""

    step: int
    seen: int
    seconds: float

    @property
    def rate(self) -> float:
        """The learning rate of the step that was made last."""

    @property
    def done(self) -> bool:
        """Whether the training is at its end."""


class Journal:
    """The log and the checkpoint of a training in a folder; takes up what the folder holds.

    ``watch`` is what else the checkpoint holds. A line is written every ``log_every`` steps and at
    the end, and told to ``on_progress``; a checkpoint is taken when ``seconds`` have passed since
    the one before. ``checks`` are the lines that ``check`` took in.

    Raises:
        ModelLoadError: the folder's checkpoint is another training's.
    """

    def __init__(
        self,
        folder: Path,
        training: Training,
        watch: Part | None = None,
        *,
        log_every: int,
        seconds: float,
        on_progress: OnProgress,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self.checkpoint = folder / LOG, folder / CHECKPOINT
        self.training, self.on_progress = training, on_progress
        self.parts: list[Part] = [training] if watch is None else [training, watch]
        self.log_every, self.seconds = log_every, seconds
        self.lines: list[dict[str, Any]] = []
        self.window: list[float] = []
        if self.checkpoint.exists():
            self._resume()
        self.saved = time.monotonic()

    @property
    def latest(self) -> Progress:
        """The last line of losses."""
        return next(Progress(**line) for line in reversed(self.lines) if "loss" in line)

    @property
    def checks(self) -> list[dict[str, Any]]:
        """The lines of checks, in order."""
        return [line for line in self.lines if "loss" not in line]

    def add(self, loss: float, due: bool = False) -> bool:
        """Take in a step's loss; whether that made a line, which it does where it is ``due``."""
        self.window.append(loss)
        training = self.training
        if not (due or training.done or training.step % self.log_every == 0):
            return False
        mean = sum(self.window) / len(self.window)
        line = Progress(
            step=training.step,
            tokens=training.seen,
            loss=round(mean, 5),
            rate=round(training.rate, 10),
            seconds=round(training.seconds, 2),
        )
        self.lines.append(asdict(line))
        self.window.clear()
        self.on_progress(line)
        return True

    def check(self, line: dict[str, Any]) -> None:
        """Take in a line of another kind: ``step`` and what was found there."""
        self.lines.append(line)
        self._write()

    def save_if_due(self) -> None:
        """Take a checkpoint, the losses of the running window with it."""
        if self.training.done or time.monotonic() - self.saved < self.seconds:
            return
        self._write()
        state: dict[str, Any] = {"identity": self._identity, "window": self.window}
        for part in self.parts:
            state |= part.state()
        write_atomic(self.checkpoint, pack(state))
        self.saved = time.monotonic()

    def close(self) -> None:
        """What was trained is written: the log stays, the checkpoint goes."""
        self._write()
        self.checkpoint.unlink(missing_ok=True)

    @property
    def _identity(self) -> dict[str, Any]:
        """That of all parts, as it comes back from a file."""
        whole = {name: value for part in self.parts for name, value in part.identity.items()}
        return dict(json.loads(json.dumps(whole)))

    def _write(self) -> None:
        write_atomic(self.log, "".join(json.dumps(line) + "\n" for line in self.lines))

    def _resume(self) -> None:
        try:
            state = unpack(self.checkpoint)
            _check_same(state["identity"], self._identity)
            for part in self.parts:
                part.restore(state)
            self.window = state["window"]
        except (RuntimeError, KeyError, ValueError, SafetensorError) as error:
            raise ModelLoadError(
                f"{self.checkpoint} does not fit this training ({error}); remove it to start over"
            ) from error
        old = self.log.read_text("utf-8").splitlines() if self.log.exists() else []
        lines = map(json.loads, old)
        self.lines = [line for line in lines if line["step"] <= self.training.step]


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = dict.fromkeys([*now, *before])
    changed = [name for name in names if before.get(name) != now.get(name)]
    if changed:
        was = ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in changed)
        raise ValueError(f"another training: {was}")
