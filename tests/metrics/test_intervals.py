"""Intervals: known values, coverage on simulated problems, pairing, both levels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mull.metrics import (
    Bootstrap,
    Interval,
    hierarchical_interval,
    mean_interval,
    paired_difference,
    ratio_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_has_its_textbook_values(right: int, n: int, low: float, high: float) -> None:
    interval = wilson(right, n)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def test_wilson_says_nothing_about_no_problems_and_refuses_nonsense() -> None:
    assert math.isnan(wilson(0, 0).value)
    assert wilson(0, 0).percent() == "–"
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(3, 2)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_bootstrap_covers_the_truth_about_as_often_as_it_says(method: str) -> None:
    chance = np.random.default_rng(11)
    trials, hits = 200, 0
    for trial in range(trials):
        sample = chance.beta(0.5, 0.5, 60)  # per-problem pass rates, true mean 0.5
        interval = Bootstrap(sample, resamples=400, seed=trial).interval(method=method)
        hits += interval.low <= 0.5 <= interval.high
    # 95 % of 200 is 190; four standard deviations of the count are 12.
    assert 178 <= hits <= 200


def test_bca_agrees_with_scipy_on_skewed_values() -> None:
    from scipy import stats

    sample = np.random.default_rng(2).exponential(1.0, 80)
    mine = Bootstrap(sample, resamples=10_000, seed=1).interval(method="bca")
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_a_paired_difference_is_narrower_than_unpaired_intervals_would_say() -> None:
    chance = np.random.default_rng(4)
    base = chance.random(300)
    better = base + 0.03 + 0.01 * chance.standard_normal(300)
    paired = paired_difference(better, base, resamples=2000)
    assert paired.above_zero
    assert paired.value == pytest.approx(float(np.mean(better - base)))
    separate = mean_interval(base, resamples=2000)
    assert paired.high - paired.low < (separate.high - separate.low) / 5


def test_the_same_seed_gives_the_same_interval_and_another_a_different_one() -> None:
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values, 500, seed=1) == mean_interval(values, 500, seed=1)
    assert mean_interval(values, 500, seed=1) != mean_interval(values, 500, seed=2)


def test_near_none_and_all_resampling_shows_nothing_and_wilson_stands_in() -> None:
    assert mean_interval([1, 1, 1, 1]) == wilson(4, 4)
    assert mean_interval([0.0] * 7) == wilson(0, 7)
    assert mean_interval([1.0] * 98 + [0.0] * 2) == wilson(98, 100)
    assert mean_interval([1.0] * 50 + [0.0] * 50).method == "percentile"
    assert mean_interval([0.01, 3.0, -2.0]).method == "percentile", "no proportion"


@pytest.mark.parametrize("rare", [0.005, 0.02, 0.05])
def test_rare_differences_are_covered_where_resampling_would_miss_them(rare: float) -> None:
    chance = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        drawn = chance.random(60)
        gained, lost = drawn < 2 * rare, drawn > 1 - rare
        found = paired_difference(gained.astype(float), lost.astype(float), 200)
        covered += found.low <= rare <= found.high
    assert covered >= 0.92 * 300


def test_nothing_seen_is_no_certainty() -> None:
    same = paired_difference([1.0, 0.0] * 100, [1.0, 0.0] * 100)
    assert (same.value, same.method) == (0.0, "mover")
    assert same.high == -same.low == pytest.approx(wilson(0, 200).high)
    one = paired_difference([1.0] + [0.0] * 199, [0.0] * 200)
    assert one.low < 0 < one.value < one.high


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_problems_that_were_met_twice_count_once(method: str) -> None:
    """Every problem twice, with the same outcome: the interval is that of the different ones."""
    once = np.random.default_rng(5).beta(0.5, 0.5, 80)
    twice = np.concatenate([once, once])
    labels = [*range(80), *range(80)]
    alone = Bootstrap(once, seed=1).interval(method=method)
    for together in (
        Bootstrap(twice, seed=1, clusters=labels).interval(method=method),
        Bootstrap(twice, seed=2, clusters=[str(label) for label in labels]).interval(method=method),
    ):
        assert together.value == pytest.approx(alone.value)
        assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.05)
    apart = Bootstrap(twice, seed=1).interval(method=method)
    assert apart.high - apart.low < 0.8 * (alone.high - alone.low)


def test_different_problems_in_clusters_of_their_own_change_nothing() -> None:
    values = np.random.default_rng(5).random((50, 2))
    plain = Bootstrap(values, resamples=100)
    assert np.array_equal(plain.means, Bootstrap(values, 100, clusters=range(50, 0, -1)).means)
    with pytest.raises(ValueError, match="a label a problem"):
        Bootstrap(values, 100, clusters=[1, 2])


def test_clusters_of_unequal_size_weigh_as_many_as_they_are() -> None:
    """Nine of ten problems are one problem: hardly anything is known."""
    boot = Bootstrap([1.0] * 9 + [0.0], clusters=["a"] * 9 + ["b"])
    found = boot.interval()
    assert (found.value, found.low, found.high) == (0.9, 0.0, 1.0)
    assert boot.mean().n == 10
    rare = Bootstrap(np.ones(100), clusters=[i // 10 for i in range(100)]).mean()
    assert (rare.low, rare.n) == (pytest.approx(wilson(10, 10).low), 100)
    same = Bootstrap(np.zeros((100, 2)), clusters=[i // 10 for i in range(100)]).difference(0, 1)
    assert same.high == pytest.approx(Bootstrap(np.zeros((10, 2))).difference(0, 1).high)


def test_a_ratio_is_of_means_and_undefined_over_nothing() -> None:
    interval = ratio_interval([1, 0, 0, 1], [1, 1, 0, 1], resamples=500)
    assert interval.value == pytest.approx(2 / 3)
    assert 0 <= interval.low < 2 / 3 < interval.high <= 1
    assert math.isnan(ratio_interval([0, 0], [0, 0], resamples=10).value)


def test_a_ratio_near_none_and_all_is_no_certainty() -> None:
    assert ratio_interval([1] * 5, [1] * 5) == wilson(5, 5)
    covered = ratio_interval([1] * 3 + [0] * 17, [1] * 3 + [0] * 17)
    assert covered == replace(wilson(3, 3), n=20), "no more is known than the three tell"
    assert ratio_interval([0] * 20, [1] * 8 + [0] * 12).percent() == wilson(0, 8).percent()
    uneven = ratio_interval([40, 1, 1, 1], [40, 1, 1, 1])
    assert uneven.low == wilson(1, 1).low, "forty candidates of one problem are one problem"
    assert ratio_interval([1, 0] * 20, [1] * 40).method == "percentile"
    assert ratio_interval([1, 2, 3, 2], [2, 1, 3, 2]).method == "percentile", "no share"


@pytest.mark.parametrize("share", [0.9, 0.98])
def test_a_rare_miss_of_a_ratio_is_covered_where_resampling_would_miss_it(share: float) -> None:
    chance = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        whole = chance.random(60) < 0.5
        part = whole & (chance.random(60) < share)
        found = ratio_interval(part, whole, 200)
        covered += found.low <= share <= found.high
    assert covered >= 0.92 * 300


def test_resampling_replicates_widens_the_interval_when_they_disagree() -> None:
    chance = np.random.default_rng(8)
    table = (chance.random((60, 4)) < 0.5).astype(float)
    outer = mean_interval(table.mean(axis=1), 2000)
    both = hierarchical_interval(table, 2000)
    assert both.value == pytest.approx(outer.value)
    assert both.high - both.low > 1.15 * (outer.high - outer.low)


def test_missing_replicates_do_not_count_as_zero() -> None:
    table = np.array([[1.0, np.nan], [np.nan, 1.0], [1.0, 1.0]])
    assert hierarchical_interval(table, 200).value == 1.0
    assert hierarchical_interval(table, 200).low == 1.0
    with pytest.raises(ValueError, match="one a problem"):
        hierarchical_interval([[np.nan, np.nan]], 10)


def test_no_problems_give_no_number_and_bad_values_are_refused() -> None:
    assert Bootstrap(np.empty((0, 2)), 10).interval().percent() == "–"
    with pytest.raises(ValueError, match="finite"):
        Bootstrap([1.0, math.nan])
    with pytest.raises(ValueError, match="percentile or bca"):
        Bootstrap([1.0, 2.0], 10).interval(method="normal")
    with pytest.raises(ValueError, match="equal problems"):
        paired_difference([1.0], [1.0, 2.0])


def test_an_interval_prints_in_percent() -> None:
    assert Interval(0.6234, 0.601, 0.6471, 500).percent() == "62.3 [60.1, 64.7]"
    assert Interval(0.5, math.nan, math.nan, 1).percent(0) == "50"


def test_one_puzzle_met_four_times_is_one_observation() -> None:
    """Neither a mean nor a difference may be sure of what a single puzzle shows."""
    labels = [0] * 4 + list(range(1, 197))
    once = np.zeros((200, 2))
    once[:4, 0] = 1.0
    boot = Bootstrap(once, clusters=labels)
    assert boot.difference(0, 1).method == "mover"
    assert boot.mean(0).method == "wilson"
    two = np.column_stack([np.ones(40), np.zeros(40)])
    assert Bootstrap(two, clusters=[0] * 20 + [1] * 20).difference(0, 1).low < 0.5


def test_unequal_clusters_weigh_as_many_as_they_tell() -> None:
    """Fifty equal problems and ten others weigh 1.4 problems (Kish)."""
    found = Bootstrap(np.zeros(60), clusters=["x"] * 50 + [*"0123456789"]).mean()
    assert found.high == pytest.approx(wilson(0, 1).high)


@pytest.mark.parametrize("n", [13, 47, 400, 2000])
def test_three_of_none_or_all_are_enough_to_resample(n: int) -> None:
    for few in ([1.0] * 3 + [0.0] * (n - 3), [0.0] * 3 + [1.0] * (n - 3)):
        assert Bootstrap(few, resamples=10).mean().method == "percentile"


def test_a_ratio_over_clusters_is_that_of_their_sums() -> None:
    part, whole = [1.0, 1.0, 0.0, 1.0] * 10, [1.0, 1.0, 1.0, 2.0] * 10
    labels = [i // 2 for i in range(40)]
    together = ratio_interval(part, whole, clusters=labels)
    sums = ratio_interval([2.0, 1.0] * 10, [2.0, 3.0] * 10)
    assert (together.value, together.low, together.high) == (sums.value, sums.low, sums.high)
    assert together.n == 40
