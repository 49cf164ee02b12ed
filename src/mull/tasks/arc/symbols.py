"""Ten symbols for ten colours: does a tokenizer read each as one token wherever an encoder sets it?

Looking a symbol up in a vocabulary does not tell: byte-level vocabularies hold byte aliases, and a
character that is one token after a line break may be two after a space, because the space takes
its first byte.  So the check compares token ids in context, and the search keeps what passes.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from mull.errors import InputError, MissingExtraError, SpecError
from mull.tasks.arc.encode import FENCE, OPENING, Encoder, Repeated, Replaced
from mull.tasks.arc.grids import COLOURS, Grid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEFORE: Final[Mapping[str, str]] = MappingProxyType(
    {"newline": "\n", "space": " ", "fence": f"{OPENING}\n", "digit, space": "\n1 "}
)
"""What may stand before a cell, besides another symbol and a separator."""
AFTER: Final[Mapping[str, str]] = MappingProxyType(
    {"before newline": "\n", "before fence": f"\n{FENCE}"}
)
AFTER_SYMBOL: Final = "after another symbol"
SHARED: Final = "shared token"
"""Broken everywhere: another symbol of the set is the same token, as unknown characters are."""
COSTS: Final = (3, 10, 30)
"""Sides of the square grids whose tokens are counted."""
_ZERO: Final[Grid] = ((0, 0), (0, 0))
_ONE: Final[Grid] = ((1, 1), (1, 1))


class Tokens(Protocol):
    """What the check needs of a tokenizer."""

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ...

    def strings(self) -> Sequence[str]:
        """The text of every vocabulary entry, in the order of their ids."""
        ...


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol under a tokenizer.

    ``token`` is its id after a line break, ``None`` where it is not one token there; ``broken``
    names the contexts in which it is another token or several; ``elsewhere`` counts the other
    vocabulary entries that hold the character.
    """

    symbol: str
    token: int | None
    broken: tuple[str, ...]
    elsewhere: int


@dataclass(frozen=True, slots=True)
class SymbolReport:
    """A set of symbols under a tokenizer and an encoder.

    ``used`` names the contexts that the encoder makes; ``sound`` says that in all its texts every
    colour is one token of its own and nothing else in the text depends on the colours; ``costs``
    are the tokens of square grids with sides ``COSTS``.
    """

    symbols: tuple[Symbol, ...]
    used: tuple[str, ...]
    sound: bool
    costs: tuple[int, ...]

    @property
    def text(self) -> str:
        """The symbols, in the order of their colours."""
        return "".join(each.symbol for each in self.symbols)

    def broken(self, symbol: Symbol) -> tuple[str, ...]:
        """The contexts that the encoder makes in which a symbol breaks."""
        return tuple(name for name in symbol.broken if name in self.used)


class HubTokens:
    """A Hugging Face tokenizer as the check needs it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._strings: list[str] = []

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def strings(self) -> Sequence[str]:
        if not self._strings:
            # Decoded, not as listed: a byte-level vocabulary lists aliases of bytes.
            size = self._tokenizer.get_vocab_size()
            self._strings = self._tokenizer.decode_batch([[each] for each in range(size)])
        return self._strings


def open_tokens(path: Path) -> HubTokens:
    """The tokenizer of a model folder or of a ``tokenizer.json``.

    Raises:
        InputError: there is none, or it cannot be read.
        MissingExtraError: the tokenizers library is not installed.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no tokenizer.json; expected a tokenizer's file or its folder")
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("a tokenizer", "torch") from error
    try:
        return HubTokens(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file}: no tokenizer: {error}; expected a Hugging Face one") from error


def with_symbols(encoder: Encoder, symbols: str) -> Encoder:
    """The encoder with other symbols; ``SpecError`` where it replaces no digits.

    >>> from mull.tasks.arc.encoder_spec import encoder_spec, parse_encoder
    >>> spec = "GridCodeBlockEncoder(ReplaceNumberEncoder(MinimalGridEncoder()))"
    >>> encoder_spec(with_symbols(parse_encoder(spec), "ABCDEFGHIJ"))
    "GridCodeBlockEncoder(ReplaceNumberEncoder(MinimalGridEncoder(), 'ABCDEFGHIJ'))"
    """
    found = _replaced(encoder, symbols)
    if found is None:
        raise SpecError(
            "the encoder writes digits; expected one with ReplaceNumberEncoder, as in "
            "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))"
        )
    return found


def symbols_of(encoder: Encoder) -> str:
    """The ten characters that an encoder writes for the ten colours."""
    while not isinstance(encoder, Replaced) and hasattr(encoder, "inner"):
        encoder = encoder.inner
    return encoder.symbols if isinstance(encoder, Replaced) else "0123456789"


def check_symbols(tokens: Tokens, encoder: Encoder) -> SymbolReport:
    """How a tokenizer reads the symbols of an encoder, in every context."""
    cells = _cells(encoder)
    counts = _counts(tokens)
    lefts, used = _contexts(encoder)
    if AFTER_SYMBOL in used:
        used |= {f"after {cell}" for cell in cells}
    lefts |= {f"after {cell}": cell for cell in cells}
    reader = _Reader(tokens)
    symbols = _apart([_symbol(reader, cell, lefts, counts) for cell in cells])
    names = tuple(name for name in (*lefts, *AFTER, SHARED) if name in used)
    costs = tuple(len(tokens.ids(encoder.to_text(_square(side)))) for side in COSTS)
    return SymbolReport(symbols, names, _whole(tokens, encoder), costs)


def find_symbols(tokens: Tokens, encoder: Encoder) -> str:
    """Ten symbols that the tokenizer reads as one token each in every context, alone and in pairs.

    Characters that occur in few other vocabulary entries come first, then low token ids.  The
    encoder gives the separators; its own symbols play no part.

    Raises:
        InputError: the tokenizer has no ten such characters.
    """
    reader = _Reader(tokens)
    counts = _counts(tokens)
    lefts, _ = _contexts(encoder)
    taken = set(encoder.to_text(_ZERO)) - set(symbols_of(encoder))
    chosen: list[str] = []
    for symbol in _candidates(tokens, counts):
        if symbol in taken or _symbol(reader, symbol, lefts, counts).broken:
            continue
        if reader.token("\n", symbol) in map(partial(reader.token, "\n"), chosen):
            continue  # both are the token of unknown characters
        if all(
            reader.token(a, b) == reader.token("\n", b)
            for other in (*chosen, symbol)
            for a, b in ((symbol, other), (other, symbol))
        ):
            chosen.append(symbol)
        if len(chosen) == COLOURS:
            return "".join(chosen)
    raise InputError(
        f"the tokenizer has {len(chosen)} characters that are one token in every context; "
        f"expected {COLOURS}: use digits, or repeat them"
    )


class _Reader:
    """Token ids in context, each text tokenized once."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokens.ids(text)
        return self._known[text]

    def token(self, left: str, symbol: str) -> int | None:
        """The one token that a symbol adds to the text on its left, if it is one."""
        before, both = self.ids(left), self.ids(left + symbol)
        return both[-1] if len(both) == len(before) + 1 and both[:-1] == before else None

    def keeps(self, symbol: str, right: str) -> bool:
        """Whether what follows a symbol is read as after a digit, and the symbol as before."""
        digit, with_digit = self.ids("\n0"), self.ids("\n0" + right)
        tail = with_digit[len(digit) :]
        return self.ids(f"\n{symbol}{right}") == [*self.ids(f"\n{symbol}"), *tail]


def _symbol(
    reader: _Reader, symbol: str, lefts: Mapping[str, str], counts: Mapping[str, int]
) -> Symbol:
    token = reader.token("\n", symbol)
    broken = [
        name for name, left in lefts.items() if token is None or reader.token(left, symbol) != token
    ]
    broken += [name for name, right in AFTER.items() if not reader.keeps(symbol, right)]
    return Symbol(symbol, token, tuple(broken), max(0, counts.get(symbol, 0) - 1))


def _apart(symbols: list[Symbol]) -> tuple[Symbol, ...]:
    """The symbols, those that share a token marked as broken."""
    seen = Counter(each.token for each in symbols)
    return tuple(
        replace(each, broken=(*each.broken, SHARED))
        if each.token is not None and seen[each.token] > 1
        else each
        for each in symbols
    )


def _cells(encoder: Encoder) -> tuple[str, ...]:
    """What stands for each colour: one symbol, or one repeated."""
    inner = encoder
    while hasattr(inner, "inner"):
        inner = inner.inner
    times = inner.n if isinstance(inner, Repeated) else 1
    return tuple(symbol * times for symbol in symbols_of(encoder))


def _contexts(encoder: Encoder) -> tuple[dict[str, str], set[str]]:
    """What may stand before a cell, by name; and the names that this encoder's texts make."""
    cells = _cells(encoder)
    lefts, used = dict(BEFORE), {"before newline", SHARED}
    zero, one = encoder.to_text(_ZERO), encoder.to_text(_ONE)
    if FENCE in zero:
        used.add("before fence")
    starts = [at for at, (a, b) in enumerate(zip(zero, one, strict=True)) if a != b]
    for at in starts[:: len(cells[0])]:
        left = zero[:at]
        if left.endswith(cells):
            used.add(AFTER_SYMBOL)
        elif left[-1:] in ("", "\n"):
            fenced = left.rstrip("\n").rpartition("\n")[2].startswith(FENCE)
            used.add("fence" if fenced else "newline")
        elif left[-1] == " ":
            used.add("digit, space" if left[-2:-1].isdigit() else "space")
        else:
            separator = left[max(map(left.rfind, cells)) + len(cells[0]) :]
            lefts[f"after {separator!r}"] = separator
            used.add(f"after {separator!r}")
    return lefts, used


def _whole(tokens: Tokens, encoder: Encoder) -> bool:
    """Whether the encoder's texts differ in one token a cell only, the same one a colour.

    Grids of one colour give the frame and the ten tokens; grids with every ordered pair of
    colours side by side, and every colour behind every row number, must then be just that.
    """
    rows, columns = COLOURS, 2 * COLOURS
    plain = [tokens.ids(encoder.to_text(((k,) * columns,) * rows)) for k in range(COLOURS)]
    if len({len(ids) for ids in plain}) > 1:
        return False
    cells = [at for at, found in enumerate(zip(*plain, strict=True)) if len(set(found)) > 1]
    if len(cells) != rows * columns:
        return False
    colours = [ids[cells[0]] for ids in plain]
    if len(set(colours)) < COLOURS:
        return False
    return all(
        tokens.ids(encoder.to_text(grid)) == _filled(plain[0], cells, colours, grid)
        for grid in (*(((k,) * columns,) * rows for k in range(COLOURS)), *_pairs())
    )


def _filled(frame: list[int], cells: list[int], colours: list[int], grid: Grid) -> list[int]:
    ids = frame.copy()
    for at, colour in zip(cells, (cell for row in grid for cell in row), strict=True):
        ids[at] = colours[colour]
    return ids


def _pairs() -> Iterator[Grid]:
    """Grids whose rows hold a, 0, a, 1, … a, 9; each row stands at every place, both ways round."""
    lines = [tuple(x for b in range(COLOURS) for x in (a, b)) for a in range(COLOURS)]
    for shift in range(COLOURS):
        turned = (*lines[shift:], *lines[:shift])
        yield turned
        yield tuple(line[::-1] for line in turned)


def _square(side: int) -> Grid:
    return tuple(tuple((i + j) % COLOURS for j in range(side)) for i in range(side))


def _counts(tokens: Tokens) -> Counter[str]:
    """In how many vocabulary entries each character stands."""
    return Counter(character for text in tokens.strings() for character in set(text))


def _candidates(tokens: Tokens, counts: Mapping[str, int]) -> list[str]:
    """Letters and signs that a terminal shows as they stand, the rarest first."""
    found: dict[str, int] = {}
    for index, text in enumerate(tokens.strings()):
        if len(text) == 1 and not text.isascii() and _fit(text):
            found.setdefault(text, index)
    return sorted(found, key=lambda symbol: (counts[symbol], found[symbol]))


def _fit(symbol: str) -> bool:
    return (
        symbol.isprintable()
        and not symbol.isspace()
        and unicodedata.category(symbol)[0] in "LS"
        and unicodedata.bidirectional(symbol) in ("L", "ON", "ET")
        and all(unicodedata.normalize(form, symbol) == symbol for form in ("NFC", "NFKC"))
        and symbol != "\ufffd"
    )


def _replaced(encoder: Any, symbols: str) -> Encoder | None:
    if isinstance(encoder, Replaced):
        return Replaced(encoder.inner, symbols)
    if "inner" not in {each.name for each in fields(encoder)}:
        return None
    inner = _replaced(encoder.inner, symbols)
    made: Encoder | None = None if inner is None else replace(encoder, inner=inner)
    return made
