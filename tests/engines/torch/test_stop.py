"""Stop strings and separators are found wherever the tokens happen to part the text."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import itertools

from mull.engines.torch.stop import START, Watch


@dataclass
class Pieces:
    """A tokenizer of any pieces: token i is piece i, text their concatenation."""

    table: list[bytes]

    @property
    def vocab(self) -> int:
        return len(self.table)

    def pieces(self) -> list[bytes]:
        return self.table

    def decode(self, ids: list[int], before: object = ()) -> str:
        return b"".join(self.table[token] for token in ids).decode("utf-8", "replace")


@dataclass
class NoPieces(Pieces):
    """The same tokenizer, but its text must be decoded again for every token."""

    def pieces(self) -> None:  # type: ignore[override]
        return None


def earliest(text: bytes, stops: list[bytes]) -> tuple[int, int] | None:
    """(start, end) of the stop that is complete first, the longest of those, by definition."""
    for end in range(1, len(text) + 1):
        found = [s for s in stops if text[:end].endswith(s)]
        if found:
            return end - max(map(len, found)), end
    return None


TEXTS = st.text(alphabet="ab\né", min_size=0, max_size=24)


@given(
    text=TEXTS,
    stops=st.lists(st.text(alphabet="ab\né", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.sets(st.integers(1, 40)),
    slow=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_a_stop_string_is_cut_out_at_any_split(
    text: str, stops: list[str], cuts: set[int], slow: bool
) -> None:
    raw = text.encode()
    edges = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    if slow:
        # Without pieces only whole characters can be told apart; parts of one come together.
        edges = [e for e in edges if e == len(raw) or raw[e] & 0xC0 != 0x80]
    parts = [raw[a:b] for a, b in itertools.pairwise(edges)]
    watch = Watch((NoPieces if slow else Pieces)(parts), stops, None)
    want = earliest(raw, [s.encode() for s in stops])
    for count in range(1, len(parts) + 1):
        ids = list(range(count))
        if not watch.table[count - 1]:
            continue
        look = watch.look(ids, START)
        if look.stop is not None:
            seen = b"".join(parts[:count])
            assert want is not None
            assert look.stop.encode() == raw[want[0] : want[1]]
            assert seen[: len(seen) - look.cut] == raw[: want[0]]
            assert len(seen) - len(parts[count - 1]) < want[1] <= len(seen)
            return
    assert want is None


@given(
    text=st.text(alphabet="a\n", max_size=24),
    separator=st.sampled_from(["\n", "\n\n", "a\n", "\na\n"]),
    cuts=st.sets(st.integers(1, 30)),
    slow=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_steps_are_counted_as_str_split_counts_them(
    text: str, separator: str, cuts: set[int], slow: bool
) -> None:
    raw = text.encode()
    edges = sorted({0, len(raw), *(c for c in cuts if c < len(raw))})
    parts = [raw[a:b] for a, b in itertools.pairwise(edges)]
    watch = Watch((NoPieces if slow else Pieces)(parts), [], separator)
    place = START
    for count in range(1, len(parts) + 1):
        if watch.table[count - 1]:
            place = watch.look(list(range(count)), place).place
        assert place.steps == b"".join(parts[:count]).decode().count(separator)


@given(text=TEXTS, stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1))
@settings(max_examples=200, deadline=None)
def test_held_is_the_longest_end_that_may_begin_a_stop(text: str, stops: list[str]) -> None:
    watch = Watch(Pieces([b"x"]), stops, None)
    raw = text.encode()
    longest = max(
        (
            size
            for size in range(len(raw) + 1)
            if any(
                len(s.encode()) > size and s.encode().startswith(raw[len(raw) - size :])
                for s in stops
            )
        ),
        default=0,
    )
    assert watch.held(raw) == longest


def test_step_ends_are_the_tokens_that_complete_a_separator_and_the_last() -> None:
    watch = Watch(Pieces([b"a", b"\n", b"b\nc", b"d"]), [], "\n")
    assert watch.step_ends([0, 1, 0, 2, 3]) == [1, 3, 4]
    assert watch.step_ends([0, 1]) == [1]
    assert watch.step_ends([]) == []


def test_a_stop_string_wins_over_a_separator_in_the_same_token() -> None:
    watch = Watch(Pieces([b"x\n##"]), ["##"], "\n")
    look = watch.look([0], START)
    assert (look.stop, look.cut) == ("##", 2)
