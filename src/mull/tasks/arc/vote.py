"""Predictions of one test pair in, grids in order of preference out. Pure functions.

Everything is stable: what no rule decides, the order of first appearance does. A failed prediction
has no vote.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from mull.errors import SpecError
from mull.selection import tie_keys
from mull.tasks.arc.augment import parse
from mull.tasks.arc.grids import Grid
from mull.tasks.arc.predictions import Attempts, Prediction, by_pair
from mull.tasks.base import SAME
from mull.types import EMPTY

IDENTITY: Final = "identity"
OTHER: Final = "other"
"""The geometry of a view that is not known, as in a file of predictions."""
Z: Final = 1.96
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate grid: how many predictions gave it, and the score that ranked it (or broke ties).

    ``score`` is NaN where the rule has none.
    """

    grid: Grid
    votes: int
    score: float = math.nan


Ranking = tuple[Ranked, ...]
"""Distinct grids, best first."""
Rule = Callable[[Sequence[Prediction]], Ranking]


def by_votes(predictions: Sequence[Prediction]) -> Ranking:
    """Vote v1: by number of equal grids; ties go to the grid seen first.

    >>> made = [Prediction("p", 0, str(i), ((c,),)) for i, c in enumerate((1, 2, 2, 3, 1))]
    >>> [(each.grid, each.votes) for each in by_votes(made)]
    [(((1,),), 2), (((2,),), 2), (((3,),), 1)]
    """
    return _by_votes(predictions, likely=False)


def by_votes_and_likelihood(predictions: Sequence[Prediction]) -> Ranking:
    """Vote v2: by votes, ties by the mean over a grid's predictions of log-probability a token.

    Where one answered prediction has no likelihood there is nothing to compare by: as ``by_votes``.
    So ``mull.selection.majority`` ranks, by which strategies vote: ties are broken by one rule.
    """
    return _by_votes(predictions, likely=True)


Likelihood = Literal["mean", "sum", "max", "lower"]


def by_likelihood(
    predictions: Sequence[Prediction], how: Likelihood = "mean", deviation: float | None = None
) -> Ranking:
    """By likelihood alone; ties by votes, then first seen.

    ``mean`` and ``max`` of the grid's log-probabilities a token; ``sum``: the log of the summed
    probabilities of its whole responses; ``lower``: mean - 1.96 · deviation / √votes. The deviation
    is the grid's own, over all answered predictions where it was given once, or the constant
    ``deviation``. Answered predictions without a likelihood have no say.
    """
    if how not in ("mean", "sum", "max", "lower"):
        raise ValueError(f"how must be mean, sum, max or lower, not {how!r}")
    if deviation is not None and (how != "lower" or not 0 <= deviation < math.inf):
        raise ValueError("deviation is a number from 0 and belongs to how='lower'")
    known = [
        each for each in predictions if each.grid is not None and each.mean_logprob is not None
    ]
    groups = _groups(known)
    scores = _likelihoods(groups) or {}
    pooled = [value for values in scores.values() for value in values]
    spread = statistics.stdev(pooled) if len(pooled) > 1 else 0.0

    def score(grid: Grid) -> float:
        values = scores[grid]
        if how == "max":
            return max(values)
        if how == "sum":
            return _log_sum(each.logprob or 0.0 for each in groups[grid])
        if how == "mean":
            return _mean(values)
        own = statistics.stdev(values) if len(values) > 1 else spread
        own = own if deviation is None else deviation
        return _mean(values) - Z * own / math.sqrt(len(values))

    ranked = [Ranked(grid, len(members), score(grid)) for grid, members in groups.items()]
    return tuple(sorted(ranked, key=lambda each: (-each.score, -each.votes)))


def per_cell(
    predictions: Sequence[Prediction], unit: Literal["cell", "row", "column"] = "cell"
) -> Grid | None:
    """The grid of majorities at the most frequent shape; ``None`` where every prediction failed.

    Each cell (row, column) takes what most predictions of that shape have there, ties as first
    seen: it may be a grid that nobody predicted, a filler for attempt 2.
    """
    if unit not in ("cell", "row", "column"):
        raise ValueError(f"unit must be cell, row or column, not {unit!r}")
    grids = [each.grid for each in predictions if each.grid is not None]
    if not grids:
        return None
    shapes = Counter((len(grid), len(grid[0])) for grid in grids)
    modal = shapes.most_common(1)[0][0]
    voters = [grid for grid in grids if (len(grid), len(grid[0])) == modal]
    if unit == "row":
        return tuple(_most(rows) for rows in zip(*voters, strict=True))
    if unit == "column":
        turned = [tuple(zip(*grid, strict=True)) for grid in voters]
        columns = [_most(rows) for rows in zip(*turned, strict=True)]
        return tuple(zip(*columns, strict=True))
    return tuple(
        tuple(_most(cells) for cells in zip(*rows, strict=True))
        for rows in zip(*voters, strict=True)
    )


def by_cells(predictions: Sequence[Prediction]) -> Ranking:
    """The vote of each cell first (``per_cell``), which may have no vote of its own; then v2's."""
    made, whole = per_cell(predictions), by_votes_and_likelihood(predictions)
    if made is None:
        return ()
    own = next((each for each in whole if each.grid == made), Ranked(made, 0))
    return (own, *(each for each in whole if each.grid != made))


def geometry(prediction: Prediction) -> str:
    """The geometry of a prediction's view: identity, transpose, flip or rotation, or ``OTHER``.

    >>> geometry(Prediction("p", 0, "flip.rot1.order1-0", ((1,),)))
    'transpose'
    """
    try:
        turn = parse(prediction.view or SAME).turn
    except SpecError:
        return OTHER
    if not turn.flip:
        return "rotation" if turn.turns else IDENTITY
    return "transpose" if turn.turns % 2 else "flip"


def hierarchical(
    predictions: Sequence[Prediction],
    category: Callable[[Prediction], str] = geometry,
    keep: int = 3,
    first: str = IDENTITY,
) -> Ranking:
    """Two rounds: the best ``keep`` of every category of views and of all, then a vote of those.

    ``category`` names the category of a prediction's view; ``score`` counts the lists that hold
    the grid. Ties: votes within the category ``first``, then all votes, then first seen (Akyürek
    et al. 2024, arXiv 2411.07279).
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    every = by_votes_and_likelihood(predictions)
    parts: dict[str, list[Prediction]] = {}
    for each in predictions:
        parts.setdefault(category(each), []).append(each)
    finalists: Counter[Grid] = Counter(each.grid for each in every[:keep])
    own: dict[Grid, int] = {}
    for name, members in parts.items():
        ranking = by_votes_and_likelihood(members)
        finalists.update(each.grid for each in ranking[:keep])
        if name == first:
            own = {each.grid: each.votes for each in ranking}
    ranked = [
        Ranked(each.grid, each.votes, float(finalists[each.grid]))
        for each in every
        if each.grid in finalists
    ]
    return tuple(
        sorted(ranked, key=lambda each: (-each.score, -own.get(each.grid, 0), -each.votes))
    )


def attempts(ranking: Iterable[Ranked | Grid], n: int = 2) -> Attempts:
    """The first ``n`` different grids of a ranking (or of fillers behind it), padded with None."""
    grids = (each.grid if isinstance(each, Ranked) else each for each in ranking)
    return _padded(list(dict.fromkeys(grids)), n)


def vote_all(
    predictions: Iterable[Prediction],
    rule: Rule = by_votes_and_likelihood,
    n: int = 2,
    tests: Mapping[str, int] = EMPTY,
) -> dict[str, tuple[Attempts, ...]]:
    """Attempts for every test pair: a rule over each pair's predictions.

    ``tests`` (puzzle id → number of test pairs) names puzzles and pairs that must be there even
    without a prediction; theirs are all ``None``.
    """
    pairs = by_pair(predictions)
    counts = dict(tests)
    for puzzle, index in pairs:
        counts[puzzle] = max(counts.get(puzzle, 0), index + 1)
    return {
        puzzle: tuple(attempts(rule(pairs.get((puzzle, i), ())), n) for i in range(count))
        for puzzle, count in counts.items()
    }


def _by_votes(predictions: Sequence[Prediction], likely: bool) -> Ranking:
    """Grids by votes; ties by the rule of every selection, likelihoods only if ``likely``."""
    groups = _groups(predictions)
    keys = tie_keys(
        [[each.mean_logprob if likely else None for each in own] for own in groups.values()]
    )
    scores = _likelihoods(groups) if likely else None
    ranked = sorted(zip(keys, groups.items(), strict=True), key=lambda each: each[0])
    return tuple(
        Ranked(grid, len(own), math.nan if scores is None else _mean(scores[grid]))
        for _, (grid, own) in ranked
    )


def _groups(predictions: Sequence[Prediction]) -> dict[Grid, list[Prediction]]:
    groups: dict[Grid, list[Prediction]] = {}
    for each in predictions:
        if each.grid is not None:
            groups.setdefault(each.grid, []).append(each)
    return groups


def _likelihoods(groups: Mapping[Grid, Sequence[Prediction]]) -> dict[Grid, list[float]] | None:
    """Log-probabilities a token by grid; ``None`` where one is unknown."""
    found: dict[Grid, list[float]] = {}
    for grid, members in groups.items():
        values = [each.mean_logprob for each in members]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        found[grid] = known
    return found


def _mean(values: Sequence[float]) -> float:
    # fsum: equal values in another order must tie, not differ in their last bit.
    return math.fsum(values) / len(values)


def _log_sum(values: Iterable[float]) -> float:
    every = list(values)
    top = max(every)
    return top + math.log(math.fsum(math.exp(value - top) for value in every))


def _most(values: Iterable[_Value]) -> _Value:
    return Counter(values).most_common(1)[0][0]


def _padded(grids: Sequence[Grid | None], n: int) -> Attempts:
    return (*grids[:n], *(None for _ in range(n - len(grids))))
