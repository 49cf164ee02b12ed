"""What whole solutions are worth on the simulator, as published: flaws of a verifier cost the vote
little where they ruin a search, and a plain vote may rise, peak and fall.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from tests.strategies.curves import misses

from mull.metrics import Pool, vote_at_k


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("spec", "model", "published"),
    [
        ("weighted-vote", {"deceptive": 0.02}, {4: 0.57, 16: 0.74, 64: 0.78}),
        ("weighted-vote", {"exploit": 0.002}, {4: 0.55, 16: 0.70, 64: 0.77}),
    ],
)
def test_the_simulated_curves_of_a_flawed_verifier(
    spec: str, model: dict[str, float], published: dict[int, float]
) -> None:
    assert max(misses(spec, published, **model).values()) < 3.5


def peak(share: float, easy: float, hard: float) -> int:
    """Where a vote of two answers is best on a mixture of easy problems (each sample right with
    probability ``easy`` > 1/2) and hard ones: 2·floor(m) + 1, m where what the easy ones gain
    with two more samples is what the hard ones lose (science 0.5).
    """
    gain = share * (2 * easy - 1) / ((1 - share) * (1 - 2 * hard))
    pace = hard * (1 - hard) / (easy * (1 - easy))
    return 2 * math.floor(math.log(gain) / math.log(pace)) + 1


@pytest.mark.parametrize(
    ("share", "easy", "hard", "published"),
    [(0.6, 0.85, 0.40, 5), (0.4, 0.85, 0.45, 5), (0.5, 0.7, 0.4, 11), (0.4, 0.8, 0.48, 11)],
)
def test_a_vote_on_a_mixture_peaks_where_theory_says(
    share: float, easy: float, hard: float, published: int
) -> None:
    sizes = list(range(1, 16, 2))
    exact = [
        share * binom.sf(k // 2, k, easy) + (1 - share) * binom.sf(k // 2, k, hard) for k in sizes
    ]
    assert sizes[int(np.argmax(exact))] == peak(share, easy, hard) == published
    order = np.random.default_rng(0)
    pools = []
    for right in (easy, hard):
        correct = order.permutation(np.arange(400) < round(400 * right))
        pools.append(Pool((~correct).astype(np.int64), correct))
    ours = [float(np.dot([share, 1 - share], vote_at_k(pools, k, draws=1500))) for k in sizes]
    assert np.allclose(ours, exact, atol=0.03)
    assert ours[sizes.index(published)] > ours[0]
