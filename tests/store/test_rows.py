"""Rows: what goes in comes out, and whatever changes on the way is seen."""

from __future__ import annotations

import math
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from mull.store.rows import (
    canonical,
    pack,
    row_hash,
    unpack_completion,
    unpack_scored,
)
from mull.types import Completion, Sampling, Scored, StopReason, TokenBeam, Usage

number = st.floats(allow_nan=False)
usage = st.builds(
    Usage,
    prompt=st.integers(0, 9999),
    cached=st.integers(0, 9999),
    generated=st.integers(0, 9999),
    flops=st.floats(0, 1e18),
    seconds=st.floats(0, 1e6),
    cost=st.floats(0, 1e6),
    estimated=st.booleans(),
)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)
logprobs = st.lists(number, max_size=20).map(tuple)
text = st.text(st.characters(codec=None), max_size=40)
completion = st.builds(
    Completion,
    index=st.integers(0, 9999),
    text=text,
    stop=st.sampled_from(StopReason),
    usage=usage,
    token_ids=st.none() | ids,
    logprobs=st.none() | logprobs,
    stop_string=st.none() | text,
)


@given(completion)
def test_a_completion_comes_back_equal_to_the_last_bit(made: Completion) -> None:
    back = unpack_completion(pack(made))
    assert back == made
    for field in fields(Completion):
        assert type(getattr(back, field.name)) is type(getattr(made, field.name))
    for name in ("flops", "seconds", "cost"):
        assert isinstance(getattr(back.usage, name), float)


few = st.lists(number, max_size=5).map(tuple)


@given(st.builds(Scored, ids, logprobs, usage, few, st.none() | few, st.none() | number))
def test_a_scoring_comes_back_equal_to_the_last_bit(made: Scored) -> None:
    back = unpack_scored(pack(made))
    assert back == made
    floats = (*back.values, *(back.certainty or ()), *([] if back.end is None else [back.end]))
    assert all(isinstance(value, float) for value in floats)


def test_a_scoring_that_was_asked_neither_certainty_nor_end_is_packed_as_ever() -> None:
    head = {"usage": Usage(2), "values": (0.5,)}
    assert pack(Scored((1,), (-1.0,), Usage(2), (0.5,)))[0] == canonical(head)


def test_a_nan_log_probability_survives() -> None:
    made = Completion(0, "", StopReason.END, Usage(), (1,), (math.nan,))
    back = unpack_completion(pack(made))
    assert back.logprobs is not None and math.isnan(back.logprobs[0])


def test_equal_values_have_equal_bytes_and_different_types_have_not() -> None:
    assert canonical(Sampling(1)) == canonical(Sampling(1.0))
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert canonical(Sampling()) != canonical(TokenBeam(1))
    assert canonical("1") != canonical(1)
    assert canonical(True) != canonical(1)


columns = st.lists(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=12), max_size=5
)


@given(columns, columns)
def test_different_rows_have_different_hashes(a: list[bytes], b: list[bytes]) -> None:
    assert (row_hash(*a) == row_hash(*b)) == (a == b)
