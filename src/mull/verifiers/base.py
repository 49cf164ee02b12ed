"""The verifier contract: branches in, one score a branch out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mull.budget import Meter
from mull.types import Branch, EngineInfo


@runtime_checkable
class Verifier(Protocol):
    """Scores branches, batched across problems; higher is better.

    ``policy`` is the identity of the policy it was trained for, empty where it fits any.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def policy(self) -> tuple[str, ...]: ...

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, in order; charges sample index = position."""
        ...
