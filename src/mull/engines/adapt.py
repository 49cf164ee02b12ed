"""Adapted weights, trained on for a while: what is learnt, by which recipe, under which name.

Their name is a digest of what they were trained on and how: a request that names them is keyed by
that in every record, and whoever asks for the same gets the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Protocol, runtime_checkable

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError, UnsupportedError
from mull.types import EngineInfo


@dataclass(frozen=True, slots=True)
class Parts:
    """A training text in parts, each with whether the model is to say it.

    For texts that hold several answers, as the demonstrations of a puzzle do; no end token follows.

    >>> Parts((("2+2=", False), ("4;", True), ("3+3=", False), ("6;", True))).text
    '2+2=4;3+3=6;'
    """

    parts: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """All parts, joined."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True, slots=True)
class AdaptRecipe:
    """How weights are trained on: ``steps`` of ``batch_tokens`` tokens each, with padding.

    ``matrix_rate`` is the peak rate of the layers' matrices (Muon), ``rate`` that of everything
    else (AdamW); ``seed`` draws the order of the texts.
    """

    steps: int = 32
    batch_tokens: int = 2048
    matrix_rate: float = 1e-3
    rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens"):
            if getattr(self, name) < 1:
                raise SpecError(f"adapt: {name} must be at least 1, not {getattr(self, name)}")
        for name in ("matrix_rate", "rate"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise SpecError(f"adapt: {name} must be positive, not {value}")


@dataclass(frozen=True, slots=True)
class TrainStep:
    """A step of a training that is done: its ``tokens`` in so many ``texts``, and the mean loss.

    ``seconds`` it took; ``loss`` in nats a token that is to be said.
    """

    tokens: int
    texts: int
    seconds: float
    loss: float


OnStep = Callable[[TrainStep], bool]
"""Told of every step; says whether to go on."""

Train = Callable[[Sequence[Parts], AdaptRecipe, str, OnStep], Mapping[str, Any]]
"""(texts, recipe, device, what is told of each step) → all weights, tensors by name."""


def weights_name(examples: Sequence[Parts], recipe: AdaptRecipe) -> str:
    """``adapt-`` and 32 hex digits: equal texts in equal order and equal recipes, equal names.

    >>> weights_name([Parts((("a", True),))], AdaptRecipe())[:6]
    'adapt-'
    """
    told = [[each.parts for each in examples], astuple(recipe)]
    text = json.dumps(told, separators=(",", ":"))
    return "adapt-" + hashlib.sha256(text.encode()).hexdigest()[:32]


@runtime_checkable
class AdaptingEngine(Engine, Protocol):
    """An engine that trains its weights on and answers under them: capability ``adapts``.

    Each ``adapt`` holds the weights until one ``release``; requests name them while they are held.
    """

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """Train a copy of the weights; their ``weights_name``. Charges sample index 0.

        Asked for the same while it is held, an engine trains once, and charges each in full: what
        a problem costs does not depend on its company. Closing the call frees what it held.
        """
        ...

    async def ready(self, weights: str) -> None:
        """Return once held weights are there to be used."""
        ...

    def release(self, weights: str) -> None:
        """Give one hold back; the last one frees the weights. At once, and never an error."""
        ...


def adapting(engine: Engine) -> AdaptingEngine:
    """The engine, if it adapts; ``UnsupportedError`` otherwise."""
    if engine.info.capabilities.adapts and isinstance(engine, AdaptingEngine):
        return engine
    raise cannot_adapt(engine.info)


def cannot_adapt(info: EngineInfo) -> UnsupportedError:
    """The error for an engine that trains nothing."""
    return UnsupportedError(
        f"engine {info.kind}:{info.model} cannot train its weights on: that takes a model of "
        "mull train in this process; use one, or a strategy without adaptation"
    )
