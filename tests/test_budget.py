"""Budgets refuse nonsense; the ledger adds up; what a meter reports is what it charged."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.budget import (
    COST_MODELS,
    UNITS,
    Budget,
    Dense,
    DenseAttention,
    Ledger,
    Meter,
    Purpose,
    check_countable,
)
from mull.errors import BudgetError
from mull.types import EngineInfo, Usage

COUNTS = st.integers(0, 10_000)
MODELS = st.sampled_from(["a", "b"])
PURPOSES = st.sampled_from(list(Purpose))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Whole FLOPs and money, so that every order of addition gives the same sum."""
    prompt = draw(COUNTS)
    cached = draw(st.integers(0, prompt))
    rest = [float(draw(COUNTS)) for _ in range(3)]
    return Usage(prompt, cached, draw(COUNTS), *rest, estimated=draw(st.booleans()))


CHARGES = st.lists(st.tuples(PURPOSES, MODELS, usages(), st.integers(0, 3)), max_size=12)


HUGE = pytest.param(10**400, id="beyond every float")


def test_units_are_the_fields() -> None:
    assert tuple(field.name for field in fields(Budget)) == UNITS


def test_a_budget_without_a_limit_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one of samples, tokens"):
        Budget()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, -math.inf, HUGE])
def test_a_limit_is_positive_and_finite(unit: str, value: float) -> None:
    with pytest.raises(BudgetError, match=f"budget.{unit} must be a positive finite number"):
        Budget(**{unit: value})


@pytest.mark.parametrize("value", ["4", True, [4], 4j])
def test_a_limit_is_a_number(value: Any) -> None:
    with pytest.raises(BudgetError, match=r"budget\.samples must be a number, not "):
        Budget(samples=value)


@pytest.mark.parametrize("unit", UNITS[:3])
def test_counted_units_are_whole_numbers(unit: str) -> None:
    for value in (1.5, 4.0, np.float64(4)):
        with pytest.raises(BudgetError, match=f"budget.{unit} must be a whole number, not {value}"):
            Budget(**{unit: value})
    budget = Budget(**{unit: np.int64(4)})
    assert budget == Budget(**{unit: 4})
    assert type(getattr(budget, unit)) is int


def test_a_bad_limit_beside_a_good_one_is_refused() -> None:
    with pytest.raises(BudgetError):
        Budget(samples=4, tokens=0)


@pytest.mark.parametrize("unit", UNITS)
def test_metered_limits_are_those_that_only_finished_work_tells(unit: str) -> None:
    assert Budget(**{unit: 5}).metered == (unit not in ("samples", "seconds"))


@given(spent=usages(), limit=st.integers(1, 30_000))
def test_a_budget_is_exhausted_when_its_unit_reaches_the_limit(spent: Usage, limit: int) -> None:
    reached = {
        "tokens": spent.generated,
        "total_tokens": spent.prompt - spent.cached + spent.generated,
        "flops": spent.flops,
        "cost": spent.cost,
    }
    for unit, value in reached.items():
        assert Budget(**{unit: limit}).exhausted(spent) == (value >= limit)
        over = {unit: value - limit} if value > limit else {}
        assert Budget(samples=1, **{unit: limit}).over(spent) == over
    assert not Budget(seconds=limit).exhausted(spent)
    assert not Budget(samples=limit).exhausted(spent)


@given(CHARGES)
def test_the_total_is_the_sum_of_the_charges(
    charges: list[tuple[Purpose, str, Usage, int]],
) -> None:
    ledger = Ledger()
    for purpose, model, usage, completions in charges:
        ledger.charge(purpose, model, usage, completions)
    assert ledger.total == sum((usage for _, _, usage, _ in charges), Usage())
    assert ledger.of(*Purpose) == ledger.total
    assert sum(n for *_, n in ledger.rows()) <= sum(n for *_, n in charges)
    assert [(p, m) for p, m, _, _ in ledger.rows()] == sorted(
        {(p, m) for p, m, u, n in charges if n or u.prompt or u.generated}
    )


@given(CHARGES.filter(bool), PURPOSES, st.data())
def test_a_move_keeps_the_total(
    charges: list[tuple[Purpose, str, Usage, int]], target: Purpose, data: st.DataObject
) -> None:
    ledger = Ledger()
    for purpose, model, usage, completions in charges:
        ledger.charge(purpose, model, usage, completions)
    total, before = ledger.total, ledger.of(target)
    source, model, usage, completions = data.draw(st.sampled_from(charges))
    ledger.move(source, target, model, usage, completions)
    assert ledger.total == total
    moved = ledger.of(target).generated - before.generated
    assert moved == (0 if source is target else usage.generated)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt=-1),
        Usage(generated=-1),
        Usage(prompt=1, cached=2),
        Usage(prompt=1, cached=-1),
        Usage(flops=-1.0),
        Usage(seconds=-1.0),
        Usage(cost=-1.0),
        Usage(flops=math.nan),
        Usage(cost=math.nan),
    ],
)
def test_what_was_spent_is_never_taken_back(usage: Usage) -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="no negative part"):
        ledger.charge(Purpose.POLICY, "m", usage)
    assert ledger.total == Usage()
    assert list(ledger.rows()) == []


# Prices of whole units a token: sums of whole numbers are exact in every order.
INFO = EngineInfo("simulated", "m", parameters=1000, layers=3, width=16, price=(3e6, 1e6, 9e6))


@given(prompt=st.integers(0, 300), generated=st.integers(0, 300), cut=st.integers(0, 300))
def test_flops_are_the_sum_over_positions_however_charged(
    prompt: int, generated: int, cut: int
) -> None:
    """2P + 4·L·W·(keys attended) for each token, charged in one piece, two, or one by one."""
    cut = min(cut, generated)
    direct = sum(2 * 1000 + 4 * 3 * 16 * (c + 1) for c in range(prompt + generated))
    whole, split = (Meter(Ledger(DenseAttention()), Purpose.POLICY, INFO) for _ in range(2))
    whole.charge(0, prompt=prompt)
    whole.charge(0, generated=generated, context=prompt)
    split.charge(0, prompt=prompt)
    split.charge(0, generated=cut, context=prompt)
    for at in range(cut, generated):
        split.charge(0, generated=1, context=prompt + at)
    assert whole.total.flops == split.total.flops == direct
    assert Dense().flops(INFO, generated, prompt) == 2 * 1000 * generated


@given(prompt=st.integers(0, 300), data=st.data())
def test_cached_tokens_cost_no_flops_and_their_own_price(prompt: int, data: st.DataObject) -> None:
    cached = data.draw(st.integers(0, prompt))
    meter = Meter(Ledger(), Purpose.POLICY, INFO)
    meter.charge(0, prompt=prompt, cached=cached)
    direct = sum(2 * 1000 + 4 * 3 * 16 * (c + 1) for c in range(cached, prompt))
    assert meter.usage(0).flops == direct
    assert meter.usage(0).cost == (prompt - cached) * 3 + cached
    assert meter.usage(0).tokens == prompt - cached


def test_unknown_sizes_report_no_flops() -> None:
    meter = Meter(Ledger(), Purpose.POLICY, EngineInfo("openai", "m"))
    meter.charge(0, prompt=10)
    meter.charge(0, generated=10, context=10)
    assert meter.total == Usage(prompt=10, generated=10)


def test_cost_models_are_named() -> None:
    assert {name: model.name for name, model in COST_MODELS.items()} == {
        "2P+4LWc": "2P+4LWc",
        "2P": "2P",
    }


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=20))
def test_what_a_meter_reports_is_what_it_charged(charges: list[tuple[int, int]]) -> None:
    ledger = Ledger()
    meter = Meter(ledger, Purpose.POLICY, INFO)
    for index, generated in charges:
        meter.charge(index, generated=generated, context=7, seconds=1.0)
    assert sum((meter.usage(index) for index in meter.samples), Usage()) == meter.total
    assert meter.total == ledger.total
    assert list(meter.samples) == list(dict.fromkeys(index for index, _ in charges))
    if any(generated for _, generated in charges):
        assert [n for *_, n in ledger.rows()] == [len(meter.samples)]


def test_a_moved_sample_is_charged_on_its_new_row_from_then_on() -> None:
    ledger = Ledger()
    meter = Meter(ledger, Purpose.POLICY, INFO)
    for index in range(3):
        meter.charge(index, generated=5)
    meter.move(1, Purpose.CANCELLED)
    meter.charge(1, generated=2)
    meter.charge(0, generated=2)
    found = {purpose: (usage.generated, n) for purpose, _, usage, n in ledger.rows()}
    assert found == {Purpose.POLICY: (12, 2), Purpose.CANCELLED: (7, 1)}
    meter.move(1, Purpose.POLICY)
    found = {purpose: (usage.generated, n) for purpose, _, usage, n in ledger.rows()}
    assert found == {Purpose.POLICY: (19, 3)}


def test_a_restored_completion_costs_what_it_cost() -> None:
    first, again = Ledger(), Ledger()
    made = Meter(first, Purpose.POLICY, INFO)
    made.charge(3, prompt=9, cached=2, seconds=0.5)
    made.charge(3, generated=4, context=9)
    Meter(again, Purpose.POLICY, INFO).restore(3, made.usage(3))
    assert list(again.rows()) == list(first.rows())


@pytest.mark.parametrize("unit", ["flops", "cost"])
def test_a_limit_that_could_never_be_reached_is_refused(unit: str) -> None:
    unknown = EngineInfo("simulated", "m")
    known = EngineInfo("simulated", "m", parameters=10, price=(0.0, 0.0, 1.0))
    with pytest.raises(BudgetError, match="unknown"):
        check_countable(Budget(**{unit: 5.0}), unknown)
    check_countable(Budget(**{unit: 5.0}), known)
    check_countable(Budget(samples=5), unknown)
    check_countable(None, unknown)
    check_countable(Budget(**{unit: 5.0}), unknown, Usage(seconds=2.0))
    check_countable(Budget(**{unit: 5.0}), known, Usage(prompt=7))
    with pytest.raises(BudgetError, match=r"simulated:m, unknown so far: say it by .* option"):
        check_countable(Budget(**{unit: 5.0}), unknown, Usage(prompt=7))
