"""Laws of the metrics: both write-ups' numbers, failures that stay in the mean, paired sets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mull.errors import InputError
from mull.tasks.arc.grade import (
    RAW,
    by_output_size,
    compare,
    grade,
    random_2,
    sets_table,
)
from mull.tasks.arc.grids import Grid, Pair, Puzzle, grid_of
from mull.tasks.arc.predictions import Prediction
from mull.tasks.arc.vote import by_votes

A, B, C = ((1,),), ((2,),), ((3,),)
CASE: dict[str, Any] = {
    "ground_truth": {"a": [[[1, 2], [3, 4]]], "b": [[[1, 2], [3, 4]], [[5]]]},
    "predictions": {
        "a": [[[[1, 2], [3, 4]], [[1, 2], [3, 0]], [[1, 2, 3]], []]],
        "b": [[[[1, 2], [3, 0]], [[1, 2], [3, 0]], [], []], [[[5]], [[5]], [[4]], [[5]]]],
    },
}
LATER = {
    "accuracy": 0.3125,
    "correct_pixels": 0.5,
    "max_correct_pixels": 0.9375,
    "correct_size": 0.625,
    "any_correct_size": 1.0,
    "pass_n": 0.75,
    "unanswered": 0.25,
}


def puzzle(id: str, *outputs: Grid) -> Puzzle:
    return Puzzle(id, (Pair(A, A),), tuple(Pair(A, output) for output in outputs))


def predictions(id: str, index: int, *grids: Grid | None) -> list[Prediction]:
    return [
        Prediction(id, index, str(i), grid, "ragged" if grid is None else None)
        for i, grid in enumerate(grids)
    ]


def the_case() -> tuple[list[Prediction], list[Puzzle]]:
    puzzles = [
        puzzle(id, *(grid_of(grid) for grid in grids)) for id, grids in CASE["ground_truth"].items()
    ]
    made = [
        each
        for id, pairs in CASE["predictions"].items()
        for i, grids in enumerate(pairs)
        for each in predictions(id, i, *(grid_of(grid) if grid else None for grid in grids))
    ]
    return made, puzzles


def test_the_later_write_ups_numbers() -> None:
    assert grade(*the_case(), rule=None).written_as("later") == pytest.approx(LATER)


def test_the_earlier_write_up_gave_the_best_the_same_name() -> None:
    assert grade(*the_case(), rule=None).written_as("earlier") == pytest.approx(
        {
            "accuracy": 0.3125,
            "correct_pixels": 0.9375,
            "correct_size": 1.0,
            "pass_n": 0.75,
            "unanswered": 0.25,
        }
    )


def test_the_vectors_are_what_stands_here(shared_data: Path) -> None:
    found = json.loads((shared_data / "arc" / "vectors.json").read_text())["metrics"]
    truth = {id: [p["output"] for p in v["test"]] for id, v in found["ground_truth"].items()}
    assert truth == CASE["ground_truth"]
    assert {
        id: [list(pair.values()) for pair in pairs] for id, pairs in found["predictions"].items()
    } == CASE["predictions"]
    assert found["overall"] == pytest.approx(LATER)
    names = {"correct_pixels": "mean_correct_pixels", "correct_size": "mean_correct_size"}
    table = grade(*the_case()).table
    for row, values in enumerate(found["per_task"].values()):
        for name, value in values.items():
            assert table[names.get(name, name)][row] == pytest.approx(value)


def test_pass_2_of_the_later_write_up_is_the_vote() -> None:
    made = grade(predictions("p", 0, A, B, B, C, C), [puzzle("p", A)])
    assert made.written_as("later")["pass_2"] == made.summary["vote_2"].value == 0.0
    assert made.summary["pass_n"].value == 1.0
    assert made.summary["random_2"].value == pytest.approx(1 - 6 / 10)
    assert made.summary["voting_accuracy"].value == 0.0
    with pytest.raises(ValueError, match="edition"):
        made.written_as("last")  # type: ignore[arg-type]


def test_a_puzzle_without_predictions_is_a_failure() -> None:
    made = grade(predictions("p", 0, A), [puzzle("p", A), puzzle("q", A), puzzle("r", A, B)])
    assert {name: each.n for name, each in made.summary.items()}.keys() >= {*RAW, "vote_2"}
    assert all(each.n == 3 for each in made.summary.values())
    assert made.summary["pass_n"].value == pytest.approx(1 / 3)
    assert made.summary["unanswered"].value == pytest.approx(2 / 3)


def test_two_scores_of_a_puzzle_with_two_tests() -> None:
    made = grade(predictions("p", 0, A), [puzzle("p", A, B)]).summary
    assert (made["vote_2"].value, made["vote_2_all_pairs"].value) == (0.5, 0.0)
    assert (made["pass_n"].value, made["pass_n_all_pairs"].value) == (0.5, 0.0)


def test_attempts_in_their_order() -> None:
    made = grade(predictions("p", 0, B, B, A), [puzzle("p", A)], by_votes, k=3).summary
    assert [made[f"vote_{k}"].value for k in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert [made[f"attempt_{k}"].value for k in (1, 2, 3)] == [0.0, 1.0, 0.0]


def test_attempts_made_elsewhere_are_not_voted_again() -> None:
    made = grade([], [puzzle("p", A)], attempts_made={"p": ((B, A),)})
    assert made.summary["vote_1"].value == 0.0
    assert made.summary["vote_2"].value == 1.0


@pytest.mark.parametrize(
    ("made", "puzzles", "said"),
    [
        ([], [], "no puzzles"),
        ([], [Puzzle("p", (Pair(A, A),), (Pair(A),))], "p: test 0 has no output"),
        (predictions("q", 0, A), [puzzle("p", A)], "q: predictions for test 0"),
        (predictions("p", 1, A), [puzzle("p", A)], "p: predictions for test 1"),
    ],
)
def test_what_cannot_be_graded(made: list[Prediction], puzzles: list[Puzzle], said: str) -> None:
    with pytest.raises(InputError, match=said):
        grade(made, puzzles)


def test_random_pairs_exactly() -> None:
    assert [random_2(n, 1) for n in (0, 1, 2, 4)] == [0.0, 1.0, 1.0, 0.5]


def test_sets_are_compared_puzzle_by_puzzle() -> None:
    puzzles = [puzzle(str(i), A) for i in range(20)]
    cold = grade([p for i in range(20) for p in predictions(str(i), 0, A, A)], puzzles)
    hot = grade([p for i in range(20) for p in predictions(str(i), 0, A, B)], puzzles)
    first, second = sets_table({"0.0": cold, "0.8": hot})
    assert (first.name, first.difference) == ("0.0", {})
    difference = second.difference["accuracy"]
    assert (difference.value, difference.low, difference.high) == (-0.5, -0.5, -0.5)
    with pytest.raises(InputError, match="same puzzles"):
        compare(cold, grade([], puzzles[1:]))


def test_small_outputs_and_large_ones() -> None:
    wide = ((1,) * 40,) * 30
    puzzles = [puzzle("p", A, wide), puzzle("q", ((1, 2), (3, 4)))]
    rows = by_output_size(grade(predictions("p", 0, A), puzzles), edges=(1, 9))
    assert [(row.above, row.upto, row.n) for row in rows] == [(0, 1, 1), (1, 9, 1), (9, 1200, 1)]
    assert [row.summary["pass_n"].value for row in rows] == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="edges"):
        by_output_size(grade([], puzzles), edges=(9, 1))


def test_intervals_hold_their_numbers() -> None:
    for each in grade(*the_case()).summary.values():
        assert math.isnan(each.low) or each.low <= each.value <= each.high
