"""A user's own function as a verifier: a branch in, a number out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from mull.budget import Meter
from mull.errors import EngineError, UsageError
from mull.types import Branch, EngineInfo
from mull.verifiers.base import as_score
from mull.verifiers.threads import score_in_thread


class FunctionVerifier:
    """Scores each branch by a function of it; higher is better, NaN is no verdict.

    ``revision`` tells one version of the function from another in records. An exception of the
    function is the failure of the branches that were scored with it.
    """

    policy = ()  # fits any, as far as anybody knows

    def __init__(
        self, function: Callable[[Branch], float | None], name: str, revision: str = ""
    ) -> None:
        if inspect.iscoroutinefunction(function):
            raise UsageError(
                f"{name}: a function that scores branches is a plain one; one that awaits is a "
                "class with info, policy and an async score (mull.verifiers.base.Verifier)"
            )
        self.function = function
        self.info = EngineInfo("custom", name, revision)

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch; ``EngineError`` where the function breaks or gives no number."""
        for position in range(len(branches)):
            meter.charge(position)
        return await score_in_thread(lambda branch, _: self._one(branch), branches)

    def _one(self, branch: Branch) -> float:
        try:
            value: object = self.function(branch)
        except Exception as error:
            raise EngineError(f"{self.info.model}: {type(error).__name__}: {error}") from error
        return as_score(self.info.model, value)
