"""Sample n solutions, answer what a verifier's summed scores favour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mull.errors import SpecError
from mull.selection import TRANSFORMS, Weighted
from mull.strategies.base import Search, Start
from mull.strategies.needs import Needs
from mull.strategies.sample import WINDOW, check_options, samples_of
from mull.strategies.scored import ByScore, ScoredSearch


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Vote weighted by a verifier's scores (weighted best-of-n; Li et al. 2022, DIVERSE).

    Sources: arXiv 2206.02336; Snell et al. 2024, arXiv 2408.03314. The answer with the largest sum
    of ``transform(score)`` over the samples that give it: ``identity`` for probabilities, ``exp``
    for log-probabilities, ``sigmoid`` for logits. A sample without a score has no say; where none
    has one, the majority answers.
    """

    n: int | None = None
    verifier: str = "prm"
    transform: Literal["identity", "exp", "sigmoid"] = "identity"
    window: int = WINDOW
    quorum: float = 0.5

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise SpecError(
                f"weighted-vote(transform={self.transform!r}): transform is one of "
                f"{', '.join(TRANSFORMS)}"
            )
        check_options("weighted-vote", self.window, self.quorum)

    @property
    def needs(self) -> Needs:
        """The policy and the verifier."""
        return Needs(verifiers=(self.verifier,))

    def start(self, start: Start) -> Search:
        return ScoredSearch(
            start,
            samples_of("weighted-vote", self.n, start.budget),
            ByScore(self.verifier, Weighted(self.verifier, self.transform)),
            start.sampling,
            window=self.window,
            quorum=self.quorum,
            mark=self.verifier,
            transform=self.transform,
        )
