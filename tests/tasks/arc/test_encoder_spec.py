"""Laws of the encoders' spec strings: the field's names, there and back, and nothing evaluated."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.arc.test_encode import SPECS

from mull.errors import SpecError
from mull.tasks.arc.encode import Encoder, Minimal, Repeated, Replaced
from mull.tasks.arc.encoder_spec import ENCODERS, encoder_spec, parse_encoder

symbols = st.permutations("ABCDEFGHIJKLM'\"\\").map(lambda letters: "".join(letters[:10]))
cells = st.one_of(
    st.just(Minimal()),
    st.builds(Repeated, st.integers(1, 10)),
    st.builds(Replaced, st.just(Minimal()), symbols),
)


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_comes_back_as_it_was(spec: str) -> None:
    assert encoder_spec(parse_encoder(spec)) == spec
    assert isinstance(parse_encoder(f" {spec}\n"), Encoder)


@given(cells)
def test_an_encoder_comes_back_from_its_spec(encoder: Encoder) -> None:
    assert parse_encoder(encoder_spec(encoder)) == encoder


def test_names_and_positions_both_do() -> None:
    assert parse_encoder("RepeatNumberEncoder(n=4)") == Repeated(4)
    assert parse_encoder("RepeatNumberEncoder()") == Repeated(3)
    spec = "ReplaceNumberEncoder(inner=MinimalGridEncoder(), symbols='ABCDEFGHIJ')"
    assert parse_encoder(spec) == Replaced(Minimal(), "ABCDEFGHIJ")


@pytest.mark.parametrize(
    "spec",
    [
        "__import__('os')",
        "__import__('os').system('id')",
        "().__class__.__base__",
        "MinimalGridEncoder().__class__",
        "MinimalGridEncoder",
        "lambda: 0",
        "[MinimalGridEncoder() for _ in '1']",
        "GridShapeEncoder(open('x'))",
        "GridShapeEncoder(*[MinimalGridEncoder()])",
        "GridShapeEncoder(**{'inner': MinimalGridEncoder()})",
        "GridWithSeparationEncoder(f'{1}')",
        "GridWithSeparationEncoder('a' + 'b')",
        "GridWithSeparationEncoder(b'|')",
        "GridWithSeparationEncoder(MinimalGridEncoder())",
        "GridWithSeparationEncoder()",
        "GridWithSeparationEncoder('|', '|')",
        "RepeatNumberEncoder(True)",
        "RepeatNumberEncoder(2.0)",
        "RepeatNumberEncoder(n=3, n=4)",
        "RepeatNumberEncoder(10**10**10)",
        "GridShapeEncoder('MinimalGridEncoder()')",
        "GridShapeEncoder()",
        "MinimalGridEncoder(symbols='x')",
        "MinimalGridEncoder(); MinimalGridEncoder()",
        "MinimalGridEncoder()\nMinimalGridEncoder()",
        "(" * 450,
        "-" * 499 + "1",
        "RowNumberEncoder(" * 20 + "MinimalGridEncoder()" + ")" * 20,
        "M" * 501,
        "\0",
        "\ud800",
        "",
    ],
)
def test_anything_else_is_refused_in_one_short_line(spec: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_encoder(spec)
    assert len(str(caught.value)) < 700


@given(st.text(alphabet="MinimalGridEncoder()'\"=,.*0 \\", max_size=40))
@settings(max_examples=300)
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    with suppress(SpecError):
        assert isinstance(parse_encoder(text), Encoder)


def test_a_backslash_in_a_separator_warns_of_nothing() -> None:
    assert parse_encoder(r"GridWithSeparationEncoder('\|')").to_text(((1, 2),)) == r"1\|2"


def test_an_unknown_name_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(SpecError) as caught:
        parse_encoder("GridShapeEncodr(MinimalGridEncoder())")
    assert all(name in str(caught.value) for name in ENCODERS)
    assert "Did you mean 'GridShapeEncoder'?" in str(caught.value)


def test_a_users_own_encoder_has_no_spec() -> None:
    class Own(Minimal):
        pass

    with pytest.raises(SpecError, match="has no spec string"):
        encoder_spec(Own())
