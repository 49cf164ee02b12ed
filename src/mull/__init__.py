"""Mull: test-time compute for language models.

A model, a verifier and a budget in; the best answer out, and the truth about what it cost.

>>> import mull
>>> mull.solve("What is 2 + 2?", "simulated", budget=mull.Budget(samples=4)).samples
4
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mull.api import Solution, asolve, solve, solve_many
    from mull.budget import Budget
    from mull.catalog import load_engine, load_strategy, load_task
    from mull.errors import MullError
    from mull.types import Sampling

__version__ = "0.1.0"

_HOMES = {
    "Budget": "mull.budget",
    "MullError": "mull.errors",
    "Sampling": "mull.types",
    "Solution": "mull.api",
    "asolve": "mull.api",
    "load_engine": "mull.catalog",
    "load_strategy": "mull.catalog",
    "load_task": "mull.catalog",
    "solve": "mull.api",
    "solve_many": "mull.api",
}
__all__ = [
    "Budget",
    "MullError",
    "Sampling",
    "Solution",
    "asolve",
    "load_engine",
    "load_strategy",
    "load_task",
    "solve",
    "solve_many",
]


def __getattr__(name: str) -> Any:
    # Names are looked up when first used, so that `import mull` stays fast and needs no extra.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mull' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
