"""Sample n solutions, answer what a verifier's summed scores favour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mull.errors import SpecError
from mull.selection import TRANSFORMS, Borda, Selector, Weighted
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_options
from mull.strategies.needs import Needs
from mull.strategies.number import FLIGHT, samples_of
from mull.strategies.scored import ByScore, ScoredSearch


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Vote weighted by a verifier's scores (weighted best-of-n; Li et al. 2022, DIVERSE).

    Sources: arXiv 2206.02336; Snell et al. 2024, arXiv 2408.03314. The answer with the largest sum
    of ``transform(score)`` over the samples that give it: ``identity`` for probabilities, ``exp``
    for log-probabilities, ``sigmoid`` for logits. A sample without a score has no say; where none
    has one, the majority answers.

    With ``transform=logit`` a probability p weighs logit(p) - logit(``neutral``): a log-likelihood
    ratio, below 0 where the score speaks against its answer. ``neutral`` (default 0.5) is fitted on
    other problems by ``verifiers.calibration.fit_neutral``.

    With ``rule=borda`` a sample weighs by its rank among the N scored, (N - rank + 1)^``power``
    (default 0.5), whatever the score's scale: weighted Borda voting, made for self-certainty (Kang
    et al. 2025, arXiv 2502.18581). ``power`` 0 is the majority; a rank needs no ``transform``.
    """

    n: int | None = None
    verifier: str = "prm"
    transform: Literal["identity", "exp", "sigmoid", "logit"] = "identity"
    flight: int = FLIGHT
    quorum: float = 0.5
    rule: Literal["sum", "borda"] = "sum"
    power: float | None = None
    neutral: float | None = None

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise SpecError(
                f"weighted-vote(transform={self.transform!r}): transform is one of "
                f"{', '.join(TRANSFORMS)}"
            )
        if self.rule not in ("sum", "borda"):
            raise SpecError(f"weighted-vote(rule={self.rule!r}): rule is sum or borda")
        if self.rule == "borda" and (self.transform != "identity" or self.neutral is not None):
            raise SpecError(
                "weighted-vote(rule=borda): ranks need no transform and know no neutral score; "
                "leave them out"
            )
        if self.rule == "sum" and self.power is not None:
            raise SpecError(f"weighted-vote(power={self.power:g}): a power needs rule=borda")
        _ = self.select
        check_options("weighted-vote", self.flight, self.quorum)

    @property
    def select(self) -> Selector:
        """The vote among the samples that have a score."""
        if self.rule == "sum":
            return Weighted(self.verifier, self.transform, self.neutral)
        return Borda(self.verifier) if self.power is None else Borda(self.verifier, self.power)

    @property
    def needs(self) -> Needs:
        """The policy and the verifier."""
        return Needs(verifiers=(self.verifier,))

    def start(self, start: Start) -> Search:
        return ScoredSearch(
            start,
            samples_of("weighted-vote", self.n, start.budget),
            ByScore(self.verifier, self.select, start.majority),
            start.sampling,
            flight=self.flight,
            quorum=self.quorum,
            mark=self.verifier,
            transform=self.transform if self.rule == "sum" else None,
        )
