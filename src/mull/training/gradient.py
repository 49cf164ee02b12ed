"""A gradient before it is used: bounded, and refused where the training has diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from mull.errors import ConfigError


def clip(weights: Iterable[Tensor], most: float, loss: float, lower: str) -> None:
    """Bound the norm of the gradients of ``weights`` by ``most``.

    Raises:
        ConfigError: the loss that they are of, or their norm, is no number; names what to
            ``lower``. The weights are still those of the step before.
    """
    check_loss(loss, lower)
    check_loss(float(nn.utils.clip_grad_norm_(weights, most)), lower, "norm of the gradient")


def check_loss(loss: float, lower: str, what: str = "loss") -> None:
    """Raise ``ConfigError`` where a training's loss is no number."""
    if not math.isfinite(loss):
        raise ConfigError(
            f"train: the training diverged: its {what} became {loss}; expected a number: lower "
            f"{lower}"
        )
