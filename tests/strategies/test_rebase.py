"""REBASE: the children of every depth sum to what is left, in proportion to the scores."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import job, one
from tests.strategies.curves import misses

from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.strategies.drive import Solved
from mull.strategies.levels_rule import LOWEST, Entry, Level, ranked
from mull.strategies.rebase import RebaseRule, Rounding, by_remainder
from mull.trees import Fate
from mull.verifiers.simulated import SimulatedVerifier

SCORES = st.integers(0, 100).map(lambda s: s / 100) | st.just(LOWEST)
ENTRIES = st.lists(st.builds(Entry, SCORES, st.booleans()), min_size=1, max_size=20)
ROUNDINGS = st.sampled_from(["remainder", "ceil"])


def solve(spec: str, number: int = 0) -> Solved:
    given = job(load_strategy(spec), number=number, success=0.8, steps=5)
    return one(given, SimulatedEngine(StepModel()), verifiers={"prm": SimulatedVerifier()})


@given(entries=ENTRIES, extra=st.integers(0, 10), balance=st.floats(1e-3, 10), how=ROUNDINGS)
def test_children_sum_to_what_is_left(
    entries: list[Entry], extra: int, balance: float, how: Rounding
) -> None:
    """What is left of n are the paths that have not ended, at this depth or before."""
    n = len(entries) + extra
    shares = RebaseRule(n, balance, how).allocate(Level(1, tuple(entries), banked=extra))
    done = sum(entry.finished for entry in entries)
    assert sum(shares.votes) == done
    assert sum(shares.children) == (n - extra - done if done < len(entries) else 0)
    assert not any(c for c, e in zip(shares.children, entries, strict=True) if e.finished)


@given(entries=ENTRIES, balance=st.floats(1e-3, 10))
def test_a_better_score_never_has_fewer_children(entries: list[Entry], balance: float) -> None:
    children = RebaseRule(len(entries), balance).allocate(Level(1, tuple(entries))).children
    order = [i for i in ranked(entries) if not entries[i].finished]
    counts = [children[i] for i in order]
    assert counts == sorted(counts, reverse=True)


@given(
    scores=st.lists(SCORES.filter(lambda s: s != LOWEST), min_size=1, max_size=30), how=ROUNDINGS
)
def test_a_high_balance_is_plain_sampling(scores: list[float], how: Rounding) -> None:
    level = Level(1, tuple(map(Entry, scores)))
    assert RebaseRule(len(scores), 1e12, how).allocate(level).children == (1,) * len(scores)


@given(scores=st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True), how=ROUNDINGS)
def test_a_low_balance_extends_the_best_alone(scores: list[int], how: Rounding) -> None:
    level = Level(1, tuple(Entry(score / 1000) for score in scores))
    children = RebaseRule(len(scores), 1e-6, how).allocate(level).children
    assert children[scores.index(max(scores))] == len(scores)


@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=20), total=st.integers(0, 100))
def test_remainders_differ_from_the_exact_share_by_less_than_one(
    weights: list[float], total: int
) -> None:
    shares = [weight / sum(weights) for weight in weights]
    counts = by_remainder(shares, total)
    assert sum(counts) == total
    assert all(abs(c - s * total) < 1 + 1e-6 for c, s in zip(counts, shares, strict=True))


def test_ceil_favours_the_best() -> None:
    level = Level(1, tuple(map(Entry, (0.6, 0.5, 0.4))))
    assert RebaseRule(4, 1.0, "remainder").allocate(level).children == (2, 1, 1)
    assert RebaseRule(4, 1.0, "ceil").allocate(level).children == (2, 2, 0)
    assert RebaseRule(3, 1.0, "ceil").allocate(level).children == (2, 1, 0)


@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 12), balance=st.floats(0.01, 2), number=st.integers(0, 30))
def test_a_search_ends_with_n_paths(n: int, balance: float, number: int) -> None:
    """Whatever grew, as many paths end as were begun; each depth has as many as were left."""
    result = solve(f"rebase(n={n}, balance={balance})", number).result
    visits = {}
    ended = {}
    for node in result.tree:
        depth = len(node.key)
        visits[depth] = visits.get(depth, 0) + node.visits
        if node.fate is Fate.FINISHED:
            ended[depth] = ended.get(depth, 0) + node.visits
    assert sum(ended.values()) == n
    for depth, count in visits.items():
        assert count == n - sum(done for at, done in ended.items() if at < depth)


@pytest.mark.parametrize("seed", range(3))
def test_high_balance_grows_chains(seed: int) -> None:
    """Plain sampling, step by step: every path has one child."""
    result = solve("rebase(n=6, balance=1e9, merge=false)", seed).result
    assert all(set(node.key[1:]) <= {0} for node in result.tree)
    assert len(result.candidates) == 6


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("deceptive", "published"),
    [(0.0, {4: 0.79, 16: 0.91, 64: 0.98}), (0.02, {4: 0.75, 16: 0.75, 64: 0.57})],
)
def test_the_simulated_curves(deceptive: float, published: dict[int, float]) -> None:
    assert max(misses("rebase", published, deceptive=deceptive).values()) < 3.5
