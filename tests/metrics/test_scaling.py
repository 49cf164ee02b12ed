"""The n-scaling table and difficulty bins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.metrics import (
    Pool,
    by_level,
    by_quantiles,
    by_thresholds,
    held_out_halves,
    n_scaling,
    powers_of_two,
    scaling_scores,
    unanswered_shares,
)


def simulated(problems: int, n: int, seed: int) -> tuple[list[Pool], np.ndarray]:
    """Pools with per-problem pass rates, a distractor each, and likelihoods that know a little."""
    chance = np.random.default_rng(seed)
    rates = chance.beta(1.0, 1.0, problems)
    pools = []
    for rate in rates:
        groups = np.where(chance.random(n) < rate, 0, chance.integers(1, 9, n))
        groups[chance.random(n) < 0.1] = -1
        pools.append(Pool(groups, groups == 0, -chance.random(n) - 0.2 * (groups != 0)))
    return pools, rates


def test_the_table_starts_at_a_single_sample_and_ends_at_the_whole_pool() -> None:
    pools, _ = simulated(60, 8, seed=1)
    rows = n_scaling(pools, resamples=300)
    assert [row.n for row in rows] == [1, 2, 4, 8]
    first, last = rows[0], rows[-1]
    mean = float(np.mean([pool.correct.mean() for pool in pools]))
    assert first.scores["pass_n"].value == pytest.approx(mean)
    assert first.scores["vote"].value == pytest.approx(mean)
    assert first.scores["best"].value == pytest.approx(mean)
    assert first.gap.value == pytest.approx(0)
    assert all(row.scores["accuracy"].value == pytest.approx(mean) for row in rows)
    assert last.scores["pass_n"].value == float(np.mean([pool.correct.any() for pool in pools]))
    assert all(row.scores["unanswered"] == rows[0].scores["unanswered"] for row in rows)


def test_coverage_rises_and_bounds_every_selection() -> None:
    pools, _ = simulated(80, 16, seed=2)
    rows = n_scaling(pools, resamples=200)
    for before, after in pairwise(rows):
        assert after.scores["pass_n"].value >= before.scores["pass_n"].value
    for row in rows:
        assert row.scores["vote"].value <= row.scores["pass_n"].value + 1e-12
        assert row.scores["best"].value <= row.scores["pass_n"].value + 1e-12
        assert row.gap.value == pytest.approx(row.scores["pass_n"].value - row.scores["vote"].value)
        assert row.gain.value == pytest.approx(
            row.scores["vote"].value - row.scores["accuracy"].value
        )
        assert row.scores["vote"].low <= row.scores["vote"].value <= row.scores["vote"].high


def test_without_likelihoods_there_is_no_best_column() -> None:
    pools = [Pool(np.array([0, 1]), np.array([True, False]))]
    assert "best" not in scaling_scores(pools, 1)
    assert "best" not in n_scaling(pools, resamples=10)[0].scores
    with pytest.raises(ValueError, match="at least one problem"):
        n_scaling([])


def test_powers_of_two_end_at_the_limit() -> None:
    assert powers_of_two(1) == (1,)
    assert powers_of_two(64) == (1, 2, 4, 8, 16, 32, 64)
    with pytest.raises(ValueError, match="at least 1"):
        powers_of_two(0)


def test_unanswered_shares_sum_to_the_unanswered_part() -> None:
    shares = unanswered_shares(["empty", None, "truncated", "empty"])
    assert shares == {"empty": 0.5, "truncated": 0.25}
    assert unanswered_shares([]) == {}


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1), st.integers(1, 6))
def test_quantile_bins_keep_the_order_and_equal_rates_together(
    rates: list[float], bins: int
) -> None:
    placed = by_quantiles(rates, bins)
    assert ((placed >= 0) & (placed < bins)).all()
    for a, b in zip(np.argsort(rates), np.argsort(rates)[1:], strict=False):
        assert placed[a] <= placed[b]
        if rates[a] == rates[b]:
            assert placed[a] == placed[b]


def test_quantile_bins_of_distinct_rates_are_equally_full() -> None:
    placed = by_quantiles(np.random.default_rng(0).random(1000), 5)
    assert np.bincount(placed).tolist() == [200] * 5


def test_bins_from_the_evaluated_samples_would_lie_and_held_out_ones_do_not() -> None:
    # Every problem has the same pass rate, so no bin is truly harder than another.
    chance = np.random.default_rng(3)
    correct = chance.random((4000, 16)) < 0.5
    measure, evaluate = held_out_halves(16)
    assert not set(measure) & set(evaluate)
    honest = by_quantiles(correct[:, measure].mean(axis=1), 5)
    spread = [correct[honest == b][:, evaluate].mean() for b in np.unique(honest)]
    assert max(spread) - min(spread) < 0.03
    naive = by_quantiles(correct[:, evaluate].mean(axis=1), 5)
    biased = [correct[naive == b][:, evaluate].mean() for b in np.unique(naive)]
    assert max(biased) - min(biased) > 0.3


def test_thresholds_and_levels_put_problems_where_they_belong() -> None:
    assert by_thresholds([0.05, 0.1, 0.5, 0.9], (0.1, 0.5)).tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match="edges must rise"):
        by_thresholds([0.5], (0.5, 0.1))
    names, bins = by_level([3, 1, None, 3, "hard"])
    assert names == ("1", "3", "hard")
    assert bins.tolist() == [1, 0, -1, 1, 2]
