"""Token ids → where each token stands in a text of grids: which grid, which row, which column.

A model of grids turns its queries and keys by these three numbers in place of one position in the
text, so that the cell above is as near as the cell before, whatever the grid's width: rotary
positions over several axes, as in vision transformers, and in mdlARC for these puzzles. A place
follows from the tokens before it alone, so cached keys stay true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

AXES: Final = 3
"""Grid, row, column."""
SIDE: Final = 32
"""Rows and columns that have an embedding of their own; what lies beyond shares the last."""
_BASES: Final = (20.0, 60.0, 60.0)
"""The longest wavelength of an axis is 2π times this: grids of a text, cells of a side."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The token ids that give a text of grids its form.

    ``begin`` stands before an input, ``turn`` before an output, ``close`` after it, ``line``
    between rows; every other token is a cell.
    """

    begin: int
    turn: int
    close: int
    line: int


def origin(rows: int, device: torch.device | str = "cpu") -> Tensor:
    """The place before the first token of each of some texts: [rows, 3]."""
    return torch.tensor([0, 0, -1], device=device).expand(rows, AXES)


def walk(ids: Tensor, before: Tensor, marks: Marks) -> Tensor:
    """Places [rows, q, 3] of tokens ``ids`` [rows, q] that follow the places ``before`` [rows, 3].

    The first input is grid 1, the first output grid 2. A mark is column 0 of row 0, a line break
    column 0 of the row that it opens.

    >>> marks = Marks(begin=13, turn=14, close=15, line=12)
    >>> walk(torch.tensor([[13, 5, 6, 12, 7, 8, 14]]), origin(1), marks)[0].tolist()
    [[1, 0, 0], [1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2], [2, 0, 0]]
    """
    opens = (ids == marks.begin) | (ids == marks.turn)
    mark, line = opens | (ids == marks.close), ids == marks.line
    grid, row, column = before[:, :1], before[:, 1:2], before[:, 2:]
    number = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    # The last break at or before each token; before the first, the one that `before` stands behind.
    at = torch.where(mark | line, number, -1 - column).cummax(1).values
    lines = line.cumsum(1)
    base = torch.where(mark, lines, -row).cummax(1).values
    return torch.stack([grid + opens.cumsum(1), lines - base, number - at], dim=-1)


def axes_and_rates(head_dim: int) -> tuple[Tensor, Tensor]:
    """The axis (int64) and the rate in radians a step of each rotary pair, [head_dim / 2] both.

    Three eighths of the pairs turn by the row, as many by the column, the rest by the grid.
    """
    half = head_dim // 2
    cells = half * 3 // 8
    counts = (half - 2 * cells, cells, cells)
    axes = torch.repeat_interleave(torch.arange(AXES), torch.tensor(counts))
    rates = [
        base ** (-torch.arange(count, dtype=torch.float32) / count)
        for base, count in zip(_BASES, counts, strict=True)
        if count
    ]
    return axes, torch.cat(rates)


def angles(places: Tensor, axes: Tensor, rates: Tensor) -> Tensor:
    """The angle of each rotary pair, float32 [..., head_dim / 2], at places [..., 3]."""
    return places[..., axes].float() * rates


def cells(places: Tensor) -> Tensor:
    """The two rows of the embedding of places [2 · SIDE, width] at places [..., 3]: [..., 2]."""
    return places[..., 1:].clamp(0, SIDE - 1) + torch.tensor([0, SIDE], device=places.device)
