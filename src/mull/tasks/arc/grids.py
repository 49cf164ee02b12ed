"""What travels between the ARC rooms: a grid, a pair, a puzzle — checked once, where they enter.

The field says *task* for one puzzle; here a task is a family of problems, so one is a ``Puzzle``
and each of its test pairs is one problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mull.errors import InputError

Grid: TypeAlias = tuple[tuple[int, ...], ...]
"""Rows of cells, colours 0..9, at least one row and one column; rows equally long."""

COLOURS: Final = 10
MAX_SIDE: Final = 30
"""Sides of the benchmark's grids; a model may answer with larger ones, which are simply wrong."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An input grid and its output; ``output`` is ``None`` for a test pair without a gold."""

    input: Grid
    output: Grid | None = None


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Demonstrations and test pairs of one rule.

    >>> puzzle = puzzle_of("p", {"train": [{"input": [[0]], "output": [[1]]}],
    ...                          "test": [{"input": [[2]]}]})
    >>> puzzle.test[0].output is None
    True
    """

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def grid_of(value: Any, where: str = "grid", largest: int | None = MAX_SIDE) -> Grid:
    """A checked grid of nested sequences. ``InputError`` names ``where`` and what was expected.

    >>> grid_of([[0, 1], [2, 3]])
    ((0, 1), (2, 3))
    >>> grid_of([[0, 1], [2]], "p: train 0 input")
    Traceback (most recent call last):
    mull.errors.InputError: p: train 0 input: rows of 2 and 1 cells; expected equally long rows
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{where}: expected a list of rows, not {short(value)}")
    for row in value:
        if not isinstance(row, Sequence) or isinstance(row, str) or not row:
            raise InputError(f"{where}: expected rows of cells, not {short(row)}")
        if len(row) != len(value[0]):
            raise InputError(
                f"{where}: rows of {len(value[0])} and {len(row)} cells; expected equally long rows"
            )
        for cell in row:
            # bool is an int in Python, and JSON's true is no colour.
            if type(cell) is not int or not 0 <= cell < COLOURS:
                raise InputError(f"{where}: expected colours 0..9, not {short(cell)}")
    if largest is not None and max(len(value), len(value[0])) > largest:
        raise InputError(
            f"{where}: {len(value)}x{len(value[0])} cells; expected at most {largest}x{largest}"
        )
    return tuple(tuple(row) for row in value)


def pair_of(value: Any, where: str, largest: int | None = MAX_SIDE) -> Pair:
    """A checked pair of ``{"input": …, "output": …}``; the output may be absent or null."""
    if not isinstance(value, Mapping) or "input" not in value:
        raise InputError(f"{where}: expected an object with input and output, not {short(value)}")
    output = value.get("output")
    return Pair(
        grid_of(value["input"], f"{where} input", largest),
        None if output is None else grid_of(output, f"{where} output", largest),
    )


def puzzle_of(id: str, value: Any, largest: int | None = MAX_SIDE) -> Puzzle:
    """A checked puzzle of ``{"train": [pair …], "test": [pair …]}``.

    ``InputError`` for no train pair, no test pair, a train pair without its output, or a side
    longer than ``largest``.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{id}: expected an object with train and test, not {short(value)}")
    sides: dict[str, tuple[Pair, ...]] = {}
    for side in ("train", "test"):
        pairs = value.get(side)
        if not isinstance(pairs, Sequence) or isinstance(pairs, str) or not pairs:
            raise InputError(f"{id}: expected a list of {side} pairs, not {short(pairs)}")
        sides[side] = tuple(
            pair_of(pair, f"{id}: {side} {i}", largest) for i, pair in enumerate(pairs)
        )
    for i, pair in enumerate(sides["train"]):
        if pair.output is None:
            raise InputError(f"{id}: train {i} has no output; expected one a train pair")
    return Puzzle(id, sides["train"], sides["test"])


def as_json(puzzle: Puzzle) -> dict[str, list[dict[str, list[list[int]]]]]:
    """The puzzle as the benchmark's files have it; ``puzzle_of`` reads it back."""

    def side(pairs: Sequence[Pair]) -> list[dict[str, list[list[int]]]]:
        return [
            {"input": as_rows(pair.input)}
            | ({} if pair.output is None else {"output": as_rows(pair.output)})
            for pair in pairs
        ]

    return {"train": side(puzzle.train), "test": side(puzzle.test)}


def as_rows(grid: Grid) -> list[list[int]]:
    """The grid as nested lists."""
    return [list(row) for row in grid]


def as_text(grid: Grid) -> str:
    """The canonical text of a grid, an answer's form in records and votes: rows of digits.

    >>> as_text(((0, 1), (2, 3)))
    '01\\n23'
    """
    return "\n".join("".join(map(str, row)) for row in grid)


def from_text(text: str) -> Grid:
    """The inverse of ``as_text``; ``InputError`` for any other text."""
    rows = text.split("\n")
    cells = [[int(c) if c.isascii() and c.isdigit() else -1 for c in row] for row in rows]
    return grid_of(cells, "grid text", largest=None)


def shape(grid: Grid) -> tuple[int, int]:
    """Rows and columns."""
    return len(grid), len(grid[0])


def short(value: Any) -> str:
    """A value as an error message shows it: at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
