"""One answer without a choice: the greedy completion, or plain samples of which the first answers.

``sample`` is the baseline that every other strategy is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mull.errors import BudgetError
from mull.selection import NOTHING, Majority, Same, Selection, exact
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_options
from mull.strategies.needs import Needs
from mull.strategies.number import FLIGHT, samples_of
from mull.strategies.sample import SampleSearch
from mull.types import GREEDY, Candidate


@dataclass(frozen=True, slots=True)
class First:
    """Selects the answer of the first sample that came, none if that one has none."""

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        first = min(candidates, key=lambda candidate: candidate.key, default=None)
        return NOTHING if first is None else Majority()([first], same)


@dataclass(frozen=True, slots=True)
class Greedy:
    """The completion at temperature 0."""

    @property
    def needs(self) -> Needs:
        """The policy, and no sampling."""
        return Needs(sampled=False)

    def start(self, start: Start) -> Search:
        if start.budget and start.budget.samples not in (None, 1):
            raise BudgetError(
                f"greedy takes one sample, and the budget is {start.budget.samples}: "
                "use vote or best-of-n, or a budget of 1 sample"
            )
        return SampleSearch(start, 1, First(), GREEDY)


@dataclass(frozen=True, slots=True)
class Sample:
    """``n`` independent samples; the first answers, the others show the spread.

    Without ``n`` and without a budget, one.
    """

    n: int | None = None
    flight: int = FLIGHT

    def __post_init__(self) -> None:
        check_options("sample", self.flight)

    def start(self, start: Start) -> Search:
        n = 1 if self.n is None and start.budget is None else self.n
        n = samples_of("sample", n, start.budget)
        return SampleSearch(start, n, First(), start.sampling, flight=self.flight)
