"""Verdicts, Holm's rule, and claims about shapes: crossings, costs at equal error, optima."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.rows import bits, row

from mull.metrics import Interval
from mull.report import verdicts
from mull.report.compare import column
from mull.report.verdicts import (
    cost_ratios,
    crossing,
    holm,
    interior,
    inverse,
    no_more_than,
    p_value,
    verdict,
)


def first(count: int) -> list[bool]:
    return [i < count for i in range(40)]


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.03, 0.01, 0.05, "reproduced"),
        (0.015, 0.01, 0.05, "reproduced"),
        (0.01, 0.005, 0.02, "direction only"),
        (0.03, -0.01, 0.05, "not detected"),
        (0.0, 0.0, 0.0, "not detected"),
        (-0.03, -0.05, -0.01, "contradicted"),
    ],
)
def test_verdicts(value: float, low: float, high: float, said: str) -> None:
    assert verdict(Interval(value, low, high, 9), 0.015) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.02, "reproduced"), (-0.02, 0.04, "not detected"), (0.04, 0.1, "contradicted")],
)
def test_no_more_than_the_smallest_effect(low: float, high: float, said: str) -> None:
    assert no_more_than(Interval((low + high) / 2, low, high, 9), 0.03) == said


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_lies_between_the_plain_and_the_bonferroni_values(values: list[float]) -> None:
    for plain, adjusted in zip(values, holm(values), strict=True):
        assert plain <= adjusted <= min(1.0, plain * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(holm(values))[order]) >= 0).all()


def test_an_interval_that_touches_zero_has_p_of_a_twentieth() -> None:
    assert p_value(Interval(0.1, 0.0, 0.2, 9)) == pytest.approx(0.05)
    assert p_value(Interval(0.0, 0.0, 0.0, 9)) == 1.0
    assert p_value(Interval(math.nan, math.nan, math.nan, 0)) == 1.0
    assert p_value(Interval(0.2, 0.2, 0.2, 9)) == 0.0


def test_a_crossing_is_found_where_the_lines_meet() -> None:
    lead = {4: 10, 16: 4, 64: -4}
    pairs = {
        n: (column([row("beam", n, first(20 + by))]), column([row("vote", n, first(20))]))
        for n, by in lead.items()
    }
    found = crossing(pairs)
    assert found is not None
    assert found.at.value == pytest.approx(32.0)
    assert 16 <= found.at.low <= found.at.high <= 64
    assert found.share > 0.9
    assert crossing({n: pairs[n] for n in (4,)}) is None
    ahead = crossing({n: pairs[n] for n in (4, 16)})
    assert ahead is not None
    assert math.isnan(ahead.at.value)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5, unique=True))
def test_the_inverse_gives_back_the_measured_costs(values: list[float]) -> None:
    means, logs = np.array([sorted(values)]), np.arange(float(len(values)))
    for at, value in enumerate(sorted(values)):
        assert inverse(means, logs, value)[0] == pytest.approx(at, abs=1e-6)


def test_a_policy_of_a_quarter_of_the_flops_is_four_times_cheaper() -> None:
    sizes = (1, 4, 16, 64)
    small = {n: [row("vote", n, bits(n, 0.2 + i * 0.2))] for i, n in enumerate(sizes)}
    large = {
        n: [row("vote", n, bits(n, 0.2 + i * 0.2), policy="l", policy_flops=4e6 * n)]
        for i, n in enumerate(sizes)
    }
    found = cost_ratios(small, large)
    assert len(found) == 3
    for _, log in found:
        assert (log.value, log.low, log.high) == pytest.approx((2.0, 2.0, 2.0))
    for (target, there), (_, back) in zip(found, cost_ratios(large, small), strict=True):
        assert 0 < target < 1
        assert there.value == pytest.approx(-back.value)
    # What only one of them was run on says nothing of either.
    more = {n: [*rows, row("vote", n, [True] * 40, digest="d1")] for n, rows in small.items()}
    assert cost_ratios(more, large) == found
    elsewhere = {n: [row("vote", n, policy="l", digest="d9")] for n in sizes}
    assert cost_ratios(small, elsewhere) == []


def test_an_accuracy_that_one_policy_does_not_reach_costs_it_without_end() -> None:
    """Resamples in which the small policy stays below the target count against it."""
    small = {n: [row("vote", n, bits(1, rate))] for n, rate in ((1, 0.2), (4, 0.5))}
    large = {n: [row("vote", n, bits(2, rate), policy="l")] for n, rate in ((1, 0.1), (4, 0.9))}
    target, log = cost_ratios(small, large)[-1]
    assert 0.2 < target < 0.5
    assert log.low == -math.inf
    assert math.isfinite(log.value) and log.high > log.value


def test_an_optimum_inside_is_tested_on_other_problems_than_chose_it() -> None:
    peak = [column([row("mixed", 16, bits(1, rate))]) for rate in (0.2, 0.8, 0.9, 0.3)]
    ends = dict(interior(peak))
    assert set(ends) == {"first", "last"}
    assert all(each.low > 0 for each in ends.values())
    # Pure noise: what luck chose on one half wins nothing on the other.
    gains = [
        dict(interior([column([row("m", 16, bits(10 * s + i, 0.5))]) for i in range(9)]))["first"]
        for s in range(25)
    ]
    assert abs(np.mean([each.value for each in gains])) < 0.05
    assert interior(peak[:2]) == []


def test_what_is_chosen_on_a_puzzle_is_never_tested_on_it() -> None:
    puzzles = np.array([f"p{at % 37}" for at in range(200)])
    folds = verdicts._folds(puzzles)
    assert sorted(np.concatenate([tested for _, tested in folds]).tolist()) == list(range(200))
    for chosen, tested in folds:
        assert len(chosen) and len(tested)
        assert not set(puzzles[chosen]) & set(puzzles[tested])
