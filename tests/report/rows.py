"""Rows of invented cells, as a study would have saved them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mull.report.cells import CellRow, packed

LEVELS = ",".join(str(1 + i % 10) for i in range(40))


def bits(seed: int, rate: float, count: int = 40) -> list[bool]:
    """Right or wrong on each problem."""
    return list(np.random.default_rng(seed).random(count) < rate)


def row(
    strategy: str = "vote", n: int = 4, right: Sequence[bool] | None = None, **more: Any
) -> CellRow:
    """A row of 40 problems; FLOPs grow with n."""
    right = bits(n, 0.5) if right is None else right
    given: dict[str, Any] = {
        "task": "words", "policy": "words-s", "seed": 0, "problems": len(right), "digest": "d0",
        "verifiers": {}, "levels": ",".join(LEVELS.split(",")[: len(right)]),
        "policy_flops": 1e6 * n, "verifier_flops": 0.0, "guesses_flops": 0.0, "tokens": 80.0 * n,
        "unanswered": 0.0, "config_hash": "c0", "models": {"policy": "torch:words-s@a1"},
    }  # fmt: skip
    return CellRow(**{**given, "strategy": strategy, "n": n, "right": packed(right), **more})
