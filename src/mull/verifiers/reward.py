"""Reward models: a value head at step ends, over any engine that reads one (PRM and ORM).

A process reward model gives one value a step, the probability that the solution comes right from
there; an outcome reward model is read at the end alone (``aggregate="last"``). How the values of
the steps become one score is the verifier's business, never the strategy's: Snell et al. 2024
(arXiv 2408.03314) take the last, Lightman et al. 2023 (arXiv 2305.20050) product or minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError
from mull.types import Branch, Scored, ScoreRequest
from mull.verifiers.base import EngineVerifier
from mull.verifiers.steps import AGGREGATES, Aggregate
from mull.verifiers.texts import score_each, text_ids


class RewardVerifier(EngineVerifier):
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
                f"{engine.info.model} has no value head (value_head.weight or score.weight), so "
                "it cannot score steps: name a prm or an orm"
            )
        self.engine, self.aggregate, self.history = engine, aggregate, history
        self.separator, self.policy = separator, trained_for
        self.exact = bool(tokenizer) and tokenizer == engine.info.tokenizer

    @property
    def how(self) -> str:
        """What decides the score besides the engine."""
        return f"{self.aggregate}{'/history' if self.history else ''}"

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches in one batch of the engine."""
        requests = [self._request(branch) for branch in branches]
        return [self._score(found) for found in await score_each(self.engine, requests, meter)]

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
        return text_ids(branch) if self.exact else None

    def _score(self, found: Scored | None) -> float:
        return AGGREGATES[self.aggregate](found.values) if found and found.values else math.nan
