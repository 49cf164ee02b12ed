"""What the training of an adapter can be told, and what of it stands in the record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from mull.errors import ConfigError
from mull.training.adapters import LoraShape, Precision
from mull.training.device import check_device
from mull.training.schedule import Schedule, schedule


@dataclass(frozen=True)
class TrainLora:
    """A LoRA training of the causal language model in the folder ``base``.

    ``steps`` updates on ``batch`` texts each, ``micro`` of them in a forward pass; texts longer
    than ``max_length`` tokens are left out. ``rate`` is AdamW's peak rate; it follows ``schedule``
    with ``warmup`` and ``cycles`` (see ``mull.training.schedule``). ``clip`` bounds the gradient's
    norm. ``shape`` is that of a fresh adapter (default: ``LoraShape()``); ``start`` is the
    directory of an adapter to go on from instead. ``precision`` ``bfloat16`` holds the base in
    bfloat16 and computes in autocast, the adapter stays float32; ``four_bit`` holds the base in
    4-bit NF4 (CUDA only). ``recompute`` keeps fewer activations and computes them twice.
    Validation comes every ``every`` steps and at the end; ``keep`` keeps the adapter of each time
    in a directory ``step-<n>``.
    """

    base: Path
    steps: int = 1000
    batch: int = 16
    micro: int = 1
    max_length: int = 4096
    rate: float = 1e-4
    schedule: Schedule = "linear"
    warmup: float = 0.05
    cycles: int = 1
    weight_decay: float = 0.0
    clip: float = 1.0
    shape: LoraShape | None = None
    start: Path | None = None
    precision: Precision = "float32"
    four_bit: bool = False
    recompute: bool = False
    every: int = 50
    keep: bool = False
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro", "every", "rate", "clip"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"train: {name} must be positive, not {value}")
        if self.max_length < 2:
            raise ConfigError(f"train: max_length must be at least 2, not {self.max_length}")
        if self.weight_decay < 0:
            raise ConfigError(f"train: weight_decay must be 0 or more, not {self.weight_decay}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"train: threads must be at least 1, not {self.threads}")
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"train: precision must be bfloat16 or float32, not {self.precision!r}"
            )
        check_device(self.device)
        if self.shape is not None and self.start is not None:
            raise ConfigError(
                "train: the adapter to start from has its own rank, alpha, dropout and targets: "
                "give a shape or a start, not both"
            )
        schedule(self.schedule, self.warmup, self.cycles)

    @property
    def narrow(self) -> bool:
        """Whether products are computed in bfloat16."""
        return self.precision == "bfloat16" or self.four_bit

    def facts(self) -> dict[str, Any]:
        """The config as a record has it, the shape's defaults filled in, folders by their names."""
        facts = asdict(self)
        facts["base"] = self.base.resolve().name
        facts["start"] = None if self.start is None else self.start.resolve().name
        if self.start is None:
            facts["shape"] = asdict(self.shape or LoraShape())
        return facts
