"""A beam search over tokens, by the engine itself; the best hypothesis answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mull.errors import BudgetError, SpecError
from mull.selection import Same, Selection, best, exact
from mull.strategies.base import Search, Start
from mull.strategies.needs import Needs
from mull.strategies.sample import SampleSearch
from mull.types import Candidate, TokenBeam


@dataclass(frozen=True, slots=True)
class LikeliestBeam:
    """Selects the hypothesis that the beam itself ranks first: by logprob / length**penalty."""

    penalty: float = 0.0

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return best(candidates, self._rank, same)

    def _rank(self, candidate: Candidate) -> float | None:
        total = candidate.scores.get("logprob")
        return None if total is None else total / max(1, candidate.tokens) ** self.penalty


@dataclass(frozen=True, slots=True)
class TokenBeamSearch:
    """Beam search over tokens by cumulative log-probability; the best hypothesis answers.

    ``width`` hypotheses are kept and ``best_of`` (default: all) come back as candidates. One
    hypothesis costs one sample. ``length_penalty`` p ranks by logprob / length**p.
    """

    width: int = 4
    best_of: int | None = None
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        best_of = self.width if self.best_of is None else self.best_of
        if not 1 <= best_of <= self.width:
            raise SpecError("token-beam: width must be at least 1 and best_of lie in 1..width")
        if not math.isfinite(self.length_penalty):
            raise SpecError(
                f"token-beam(length_penalty={self.length_penalty}): must be a finite number"
            )

    @property
    def needs(self) -> Needs:
        """A policy that decodes by token beam."""
        return Needs(capabilities=("token_beam",), sampled=False)

    def start(self, start: Start) -> Search:
        if start.budget and start.budget.samples not in (None, self.width):
            raise BudgetError(
                f"token-beam(width={self.width}) contradicts the budget of "
                f"{start.budget.samples} samples: a beam costs its width"
            )
        decoding = TokenBeam(self.width, self.length_penalty)
        n = self.best_of or self.width
        # One request brings all hypotheses: fewer at a time would be several beams.
        return SampleSearch(start, n, LikeliestBeam(self.length_penalty), decoding, flight=n)
