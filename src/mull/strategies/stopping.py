"""Counts of a vote so far → is the leader sure enough? Adaptive-Consistency's two rules.

Source: Aggarwal et al. 2023, "Let's Sample Step by Step" (reference: science 7). ``Beta`` looks at
the two leading answers, ``Dirichlet`` at the five leading ones. Both also say how many more samples
must come before they could possibly stop: asking for exactly that many wastes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Protocol

import numpy as np


class StopRule(Protocol):
    """When a vote may end early."""

    @property
    def confidence(self) -> float: ...

    def certainty(self, counts: Sequence[int]) -> float:
        """Probability that the leading answer is the mode of the answer distribution."""
        ...


@dataclass(frozen=True, slots=True)
class Beta:
    """P(p1 > p2) under a uniform prior on the two leading answers' shares.

    The tail of Beta(v1 + 1, v2 + 1) above one half, exactly: a binomial sum.

    >>> round(Beta().certainty([5]), 3), round(Beta().certainty([3]), 4)
    (0.984, 0.9375)
    """

    confidence: float = 0.95

    def certainty(self, counts: Sequence[int]) -> float:
        first, second = _leading(counts, 2)
        return _beta_tail(first, second)


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """P(p1 is the largest of the five leading shares) under a uniform prior.

    Shares of a Dirichlet are independent gammas over their sum, so the largest share is the largest
    gamma: one integral over the leader's gamma density.
    """

    confidence: float = 0.95

    def certainty(self, counts: Sequence[int]) -> float:
        return _largest_gamma(_leading(counts, 5))


def samples_needed(rule: StopRule, counts: Sequence[int], most: int) -> int:
    """The fewest further samples after which ``rule`` could stop, at most ``most``.

    The fastest way to certainty is that every further sample agrees with the leader (or with a
    first answer, where there is none).

    >>> samples_needed(Beta(), [], 40), samples_needed(Beta(), [3, 1], 40)
    (4, 3)
    """
    ordered = sorted(counts, reverse=True) or [0]

    def sure(more: int) -> bool:
        return rule.certainty([ordered[0] + more, *ordered[1:]]) >= rule.confidence

    # Certainty grows with the leader's votes: double, then bisect.
    low, high = 0, 1
    while high < most and not sure(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sure(middle) else (middle, high)
    return high


def _leading(counts: Sequence[int], top: int) -> tuple[int, ...]:
    ordered = sorted(counts, reverse=True)[:top]
    return tuple(ordered) + (0,) * max(0, 2 - len(ordered))


@lru_cache(maxsize=65536)
def _beta_tail(first: int, second: int) -> float:
    n = first + second + 1
    return float(sum(comb(n, j) for j in range(first + 1)) / 2**n)


@lru_cache(maxsize=65536)
def _largest_gamma(counts: tuple[int, ...]) -> float:
    """P(G1 > max G_i), G_i ~ Gamma(count_i + 1): Gauss-Legendre over the leader's density."""
    top = counts[0] + 1
    reach = 12.0 * top**0.5 + 12.0
    low, high = max(0.0, top - reach), top + reach
    nodes, weights = _gauss()
    x = low + (high - low) * (nodes + 1) / 2
    log_x = np.log(x)
    product = np.exp((top - 1) * log_x - x - _log_factorial(top - 1))
    for count in counts[1:]:
        above = np.zeros_like(x)
        for k in range(count + 1):
            above += np.exp(k * log_x - x - _log_factorial(k))
        product *= 1.0 - above
    return float((high - low) / 2 * np.dot(weights, product))


@lru_cache(maxsize=1)
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(160)


def _log_factorial(n: int) -> float:
    return float(np.sum(np.log(np.arange(1, n + 1))))
