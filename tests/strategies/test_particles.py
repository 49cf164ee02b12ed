"""Particle filtering: weights that telescope, resampling that keeps the count, Gibbs rounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import job, one
from tests.strategies.curves import misses

from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.strategies.drive import Solved
from mull.strategies.levels_rule import Entry, Level, softmax
from mull.strategies.particles import Mode, ParticleRule, effective, systematic
from mull.verifiers.base import Verifier
from mull.verifiers.simulated import SimulatedVerifier

MODES = st.sampled_from(["incremental", "product", "odds"])


def solve(spec: str, number: int = 0, verifier: Verifier | None = None) -> Solved:
    given = job(load_strategy(spec), number=number, success=0.8, steps=5)
    prm = verifier or SimulatedVerifier()
    return one(given, SimulatedEngine(StepModel()), verifiers={"prm": prm})


@given(score=st.floats(0, 1), n=st.integers(1, 40), mode=MODES, depth=st.integers(1, 99))
def test_flat_scores_leave_every_particle_one_child(
    score: float, n: int, mode: Mode, depth: int
) -> None:
    level = Level(depth, (Entry(score, before=score),) * n, problem="p")
    assert ParticleRule(n, mode).allocate(level).children == (1,) * n
    assert ParticleRule(n, mode, threshold=1.0).allocate(level).children == (1,) * n


@settings(max_examples=6, deadline=None)
@given(n=st.integers(1, 9), number=st.integers(0, 30), mode=MODES)
def test_with_flat_scores_the_filter_is_plain_sampling(n: int, number: int, mode: Mode) -> None:
    """n chains, each the sample that it would be without a filter, in a plain vote."""
    spec = f"particles(n={n}, mode={mode}, merge=false)"
    result = solve(spec, number, SimulatedVerifier(sharpness=0, noise=0)).result
    assert all(set(node.key[1:]) <= {0} for node in result.tree)
    assert len(result.candidates) == n
    plain = solve(f"rebase(n={n}, balance=1e9, merge=false)", number).result
    assert [c.text for c in result.candidates] == [c.text for c in plain.candidates]


@given(
    scores=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=6),
    start=st.floats(0.001, 0.999),
)
def test_incremental_weights_telescope(scores: list[float], start: float) -> None:
    """After any number of steps without resampling, a weight is the last score over the first."""
    rule = ParticleRule(1, threshold=0.0)
    weight, before = 0.0, start
    for depth, score in enumerate(scores):
        level = Level(depth, (Entry(score, before=before, weight=weight),))
        weight, before = rule.allocate(level).weight(0), score
    assert weight == pytest.approx(math.log(scores[-1] / start))


@given(
    weights=st.lists(st.floats(1e-6, 1), min_size=1, max_size=30),
    total=st.integers(0, 60),
    draw=st.floats(0, 1),
)
def test_systematic_counts_are_within_one_of_the_share(
    weights: list[float], total: int, draw: float
) -> None:
    shares = [weight / math.fsum(weights) for weight in weights]
    counts = systematic(shares, total, draw)
    assert sum(counts) == total
    assert min(counts) >= 0
    assert all(abs(c - s * total) < 1 + 1e-6 for c, s in zip(counts, shares, strict=True))


def test_systematic_resampling_is_unbiased() -> None:
    shares = [0.61, 0.07, 0.32]
    draws = 2000
    sums = [0, 0, 0]
    for i in range(draws):
        for at, count in enumerate(systematic(shares, 5, (i + 0.5) / draws)):
            sums[at] += count
    assert [total / draws for total in sums] == pytest.approx([5 * s for s in shares], abs=5e-3)


@given(scores=st.lists(st.floats(0, 1), min_size=2, max_size=20), threshold=st.floats(0, 1))
def test_particles_are_resampled_below_the_threshold_alone(
    scores: list[float], threshold: float
) -> None:
    n = len(scores)
    level = Level(3, tuple(map(Entry, scores)), problem="p")
    shares = ParticleRule(n, threshold=threshold).allocate(level)
    clipped = [math.log(min(max(s, 1e-6), 1 - 1e-6)) for s in scores]
    if effective(softmax(clipped, 1.0)) >= threshold * n:
        assert shares.children == (1,) * n
        assert shares.weights == pytest.approx(clipped, abs=1e-5)
    else:
        assert sum(shares.children) == n
        assert shares.weights == ()


@given(scores=st.lists(st.floats(0, 1), min_size=2, max_size=20), mode=MODES)
def test_a_reference_always_has_a_child(scores: list[float], mode: Mode) -> None:
    entries = tuple(Entry(s, reference=i == 1) for i, s in enumerate(scores))
    shares = ParticleRule(len(scores), mode, threshold=1.0).allocate(Level(1, entries))
    assert shares.children[1] >= 1
    assert sum(shares.children) == len(scores)


@settings(max_examples=6, deadline=None)
@given(n=st.integers(2, 8), rounds=st.integers(2, 4), number=st.integers(0, 20), mode=MODES)
def test_gibbs_rounds_keep_their_reference_and_vote_together(
    n: int, rounds: int, number: int, mode: Mode
) -> None:
    solved = solve(f"particles(n={n}, iterations={rounds}, mode={mode}, merge=false)", number)
    first = [node for node in solved.result.tree if len(node.key) == 1]
    assert len(first) == n + (rounds - 1) * (n - 1)
    assert solved.samples <= n * rounds
    once = solve(f"particles(n={n}, mode={mode}, merge=false)", number).result
    tree = {node.key: node.text for node in solved.result.tree}
    assert all(tree[node.key] == node.text for node in once.tree)
    assert {c.key for c in once.candidates} <= {c.key for c in solved.result.candidates}


def test_seeds_move_what_the_next_round_grows_around() -> None:
    """Nothing is resampled here, so the only draw is of the particle that is kept."""
    kept = set()
    for seed in range(8):
        spec = f"particles(n=4, iterations=2, threshold=0, seed={seed}, merge=false)"
        kept.add(tuple(node.key for node in solve(spec).result.tree if node.visits > 1))
    assert len(kept) > 1


def test_seeds_move_the_draws() -> None:
    level = Level(2, tuple(map(Entry, (0.9, 0.5, 0.3, 0.1, 0.7))), problem="p")
    found = {ParticleRule(5, "odds", seed=seed).allocate(level).children for seed in range(20)}
    assert len(found) > 1
    assert all(sum(counts) == 5 for counts in found)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_simulated_curve_of_the_odds_form() -> None:
    assert max(misses("particles(mode=odds)", {4: 0.76, 16: 0.88, 64: 0.98}).values()) < 3.5
