"""Graded samples in, numbers with intervals out. Pure functions over numpy arrays.

``estimators`` say what a number is, ``intervals`` how sure it is, ``scaling`` prints both for
1, 2, 4 … N samples, ``difficulty`` puts problems into bins.
"""

from __future__ import annotations

from mull.metrics.difficulty import (
    ABSOLUTE,
    by_level,
    by_quantiles,
    by_thresholds,
    held_out_halves,
)
from mull.metrics.estimators import (
    Pool,
    best_at_k,
    pass_at_k,
    subsets,
    vote_at_k,
)
from mull.metrics.intervals import (
    RESAMPLES,
    Bootstrap,
    Interval,
    hierarchical_interval,
    mean_interval,
    paired_difference,
    ratio_interval,
    wilson,
)
from mull.metrics.scaling import (
    ScalingRow,
    n_scaling,
    powers_of_two,
    scaling_row,
    scaling_scores,
    unanswered_shares,
)

__all__ = [
    "ABSOLUTE",
    "RESAMPLES",
    "Bootstrap",
    "Interval",
    "Pool",
    "ScalingRow",
    "best_at_k",
    "by_level",
    "by_quantiles",
    "by_thresholds",
    "held_out_halves",
    "hierarchical_interval",
    "mean_interval",
    "n_scaling",
    "paired_difference",
    "pass_at_k",
    "powers_of_two",
    "ratio_interval",
    "scaling_row",
    "scaling_scores",
    "subsets",
    "unanswered_shares",
    "vote_at_k",
    "wilson",
]
