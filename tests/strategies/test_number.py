"""How many samples: from n, from the budget, or as many as it can pay; never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import TASK, problem

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.errors import BudgetError
from mull.strategies.base import Failure, Generate, Outcome, Room, Start
from mull.strategies.number import FAR, FLIGHT, Patience, samples_of, side_by_side
from mull.types import Usage

LONE = [
    "vote(flight=1)",
    "self-refine",
    "ab-mcts(flight=1)",
    "revise(select=majority)",
    "confident-vote(flight=1, warm=1)",
]


@given(n=st.none() | st.integers(-3, 40), given=st.none() | st.integers(1, 40))
def test_n_and_the_budget_agree_or_the_call_is_refused(n: int | None, given: int | None) -> None:
    budget = Budget(samples=given) if given else None
    bad = (n is not None and n < 1) or (n and given and n != given) or (n is None and not given)
    if bad:
        with pytest.raises(BudgetError):
            samples_of("vote", n, budget)
    else:
        assert samples_of("vote", n, budget) == (n or given)


@pytest.mark.parametrize("unit", ["tokens", "total_tokens", "flops", "seconds", "cost"])
def test_other_units_alone_set_no_number_of_their_own(unit: str) -> None:
    assert samples_of("vote", None, Budget(**{unit: 5})) == FAR
    assert samples_of("vote", 7, Budget(**{unit: 5})) == 7


def test_the_message_names_both_numbers_and_what_to_do() -> None:
    with pytest.raises(BudgetError, match=r"vote\(n=8\) contradicts the budget of 16 samples: giv"):
        samples_of("vote", 8, Budget(samples=16))
    with pytest.raises(BudgetError, match="give best-of-n\\(n=…\\) or a budget"):
        samples_of("best-of-n", None, None)
    with pytest.raises(BudgetError, match="at most"):
        samples_of("vote", None, Budget(samples=10**12))


@given(n=st.integers(1, 100) | st.just(FAR), flight=st.integers(1, 20))
def test_all_side_by_side_unless_only_cost_limits_them(n: int, flight: int) -> None:
    assert side_by_side(n, Budget(tokens=5), flight) == min(n, flight)
    if n != FAR:
        assert side_by_side(n, None, flight) == side_by_side(n, Budget(samples=n), flight) == n


@given(samples=st.lists(st.booleans(), max_size=30), flight=st.integers(1, 12))
def test_patience_ends_behind_so_many_in_a_row_that_said_nothing(
    samples: list[bool], flight: int
) -> None:
    far, told = Patience(FAR, flight), Patience(30, flight)
    for said in samples:
        far.saw(said)
        told.saw(said)
    most = max(FLIGHT, flight)
    assert far.over == (len(samples) >= most and not any(samples[-most:]))
    assert not told.over


@pytest.mark.parametrize("cost", [Usage(), Usage(generated=1)])
@pytest.mark.parametrize("spec", LONE)
def test_a_lost_engine_is_given_up_and_one_lost_sample_is_not(spec: str, cost: Usage) -> None:
    """No budget would end such a search soon: its failures cost little, or nothing."""
    search = load_strategy(spec).start(Start(problem(), TASK, Budget(tokens=100)))
    asked = 0
    while actions := [a for a in search.ask(Room(0)) if isinstance(a, Generate)]:
        asked += sum(action.count for action in actions)
        assert asked <= FLIGHT
        for action in actions:
            for index in range(action.first, action.first + action.count):
                search.tell(Outcome(action.id, index, Failure("lost", "no answer"), cost))
    assert search.done
    assert asked == FLIGHT
