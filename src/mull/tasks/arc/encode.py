"""Grids as text for a language model, and back: small encoders that wrap one another.

Three kinds write cells (``Minimal``, ``Separated``, ``Repeated``); the others wrap one: ``Block``
and ``Shaped`` set a fence around it, ``RowNumbered`` numbers its lines, ``Replaced`` writes ten
symbols for the ten digits.  ``encoder_spec`` makes them from the spec strings of the field.

Reading is lenient unless it is asked to be strict.  Lenient, the stated shape, the row numbers and
all but the first of repeated digits are passed over, and a missing closing fence is forgiven, so
that answers count as they do elsewhere.  Strict, everything that a text says twice must agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

from mull.errors import SpecError
from mull.grades import Unanswered
from mull.tasks.arc.grids import COLOURS, Grid

FENCE: Final = "```"
OPENING: Final = "```grid"
SHAPE: Final = "```grid shape:"
SYMBOLS: Final = "ñò÷ûąćďęĚĞ"
"""The ten symbols that the field's encoder writes; ``mull arc symbols`` checks a set."""
MAX_REPEAT: Final = 10
MAX_SEPARATOR: Final = 8
MAX_CELL: Final = 20
"""Characters between two separators that are looked at."""

_STATED = re.compile(r"([0-9]{1,4})x([0-9]{1,4})")
_DIGITS = "0123456789"
_ALL_COLOURS: Final[Grid] = (tuple(range(COLOURS)),)


class Unreadable(StrEnum):
    """Why a text gives no grid. Closed."""

    EMPTY = "empty"
    """No text at all."""
    NO_BLOCK = "no_block"
    """The fence that the encoder opens is not there, or no grid where one is looked for."""
    NO_ROWS = "no_rows"
    """A place for a grid without a row in it."""
    BAD_ROW_PREFIX = "bad_row_prefix"
    """A line without a row number and a space."""
    BAD_SYMBOL = "bad_symbol"
    """A cell that is no colour."""
    RAGGED = "ragged"
    """Rows of different lengths, a blank line among them."""
    TRUNCATED = "truncated"
    """The text ends inside the grid."""
    SHAPE_MISMATCH = "shape_mismatch"
    """Strict: the stated shape is missing, or is not that of the rows."""
    ROW_MISMATCH = "row_mismatch"
    """Strict: row numbers that do not count 1, 2, 3 …"""
    REPEAT_MISMATCH = "repeat_mismatch"
    """Strict: the characters of one repeated cell differ."""

    @property
    def unanswered(self) -> Unanswered:
        """The reason as every task gives it."""
        return _UNANSWERED.get(self, Unanswered.MALFORMED)


_UNANSWERED: Final = {
    Unreadable.EMPTY: Unanswered.EMPTY,
    Unreadable.NO_BLOCK: Unanswered.NO_ANSWER,
    Unreadable.TRUNCATED: Unanswered.TRUNCATED,
}


class ReadError(ValueError):
    """A text that gives no grid: a closed ``failure``, and a ``detail`` for the reader.

    Not in the error tree: a bad sample is data, and ``read`` makes it so.
    """

    def __init__(self, failure: Unreadable, detail: str) -> None:
        super().__init__(failure, detail)
        self.failure = failure
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.failure.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text gave: a grid, or the failure and its detail."""

    grid: Grid | None
    failure: Unreadable | None = None
    detail: str = ""


class Readable(Protocol):
    """Text → a grid."""

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        """The grid in a text as it is written; ``ReadError`` where there is none."""
        ...


@runtime_checkable
class Encoder(Readable, Protocol):
    """A grid → text, and back: ``to_grid`` takes a text that holds the opening."""

    @property
    def opening(self) -> str:
        """How every text begins: what a prefilled assistant turn ends with. May be empty."""
        ...

    def to_text(self, grid: Grid) -> str: ...


class _Bare:
    """An encoder whose text begins with the grid itself."""

    __slots__ = ()

    @property
    def opening(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Minimal(_Bare):
    """Rows of digits.

    >>> Minimal().to_text(((0, 1, 2), (3, 4, 5)))
    '012\\n345'
    """

    def to_text(self, grid: Grid) -> str:
        return "\n".join("".join(map(str, row)) for row in grid)

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        return _checked([[*line] for line in _lines(text, strict)], strict)


@dataclass(frozen=True, slots=True)
class Separated(_Bare):
    """Digits with a separator between them.

    ``SpecError`` for a separator that could not be told from the grid around it.

    >>> Separated("|").to_text(((0, 1, 2), (3, 4, 5)))
    '0|1|2\\n3|4|5'
    """

    separator: str

    def __post_init__(self) -> None:
        given = self.separator
        if (
            not 1 <= len(given) <= MAX_SEPARATOR
            or given.splitlines() != [given]
            or "`" in given
            or any(character.isdigit() for character in given)
        ):
            raise SpecError(
                f"separator {given[:20]!r} cannot be read back; expected 1 to {MAX_SEPARATOR} "
                "characters without digits, backticks and line breaks"
            )

    def to_text(self, grid: Grid) -> str:
        return "\n".join(self.separator.join(map(str, row)) for row in grid)

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        return _checked([line.split(self.separator) for line in _lines(text, strict)], strict)


@dataclass(frozen=True, slots=True)
class Repeated(_Bare):
    """Every digit ``n`` times, for tokenizers that have one token for ``000`` and none for ``0``.

    >>> Repeated(3).to_grid("000111")
    ((0, 1),)
    >>> Repeated(3).to_grid("012111", strict=True)
    Traceback (most recent call last):
    mull.tasks.arc.encode.ReadError: repeat_mismatch: row 1: '012' is no colour 3 times
    """

    n: int = 3

    def __post_init__(self) -> None:
        if type(self.n) is not int or not 1 <= self.n <= MAX_REPEAT:
            raise SpecError(f"repeats must lie in 1..{MAX_REPEAT}, not {self.n!r:.20}")

    def to_text(self, grid: Grid) -> str:
        return "\n".join("".join(str(cell) * self.n for cell in row) for row in grid)

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        lines = _lines(text, strict)
        if strict:
            for number, line in enumerate(lines, 1):
                for at in range(0, len(line), self.n):
                    cell = line[at : at + self.n]
                    if cell != cell[0] * self.n:
                        detail = f"row {number}: {cell!r} is no colour {self.n} times"
                        raise ReadError(Unreadable.REPEAT_MISMATCH, detail)
        return _checked([[*line[:: self.n]] for line in lines], strict)


@dataclass(frozen=True, slots=True)
class RowNumbered:
    """Lines that begin with their number, from 1, and a space.

    >>> RowNumbered(Minimal()).to_text(((0, 1, 2), (3, 4, 5)))
    '1 012\\n2 345'
    """

    inner: Encoder

    @property
    def opening(self) -> str:
        return f"1 {self.inner.opening}" if self.inner.opening else ""

    def to_text(self, grid: Grid) -> str:
        lines = self.inner.to_text(grid).split("\n")
        return "\n".join(f"{number} {line}" for number, line in enumerate(lines, 1))

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        kept = []
        for number, line in enumerate(text.splitlines(), 1):
            prefix, space, rest = line.partition(" ")
            if not space:
                detail = f"line {number}: {line[:40]!r} has no row number and space"
                raise ReadError(Unreadable.BAD_ROW_PREFIX, detail)
            if strict and prefix != str(number):
                detail = f"line {number} is numbered {prefix[:20]!r}"
                raise ReadError(Unreadable.ROW_MISMATCH, detail)
            kept.append(rest)
        return self.inner.to_grid("\n".join(kept), strict)


@dataclass(frozen=True, slots=True)
class Replaced:
    """Ten symbols for the ten digits, wherever the inner text has one: row numbers as well.

    ``SpecError`` where ``symbols`` are not ten characters that can be told from the rest.

    >>> Replaced(RowNumbered(Minimal())).to_text(((0, 1, 2), (3, 4, 5)))
    'ò ñò÷\\n÷ ûąć'
    """

    inner: Encoder
    symbols: str = SYMBOLS
    _forward: dict[int, str] = field(init=False, repr=False, compare=False)
    _back: dict[int, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = self.symbols
        bad = [c for c in given if c.isspace() or c.isdigit() or c == "`" or not c.isprintable()]
        bad += sorted(set(given) & set(self.inner.to_text(_ALL_COLOURS)))
        if len(given) != COLOURS or len(set(given)) != COLOURS or bad:
            raise SpecError(
                f"symbols {given[:20]!r} cannot be read back; expected {COLOURS} different "
                "characters without blanks, digits, backticks and characters that the inner "
                f"encoder writes{f' (not {bad[0]!r})' if bad else ''}"
            )
        # Frozen: a dataclass has no other way to keep what it worked out.
        object.__setattr__(self, "_forward", str.maketrans(_DIGITS, given))
        object.__setattr__(self, "_back", str.maketrans(given, _DIGITS))

    @property
    def opening(self) -> str:
        return self.inner.opening.translate(self._forward)

    def to_text(self, grid: Grid) -> str:
        return self.inner.to_text(grid).translate(self._forward)

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        if strict and (digit := re.search("[0-9]", text)):
            detail = f"the digit {digit[0]!r} where a symbol stands for it"
            raise ReadError(Unreadable.BAD_SYMBOL, detail)
        return self.inner.to_grid(text.translate(self._back), strict)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of the kind ``grid``.

    Strict, the closing fence must be there: nothing else says that the grid is whole.

    >>> Block(Minimal()).to_text(((7,),))
    '```grid\\n7\\n```'
    """

    inner: Encoder

    def __post_init__(self) -> None:
        if FENCE in self.inner.to_text(_ALL_COLOURS):  # reading would end at the inner one
            raise SpecError(
                "a fenced block in a fenced block; expected one GridCodeBlockEncoder or "
                "GridShapeEncoder"
            )

    @property
    def opening(self) -> str:
        return OPENING

    def to_text(self, grid: Grid) -> str:
        return f"{OPENING}\n{self.inner.to_text(grid)}\n{FENCE}"

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        _, opened, rest = text.partition(f"{OPENING}\n")
        if not opened:
            raise ReadError(Unreadable.NO_BLOCK, f"no line {OPENING}")
        # A block without rows closes at once: the line break before its fence opened it.
        body, fence, _ = ("", FENCE, "") if rest.startswith(FENCE) else rest.partition(f"\n{FENCE}")
        if strict and not fence:
            raise ReadError(Unreadable.TRUNCATED, "no closing fence")
        return read_inside(self.inner, body, bool(fence), strict)


@dataclass(frozen=True, slots=True)
class Shaped(Block):
    """A fenced block that states rows x columns before the grid.

    Strict, the stated shape must be that of the rows; a missing closing fence is then forgiven.

    >>> Shaped(RowNumbered(Minimal())).to_text(((0, 1, 2), (3, 4, 5)))
    '```grid shape: 2x3\\n1 012\\n2 345\\n```'
    """

    def to_text(self, grid: Grid) -> str:
        return f"{SHAPE} {len(grid)}x{len(grid[0])}\n{self.inner.to_text(grid)}\n{FENCE}"

    def to_grid(self, text: str, strict: bool = False) -> Grid:
        lines = text.splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith(SHAPE)), None)
        if at is None:
            raise ReadError(Unreadable.NO_BLOCK, f"no line {SHAPE} …")
        after = range(at + 1, len(lines))
        end = next((i for i in after if lines[i].startswith(FENCE)), None)
        closed = end is not None
        grid = read_inside(self.inner, "\n".join(lines[at + 1 : end]), closed, strict)
        if strict:
            _agree(lines[at][len(SHAPE) :].strip(), grid, closed)
        return grid


def read(form: Readable, text: str, strict: bool = False) -> Reading:
    """What a whole text gives; never raises, whatever the text is.

    >>> read(Block(Minimal()), "```grid\\n01\\n2\\n```").failure
    <Unreadable.RAGGED: 'ragged'>
    """
    if not text.strip():
        return Reading(None, Unreadable.EMPTY, "no text")
    try:
        return Reading(form.to_grid(text, strict))
    except ReadError as error:
        return Reading(None, error.failure, error.detail)


def read_response(encoder: Encoder, response: str, strict: bool = False) -> Reading:
    """What a model's response gives, where the prompt ended with the encoder's opening.

    >>> read_response(Shaped(RowNumbered(Minimal())), " shape: 1x2\\n1 01\\n```").grid
    ((0, 1),)
    """
    if not response.strip():
        return Reading(None, Unreadable.EMPTY, "no text")
    return read(encoder, encoder.opening + response, strict)


def read_inside(inner: Encoder, body: str, closed: bool, strict: bool) -> Grid:
    """The grid of a block; in an open one, a fault that the last line alone has is a cut.

    Raises:
        ReadError: ``TRUNCATED`` for a cut, else what the inner encoder finds.
    """
    try:
        return inner.to_grid(body, strict)
    except ReadError as error:
        if not closed and _cut(inner, body, error.failure):
            raise ReadError(Unreadable.TRUNCATED, f"open block: {error.detail}") from error
        raise


def _agree(stated: str, grid: Grid, closed: bool) -> None:
    """Refuse a grid that is not of the stated shape."""
    found = _STATED.fullmatch(stated)
    rows, columns = len(grid), len(grid[0])
    if found and (int(found[1]), int(found[2])) == (rows, columns):
        return
    if found and not closed and int(found[1]) > rows and int(found[2]) == columns:
        raise ReadError(Unreadable.TRUNCATED, f"{rows} of {found[1]} rows and no closing fence")
    detail = f"stated {stated[:20]!r}, found {rows}x{columns}"
    raise ReadError(Unreadable.SHAPE_MISMATCH, detail)


def _cut(inner: Encoder, body: str, failure: Unreadable) -> bool:
    if failure is Unreadable.NO_ROWS:
        return True
    if failure not in (Unreadable.RAGGED, Unreadable.BAD_ROW_PREFIX, Unreadable.REPEAT_MISMATCH):
        return False
    return read(inner, body.rpartition("\n")[0]).grid is not None


def _lines(text: str, strict: bool) -> list[str]:
    """The rows of a text; lenient, blank lines around them are passed over."""
    lines = text.split("\n") if strict else text.strip().splitlines()
    if not any(lines):
        raise ReadError(Unreadable.NO_ROWS, "no row")
    return lines


def _checked(cells: list[list[str]], strict: bool) -> Grid:
    """Cells → a grid. Wider and higher grids than the benchmark's are read: they are just wrong."""
    rows = []
    for number, line in enumerate(cells, 1):
        row = tuple(_colour(cell, number, strict) for cell in line)
        if len(row) != len(cells[0]):
            detail = f"row {number} has {len(row)} cells, row 1 has {len(cells[0])}"
            raise ReadError(Unreadable.RAGGED, detail)
        rows.append(row)
    return tuple(rows)


def _colour(cell: str, row: int, strict: bool) -> int:
    # Lenient, " 1" and "01" between separators are 1. No digits of other scripts, which int()
    # would take: no encoder writes them.
    if cell.isascii() and len(cell) <= (1 if strict else MAX_CELL):
        try:
            colour = int(cell)
        except ValueError:
            colour = -1
        if 0 <= colour < COLOURS:
            return colour
    raise ReadError(Unreadable.BAD_SYMBOL, f"row {row}: {cell[:20]!r} is no colour 0..9")
