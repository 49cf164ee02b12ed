"""`mull arc symbols`: a verdict, the contexts that break, a set that holds; exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Mull, refused

from mull.tasks.arc.encode import SYMBOLS
from mull.tasks.arc.encoder_spec import DEFAULT

GREEK = "αβγδεζηθικλμ"


@pytest.fixture
def tokenizer(folder: Path) -> str:
    """A tokenizer with one token a character, save that a space takes some symbols with it."""
    from tokenizers import Tokenizer, models

    merged = [*"ñòα"]
    tokens = [*map(chr, range(10, 127)), *SYMBOLS, *GREEK, *(" " + each for each in merged)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    file = folder / "tokenizer.json"
    Tokenizer(models.BPE(vocabulary, [(" ", each) for each in merged])).save(str(file))
    return str(folder)


def test_symbols_that_break_are_named_and_others_proposed(mull: Mull, tokenizer: str) -> None:
    said = mull("arc", "symbols", "--tokenizer", tokenizer)
    assert (said.code, said.err) == (3, "")
    first, _, second = said.out.partition("proposed instead:")
    assert "NOT sound" in first
    assert first.count("digit, space") == 2
    assert "one token a colour in every context" in second
    assert max(map(len, said.out.splitlines())) < 200


def test_the_proposed_set_passes_the_same_check(mull: Mull, tokenizer: str) -> None:
    found = mull("arc", "symbols", "--tokenizer", f"{tokenizer}/tokenizer.json", "--json")
    assert found.code == 3
    assert found.json["symbols"] == SYMBOLS
    assert [each["symbol"] for each in found.json["each"] if each["broken"]] == [*"ñò"]
    proposed = found.json["proposed"]
    assert proposed["sound"]
    assert proposed["symbols"] == "÷ûąćďęĚĞβγ"
    assert proposed["tokens"].keys() == {"3", "10", "30"}
    again = mull(
        *("arc", "symbols", "--tokenizer", tokenizer, "--symbols", proposed["symbols"], "--json")
    )
    assert again.code == 0
    assert again.json["sound"]
    assert again.json["proposed"] is None
    spec = mull(
        "arc", "symbols", "--tokenizer", tokenizer, "--encoder", proposed["encoder"], "--json"
    )
    assert spec.json == again.json


def test_digits_are_checked_as_well_and_nothing_is_proposed_unasked(
    mull: Mull, tokenizer: str
) -> None:
    digits = mull("arc", "symbols", "--tokenizer", tokenizer, "--encoder", DEFAULT)
    assert digits.code == 0
    assert "the digits with" in digits.out
    asked = mull("arc", "symbols", "--tokenizer", tokenizer, "--no-find")
    assert asked.code == 3
    assert "proposed" not in asked.out


def test_bad_input_is_one_line(mull: Mull, folder: Path, tokenizer: str) -> None:
    begin = ("arc", "symbols", "--tokenizer")
    for arguments, words in [
        ((*begin, "nosuch"), "no tokenizer.json"),
        ((*begin, tokenizer, "--encoder", "__import__('os')"), "unknown grid encoder '__import__'"),
        ((*begin, tokenizer, "--symbols", "abc"), "expected 10 different characters"),
        ((*begin, tokenizer, "--symbols", "\x1b[31mabcde"), "expected 10 different characters"),
        (
            (*begin, tokenizer, "--encoder", DEFAULT, "--symbols", SYMBOLS),
            "expected one with ReplaceNumberEncoder",
        ),
        (("arc", "symbols"), "--tokenizer"),
        (("arc", "nosuch"), "nosuch"),
    ]:
        assert words in refused(folder, mull, *arguments).err


def test_arc_alone_is_its_help(mull: Mull) -> None:
    assert mull("arc").out == mull("arc", "--help").out
    assert "symbols" in mull("arc").out


@pytest.mark.timeout(30)  # a vocabulary of 151,643 entries is read first
def test_the_real_tokenizer_breaks_seven_of_the_fields_ten(mull: Mull, shared_data: Path) -> None:
    folder = shared_data / "tokenizers" / "qwen2"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    said = mull("arc", "symbols", "--tokenizer", folder, "--no-find", "--json")
    assert said.code == 3
    assert [each["symbol"] for each in said.json["each"] if not each["broken"]] == [*"ąćę"]
