"""How likely another model finds a branch: a larger one judges by what it would have said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError, UnsupportedError
from mull.types import Branch, EngineInfo, Scored, ScoreRequest
from mull.verifiers.base import EngineVerifier
from mull.verifiers.texts import score_each, text_ids

OF_TEXT: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda logprobs: math.fsum(logprobs) / len(logprobs),
    "product": math.fsum,
    "min": min,
}
"""Log-probabilities of tokens → that of the text; the names as for a reward model's steps."""


class LikelihoodVerifier(EngineVerifier):
    """The probability that a model gives the tokens of a branch, 0..1, as one of ``OF_TEXT``.

    ``mean`` is the geometric mean over tokens, whatever the length; ``product`` the probability of
    the whole text, which tells short texts of one shape apart and vanishes for long ones.

    Needs no training, only a model that writes the policy's task better than the policy does: what
    it finds unlikely is where it would have gone on otherwise. The text is read incrementally
    through the engine's prefix cache, token for token as the policy wrote it where both have one
    tokenizer. Its end token does not count. A branch without a token, or longer than the context,
    has no score (NaN). ``UnsupportedError`` for an engine that cannot score a given text.
    """

    policy = ()

    def __init__(self, engine: Engine, policy: EngineInfo, *, aggregate: str = "mean") -> None:
        info = engine.info
        if aggregate not in OF_TEXT:
            raise SpecError(
                f"likelihood(aggregate={aggregate!r}): aggregate is {' or '.join(OF_TEXT)}"
            )
        if not info.capabilities.score:
            raise UnsupportedError(
                f"likelihood needs the log-probabilities of a given text, which "
                f"{info.kind}:{info.model} does not tell: use a model in this process"
            )
        self.engine, self.aggregate = engine, aggregate
        self.exact = bool(policy.tokenizer) and policy.tokenizer == info.tokenizer

    @property
    def how(self) -> str:
        """What decides the score besides the engine."""
        return f"likelihood/{self.aggregate}"

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches in one batch of the engine."""
        requests = [
            ScoreRequest(branch.prompt, branch.text, text_ids(branch) if self.exact else None)
            for branch in branches
        ]
        found = await score_each(self.engine, requests, meter)
        return [self._score(each) for each in found]

    def _score(self, found: Scored | None) -> float:
        if not found or not found.logprobs:
            return math.nan
        return math.exp(OF_TEXT[self.aggregate](found.logprobs))
