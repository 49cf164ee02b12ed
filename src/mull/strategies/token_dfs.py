"""Every solution that the policy holds for likely enough; the likeliest answers."""

from __future__ import annotations

from dataclasses import dataclass

from mull.errors import BudgetError, SpecError
from mull.selection import Best
from mull.strategies.base import Search, Start
from mull.strategies.needs import Needs
from mull.strategies.number import FAR
from mull.strategies.sample import SampleSearch
from mull.types import ThresholdDFS


@dataclass(frozen=True, slots=True)
class TokenDfs:
    """All solutions of probability ``threshold`` or more (Franzen et al. 2025, arXiv 2505.07859).

    There are at most 1 / ``threshold``, and the search costs that many samples; the ``best_of``
    likeliest (default: all) become candidates with their ``logprob``. Nothing is drawn: seed and
    temperature change nothing. Where no solution is likely enough there is no answer.
    """

    threshold: float = 0.1
    best_of: int | None = None

    def __post_init__(self) -> None:
        # `not (a <= x <= b)`: NaN must fail too.
        if not 1 / FAR < self.threshold <= 1.0:
            raise SpecError(
                f"token-dfs(threshold={self.threshold}): threshold is a probability, as in 0.1"
            )
        if self.best_of is not None and not 1 <= self.best_of <= self.samples:
            raise SpecError(
                f"token-dfs(threshold={self.threshold:g}, best_of={self.best_of}): best_of lies in "
                f"1..{self.samples}, since no more solutions can be so likely"
            )

    @property
    def samples(self) -> int:
        """What a search costs: the most solutions that can be so likely."""
        return ThresholdDFS(self.threshold).width

    @property
    def needs(self) -> Needs:
        """A policy that decodes by threshold."""
        return Needs(capabilities=("threshold_dfs",), sampled=False)

    def start(self, start: Start) -> Search:
        if start.budget and start.budget.samples not in (None, self.samples):
            raise BudgetError(
                f"token-dfs(threshold={self.threshold:g}) contradicts the budget of "
                f"{start.budget.samples} samples: the search costs {self.samples}, one for "
                "each solution that can be so likely; give that budget, or another threshold"
            )
        n = self.best_of or self.samples
        # One request brings all solutions: fewer at a time would be several searches.
        return SampleSearch(
            start, n, Best("logprob"), ThresholdDFS(self.threshold), flight=n, unit=n
        )
