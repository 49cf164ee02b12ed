"""Reward models: a value head at step ends, over any engine that reads one (PRM and ORM).

A process reward model gives one value a step, the probability that the solution comes right from
there; an outcome reward model is read at the end alone (``aggregate="last"``). How the values of
the steps become one score is the verifier's business, never the strategy's: Snell et al. 2024
(arXiv 2408.03314) take the last, Lightman et al. 2023 (arXiv 2305.20050) product or minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mull.budget import Ledger, Meter
from mull.engines.base import Engine
from mull.errors import ContextError, SpecError
from mull.types import Branch, EngineInfo, Scored, ScoreRequest, StopReason
from mull.verifiers.base import forget_prefixes
from mull.verifiers.steps import AGGREGATES, Aggregate


class RewardVerifier:
    """Scores a branch by the value head's readings at its step ends, each 0..1.

    A step that was scored once is not encoded again: the engine's prefix cache holds it. The
    branch's own token ids are used where ``tokenizer`` (that of the policy) is the engine's; else
    its text. With ``history`` the model sees the earlier attempts too (a reward model of
    revisions). A branch without a step, or longer than the context, has no score (NaN).
    ``trained_for`` is (model, revision) of the policy it belongs to.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        aggregate: Aggregate = "last",
        history: bool = False,
        separator: str = "\n",
        trained_for: tuple[str, ...] = (),
        tokenizer: str = "",
    ) -> None:
        if aggregate not in AGGREGATES:
            raise SpecError(f"aggregate={aggregate!r}: aggregate is {' or '.join(AGGREGATES)}")
        if not engine.info.capabilities.values:
            raise SpecError(
                f"{engine.info.model} has no value head (tensor value_head.weight), so it cannot "
                "score steps: name a prm or an orm"
            )
        self.engine, self.aggregate, self.history = engine, aggregate, history
        self.separator, self.policy = separator, trained_for
        self.exact = bool(tokenizer) and tokenizer == engine.info.tokenizer

    @property
    def info(self) -> EngineInfo:
        """The engine's, with what decides the score in its revision."""
        given = self.engine.info
        kind = f"{self.aggregate}{'/history' if self.history else ''}"
        return replace(given, revision=f"{given.revision}/{kind}")

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches in one batch of the engine."""
        requests = [self._request(branch) for branch in branches]
        try:
            found = await self.engine.score(requests, meter)
        except ContextError:  # nothing was encoded yet: which one it is shows one by one
            return [await self._alone(at, request, meter) for at, request in enumerate(requests)]
        return [self._score(*pair) for pair in zip(requests, found, strict=True)]

    def forget(self) -> None:
        """Empty the engine's prefix cache, if it has one."""
        forget_prefixes(self.engine)

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    async def _alone(self, at: int, request: ScoreRequest, meter: Meter) -> float:
        gauge = Meter(Ledger(meter.ledger.cost_model), meter.purpose, meter.info)
        try:
            (found,) = await self.engine.score([request], gauge)
        except ContextError:
            meter.charge(at)
            return math.nan
        meter.restore(at, gauge.usage(0))
        return self._score(request, found)

    def _request(self, branch: Branch) -> ScoreRequest:
        return ScoreRequest(
            branch.prompt if self.history else branch.view,
            branch.text,
            self._ids(branch),
            self.separator,
            values=True,
            logprobs=False,
        )

    def _ids(self, branch: Branch) -> tuple[int, ...] | None:
        """The branch's own tokens where they are the text's: no stop string, no end token."""
        ids = branch.token_ids if self.exact and branch.steps else None
        if ids is None or branch.steps[-1].stop is StopReason.STOP:
            return None
        return ids[:-1] if branch.steps[-1].stop is StopReason.END else ids

    def _score(self, request: ScoreRequest, found: Scored) -> float:
        return AGGREGATES[self.aggregate](found.values) if found.values else math.nan
