"""Whole puzzles in the compact formats of the field: a prompt, and the solution that continues it.

A format writes the demonstrations and a test input as one text that ends where the output is to
begin; the model's continuation is read back as a grid.  ``pieces`` tells what a model is to say
from what it is given, so that a training can learn every output of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from mull.errors import InputError, SpecError
from mull.tasks.arc.encode import Minimal, Readable, ReadError, Unreadable, read_inside
from mull.tasks.arc.grids import COLOURS, Grid, Pair, Puzzle, as_rows, as_text
from mull.tasks.maths.extract import boxed

_BRACKET = re.compile(r"[\[\]]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a puzzle's text; ``said`` where it is the model's to say."""

    text: str
    said: bool


@runtime_checkable
class Format(Readable, Protocol):
    """A puzzle → the text before its answer; a grid → the answer's text, and back."""

    @property
    def closes(self) -> bool:
        """Whether no part of a solution is another one: it has a closing mark of its own."""
        ...

    def pieces(self, puzzle: Puzzle, index: int = 0) -> tuple[Piece, ...]:
        """The text up to the output of test pair ``index``, in order."""
        ...

    def solution(self, grid: Grid) -> str:
        """What a model is to say after the pieces, without its end-of-sequence token."""
        ...


def prompt(form: Format, puzzle: Puzzle, index: int = 0) -> str:
    """The text that a solution of test pair ``index`` continues.

    >>> from mull.tasks.arc.grids import Pair
    >>> puzzle = Puzzle("p", (Pair(((1, 2),), ((2, 1),)),), (Pair(((3, 4),)),))
    >>> prompt(MARKED, puzzle)
    '<12=21><34='
    """
    return "".join(piece.text for piece in form.pieces(puzzle, index))


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of digits between marks: one token a cell, one a line break, a few a grid.

    ``begin`` stands before an input, ``turn`` between input and output, ``close`` after every
    output (a solution ends with it), ``end`` after the outputs of demonstrations only: the model's
    own end-of-sequence token, which an engine adds and takes away by itself.
    """

    begin: str
    turn: str
    close: str
    end: str = ""
    preamble: str = ""

    @property
    def closes(self) -> bool:
        """Whether ``close`` is a mark: a line break stands between rows as well.

        >>> MARKED.closes, ARCHITECTS.closes, NVARC.closes
        (True, False, False)
        """
        return bool(self.close.strip())

    def pieces(self, puzzle: Puzzle, index: int = 0) -> tuple[Piece, ...]:
        """Inputs with their marks are given; outputs with what closes them are said."""
        pieces = [Piece(self.preamble, False)] if self.preamble else []
        for pair in puzzle.train:
            pieces.append(Piece(f"{self.begin}{as_text(pair.input)}{self.turn}", False))
            pieces.append(Piece(f"{self.solution(_output(puzzle, pair))}{self.end}", True))
        asked = as_text(_test_input(puzzle, index))
        return (*pieces, Piece(f"{self.begin}{asked}{self.turn}", False))

    def solution(self, grid: Grid) -> str:
        """The rows and the closing mark.

        >>> MARKED.solution(((1, 2), (3, 4)))
        '12\\n34>'
        """
        return as_text(grid) + self.close

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        """The rows up to the closing mark or the end of the turn, whichever comes first.

        Strict, the closing mark must be there: it says that the grid is whole. Where the format has
        none but the model's end, whoever knows why the text ended must look at that
        (``ArcTask.needs_end``).
        """
        rows = text.partition(self.end)[0] if self.end else text
        closed = True
        if self.close.strip():
            rows, mark, rest = rows.partition(self.close)
            closed = bool(mark)
            if strict and rest.strip():
                raise ReadError(Unreadable.BAD_SYMBOL, f"{rest[:20]!r} after {self.close!r}")
        elif self.close:
            closed, rows = rows.endswith(self.close), rows.removesuffix(self.close)
        if strict and not closed:
            raise ReadError(Unreadable.TRUNCATED, f"no {self.close!r} after the last row")
        return read_inside(Minimal(), rows, closed, strict)


MARKED: Final = Rows(begin="<", turn="=", close=">")
"""Fourteen characters in all, for a model with one token a character: ``CHARACTERS``.

``<`` input ``=`` output ``>``, one pair after another; a prompt ends with the ``=`` of the test
input.  After mdlARC's four marks, with the line break as a character of its own.
"""
CHARACTERS: Final = "0123456789\n<=>"

ARCHITECTS: Final = Rows(
    begin="I",
    turn="\n+/-=O",
    close="\n",
    end="</s>",
    preamble="ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
)
"""The format of the 2024 prize's winners; the letters first are buffer tokens that learn.

``end`` is the text of the model's end-of-sequence token: ``replace(ARCHITECTS, end=…)``.
"""

NVARC: Final = Rows(
    begin="<|im_start|>user\n",
    turn="<|im_end|><|im_start|>assistant\n",
    close="",
    end="<|im_end|>",
)
"""One chat turn a grid: sixteen tokens with a vocabulary cut to it (2025 prize)."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Grids as JSON lists under plain headings, as the prize's benchmark asks chat models.

    >>> Lists().to_grid(r"The rule is a flip: \boxed{[[1, 2], [3, 4]]}.")
    ((1, 2), (3, 4))
    """

    @property
    def closes(self) -> bool:
        """The list's own bracket does."""
        return True

    def pieces(self, puzzle: Puzzle, index: int = 0) -> tuple[Piece, ...]:
        """One piece: nothing before the answer is the model's to say."""
        shown = [
            f"--Example {number}--\nINPUT:\n{as_json_text(pair.input)}\n"
            f"OUTPUT:\n{as_json_text(_output(puzzle, pair))}"
            for number, pair in enumerate(puzzle.train)
        ]
        asked = as_json_text(_test_input(puzzle, index))
        return (
            Piece(
                "\n\n".join(
                    [ASK_LISTS, "--Training Examples--", *shown, f"--Test Input--\n{asked}", ""]
                ),
                False,
            ),
        )

    def solution(self, grid: Grid) -> str:
        """The grid as a JSON list of rows."""
        return as_json_text(grid)

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        """The list in the last box; else the last list whose brackets balance.

        Strict, the text is the list, or the box that holds it, and nothing else.
        """
        content, has_box = boxed(text)
        if strict:
            whole = text.strip()
            alone = content is not None and whole == f"\\boxed{{{content}}}"
            return _grid_of_list(content if alone and content is not None else whole)
        if has_box and content is not None:
            try:
                return _grid_of_list(content)
            except ReadError:
                pass  # what stands outside of the box may still be a list
        found = _last_balanced(text)
        if found is None:
            opened = "[" in text
            detail = "a list that is not closed" if opened else "no list"
            raise ReadError(Unreadable.TRUNCATED if opened else Unreadable.NO_BLOCK, detail)
        try:
            return _grid_of_list(found)
        except ReadError as error:
            if text.count("[") > text.count("]"):
                raise ReadError(Unreadable.TRUNCATED, "a list that is not closed") from error
            raise


ASK_LISTS: Final = (
    "Each example pairs an input grid with an output grid, both as JSON lists of rows of colours 0 "
    "to 9. One rule turns every input into its output. Work out the rule, apply it to the test "
    "input, and end your answer with the test output as such a list."
)

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {"marked": MARKED, "architects": ARCHITECTS, "nvarc": NVARC, "lists": Lists()}
)


def compact_format(name: str) -> Format:
    """The format of a name; ``SpecError`` lists the valid ones.

    >>> compact_format("nvarc").solution(((7, 8),))
    '78'
    """
    if name not in FORMATS:
        raise SpecError(f"unknown puzzle format {name[:80]!r}; valid: {', '.join(sorted(FORMATS))}")
    return FORMATS[name]


def as_json_text(grid: Grid) -> str:
    """A grid as one line of JSON."""
    return json.dumps(as_rows(grid))


def _test_input(puzzle: Puzzle, index: int) -> Grid:
    if not 0 <= index < len(puzzle.test):
        raise InputError(f"{puzzle.id}: no test pair {index}; expected 0..{len(puzzle.test) - 1}")
    return puzzle.test[index].input


def _output(puzzle: Puzzle, pair: Pair) -> Grid:
    if pair.output is None:
        raise InputError(f"{puzzle.id}: a train pair has no output; expected one a train pair")
    return pair.output


def _last_balanced(text: str) -> str | None:
    """The last stretch from a bracket to the one that closes it; linear in the text."""
    end = text.rfind("]")
    depth = 0
    for match in _BRACKET.finditer(text[: end + 1][::-1]):
        depth += 1 if match[0] == "]" else -1
        if depth == 0:
            return text[end - match.start() : end + 1]
    return None


def _grid_of_list(text: str) -> Grid:
    try:
        value: Any = json.loads(text)
    # RecursionError: brackets without end; ValueError also for numbers without end.
    except (ValueError, RecursionError) as error:
        raise ReadError(Unreadable.BAD_SYMBOL, f"{text[:40]!r} is no JSON list") from error
    if value in ([], [[]]):
        raise ReadError(Unreadable.NO_ROWS, "an empty list")
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ReadError(Unreadable.BAD_SYMBOL, f"{text[:40]!r} is no list of rows")
    for number, row in enumerate(value, 1):
        if len(row) != len(value[0]):
            detail = f"row {number} has {len(row)} cells, row 1 has {len(value[0])}"
            raise ReadError(Unreadable.RAGGED, detail)
        for cell in row:
            if type(cell) is not int or not 0 <= cell < COLOURS:
                # Never the text of a list in a list: it may nest deeper than can be written.
                what = str(cell)[:20] if isinstance(cell, int | float) else type(cell).__name__
                detail = f"row {number}: {what} is no colour 0..9"
                raise ReadError(Unreadable.BAD_SYMBOL, detail)
    if not value[0]:
        raise ReadError(Unreadable.NO_ROWS, "rows without cells")
    return tuple(map(tuple, value))
