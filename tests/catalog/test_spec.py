"""Spec strings: read or refused, never evaluated, never a crash."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mull.catalog.spec import MAX_LENGTH, Spec, parse, unknown
from mull.errors import SpecError

NAMES = st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+){0,2}", fullmatch=True)
PARAMETERS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.from_regex(r"[a-z][a-z0-9_./-]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("true", "false", "none", "nan", "inf", "infinity")
)
NUMBERS = st.integers() | st.floats(allow_nan=False)
QUOTED = st.text(st.characters(exclude_characters="\"'", exclude_categories=["Cs"]), max_size=9)


def written(value: object, quoted: bool) -> str:
    return f'"{value}"' if quoted else str(value).lower() if value is None else str(value)


@given(
    NAMES,
    st.dictionaries(
        PARAMETERS,
        (NUMBERS | st.booleans() | st.none() | WORDS).map(lambda v: (v, False))
        | QUOTED.map(lambda v: (v, True)),
        max_size=4,
    ),
    st.sampled_from([",", ", ", " ,\n "]),
)
def test_what_is_written_is_read(
    name: str, parameters: dict[str, tuple[object, bool]], comma: str
) -> None:
    inside = comma.join(f"{key}={written(*value)}" for key, value in parameters.items())
    text = f"{name}({inside})"
    if len(text) <= MAX_LENGTH:
        found = parse(text)
        assert found == Spec(name, {key: value for key, (value, _) in parameters.items()})
        types = {key: type(value) for key, value in found.parameters.items()}
        assert types == {key: type(value) for key, (value, _) in parameters.items()}


ALPHABET = "abcvote()=,\"' \n\t-+._01\\{}[]#;:*@\0é漢"


@settings(max_examples=200)
@given(st.text(ALPHABET, max_size=40) | st.text(max_size=40))
@example("vote(n=1)(m=2)")
@example("vote(n=__import__('os').system('touch /tmp/x'))")
@example("vote(n=" + "(" * 400)
@example("vote(n=" + "9" * 480 + ")")
@example("vote(n=1" + ",a=1" * 100 + ")")
@example("(" * 500)
def test_any_text_is_a_spec_or_a_spec_error(text: str) -> None:
    try:
        found = parse(text)
    except SpecError as error:
        assert str(error)
    else:
        assert found.name
        values = found.parameters.values()
        assert all(v is None or isinstance(v, bool | int | float | str) for v in values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected name or name(parameter=value, …)"),
        ("vote(", "expected name or name(parameter=value, …)"),
        ("vote)", "expected name or name(parameter=value, …)"),
        ("vote n=8", "expected name or name(parameter=value, …)"),
        ("vote(8)", "cannot read '8'; expected parameter=value"),
        ("vote(n=8 m=9)", "cannot read 'n=8 m=9'"),
        ("vote(n=)", "cannot read 'n='"),
        ("vote(n=8)(m=9)", "cannot read"),
        ("vote(n=[8)", "cannot read"),
        ("vote(n=8, n=9)", "n is given twice"),
        ("vote(n='8)", "cannot read"),
        ("x" * 501, "at most 500 characters, not 501"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse(text)


def test_words_of_the_notation() -> None:
    found = parse("a(t=true, f=FALSE, n=None, x=nan, y=-inf, z='true', w=words-s, v=1e3, u=007)")
    values = dict(found.parameters)
    assert math.isnan(values.pop("x"))
    assert values == {
        "t": True,
        "f": False,
        "n": None,
        "y": -math.inf,
        "z": "true",
        "w": "words-s",
        "v": 1000.0,
        "u": 7,
    }


def test_an_unknown_name_lists_the_valid_ones_and_guesses() -> None:
    error = unknown("strategy", "votes", ["vote", "greedy"])
    assert str(error) == "unknown strategy 'votes'; valid: greedy, vote. Did you mean 'vote'?"
    assert "guess" not in str(unknown("task", "x", []))
    assert str(unknown("task", "x", [])) == "unknown task 'x'; valid: none."


def test_no_text_within_the_limit_takes_for_ever() -> None:
    """There is nothing to backtrack into; the limit of every test would end what does."""
    for text in ("a(" + "a=1 " * 120, "a(" + " " * 490, "a" + "(" * 490, "a(b=" + "x-" * 240):
        with pytest.raises(SpecError):
            parse(text)
