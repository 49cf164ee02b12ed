"""Small generated puzzles for trainings of minutes: one-row kinds, and grids of at most six a side.

The grids are re-arc's, of puzzles whose rules need places: turns, mirrors, shifts, copies, crops.
What is held out are other puzzles of the same kinds: no test pair of theirs is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from itertools import islice

from mull.rng import derive
from mull.tasks.arc import one_d, rearc
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Pair, Puzzle

ROWS = ("1d_fill", "1d_flip", "1d_hollow", "1d_move_1p", "1d_move_2p", "1d_move_dp")
GRIDS = (
    "25ff71a9", "3c9b0459", "4c4377d9", "6150a2bd", "67a3c6ac", "68b16354", "6d0aefbc", "6fa7a44f",
    "74dd1130", "8be77c9e", "9dfd6313", "a416b8f3", "a79310a0", "c9e6f938", "d10ecb37", "ed36ccf7",
)  # fmt: skip
NEW_ROWS = ("1d_move_2p_dp", "1d_move_3p")
NEW_GRIDS = ("3af2c5a8", "46442a0e", "67e8384a", "c59eb873")
"""Kinds that only fine-tuning sees."""
WIDEST, SIDE = 16, 6
"""Cells of a row, and of a grid's side, at most."""
DIFFICULTY = (0.0, 0.25)
DEMONSTRATIONS = 3


def held_out(
    count: int = 20,
    rows: Sequence[str] = ROWS,
    grids: Sequence[str] = GRIDS,
    seed: int = 1,
) -> tuple[Puzzle, ...]:
    """``count`` puzzles of every kind, for measuring."""
    made = [puzzle for kind in rows for puzzle in islice(_rows(kind, seed), count)]
    for id in grids:
        pool = Pool(id, _pairs(id, seed, count * (DEMONSTRATIONS + 1)), DEMONSTRATIONS)
        drawn = [pool.draw(random.Random(derive(seed, id, i))) for i in range(count)]
        made += [Puzzle(f"{id}-{i}", p.train, p.test[:1]) for i, p in enumerate(drawn)]
    return tuple(made)


def trained(
    held: Sequence[Puzzle],
    rows: Sequence[str] = ROWS,
    grids: Sequence[str] = GRIDS,
    pairs: int = 1000,
    seed: int = 0,
) -> tuple[Puzzle | Pool, ...]:
    """Sources of training texts: ``pairs`` of each re-arc puzzle, two visits a one-row puzzle.

    No pair is a test pair of ``held``.
    """
    asked = {pair for puzzle in held for pair in puzzle.test}
    one = [p for kind in rows for p in islice(_rows(kind, seed, asked), 4 * pairs // 5)]
    pools = [
        Pool(id, tuple(p for p in _pairs(id, seed, pairs) if p not in asked), DEMONSTRATIONS)
        for id in grids
    ]
    visits = pools * (2 * len(one) // max(1, len(pools)))
    return (*one, *visits)


def _rows(kind: str, seed: int, avoid: Container[Pair] = ()) -> Iterator[Puzzle]:
    made = one_d.puzzles(kind, seed, None, avoid=avoid)
    return (puzzle for puzzle in made if len(puzzle.test[0].input[0]) <= WIDEST)


def _pairs(id: str, seed: int, count: int) -> tuple[Pair, ...]:
    made = rearc.pairs(id, seed, difficulty=DIFFICULTY, verified=False)
    return tuple(islice((pair for pair in made if _side(pair) <= SIDE), count))


def _side(pair: Pair) -> int:
    return max(len(g) for grid in (pair.input, pair.output or ()) for g in (grid, *grid))
