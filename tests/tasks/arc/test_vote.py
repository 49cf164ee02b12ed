"""Laws of selection: what a vote is, what it cannot depend on, what it makes of nothing."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.tasks.arc import vote
from mull.tasks.arc.grids import Grid
from mull.tasks.arc.predictions import Prediction, by_pair, read_task_results
from mull.tasks.arc.vote import Ranked

A, B, C = ((1,),), ((2,),), ((3,),)
RULES = [vote.by_votes, vote.by_votes_and_likelihood, vote.by_likelihood]


def predictions(*grids: Grid | None, logprobs: Sequence[float | None] = ()) -> list[Prediction]:
    known = [*logprobs, *(None for _ in range(len(grids) - len(logprobs)))]
    return [
        Prediction("p", 0, str(i), grid, "ragged" if grid is None else None, "", each, 10)
        for i, (grid, each) in enumerate(zip(grids, known, strict=True))
    ]


def order(ranking: Sequence[Ranked]) -> list[Grid]:
    return [each.grid for each in ranking]


@st.composite
def many(draw: st.DrawFn) -> list[Prediction]:
    cell = st.integers(0, 3)
    small = st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2)]).flatmap(
        lambda size: st.tuples(*[st.tuples(*[cell] * size[1])] * size[0])
    )
    grids = draw(st.lists(st.one_of(st.none(), small), max_size=12))
    likely = draw(
        st.lists(
            st.integers(-50, -1).map(float), min_size=len(grids), max_size=len(grids), unique=True
        )
    )
    return predictions(*grids, logprobs=likely)


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared_data / "arc" / "vectors.json").read_text())
    return found


def test_voting_v1_of_the_vectors(vectors: dict[str, Any]) -> None:
    case = vectors["voting_v1"]
    made = [
        Prediction(puzzle, i, name, _grid(grid), None if grid else "ragged")
        for puzzle, pairs in case["predictions"].items()
        for i, pair in enumerate(pairs)
        for name, grid in pair.items()
    ]
    assert _as_file(vote.vote_all(made, vote.by_votes, case["n"])) == case["result"]


def test_voting_v2_of_the_vectors(vectors: dict[str, Any], tmp_path: Path) -> None:
    case = vectors["voting_v2"]
    file = tmp_path / "task_results.json"
    file.write_text(json.dumps(case["task_results"]))
    assert _as_file(vote.vote_all(read_task_results(str(file)), n=case["n"])) == case["result"]


def test_many_votes_beat_a_likely_one_and_likelihood_breaks_ties() -> None:
    made = predictions(A, B, B, None, C, A, logprobs=[-1, -0.2, -4, -0.1, -0.01, -1.2])
    ranking = vote.by_votes_and_likelihood(made)
    assert order(ranking) == [A, B, C]
    assert [each.votes for each in ranking] == [2, 2, 1]
    assert [each.score for each in ranking] == pytest.approx([-0.11, -0.21, -0.001])


def test_without_every_likelihood_v2_is_v1() -> None:
    made = predictions(B, A, A, B, logprobs=[-9, -1])
    assert order(vote.by_votes_and_likelihood(made)) == order(vote.by_votes(made)) == [B, A]


@given(many(), st.randoms(use_true_random=False))
def test_order_of_arrival_decides_ties_alone(made: list[Prediction], rng: random.Random) -> None:
    shuffled = rng.sample(made, len(made))
    key = lambda each: (-each.votes, each.grid)  # noqa: E731
    assert sorted(vote.by_votes(made), key=key) == sorted(vote.by_votes(shuffled), key=key)
    # Distinct sums of likelihoods still tie in the mean now and then: compare what ranks.
    for rule in (vote.by_votes_and_likelihood, vote.by_likelihood):
        ranks = [(each.votes, each.score) for each in rule(made)]
        assert ranks == [(each.votes, each.score) for each in rule(shuffled)]


@given(many(), st.permutations(range(10)))
def test_a_vote_does_not_know_colours(made: list[Prediction], colours: list[int]) -> None:
    def painted(grid: Grid) -> Grid:
        return tuple(tuple(colours[cell] for cell in row) for row in grid)

    other = [
        each
        if each.grid is None
        else Prediction("p", 0, each.view, painted(each.grid), None, "", each.logprob, each.tokens)
        for each in made
    ]
    for rule in RULES:
        assert order(rule(other)) == [painted(grid) for grid in order(rule(made))]
    for unit in ("cell", "row", "column"):
        grid = vote.per_cell(made, unit)
        assert vote.per_cell(other, unit) == (None if grid is None else painted(grid))


@given(many())
def test_columns_of_a_grid_are_rows_of_its_transpose(made: list[Prediction]) -> None:
    def turned(grid: Grid | None) -> Grid | None:
        return None if grid is None else tuple(zip(*grid, strict=True))

    other = predictions(*(turned(each.grid) for each in made))
    for unit, same in (("cell", "cell"), ("column", "row"), ("row", "column")):
        assert vote.per_cell(other, same) == turned(vote.per_cell(made, unit))  # type: ignore[arg-type]


@given(many())
def test_every_rule_ranks_each_grid_once_and_counts_every_vote(made: list[Prediction]) -> None:
    grids = {each.grid for each in made if each.grid is not None}
    for rule in RULES:
        ranking = rule(made)
        assert set(order(ranking)) == grids
        assert len(ranking) == len(grids)
        assert sum(each.votes for each in ranking) == sum(each.grid is not None for each in made)


def test_nothing_but_failures_gives_nothing() -> None:
    made = predictions(None, None)
    for rule in RULES:
        assert rule(made) == ()
    assert vote.hierarchical(made, lambda each: each.view) == ()
    assert vote.per_cell(made) is None
    assert vote.attempts(()) == (None, None)


def test_four_ways_to_read_a_likelihood() -> None:
    made = predictions(A, A, B, C, C, logprobs=[-1, -9, -3, -4, -4])
    assert order(vote.by_likelihood(made, "max")) == [A, B, C]
    assert order(vote.by_likelihood(made, "mean")) == [B, C, A]
    assert order(vote.by_likelihood(made, "sum")) == [A, B, C]
    top, second, _ = vote.by_likelihood(made, "sum")
    assert top.score == pytest.approx(math.log(math.exp(-1) + math.exp(-9)))
    assert second.score == pytest.approx(-3)


def test_the_lower_bound_trusts_many_equal_answers() -> None:
    made = predictions(A, B, B, logprobs=[-3.9, -4, -4])
    first, second = vote.by_likelihood(made, "lower")
    assert (first.grid, first.score) == (B, pytest.approx(-0.4))
    assert second.score < -0.39
    constant = vote.by_likelihood(made, "lower", deviation=0.1)
    assert constant[0].score == pytest.approx(-0.4 - 1.96 * 0.1 / math.sqrt(2))
    with pytest.raises(ValueError, match="deviation"):
        vote.by_likelihood(made, "mean", deviation=0.1)
    with pytest.raises(ValueError, match="how must be"):
        vote.by_likelihood(made, "least")  # type: ignore[arg-type]


def test_cells_vote_at_the_most_frequent_shape() -> None:
    made = predictions(((1, 2), (3, 4)), ((1, 2), (3, 0)), ((9, 2), (3, 0)), ((7,),), ((7,),))
    assert vote.per_cell(made) == ((1, 2), (3, 0))
    crossed = predictions(((1, 1),), ((1, 2),), ((2, 2),))
    assert vote.per_cell(crossed, "row") == ((1, 1),)
    assert vote.per_cell(crossed, "column") == ((1, 2),)
    with pytest.raises(ValueError, match="unit must be"):
        vote.per_cell(made, "block")  # type: ignore[arg-type]


def test_a_hierarchy_hears_every_category() -> None:
    # B leads in two small categories; A in one large one.
    views = ["big"] * 5 + ["x", "x", "identity"]
    made = [
        Prediction("p", 0, view, grid)
        for view, grid in zip(views, [A, A, A, A, A, B, B, B], strict=True)
    ]
    assert order(vote.by_votes(made)) == [A, B]
    ranking = vote.hierarchical(made, lambda each: each.view, keep=1)
    assert [(each.grid, each.score) for each in ranking] == [(B, 2.0), (A, 2.0)]
    # The tie went to the identity; with another category first, to A.
    assert order(vote.hierarchical(made, lambda each: each.view, keep=1, first="big")) == [A, B]


def test_categories_of_views() -> None:
    views = ["", "same", "colours0132456789", "rot2", "flip", "flip.rot2", "flip.rot3", "x"]
    found = [vote.geometry(Prediction("p", 0, view, A)) for view in views]
    assert found == [*["identity"] * 3, "rotation", "flip", "flip", "transpose", "other"]


def test_fillers_follow_a_ranking_without_repetition() -> None:
    ranking = vote.by_votes(predictions(A))
    assert vote.attempts([*ranking, A, B]) == (A, B)


def test_puzzles_without_a_prediction_are_there() -> None:
    made = vote.vote_all(predictions(A), tests={"p": 2, "q": 1})
    assert made == {"p": ((A, None), (None, None)), "q": ((None, None),)}


def test_pairs_are_kept_apart() -> None:
    made = [Prediction("p", i % 2, str(i), grid) for i, grid in enumerate((A, B, A, B, C))]
    assert {key: len(each) for key, each in by_pair(made).items()} == {("p", 0): 3, ("p", 1): 2}
    assert vote.vote_all(made) == {"p": ((A, C), (B, None))}


def _grid(value: Any) -> Grid | None:
    return tuple(map(tuple, value)) or None


def _as_file(answers: Any) -> Any:
    return {
        puzzle: [
            {f"attempt_{k}": [] if g is None else [list(row) for row in g] for k, g in numbered}
            for numbered in (list(enumerate(pair, 1)) for pair in pairs)
        ]
        for puzzle, pairs in answers.items()
    }


LARGE = """
import random, time
from pathlib import Path
from mull.tasks.arc.predictions import Prediction
from mull.tasks.arc.vote import vote_all
rng, made = random.Random(0), []
for puzzle in range(400):
    base = [[rng.randrange(10) for _ in range(14)] for _ in range(14)]
    for view in range(512):
        for _ in range(rng.randrange(4)):
            base[rng.randrange(14)][rng.randrange(14)] = rng.randrange(10)
        grid = tuple(map(tuple, base))
        made.append(Prediction(str(puzzle), 0, str(view), grid, logprob=-rng.random(), tokens=99))
start = time.process_time()
answers = vote_all(made)
seconds = time.process_time() - start
# ru_maxrss would count the parent that this process was forked from.
peak = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 1024)
assert len(made) == 204_800 and len(answers) == 400
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_two_hundred_thousand_predictions_in_five_seconds_and_a_gibibyte() -> None:
    said = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, check=True, text=True)
    seconds, mebibytes = map(float, said.stdout.split())
    assert seconds < 5
    assert mebibytes < 1024
