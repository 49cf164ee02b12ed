"""Laws of augmentation: a key is a view's one name, and what a view did can be undone."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.errors import ConfigError, InputError, SpecError
from mull.tasks.arc.augment import (
    UNCHANGED,
    Augmentation,
    Recipe,
    apply,
    draw,
    draw_colours,
    parse,
    revert,
    views,
)
from mull.tasks.arc.changes import Mirror, Pad, Symmetry, Upscale
from mull.tasks.arc.grids import Grid, Pair, Puzzle, grid_of, shape

GRID: Grid = ((0, 1, 2), (3, 4, 5))


def grid_strategy(side: int = 6, colours: int = 9) -> st.SearchStrategy[Grid]:
    return st.integers(1, side).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(0, colours), min_size=width, max_size=width).map(tuple),
            min_size=1,
            max_size=side,
        ).map(tuple)
    )


grids = grid_strategy()
seeds = st.integers(0, 2**32)


def random_puzzle(seed: int) -> Puzzle:
    """Quicker than a strategy cell by cell: a puzzle of up to four train and two test pairs."""
    rng = random.Random(seed)

    def grid() -> Grid:
        width = rng.randint(1, 6)
        return tuple(tuple(rng.choices(range(10), k=width)) for _ in range(rng.randint(1, 6)))

    pairs = tuple(Pair(grid(), grid()) for _ in range(rng.randint(2, 6)))
    tests = min(rng.randint(1, 2), len(pairs) - 1)
    return Puzzle(str(seed % 3), pairs[tests:], pairs[:tests])


puzzles = st.builds(random_puzzle, seeds)
turns = st.builds(Symmetry, st.booleans(), st.integers(0, 3))
changes_of_one_side = st.one_of(
    st.builds(Pad, st.integers(1, 5), st.integers(0, 5), st.integers(0, 9)),
    st.builds(Upscale, st.integers(2, 4), st.integers(1, 4)),
    st.builds(Mirror, st.integers(0, 1), st.booleans()),
    turns.filter(lambda turn: turn != Symmetry()),
)
augmentations = st.builds(
    Augmentation,
    turns,
    st.permutations(UNCHANGED).map(tuple),
    own=st.none() | st.tuples(st.sampled_from(["in", "out"]), changes_of_one_side),
)


@pytest.fixture
def vectors(shared_data: Path) -> dict[str, Any]:
    return json.loads((shared_data / "arc" / "vectors.json").read_text())  # type: ignore[no-any-return]


def test_the_published_vectors(vectors: dict[str, Any]) -> None:
    for case in vectors["geometric"]:
        turn = Symmetry(case["hflip"], case["n_rot90"])
        assert turn.forward(grid_of(case["grid"])) == grid_of(case["result"])
    case = vectors["colour"]
    view = Augmentation(colours=tuple(case["map"][str(c)] for c in range(10)))
    assert view.grid(grid_of(case["grid"])) == grid_of(case["result"])
    case = vectors["padding"]
    pad = Pad(*case["size"], case["color"])
    assert pad.forward(grid_of(case["grid"])) == grid_of(case["result"])
    case = vectors["upscale"]
    assert Upscale(*case["scale"]).forward(grid_of(case["grid"])) == grid_of(case["result"])
    for case in vectors["mirror"]:
        mirror = Mirror(case["axis"], case["position"] == 1)
        assert mirror.forward(grid_of(case["grid"])) == grid_of(case["result"])


@pytest.mark.parametrize(
    ("key", "grid"),
    [
        ("same", [[0, 1, 2], [3, 4, 5]]),
        ("rot1", [[2, 5], [1, 4], [0, 3]]),
        ("rot2", [[5, 4, 3], [2, 1, 0]]),
        ("rot3", [[3, 0], [4, 1], [5, 2]]),
        ("flip", [[2, 1, 0], [5, 4, 3]]),
        ("flip.rot1", [[0, 3], [1, 4], [2, 5]]),
        ("flip.rot2", [[3, 4, 5], [0, 1, 2]]),
        ("flip.rot3", [[5, 2], [4, 1], [3, 0]]),
        ("colours0312495678", [[0, 3, 1], [2, 4, 9]]),
        ("out-up2x1", [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]),
        ("out-mirror0b", [[3, 4, 5], [0, 1, 2], [0, 1, 2], [3, 4, 5]]),
        ("out-mirror1a", [[0, 1, 2, 2, 1, 0], [3, 4, 5, 5, 4, 3]]),
        ("rot1.out-turn3", [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_what_a_key_does_to_an_output(key: str, grid: list[list[int]]) -> None:
    shown = apply(key, Puzzle("p", (Pair(GRID, GRID),), (Pair(GRID),)))
    assert shown.train[0].output == grid_of(grid)
    assert shown.test[0].output is None
    assert revert(key, grid_of(grid)) == GRID


@settings(max_examples=150)
@given(augmentations, grids)
def test_reverting_an_output_gives_it_back(view: Augmentation, grid: Grid) -> None:
    key = str(view)
    assert revert(key, parse(key).grid(grid)) == grid


def test_every_view_of_ten_thousand_random_grids_can_be_undone() -> None:
    rng = random.Random(0)
    for _ in range(10_000):
        width = rng.randint(1, 10)
        rows = range(rng.randint(1, 10))
        grid = tuple(tuple(rng.choices(range(10), k=width)) for _ in rows)
        key = draw(Puzzle("p", (Pair(grid, grid),), (Pair(grid),)), rng)
        assert revert(key, parse(key).grid(grid)) == grid


@given(puzzles, seeds)
def test_reverting_a_drawn_view_gives_the_outputs_back(puzzle: Puzzle, seed: int) -> None:
    key = draw(puzzle, random.Random(seed))
    shown = apply(key, puzzle)
    before = [pair.output for pair in puzzle.train + puzzle.test if pair.output]
    after = [revert(key, pair.output) for pair in shown.train + shown.test if pair.output]
    assert sorted(after) == sorted(before)
    assert (len(shown.train), len(shown.test)) == (len(puzzle.train), len(puzzle.test))


@given(augmentations)
def test_keys_are_read_as_they_are_written(view: Augmentation) -> None:
    assert str(parse(str(view))) == str(view)
    assert parse(str(view)) == view


@given(puzzles, seeds, st.integers(1, 40))
def test_views_and_draws_are_keys_in_their_one_form(puzzle: Puzzle, seed: int, n: int) -> None:
    for key in [*views(puzzle, n, seed), draw(puzzle, random.Random(seed))]:
        assert str(parse(key)) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "same.flip",
        "flip.same",
        "Flip",
        "flip.flip",
        "rot0",
        "rot4",
        "rot2.flip",
        "colours0123456789",
        "colours0123456788",
        "colours012",
        "colours٠123456789",
        "order0-1-2",
        "order1",
        "order0-0-1",
        "order1-2",
        "order01-0",
        "order1-0.swap1-0",
        "swap0-1",
        "out-pad0x0c1",
        "out-pad01x1c1",
        "out-pad1x1",
        "out-pad1x1c10",
        "out-up1x1",
        "out-up0x2",
        "out-mirror2a",
        "out-turn0",
        "out-turn4",
        "out-spin",
        "out-up2x2.in-up2x2",
        "flip.",
        "flip\n",
        " flip",
        "order" + "-".join(["1"] * 50_000),
    ],
)
def test_any_other_text_is_a_spec_error(key: str) -> None:
    with pytest.raises(SpecError, match="augmentation key"):
        parse(key)


@given(st.text(max_size=30))
def test_a_text_is_a_key_or_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("key", "grid"),
    [
        ("out-pad1x1c5", [[5, 5, 5], [5, 1, 4], [5, 5, 5]]),
        ("out-pad1x1c5", [[5, 5], [5, 5]]),
        ("out-pad5x5c5", [[5]]),
        ("out-up2x2", [[1, 1], [1, 2]]),
        ("out-up2x2", [[1, 1, 1], [1, 1, 1]]),
        ("out-mirror0a", [[1], [2], [1]]),
        ("out-mirror1b", [[1, 2]]),
        ("out-mirror1b", [[1]]),
    ],
)
def test_a_prediction_that_no_output_looks_like_cannot_be_reverted(
    key: str, grid: list[list[int]]
) -> None:
    with pytest.raises(InputError, match="is no outcome of"):
        revert(key, grid_of(grid))


def test_changes_to_inputs_leave_predictions_alone() -> None:
    puzzle = Puzzle("p", (Pair(GRID, GRID),), (Pair(GRID),))
    shown = apply("in-up2x2", puzzle)
    assert shape(shown.test[0].input) == (4, 6)
    assert shown.train[0].output == GRID == revert("in-up2x2", GRID)


def test_orders_and_swaps_move_whole_pairs() -> None:
    p = [Pair(((i,),), ((i,),)) for i in range(4)]
    puzzle = Puzzle("p", tuple(p[:3]), (p[3],))
    assert apply("order2-0-1", puzzle).train == (p[2], p[0], p[1])
    swapped = apply("swap3-0-1-2", puzzle)
    assert (swapped.train, swapped.test) == ((p[3], p[0], p[1]), (p[2],))
    with pytest.raises(InputError, match="p: order1-0 orders 2 pairs; the puzzle has 3"):
        apply("order1-0", puzzle)
    with pytest.raises(InputError, match="needs the output of every test pair"):
        apply("swap3-0-1-2", Puzzle("p", tuple(p[:3]), (Pair(((1,),)),)))


@given(puzzles, seeds, st.integers(1, 40))
def test_views_keep_the_order_of_fewer_and_turn_evenly(puzzle: Puzzle, seed: int, n: int) -> None:
    keys = views(puzzle, n, seed)
    assert len(keys) == n
    assert views(puzzle, max(1, n // 2), seed) == keys[: max(1, n // 2)]
    assert len(set(keys)) == n
    used = [parse(key).turn for key in keys]
    counts = [used.count(Symmetry(flip, k)) for flip in (False, True) for k in range(4)]
    assert max(counts) - min(counts) <= 1
    assert not any(parse(key).swap or parse(key).own for key in keys)


def test_views_are_distinct_while_they_can_be() -> None:
    p = [Pair(((i,),), ((i,),)) for i in range(4)]
    puzzle = Puzzle("p", tuple(p[:3]), (p[3],))
    keys = views(puzzle, 60, 0, colours=False)
    assert len(set(keys[:48])) == 48 == len(set(keys))
    assert len(set(views(puzzle, 10, 0, geometry=False, colours=False))) == 6
    assert views(puzzle, 3, 0, geometry=False, colours=False, order=False) == ["same"] * 3
    assert len(set(views(puzzle, 512, 0))) == 512


def test_views_show_different_things_while_few_draws_find_them() -> None:
    # Two colours, one pair: 9 maps that keep 0 show something else, and each turn has them.
    puzzle = Puzzle("p", (Pair(((0, 1),), ((1, 0),)),), (Pair(((1, 1),)),))
    shown = [apply(key, puzzle) for key in views(puzzle, 64, 0)]
    assert len(set(shown)) >= 32


@pytest.mark.parametrize("n", [0, -8])
def test_views_need_a_positive_number(n: int) -> None:
    with pytest.raises(ConfigError, match="n must be at least 1"):
        views(Puzzle("p", (Pair(GRID, GRID),), (Pair(GRID),)), n, 0)


def test_colour_0_stays_nine_times_in_ten() -> None:
    rng = random.Random(0)
    maps = [draw_colours(rng) for _ in range(2000)]
    assert all(sorted(colours) == list(range(10)) for colours in maps)
    assert 0.89 < sum(colours[0] == 0 for colours in maps) / 2000 < 0.935


def test_a_recipe_is_kept() -> None:
    puzzle = Puzzle("p", tuple(Pair(GRID, GRID) for _ in range(3)), (Pair(GRID, GRID),))
    rng = random.Random(0)
    off = Recipe(geometry=False, colours=False, order=False, swap=False, own=0.0)
    assert {draw(puzzle, rng, off) for _ in range(50)} == {"same"}
    only = Recipe(False, False, False, False, 1.0, {"mirror": 1})
    assert {draw(puzzle, rng, only) for _ in range(200)} == {
        f"{side}-mirror{axis}{end}" for side in ("in", "out") for axis in "01" for end in "ab"
    }
    drawn = [parse(draw(puzzle, rng)) for _ in range(400)]
    assert 0.4 < sum(view.own is not None for view in drawn) / 400 < 0.6
    assert any(view.swap for view in drawn)
    with pytest.raises(ConfigError, match="own must lie"):
        Recipe(own=1.5)
    with pytest.raises(ConfigError, match="weights"):
        Recipe(weights={"shear": 1})


def test_without_outputs_nothing_is_swapped() -> None:
    puzzle = Puzzle("p", tuple(Pair(GRID, GRID) for _ in range(3)), (Pair(GRID),))
    rng = random.Random(0)
    assert not any(parse(draw(puzzle, rng)).swap for _ in range(100))


@given(grid_strategy(side=30), seeds)
@settings(max_examples=50)
def test_drawn_views_stay_within_the_benchmarks_sides(grid: Grid, seed: int) -> None:
    puzzle = Puzzle("p", (Pair(grid, grid),), (Pair(grid, grid),))
    shown = apply(draw(puzzle, random.Random(seed), Recipe(own=1.0)), puzzle)
    assert all(max(shape(g)) <= 30 for p in shown.train for g in (p.input, p.output) if g)
