"""Estimators against brute force over all subsets, and their laws (reliability 31)."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.metrics import Pool, best_at_k, pass_at_k, subsets, vote_at_k
from mull.selection import Best, Majority, Selector
from mull.types import Candidate


def test_pass_at_k_has_the_golden_values_of_the_paper() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 5) == pytest.approx(0.9166666667)
    assert pass_at_k(10, 3, 8) == 1.0
    assert pass_at_k(10, 0, 10) == 0.0


@given(st.integers(1, 12), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    hits = [min(chosen) < c for chosen in combinations(range(n), k)]
    assert pass_at_k(n, c, k) == pytest.approx(np.mean(hits))


@given(st.integers(1, 80), st.data())
def test_reliability_31_pass_at_n_never_falls_with_n(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    curve = [float(pass_at_k(n, c, k)) for k in range(1, n + 1)]
    assert all(a <= b + 1e-12 for a, b in pairwise(curve))
    assert all(0 <= value <= 1 for value in curve)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_what_makes_no_sense(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k needs"):
        pass_at_k(n, c, k)


@st.composite
def graded(draw: st.DrawFn, max_n: int = 7) -> tuple[list[Candidate], set[str]]:
    """Candidates, some with a likelihood, some with the same, and which answers are right."""
    n = draw(st.integers(1, max_n))
    answers = draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=n, max_size=n))
    likely = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    has = draw(st.lists(st.sampled_from([True, True, False]), min_size=n, max_size=n))
    candidates = []
    for i, answer in enumerate(answers):
        scores = {"mean_logprob": -0.25 * likely[i]} if has[i] else {}
        candidates.append(Candidate((i,), "", answer, None, scores=scores))
    return candidates, draw(st.sets(st.sampled_from("abc")))


def pool_of(candidates: list[Candidate], right: set[str]) -> Pool:
    seen: dict[str, int] = {}
    groups = [-1 if c.answer is None else seen.setdefault(c.answer, len(seen)) for c in candidates]
    return Pool(
        np.array(groups),
        np.array([c.answer in right for c in candidates]),
        np.array([c.scores.get("mean_logprob", np.nan) for c in candidates]),
    )


def over_all_subsets(
    candidates: list[Candidate], right: set[str], k: int, select: Selector
) -> float:
    chosen = [select(list(part)).answer in right for part in combinations(candidates, k)]
    return float(np.mean(chosen))


@given(graded(), st.data())
def test_vote_at_k_is_the_mean_of_the_selection_over_all_subsets(
    case: tuple[list[Candidate], set[str]], data: st.DataObject
) -> None:
    candidates, right = case
    k = data.draw(st.integers(1, len(candidates)))
    pool = pool_of(candidates, right)
    plain = vote_at_k([pool], k)[0]
    assert plain == pytest.approx(over_all_subsets(candidates, right, k, Majority()))


@given(graded(), st.data())
def test_best_at_k_is_the_mean_of_the_selection_over_all_subsets(
    case: tuple[list[Candidate], set[str]], data: st.DataObject
) -> None:
    candidates, right = case
    k = data.draw(st.integers(1, len(candidates)))
    # Distinct scores: how equal ones share their chances is checked below.
    scores = np.array([-1.0 * i if c.answer else -np.inf for i, c in enumerate(candidates)])
    named = [
        Candidate(c.key, "", c.answer, scores={"s": float(s)})
        for c, s in zip(candidates, scores, strict=True)
    ]
    correct = np.array([c.answer in right for c in candidates])
    expected = over_all_subsets(named, right, k, Best("s"))
    assert best_at_k(correct, scores, k) == pytest.approx(expected)


@given(st.integers(1, 30), st.data())
def test_samples_of_equal_score_make_best_of_k_the_mean(n: int, data: st.DataObject) -> None:
    correct = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    k = data.draw(st.integers(1, n))
    assert best_at_k(correct, np.zeros(n), k) == pytest.approx(correct.mean())


def test_best_at_k_of_a_perfect_scorer_is_coverage() -> None:
    correct = np.arange(64) < 5
    for k in (1, 2, 16, 64):
        perfect = best_at_k(correct, correct.astype(float), k)
        assert perfect == pytest.approx(float(pass_at_k(64, 5, k)))


def test_a_monte_carlo_vote_is_near_the_exact_one_and_the_same_for_the_same_seed() -> None:
    chance = np.random.default_rng(5)
    pools = []
    for _ in range(40):
        groups = chance.choice(4, 16, p=[0.4, 0.3, 0.2, 0.1])
        pools.append(Pool(groups, groups == 0, -chance.random(16)))
    exact = vote_at_k(pools, 4, draws=10_000)
    near = vote_at_k(pools, 4, draws=1000, seed=3)
    assert np.abs(near - exact).max() < 0.06, "sd of a mean of 1000 draws is at most 0.016"
    assert np.array_equal(near, vote_at_k(pools, 4, draws=1000, seed=3))
    assert not np.array_equal(near, vote_at_k(pools, 4, draws=1000, seed=4))


def test_pools_of_different_sizes_and_without_answers_share_one_call() -> None:
    pools = [
        Pool(np.array([0, 0, 1]), np.array([True, True, False])),
        Pool(np.array([-1, -1]), np.array([False, False])),
        Pool(np.array([-1, 0, -1]), np.array([False, True, False])),
    ]
    assert vote_at_k(pools, 2).tolist() == pytest.approx([1.0, 0.0, 2 / 3])


@settings(max_examples=30)
@given(st.integers(1, 9), st.data())
def test_subsets_have_k_members_and_are_all_there_when_few(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    every = subsets(n, k, draws=1000, seed=0)
    assert (
        len({tuple(row) for row in every.tolist()})
        == len(every)
        == len(list(combinations(range(n), k)))
    )
    drawn = subsets(40, k, draws=20, seed=0)
    assert (drawn.sum(axis=1) == k).all()


def test_a_subset_draw_takes_every_sample_equally_often() -> None:
    share = subsets(64, 16, draws=4000, seed=1).mean(axis=0)
    assert np.abs(share - 0.25).max() < 0.035, "five standard deviations"


def test_a_pool_with_arrays_of_unequal_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool.correct has 1 entries, expected 2"):
        Pool(np.array([0, 1]), np.array([True]))
