"""What a training gave, and its folder: card, record and tokenizer, and last of all the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from mull.fileio import write_atomic
from mull.training.journal import Progress
from mull.training.loop import Trainer
from mull.training.model import Llama, save_model
from mull.training.options import TrainingOptions
from mull.training.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CARD: Final = "card.json"
RECORD: Final = "trained.json"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, beside what its training knows by itself.

    ``card`` is what programs ask for (task, kind, the policy it belongs to); ``record`` is how the
    training's texts were made.
    """

    card: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a training gave: where it is, what it took, how it ended."""

    folder: Path
    parameters: int
    tokens: int
    examples: int
    epochs: float
    seconds: float
    loss: float
    config: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trainer: Trainer, folder: Path, final: Progress, config: TrainingOptions, **more: Any
    ) -> Self:
        """What a trainer that is done has to say; ``more`` are a subclass's own fields."""
        return cls(
            folder=folder,
            parameters=sum(weight.numel() for weight in trainer.model.parameters()),
            tokens=trainer.seen,
            examples=len(trainer.corpus),
            epochs=trainer.seen / trainer.corpus.tokens,
            seconds=trainer.seconds,
            loss=final.loss,
            config=config.facts(),
            **more,
        )

    def write_origin(self, origin: Origin) -> None:
        """Write ``trained.json`` and ``card.json``."""
        facts = {**asdict(self), "folder": self.folder.name, **origin.record}
        write_json(self.folder / RECORD, facts)
        write_card(
            self.folder,
            {
                **origin.card,
                "parameters": self.parameters,
                "tokens": self.tokens,
                "recipe": self.config,
            },
        )

    def write_model(self, model: Llama, tokenizer: Tokenizer, origin: Origin | None) -> None:
        """Write all of the folder; without an origin it has neither card nor record."""
        if origin is not None:
            self.write_origin(origin)
        save_tokenizer(tokenizer, self.folder, model.shape.context)
        save_model(model, self.folder)


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json``, with the folder's name on it."""
    write_json(folder / CARD, {"name": folder.name, **card})


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts as JSON; what JSON has no form for, by its text."""
    write_atomic(path, json.dumps(facts, indent=1, default=str) + "\n")
