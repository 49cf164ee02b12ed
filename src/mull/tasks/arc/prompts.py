"""A puzzle and an encoder → a chat: demonstrations, the test input, the assistant's first words.

The layout is that of the write-ups (reference arc.md 2), blank lines between all parts:

    <words>

    ## Example 1

    ### Input

    <grid>

    ### Output

    <grid>

    ## Test case

    ### Input

    <grid>

and the assistant answers ``### Output``, a blank line, the grid.  The model continues an assistant
turn that already holds that heading and, for encoders that fence their grids, the fence's opening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from mull.errors import ConfigError, InputError
from mull.tasks.arc.grids import Grid, Puzzle
from mull.types import Message, Prompt

Layout = Literal["short", "long"]
HEADING: Final = "### Output"

_SYSTEM: Final[dict[Layout, str]] = {
    "short": "You solve grid puzzles.",
    "long": """You solve grid puzzles. A grid is a rectangle of cells, at most 30 a side, and \
every cell holds one of ten symbols, its colour. A puzzle shows how a few input grids turn into \
output grids. One rule, the same for all of them, does it, and you find that rule.

What people notice at once is what the rules are made of:

- Things: cells that touch or share a colour belong together. A thing stays what it is when it \
moves, is partly covered or is seen through noise.
- Aims: things move towards, stop at, point to, connect, surround or sort other things.
- Numbers: things are counted, compared, ranked by size, repeated; the largest, the smallest or \
the odd one out is special.
- Space: lines, rectangles, inside and outside, symmetry, turning, mirroring, scaling, copying, \
continuing a pattern.

A rule may join several of these. It explains every example exactly, to the last cell.""",
}
_USER: Final[dict[Layout, str]] = {
    "short": (
        "Every example turns an input grid into an output grid by one and the same rule. Apply "
        "the rule to the test case."
    ),
    "long": (
        "Below are examples of input grids and the output grids that one and the same rule makes "
        "of them. Find the rule, then apply it to the input of the test case. The shape of the "
        "output may differ from that of the input. Write the output grid in the form of the "
        "examples and nothing else."
    ),
}


class GridEncoder(Protocol):
    """How a grid is written, and the ``opening`` that every grid begins with (may be empty)."""

    @property
    def opening(self) -> str: ...

    def to_text(self, grid: Grid) -> str: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One test pair, asked: the ``prompt`` and the assistant's first words.

    ``prefill`` is a request's ``assistant``; ``opening`` is the part of it that belongs to the
    grid's text, so ``opening + completion`` is what an encoder reads.
    """

    prompt: Prompt
    prefill: str
    opening: str


def ask(puzzle: Puzzle, index: int, encoder: GridEncoder, layout: Layout = "short") -> Asked:
    """The chat that asks for the output of test pair ``index``; the output itself is not read.

    >>> from mull.tasks.arc.grids import Pair, as_text
    >>> class Plain:
    ...     opening = ""
    ...     def to_text(self, grid): return as_text(grid)
    >>> p = Puzzle("p", (Pair(((1,),), ((2,),)),), (Pair(((3,),)),))
    >>> print(ask(p, 0, Plain()).prompt.messages[1].content[-44:])
    1
    <BLANKLINE>
    ### Output
    <BLANKLINE>
    2
    <BLANKLINE>
    ## Test case
    <BLANKLINE>
    ### Input
    <BLANKLINE>
    3
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"layout {layout!r}: expected one of {', '.join(get_args(Layout))}")
    if not 0 <= index < len(puzzle.test):
        raise InputError(
            f"{puzzle.id}: no test pair {index}; the puzzle has {len(puzzle.test)}, from 0"
        )
    parts = [_USER[layout]]
    for number, pair in enumerate(puzzle.train, 1):
        if pair.output is None:
            raise InputError(f"{puzzle.id}: train {number - 1} has no output to show")
        parts += [f"## Example {number}", "### Input", encoder.to_text(pair.input)]
        parts += [HEADING, encoder.to_text(pair.output)]
    parts += ["## Test case", "### Input", encoder.to_text(puzzle.test[index].input)]
    prompt = Prompt.chat(Message("system", _SYSTEM[layout]), Message("user", "\n\n".join(parts)))
    start = encoder.opening
    return Asked(prompt, f"{HEADING}\n\n{start}", start)


def answer(grid: Grid, encoder: GridEncoder) -> str:
    """The assistant's whole turn for an output grid: what a model is trained to write.

    It begins with ``Asked.prefill``.
    """
    return f"{HEADING}\n\n{encoder.to_text(grid)}"
