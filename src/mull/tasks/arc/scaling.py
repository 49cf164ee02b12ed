"""What 1, 2, 4 … of the N predictions of each test pair give: curves from one set of predictions.

The mean over subsets without replacement, exact for everything but the vote: that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mull.errors import InputError
from mull.metrics import Bootstrap, Interval, pass_at_k, powers_of_two
from mull.rng import derive
from mull.tasks.arc.grade import RAW, Floats, GradedPair, grade_pair
from mull.tasks.arc.grids import Grid, Puzzle
from mull.tasks.arc.predictions import Prediction, by_pair
from mull.tasks.arc.submission import truths
from mull.tasks.arc.vote import Rule, attempts, by_votes_and_likelihood

TRIES = 40


@dataclass(frozen=True, slots=True)
class NRow:
    """The metrics of ``n`` predictions a test pair: means over puzzles with intervals."""

    n: int
    summary: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class _Pair:
    graded: GradedPair
    predictions: tuple[Prediction, ...]
    truth: Grid


def n_scaling(
    predictions: Iterable[Prediction],
    puzzles: Iterable[Puzzle],
    rule: Rule | None = by_votes_and_likelihood,
    ns: Sequence[int] = (),
    tries: int = TRIES,
    seed: int = 0,
) -> list[NRow]:
    """One row for each n (default: 1, 2, 4 … N, and N), N the most predictions that a pair has.

    A pair with fewer has failures in place of the rest. Metrics: those of ``grade.RAW`` and, by
    ``rule``, ``vote_1`` and ``vote_2`` as the mean over ``tries`` seeded draws (exact where n = N);
    ``rule=None`` leaves votes out.
    """
    if tries < 1:
        raise ValueError(f"tries must be at least 1, not {tries}")
    found = by_pair(predictions)
    most = max((len(each) for each in found.values()), default=0)
    if not most:
        raise InputError("no predictions, so nothing can be drawn; expected at least one")
    if any(not 1 <= n <= most for n in ns):
        raise InputError(f"n must lie in 1..{most}, the predictions of a test pair; not {list(ns)}")
    pairs: dict[str, list[_Pair]] = {}
    for puzzle in puzzles:
        for index, truth in enumerate(truths(puzzle)):
            own = tuple(found.get((puzzle.id, index), ()))
            graded = grade_pair(puzzle.id, index, own, truth)
            pairs.setdefault(puzzle.id, []).append(_Pair(graded, own, truth))
    if not pairs:
        raise InputError("no puzzles to grade against; expected at least one")
    rows = []
    for n in ns or powers_of_two(most):
        table = [
            np.mean([_values(pair, n, most, rule, tries, seed) for pair in each], axis=0)
            for each in pairs.values()
        ]
        boot = Bootstrap(np.array(table), seed=seed)
        names = [*RAW, *(("vote_1", "vote_2") if rule else ())]
        rows.append(NRow(n, {name: boot.mean(i) for i, name in enumerate(names)}))
    return rows


def _values(pair: _Pair, n: int, most: int, rule: Rule | None, tries: int, seed: int) -> Floats:
    """The metrics of ``n`` out of ``most`` predictions, in the order of ``RAW``, then votes."""
    raw = _exact(pair.graded, n, most)
    if rule is None:
        return raw
    stream = derive(seed, pair.graded.puzzle, pair.graded.index, n)
    draws = np.random.default_rng(stream).random((tries, most))
    picks = np.arange(most)[None, :] if n == most else np.argsort(draws, axis=1)[:, :n]
    own, votes = pair.predictions, np.zeros(2)
    for pick in picks:
        # In the order of the predictions, so that "first seen" means the same in every draw.
        taken = [own[i] for i in sorted(pick.tolist()) if i < len(own)]
        right = [grid == pair.truth for grid in attempts(rule(taken))]
        votes += (right[0], any(right))
    return np.concatenate([raw, votes / len(picks)])


def _exact(graded: GradedPair, n: int, most: int) -> Floats:
    """Expectations over all subsets of ``n``; what is missing to ``most`` predictions failed."""
    right, sized, answered = (
        int(each.sum()) for each in (graded.right, graded.sized, graded.answered)
    )
    return np.array(
        [
            right / most,
            graded.pixels.sum() / most,
            _expected_best(graded.pixels, n, most),
            sized / most,
            float(pass_at_k(most, sized, n)),
            float(pass_at_k(most, right, n)),
            1.0 - answered / most,
        ]
    )


def _expected_best(values: Floats, n: int, most: int) -> float:
    """Mean over subsets of ``n`` of their largest value: the sum over levels of P(best ≥ level)."""
    padded = np.concatenate([values, np.zeros(most - len(values))])
    levels = np.unique(np.append(padded, 0.0))
    reached = (padded[:, None] >= levels[None, 1:]).sum(axis=0)
    return float(np.diff(levels) @ pass_at_k(most, reached, n))
