"""Laws of the one-row kinds: each rule explains all of its data; generators keep to the rule."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from mull.errors import InputError
from mull.tasks.arc.data import load
from mull.tasks.arc.grids import MAX_SIDE, Puzzle, shape
from mull.tasks.arc.one_d import HELD_OUT, KINDS, fingerprint, puzzles, runs, solve


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "arc" / "1D-ARC" / "dataset"


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_maps_every_input_of_its_kind_to_its_output(folder: Path, kind: str) -> None:
    found = list(load(folder / kind))
    assert len(found) == 50
    for puzzle in found:
        for pair in puzzle.train + puzzle.test:
            assert solve(kind, pair.input) == pair.output, puzzle.id


def test_the_kinds_are_the_datas_without_those_held_out(folder: Path) -> None:
    assert sorted([*KINDS, *HELD_OUT]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_generated_puzzles_follow_the_rule_and_the_form(kind: str) -> None:
    widths = KINDS[kind].widths
    for puzzle in puzzles(kind, 0, 200):
        assert (len(puzzle.train), len(puzzle.test)) == (3, 1)
        pairs = puzzle.train + puzzle.test
        assert len({pair.input for pair in pairs}) == 4
        assert (
            len({shape(grid) for pair in pairs for grid in (pair.input, pair.output) if grid}) == 1
        )
        assert len(pairs[0].input) == 1 and len(pairs[0].input[0]) in widths
        for pair in pairs:
            assert solve(kind, pair.input) == pair.output != pair.input


@pytest.mark.parametrize("kind", KINDS)
def test_generated_rows_look_like_the_datas(folder: Path, kind: str) -> None:
    def seen(found: Iterator[Puzzle]) -> tuple[set[int], set[int]]:
        rows = [pair.input[0] for puzzle in found for pair in puzzle.train + puzzle.test]
        return {len(row) for row in rows}, {len(runs(row)) for row in rows}

    widths, counts = seen(load(folder / kind))
    made_widths, made_counts = seen(puzzles(kind, 1, 1000))
    assert made_widths >= widths
    assert max(widths) >= max(made_widths)
    # The rarest counts of the data (one row of 200) may be missing.
    assert len(counts - made_counts) <= 1
    assert made_counts <= set(range(min(counts), max(counts) + 1))


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    for kind in KINDS:
        first = list(puzzles(kind, 3, 20))
        assert first == list(islice(puzzles(kind, 3), 20))
        assert not {*map(fingerprint, first)} & {*map(fingerprint, puzzles(kind, 4, 20))}


def test_puzzles_of_the_data_never_come_out() -> None:
    every = list(puzzles("1d_move_1p", 0, 50))
    taken = {fingerprint(puzzle) for puzzle in every[::2]}
    left = list(puzzles("1d_move_1p", 0, 25, taken))
    assert left == every[1::2]


def test_pairs_to_avoid_are_shown_nowhere(folder: Path) -> None:
    tests = {puzzle.test[0] for puzzle in load(folder / "1d_pcopy_1c")}
    free = [{*p.train, *p.test} & tests for p in puzzles("1d_pcopy_1c", 0, 300)]
    assert any(free)
    assert not any({*p.train, *p.test} & tests for p in puzzles("1d_pcopy_1c", 0, 300, (), tests))


def test_a_fingerprint_knows_neither_order_nor_test() -> None:
    [puzzle] = puzzles("1d_fill", 0, 1)
    other = Puzzle("x", puzzle.test + puzzle.train[:2], puzzle.train[2:])
    assert fingerprint(other) == fingerprint(puzzle)


@pytest.mark.parametrize("kind", HELD_OUT)
def test_held_out_kinds_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="held out"):
        puzzles(kind, 0)


def test_unknown_kinds_and_tall_grids_are_refused() -> None:
    with pytest.raises(InputError, match="no kind 'fill'; expected one of 1d_denoising_1c"):
        puzzles("fill", 0)
    with pytest.raises(InputError, match="of 2 rows"):
        solve("1d_fill", ((0, 1), (1, 0)))


def test_only_the_padded_kind_is_wider_than_the_benchmarks_grids_by_much() -> None:
    wide = {kind for kind, found in KINDS.items() if max(found.widths) > MAX_SIDE + 3}
    assert wide == {"1d_padded_fill"}
