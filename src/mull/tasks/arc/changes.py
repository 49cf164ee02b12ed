"""Reversible changes to a grid: turns, borders, scaling, reflected copies; each knows its way back.

Facts: reference arc.md 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from mull.errors import InputError
from mull.tasks.arc.grids import Grid


@dataclass(frozen=True, slots=True)
class Pad:
    """A border: ``rows`` above and below, ``columns`` left and right, in one colour."""

    rows: int
    columns: int
    colour: int

    def __str__(self) -> str:
        return f"pad{self.rows}x{self.columns}c{self.colour}"

    def forward(self, grid: Grid) -> Grid:
        """The grid inside its border."""
        side = (self.colour,) * self.columns
        edge = ((self.colour,) * (len(grid[0]) + 2 * self.columns),) * self.rows
        return (*edge, *(side + row + side for row in grid), *edge)

    def back(self, grid: Grid) -> Grid:
        """The grid without its border; ``InputError`` where there is no such border."""
        r, c = self.rows, self.columns
        inner = tuple(row[c : len(row) - c] for row in grid[r : len(grid) - r])
        return _undone(self, grid, inner)


@dataclass(frozen=True, slots=True)
class Upscale:
    """Every cell ``rows`` high and ``columns`` wide."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"up{self.rows}x{self.columns}"

    def forward(self, grid: Grid) -> Grid:
        """The larger grid."""
        wide = (tuple(cell for cell in row for _ in range(self.columns)) for row in grid)
        return tuple(row for row in wide for _ in range(self.rows))

    def back(self, grid: Grid) -> Grid:
        """One cell of each block; ``InputError`` where a block has two colours or is cut."""
        return _undone(self, grid, tuple(row[:: self.columns] for row in grid[:: self.rows]))


@dataclass(frozen=True, slots=True)
class Mirror:
    """A reflected copy joined along ``axis`` (0: rows, 1: columns), ``after`` or before it."""

    axis: int
    after: bool

    def __str__(self) -> str:
        return f"mirror{self.axis}{'a' if self.after else 'b'}"

    def forward(self, grid: Grid) -> Grid:
        """The grid and its reflection, twice as long."""
        copy = grid[::-1] if self.axis == 0 else tuple(row[::-1] for row in grid)
        first, second = (grid, copy) if self.after else (copy, grid)
        if self.axis == 0:
            return first + second
        return tuple(a + b for a, b in zip(first, second, strict=True))

    def back(self, grid: Grid) -> Grid:
        """Its own half; ``InputError`` where the halves are no reflections of each other."""
        if self.axis == 0:
            middle = len(grid) // 2
            return _undone(self, grid, grid[:middle] if self.after else grid[middle:])
        middle = len(grid[0]) // 2
        half = slice(middle) if self.after else slice(middle, None)
        return _undone(self, grid, tuple(row[half] for row in grid))


@dataclass(frozen=True, slots=True)
class Symmetry:
    """One of the eight symmetries of the square: columns mirrored if ``flip``, then quarter turns.

    Turns are counter-clockwise.

    >>> Symmetry(True, 1).forward(((0, 1, 2), (3, 4, 5)))
    ((0, 3), (1, 4), (2, 5))
    """

    flip: bool = False
    turns: int = 0

    def __str__(self) -> str:
        return f"{'flip' if self.flip else 'turn'}{self.turns}"

    def forward(self, grid: Grid) -> Grid:
        """The grid mirrored, then turned."""
        if self.flip:
            grid = tuple(row[::-1] for row in grid)
        if self.turns == 1:
            return tuple(zip(*grid, strict=True))[::-1]
        if self.turns == 2:
            return tuple(row[::-1] for row in grid[::-1])
        if self.turns == 3:
            return tuple(zip(*grid[::-1], strict=True))
        return grid

    def back(self, grid: Grid) -> Grid:
        """The grid turned back, then mirrored."""
        grid = Symmetry(False, -self.turns % 4).forward(grid)
        return tuple(row[::-1] for row in grid) if self.flip else grid


Change = Pad | Upscale | Mirror | Symmetry
"""Any of them."""


def _undone(change: Pad | Upscale | Mirror, grid: Grid, inner: Grid) -> Grid:
    # The one test that is right for every change: doing it again must give the grid back.
    if not inner or not inner[0] or change.forward(inner) != grid:
        raise InputError(
            f"a grid of {len(grid)}x{len(grid[0])} cells is no outcome of {change}; it has no "
            "form without it"
        )
    return inner
