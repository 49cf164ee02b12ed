"""How many samples a strategy takes, how many at a time, and when one without a number gives up."""

from __future__ import annotations

from dataclasses import dataclass

from mull.budget import Budget
from mull.errors import BudgetError

FLIGHT = 8  # samples in flight where only their cost limits how many there are
UNSAID = 16  # samples of a strategy that must know how many, where n and the budget do not say
FAR = 1 << 20  # "no limit of its own": the budget's other units end the search


def samples_of(name: str, n: int | None, budget: Budget | None) -> int:
    """How many samples a strategy takes: its ``n``, else the budget's, else as many as it can pay.

    Raises ``BudgetError`` where the two contradict each other, or neither says anything.
    """
    given = budget.samples if budget else None
    if n is not None and n < 1:
        raise BudgetError(f"{name}(n={n}): n must be at least 1")
    if n is not None and given is not None and n != given:
        raise BudgetError(
            f"{name}(n={n}) contradicts the budget of {given} samples: give one of the two"
        )
    if max(n or 0, given or 0) > FAR:
        raise BudgetError(f"{name} takes at most {FAR} samples of a problem, not {n or given}")
    if budget is None and n is None:
        raise BudgetError(
            f"{name} does not know how many samples to take: give {name}(n=…) or a budget"
        )
    return n or given or FAR


def side_by_side(n: int, budget: Budget | None, flight: int) -> int:
    """How many samples run side by side: all, or ``flight`` where only cost limits them.

    >>> side_by_side(16, Budget(samples=16), 8), side_by_side(16, Budget(tokens=900), 8)
    (16, 8)
    """
    return min(n, flight) if n == FAR or (budget is not None and budget.metered) else n


@dataclass(slots=True)
class Patience:
    """When a search without a number of its own gives up.

    Samples that failed or said nothing may cost nothing, and then never exhaust a budget: after
    ``FLIGHT`` of them in a row, or a ``flight`` that is larger, the search is ``over``, if its
    number ``n`` is ``FAR``.

    >>> patience = Patience(FAR)
    >>> said = [False, True, *[False] * 8]
    >>> [patience.saw(each) or patience.over for each in said].index(True)
    9
    """

    n: int
    flight: int = FLIGHT
    in_vain: int = 0

    def saw(self, said: bool) -> None:
        """One more sample came, which said something or did not."""
        self.in_vain = 0 if said else self.in_vain + 1

    @property
    def over(self) -> bool:
        """Whether to ask for no more."""
        return self.n == FAR and self.in_vain >= max(FLIGHT, self.flight)
