"""What every training of our own loop can be told, and what of it stands in the record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mull.errors import ConfigError
from mull.training.loop import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The base of the configs that train policies, reward models and revision models.

    ``tokens`` counts training tokens; ``seed`` draws the order of the data, and the weights where
    they start from nothing. ``matrix_rate`` and ``rate`` are the peak rates of Muon and AdamW; left
    at ``None`` they are what was found good for that training. ``threads`` limits torch's threads
    (``None``: torch's choice).
    """

    tokens: int = 4_000_000
    seed: int = 0
    batch_tokens: int = 2048
    matrix_rate: float | None = None
    rate: float | None = None
    precision: str = "float32"
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"train: threads must be at least 1, not {self.threads}")
        self._check()
        self.recipe()

    def _check(self) -> None:
        """Raise ``ConfigError`` for options of the training's own that are out of range."""

    @property
    def good_rates(self) -> tuple[float, float]:
        """Peak rates of Muon and AdamW where none are given."""
        return 1e-3, 5e-4

    def recipe(self) -> Recipe:
        """The loop's part of this config."""
        matrix_rate, rate = self.good_rates
        return Recipe(
            tokens=self.tokens,
            batch_tokens=self.batch_tokens,
            matrix_rate=matrix_rate if self.matrix_rate is None else self.matrix_rate,
            rate=rate if self.rate is None else self.rate,
            precision=self.precision,
            device=self.device,
            seed=self.seed,
        )

    def set_threads(self) -> None:
        """Limit torch's threads, if this config does."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def facts(self) -> dict[str, object]:
        """The config as a record keeps it: folders by their names, and the rates in force, since a
        record must not depend on tomorrow's defaults.
        """
        recipe = self.recipe()
        plain = {n: v.name if isinstance(v, Path) else v for n, v in asdict(self).items()}
        return {**plain, "matrix_rate": recipe.matrix_rate, "rate": recipe.rate}
