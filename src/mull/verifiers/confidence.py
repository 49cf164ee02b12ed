"""How sure the policy was of its own tokens.

``MeanLogprob`` and ``LowestGroup`` read the log-probabilities of the chosen tokens, which every
step carries where the engine tells them: they need no model and cost nothing. ``SelfCertainty``
needs the whole distribution before every token, so it has the policy read the text once more. The
top-k confidence of DeepConf cannot be had from chosen tokens, and is not made up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from statistics import fmean

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError, UnsupportedError
from mull.types import Branch, EngineInfo, ScoreRequest
from mull.verifiers.base import EngineVerifier
from mull.verifiers.texts import score_each, text_ids


class MeanLogprob:
    """The geometric mean of the probabilities of a branch's tokens: exp(mean log-probability).

    Ranks as the mean log-probability does, and lies in 0..1. NaN where a step has none.
    ``UnsupportedError`` for a policy that does not tell them.
    """

    info = EngineInfo("confidence", "mean-logprob")
    policy = ()

    def __init__(self, policy: EngineInfo) -> None:
        _check(policy, self.info.model)

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

    policy = ()

    def __init__(self, policy: EngineInfo, *, size: int = 32) -> None:
        if size < 1:
            raise SpecError(f"lowest-group(size={size}): size must be at least 1")
        self.size = size
        self.info = EngineInfo("confidence", "lowest-group", str(size))
        _check(policy, self.info.model)

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch; costs nothing."""
        return _each(branches, meter, partial(lowest_mean, size=self.size))


class SelfCertainty(EngineVerifier):
    """How far the policy's next-token distributions are from uniform, over a branch's tokens.

    The mean over the tokens of KL(uniform || p) = -ln V - mean over the vocabulary of ln p, p the
    distribution at T=1 that the token is drawn from, V the size of the model's output (Kang et al.
    2025, arXiv 2502.18581). In nats, 0 or more and no number in 0..1: rank by it, or weigh votes.

    The policy itself (``policy_engine``) reads each branch, which is charged as the verifier's: the
    prompt is shared by the engine's prefix cache, the branch's text is read whole each time. Its
    end token does not count. A branch without a token, or longer than the context, has no score
    (NaN). Closing the verifier leaves the policy open. ``UnsupportedError`` for a policy that does
    not tell the whole distribution.
    """

    policy = ()  # fits any: it is made of it
    owned = False

    def __init__(self, policy_engine: Engine) -> None:
        info = policy_engine.info
        if not (info.capabilities.score and info.capabilities.certainty):
            raise UnsupportedError(
                "self-certainty needs the probability of every token of the vocabulary, which "
                f"{info.kind}:{info.model} does not tell: use a model in this process, or another "
                "verifier such as mean-logprob"
            )
        self.engine = policy_engine

    @property
    def how(self) -> str:
        """What decides the score besides the engine."""
        return "self-certainty"

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch in nats, all branches in one batch of the engine."""
        requests = [
            ScoreRequest(
                branch.prompt,
                branch.text,
                text_ids(branch),
                logprobs=False,
                weights=branch.weights,
                certainty=True,
            )
            for branch in branches
        ]
        found = await score_each(self.engine, requests, meter)
        return [fmean(each.certainty) if each and each.certainty else math.nan for each in found]


def lowest_mean(logprobs: Sequence[float], size: int) -> float:
    """The lowest mean of ``size`` log-probabilities in a row, of all where they are fewer."""
    size = min(size, len(logprobs))
    sums = [0.0, *accumulate(logprobs)]
    return min((sums[end] - sums[end - size]) / size for end in range(size, len(sums)))


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
