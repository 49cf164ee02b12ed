"""Laws of the symbol check: token ids in context decide, and what is proposed holds."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from mull.errors import InputError, SpecError
from mull.tasks.arc.encode import SYMBOLS
from mull.tasks.arc.encoder_spec import DEFAULT, parse_encoder
from mull.tasks.arc.symbols import (
    HubTokens,
    check_symbols,
    find_symbols,
    open_tokens,
    symbols_of,
    with_symbols,
)

PLAIN = "GridCodeBlockEncoder(ReplaceNumberEncoder(MinimalGridEncoder()))"
BEST = "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))"
ROWS_REPLACED = "GridShapeEncoder(ReplaceNumberEncoder(RowNumberEncoder(MinimalGridEncoder())))"
GREEK = "αβγδεζηθικλμ"


class Merging:
    """One token a character, save for the pairs that it merges."""

    def __init__(self, *pairs: str) -> None:
        self.pairs = pairs

    def ids(self, text: str) -> list[int]:
        ids, at = [], 0
        while at < len(text):
            pair = text[at : at + 2]
            size = 2 if pair in self.pairs else 1
            ids.append(0x110000 + self.pairs.index(pair) if size == 2 else ord(text[at]))
            at += size
        return ids

    def strings(self) -> Sequence[str]:
        return [*map(chr, range(128)), *GREEK, *self.pairs]


@pytest.fixture(scope="module")
def qwen2(shared_data: Path) -> HubTokens:
    folder = shared_data / "tokenizers" / "qwen2"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    return open_tokens(folder)


@pytest.mark.parametrize(
    ("pair", "context"),
    [
        (" γ", "digit, space"),
        ("1γ", None),
        ("αγ", "after α"),
        ("γγ", "after γ"),
        ("γ\n", "before newline"),
    ],
)
def test_a_merge_is_found_where_it_happens(pair: str, context: str | None) -> None:
    encoder = with_symbols(parse_encoder(BEST), GREEK[:10])
    report = check_symbols(Merging(pair), encoder)
    assert report.sound is (context is None)
    hurt = {each.symbol for each in report.symbols if report.broken(each)}
    assert hurt == (set() if context is None else {"γ"})
    assert context is None or context in report.broken(report.symbols[2])


def test_a_context_that_the_encoder_never_makes_does_not_count() -> None:
    encoder = with_symbols(parse_encoder(PLAIN), GREEK[:10])
    report = check_symbols(Merging(" γ"), encoder)
    assert report.sound
    assert report.symbols[2].broken == ("space", "digit, space")
    assert report.broken(report.symbols[2]) == ()
    assert {"newline", "fence", "after α"} <= set(report.used)


def test_a_separator_is_a_context_of_its_own() -> None:
    encoder = parse_encoder("GridWithSeparationEncoder('|')")
    assert check_symbols(Merging(), encoder).sound
    report = check_symbols(Merging("|7"), encoder)
    assert not report.sound
    assert report.broken(report.symbols[7]) == ("after '|'",)


def test_the_first_cell_of_a_bare_grid_stands_after_no_symbol() -> None:
    report = check_symbols(Merging(), parse_encoder("GridWithSeparationEncoder('|')"))
    assert report.used == ("newline", "after '|'", "before newline", "shared token")


class Triples(Merging):
    """Three equal digits are one token, as with tokenizers that merge digits by three."""

    def ids(self, text: str) -> list[int]:
        for digit in "0123456789":
            text = text.replace(digit * 3, chr(0x100 + int(digit)))
        return super().ids(text)


def test_repeated_digits_are_checked_as_one_symbol() -> None:
    report = check_symbols(Triples(), parse_encoder("GridCodeBlockEncoder(RepeatNumberEncoder(3))"))
    assert report.sound
    assert report.symbols[7].symbol == "777"
    assert not any(each.broken for each in report.symbols)
    assert not check_symbols(Merging(), parse_encoder("RepeatNumberEncoder(3)")).sound


def test_digits_that_merge_are_not_sound() -> None:
    report = check_symbols(Merging("30"), parse_encoder(DEFAULT))
    assert symbols_of(parse_encoder(DEFAULT)) == report.text == "0123456789"
    assert not report.sound
    assert report.broken(report.symbols[0]) == ("after 3",)


def test_the_search_passes_over_what_merges() -> None:
    tokens = Merging(" β", "γγ")
    found = find_symbols(tokens, parse_encoder(BEST))
    assert found == GREEK.replace("β", "").replace("γ", "")
    assert check_symbols(tokens, with_symbols(parse_encoder(BEST), found)).sound
    with pytest.raises(InputError, match="has 9 characters"):
        find_symbols(Merging(" β", "γγ", "\nδ"), parse_encoder(BEST))


class Unknowing(Merging):
    """What is not ASCII is unknown: one token, or none."""

    def __init__(self, unknown: list[int]) -> None:
        super().__init__()
        self.unknown = unknown

    def ids(self, text: str) -> list[int]:
        return [i for c in text for i in ([ord(c)] if c.isascii() else self.unknown)]


def test_unknown_characters_are_not_sound() -> None:
    encoder = with_symbols(parse_encoder(BEST), GREEK[:10])
    one = check_symbols(Unknowing([0]), encoder)
    assert not one.sound
    assert {one.broken(each) for each in one.symbols} == {("shared token",)}
    none = check_symbols(Unknowing([]), encoder)
    assert not none.sound
    assert {each.token for each in none.symbols} == {None}
    for unknown in ([0], []):
        with pytest.raises(InputError, match=f"has {len(unknown)} characters"):
            find_symbols(Unknowing(unknown), encoder)


def test_symbols_need_an_encoder_that_replaces() -> None:
    with pytest.raises(SpecError, match="expected one with ReplaceNumberEncoder"):
        with_symbols(parse_encoder(DEFAULT), "ABCDEFGHIJ")


@pytest.mark.timeout(30)  # a vocabulary of 151,643 entries is read first
def test_the_ten_symbols_of_the_field_hold_after_line_breaks_and_break_after_spaces(
    qwen2: HubTokens,
) -> None:
    plain = check_symbols(qwen2, parse_encoder(PLAIN))
    assert plain.text == SYMBOLS
    assert plain.sound
    ids = [5653, 22190, 144422, 29772, 5861, 7730, 145468, 5156, 146623, 125823]
    assert [each.token for each in plain.symbols] == ids
    best = check_symbols(qwen2, parse_encoder(BEST))
    assert not best.sound
    # The number of tokens is that of digits all the same: counting could not have shown it.
    assert best.costs == check_symbols(qwen2, parse_encoder(DEFAULT)).costs == (28, 143, 1023)
    broken = [each.symbol for each in best.symbols if best.broken(each)]
    assert broken == ["ñ", "ò", "÷", "û", "ď", "Ě", "Ğ"]
    assert [best.broken(each) for each in best.symbols if best.broken(each)] == [
        ("digit, space",)
    ] * 7
    assert not check_symbols(qwen2, parse_encoder(ROWS_REPLACED)).sound
    assert check_symbols(qwen2, parse_encoder(DEFAULT)).sound


@pytest.mark.timeout(30)
def test_the_set_that_is_proposed_holds_in_every_context(qwen2: HubTokens) -> None:
    found = find_symbols(qwen2, parse_encoder(BEST))
    assert len(set(found)) == 10
    for spec in (PLAIN, BEST, ROWS_REPLACED):
        report = check_symbols(qwen2, with_symbols(parse_encoder(spec), found))
        assert report.sound
        assert report.costs == (28, 143, 1023) or spec == PLAIN
        assert not any(each.broken for each in report.symbols)
        assert len({each.token for each in report.symbols}) == 10
    # No other entry of the vocabulary holds one of them, and no terminal obeys one.
    assert not any(each.elsewhere for each in report.symbols)
    assert all(unicodedata.category(symbol)[0] in "LS" for symbol in found)


def test_a_folder_without_a_tokenizer_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        open_tokens(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="expected a Hugging Face one"):
        open_tokens(tmp_path)
