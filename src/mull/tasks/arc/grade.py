"""Predictions and attempts against the truth: the metrics of both write-ups, by names of their own.

A metric is worked out for a test pair, then averaged over the puzzle's test pairs, then over
puzzles; a puzzle or pair without a prediction stays in every mean, as a failure. Intervals are
bootstraps over puzzles, paired where two sets are compared.

The earlier write-up's ``correct_pixels`` and ``correct_size`` are the best over predictions, the
later one's the mean over predictions; its ``pass_2`` is ``pass_n`` of two voted attempts. Here they
are ``max_correct_pixels``, ``any_correct_size``, ``mean_correct_pixels``, ``mean_correct_size`` and
``vote_2``; what a random pair of predictions reaches is ``random_2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from mull.errors import InputError
from mull.metrics import Bootstrap, Interval, paired_difference, pass_at_k, ratio_interval
from mull.tasks.arc.grids import Grid, Puzzle, shape
from mull.tasks.arc.predictions import Answers, Attempts, Prediction, by_pair
from mull.tasks.arc.submission import truths
from mull.tasks.arc.vote import Rule, attempts, by_votes_and_likelihood
from mull.types import EMPTY

Floats = NDArray[np.float64]
RAW: Final = (
    "accuracy",
    "mean_correct_pixels",
    "max_correct_pixels",
    "mean_correct_size",
    "any_correct_size",
    "pass_n",
    "unanswered",
)
"""Metrics of all predictions of a test pair, right or failed."""
WHOLE: Final = "_all_pairs"
"""Suffix of a score that a puzzle has only where every test pair is solved."""
SIZES: Final = (9, 25, 100, 225, 400, 900)
"""Upper ends of the bins of output cells: up to 3x3, 5x5, 10x10, 15x15, 20x20, 30x30."""


@dataclass(frozen=True, slots=True)
class GradedPair:
    """The predictions of one test pair against its truth.

    ``pixels`` [n] is the share of equal cells where the shape is right, else 0; ``right``,
    ``sized``, ``answered`` [n] are flags; ``voted`` says which of the voted attempts are right.
    """

    puzzle: str
    index: int
    cells: int
    pixels: Floats
    right: NDArray[np.bool_]
    sized: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    voted: tuple[bool, ...]

    @property
    def n(self) -> int:
        """How many predictions, failed ones among them."""
        return len(self.right)

    def values(self) -> dict[str, float]:
        """Every metric of this pair; without a prediction all are 0 and ``unanswered`` is 1."""
        n = max(self.n, 1)
        made = {
            "accuracy": self.right.sum() / n,
            "mean_correct_pixels": self.pixels.sum() / n,
            "max_correct_pixels": self.pixels.max(initial=0.0),
            "mean_correct_size": self.sized.sum() / n,
            "any_correct_size": self.sized.any(),
            "pass_n": self.right.any(),
            "unanswered": 1.0 - self.answered.sum() / n,
            "random_2": random_2(self.n, int(self.right.sum())),
        }
        for k in range(1, len(self.voted) + 1):
            made[f"vote_{k}"] = any(self.voted[:k])
            made[f"attempt_{k}"] = self.voted[k - 1]
        return {name: float(value) for name, value in made.items()}


@dataclass(frozen=True)
class Graded:
    """All test pairs of some puzzles, graded; ``table`` has a row a puzzle, a column a metric."""

    pairs: tuple[GradedPair, ...]
    seed: int = 0

    @cached_property
    def by_puzzle(self) -> dict[str, list[GradedPair]]:
        """Test pairs by puzzle, in order."""
        made: dict[str, list[GradedPair]] = {}
        for pair in self.pairs:
            made.setdefault(pair.puzzle, []).append(pair)
        return made

    @cached_property
    def table(self) -> dict[str, Floats]:
        """Metric → values [puzzles]: means over each puzzle's test pairs, and ``…_all_pairs``."""
        rows = []
        for pairs in self.by_puzzle.values():
            every = [pair.values() for pair in pairs]
            row = {name: float(np.mean([each[name] for each in every])) for name in every[0]}
            for name in [name for name in row if name == "pass_n" or name.startswith("vote_")]:
                row[name + WHOLE] = float(all(each[name] == 1.0 for each in every))
            rows.append(row)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    @cached_property
    def summary(self) -> dict[str, Interval]:
        """Metric → mean over puzzles with its interval; ``voting_accuracy`` is vote_2 / pass_n."""
        boot = Bootstrap(np.column_stack(list(self.table.values())), seed=self.seed)
        made = {name: boot.mean(column) for column, name in enumerate(self.table)}
        if "vote_2" in self.table:
            made["voting_accuracy"] = ratio_interval(
                self.table["vote_2"], self.table["pass_n"], seed=self.seed
            )
        return made

    def written_as(self, edition: Literal["earlier", "later"]) -> dict[str, float]:
        """The means under the names that a write-up gives them (see the top of this file)."""
        if edition not in ("earlier", "later"):
            raise ValueError(f"edition must be earlier or later, not {edition!r}")
        mean = {name: float(values.mean()) for name, values in self.table.items()}
        same = {name: mean[name] for name in ("accuracy", "pass_n", "unanswered")}
        if edition == "earlier":
            pixels, size = mean["max_correct_pixels"], mean["any_correct_size"]
            return same | {"correct_pixels": pixels, "correct_size": size}
        both = {name: mean[name] for name in ("max_correct_pixels", "any_correct_size")}
        pixels, size = mean["mean_correct_pixels"], mean["mean_correct_size"]
        voted = {"pass_2": mean["vote_2"]} if "vote_2" in mean else {}
        return same | both | voted | {"correct_pixels": pixels, "correct_size": size}


def grade(
    predictions: Iterable[Prediction],
    puzzles: Iterable[Puzzle],
    rule: Rule | None = by_votes_and_likelihood,
    attempts_made: Answers = EMPTY,
    k: int = 2,
    seed: int = 0,
) -> Graded:
    """Grade predictions, and the ``k`` attempts that ``rule`` votes (or that were made already).

    Every test pair of every puzzle counts. Pairs that ``attempts_made`` has are not voted again;
    with ``rule=None`` the others are empty, and without any attempts there are no votes to report.
    ``InputError``: no puzzles, a test pair without an output, a prediction for a puzzle or a test
    pair that is not there.
    """
    pairs = by_pair(predictions)
    graded = []
    for puzzle in puzzles:
        made = attempts_made.get(puzzle.id, ())
        for index, truth in enumerate(truths(puzzle)):
            own = pairs.pop((puzzle.id, index), [])
            chosen: Attempts = ()
            if index < len(made):
                chosen = (*made[index][:k], *(None for _ in range(k - len(made[index]))))
            elif rule is not None:
                chosen = attempts(rule(own), k)
            elif attempts_made:
                chosen = attempts((), k)
            graded.append(grade_pair(puzzle.id, index, own, truth, chosen))
    if not graded:
        raise InputError("no puzzles to grade against; expected at least one")
    if pairs:
        puzzle_id, index = next(iter(pairs))
        raise InputError(
            f"{puzzle_id}: predictions for test {index}, which is not among the "
            f"{len(graded)} test pairs; name the puzzles that were predicted"
        )
    return Graded(tuple(graded), seed)


def grade_pair(
    puzzle: str,
    index: int,
    predictions: Sequence[Prediction],
    truth: Grid,
    chosen: Attempts = (),
) -> GradedPair:
    """The predictions and attempts of one test pair against its truth."""
    size, seen = shape(truth), dict[Grid, float]()
    flat = np.array(truth)
    pixels = np.zeros(len(predictions))
    sized = np.zeros(len(predictions), dtype=np.bool_)
    for i, each in enumerate(predictions):
        if each.grid is None or shape(each.grid) != size:
            continue
        if each.grid not in seen:
            seen[each.grid] = float((np.array(each.grid) == flat).mean())
        pixels[i], sized[i] = seen[each.grid], True
    answered = np.array([each.grid is not None for each in predictions], dtype=np.bool_)
    right = np.array([each.grid == truth for each in predictions], dtype=np.bool_)
    voted = tuple(grid == truth for grid in chosen)
    return GradedPair(puzzle, index, flat.size, pixels, right, sized, answered, voted)


def random_2(n: int, right: int) -> float:
    """The chance that two predictions drawn from ``n`` without replacement hold a right one.

    >>> random_2(4, 1)
    0.5
    """
    return float(pass_at_k(n, right, min(2, n))) if n else 0.0


def compare(a: Graded, b: Graded, seed: int = 0) -> dict[str, Interval]:
    """Metric → mean(a) - mean(b), paired by puzzle; the puzzles must be the same in order."""
    if list(a.by_puzzle) != list(b.by_puzzle):
        raise InputError("two sets of predictions are compared on the same puzzles alone")
    return {
        name: paired_difference(values, b.table[name], seed=seed)
        for name, values in a.table.items()
        if name in b.table
    }


@dataclass(frozen=True, slots=True)
class SetRow:
    """One set of predictions (a temperature, a beam width …) and its difference to the first."""

    name: str
    summary: Mapping[str, Interval]
    difference: Mapping[str, Interval]


def sets_table(sets: Mapping[str, Graded], seed: int = 0) -> list[SetRow]:
    """One row a set, with paired differences to the first set (empty in its own row)."""
    first = next(iter(sets.values()), None)
    return [
        SetRow(
            name,
            graded.summary,
            {} if first is None or graded is first else compare(graded, first, seed),
        )
        for name, graded in sets.items()
    ]


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Test pairs whose output has ``above`` < cells ≤ ``upto``; ``n`` pairs in the bin."""

    above: int
    upto: int
    n: int
    summary: Mapping[str, Interval]


def by_output_size(graded: Graded, edges: Sequence[int] = SIZES) -> list[SizeRow]:
    """The metrics by the size of the true output, one row a bin with pairs in it.

    A puzzle is in a bin with those of its test pairs that fall there; larger outputs than the last
    edge have a row of their own.
    """
    if not edges or list(edges) != sorted(set(edges)) or edges[0] < 1:
        raise ValueError(f"edges must rise and start at 1 or more, not {list(edges)}")
    largest = max(pair.cells for pair in graded.pairs)
    ends = [*edges, largest] if largest > edges[-1] else list(edges)
    rows = []
    for above, upto in zip([0, *ends], ends, strict=False):
        inside = tuple(pair for pair in graded.pairs if above < pair.cells <= upto)
        if inside:
            summary = Graded(inside, graded.seed).summary
            rows.append(SizeRow(above, upto, len(inside), summary))
    return rows
