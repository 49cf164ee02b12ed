"""Laws of n-scaling curves: means over subsets, draws that repeat, ends that are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.tasks.arc.grade import RAW, grade
from mull.tasks.arc.grids import Grid, Pair, Puzzle
from mull.tasks.arc.predictions import Prediction
from mull.tasks.arc.scaling import n_scaling

A, B = ((1,),), ((2,),)


def puzzle(id: str, output: Grid) -> Puzzle:
    return Puzzle(id, (Pair(A, A),), (Pair(A, output),))


def predictions(id: str, index: int, *grids: Grid | None) -> list[Prediction]:
    return [
        Prediction(id, index, str(i), grid, "ragged" if grid is None else None)
        for i, grid in enumerate(grids)
    ]


grids = st.lists(st.sampled_from([A, B, ((1, 2),), None]), min_size=1, max_size=6)


@given(grids, st.integers(1, 6))
def test_unbiased_curves_are_means_over_subsets(made: list[Grid | None], n: int) -> None:
    n, truth, total = min(n, len(made)), ((1, 3),), len(made)
    puzzles = [puzzle("p", truth)]
    (row,) = n_scaling(predictions("p", 0, *made), puzzles, rule=None, ns=(n,))
    every = [
        grade(predictions("p", 0, *(made[i] for i in picks)), puzzles, rule=None).table
        for picks in combinations(range(total), n)
    ]
    for name in RAW:
        mean = np.mean([each[name][0] for each in every])
        assert row.summary[name].value == pytest.approx(mean)


def test_a_curve_ends_at_what_all_predictions_give() -> None:
    puzzles = [puzzle("p", ((1, 2),)), puzzle("q", A)]
    made = [
        *predictions("p", 0, ((1, 2),), ((1, 3),), A, None),
        *predictions("q", 0, B, B, A, A),
    ]
    full = grade(made, puzzles).summary
    rows = n_scaling(made, puzzles)
    assert [row.n for row in rows] == [1, 2, 4]
    for name in (*RAW, "vote_1", "vote_2"):
        assert rows[-1].summary[name].value == pytest.approx(full[name].value)
    for name in ("accuracy", "mean_correct_pixels", "unanswered"):
        assert len({round(row.summary[name].value, 12) for row in rows}) == 1


def test_a_pair_with_fewer_predictions_has_failures_for_the_rest() -> None:
    made = [*predictions("p", 0, A, A), *predictions("q", 0, A)]
    row = n_scaling(made, [puzzle("p", A), puzzle("q", A)], ns=(1,), tries=2000)[0]
    assert row.summary["accuracy"].value == pytest.approx(0.75)
    assert row.summary["vote_1"].value == pytest.approx(0.75, abs=0.02)


def test_curves_that_cannot_be() -> None:
    with pytest.raises(InputError, match="no predictions"):
        n_scaling([], [puzzle("p", A)])
    with pytest.raises(InputError, match=r"1\.\.1"):
        n_scaling(predictions("p", 0, A), [puzzle("p", A)], ns=(2,))
    with pytest.raises(InputError, match="no puzzles"):
        n_scaling(predictions("p", 0, A), [])
    with pytest.raises(ValueError, match="tries"):
        n_scaling(predictions("p", 0, A), [puzzle("p", A)], tries=0)
