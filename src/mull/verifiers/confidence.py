"""How sure the policy was of its own tokens: verifiers that need no model and cost nothing.

They read the log-probabilities of the tokens that were chosen, which every step carries where the
engine tells them. What needs the whole distribution (self-certainty, the top-k confidence of
DeepConf) cannot be had from these, and is not made up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mull.budget import Meter
from mull.errors import SpecError, UnsupportedError
from mull.types import Branch, EngineInfo


class MeanLogprob:
    """The geometric mean of the probabilities of a branch's tokens: exp(mean log-probability).

    Ranks as the mean log-probability does, and lies in 0..1. NaN where a step has none.
    ``UnsupportedError`` for a policy that does not tell them.
    """

    info = EngineInfo("confidence", "mean-logprob")

    def __init__(self, policy: EngineInfo) -> None:
        _check(policy, self.info.model)

    @property
    def policy(self) -> tuple[str, ...]:
        """It fits any."""
        return ()

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch; costs nothing."""
        return _each(branches, meter, lambda known: math.fsum(known) / len(known))


class LowestGroup:
    """exp of the lowest mean log-probability of ``size`` tokens in a row: the weakest stretch.

    The lowest-group confidence of DeepConf (Fu et al. 2025, arXiv 2508.15260), which there is made
    of the top-k log-probabilities and here of those of the chosen tokens. A branch of fewer tokens
    is one group. NaN where a step has no log-probabilities; ``UnsupportedError`` for a policy that
    does not tell them.
    """

    def __init__(self, policy: EngineInfo, *, size: int = 32) -> None:
        if size < 1:
            raise SpecError(f"lowest-group(size={size}): size must be at least 1")
        self.size = size
        self.info = EngineInfo("confidence", "lowest-group", str(size))
        _check(policy, self.info.model)

    @property
    def policy(self) -> tuple[str, ...]:
        """It fits any."""
        return ()

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch; costs nothing."""
        return _each(branches, meter, self._lowest)

    def _lowest(self, known: Sequence[float]) -> float:
        sums = np.concatenate([[0.0], np.cumsum(np.asarray(known, dtype=np.float64))])
        size = min(self.size, len(known))
        return float((sums[size:] - sums[:-size]).min() / size)


def _each(
    branches: Sequence[Branch], meter: Meter, mean: Callable[[Sequence[float]], float]
) -> list[float]:
    scores = []
    for position, branch in enumerate(branches):
        meter.charge(position)
        known = [value for step in branch.steps for value in step.logprobs or ()]
        told = bool(known) and all(step.logprobs is not None for step in branch.steps)
        scores.append(min(1.0, math.exp(mean(known))) if told else math.nan)
    return scores


def _check(policy: EngineInfo, name: str) -> None:
    if not policy.capabilities.logprobs:
        raise UnsupportedError(
            f"{name} reads the policy's log-probabilities, which {policy.kind}:{policy.model} does "
            "not tell: use another engine or verifier"
        )
