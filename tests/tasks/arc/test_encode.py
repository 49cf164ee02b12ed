"""Laws of the grid encoders: text and grid say the same; no text breaks the reader."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.errors import SpecError
from mull.grades import Unanswered
from mull.tasks.arc.encode import (
    Block,
    Encoder,
    Minimal,
    ReadError,
    Repeated,
    Replaced,
    RowNumbered,
    Separated,
    Shaped,
    Unreadable,
    read,
    read_response,
)
from mull.tasks.arc.encoder_spec import DEFAULT, parse_encoder
from mull.tasks.arc.grids import Grid

SPECS = [
    DEFAULT,
    "MinimalGridEncoder()",
    "GridWithSeparationEncoder('|')",
    "GridWithSeparationEncoder(' - ')",
    "GridCodeBlockEncoder(MinimalGridEncoder())",
    "GridCodeBlockEncoder(RowNumberEncoder(MinimalGridEncoder()))",
    "GridShapeEncoder(GridWithSeparationEncoder(' '))",
    "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))",
    "GridShapeEncoder(ReplaceNumberEncoder(RowNumberEncoder(MinimalGridEncoder())))",
    "ReplaceNumberEncoder(GridShapeEncoder(RowNumberEncoder(RepeatNumberEncoder(2))))",
    "GridCodeBlockEncoder(RepeatNumberEncoder(3))",
    "RowNumberEncoder(GridCodeBlockEncoder(MinimalGridEncoder()))",
]
BEST = parse_encoder(DEFAULT)
FENCED = Block(Minimal())


def grid_of(seed: int, rows: int, columns: int) -> Grid:
    draw = random.Random(seed)
    return tuple(tuple(draw.choices(range(10), k=columns)) for _ in range(rows))


# From a seed: ten thousand grids of up to 900 cells, and no time spent on drawing each cell.
grids = st.builds(grid_of, st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30))
# Text made of what the encoders write, and of everything else.
likely = st.lists(
    st.sampled_from([*"0123456789x|ñě `\n\r", "```grid", "```", "\n1 ", " shape: 2x2\n", "\u2028"]),
    max_size=30,
).map("".join)
encoders = st.sampled_from([parse_encoder(spec) for spec in SPECS])


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, Any]:
    file = shared_data / "arc" / "vectors.json"
    if not file.is_file():
        pytest.skip(f"no vectors in {file}")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def rows(value: list[list[int]]) -> Grid:
    return tuple(map(tuple, value))


def test_every_published_text_is_written_and_read(vectors: dict[str, Any]) -> None:
    assert len(vectors["encode"]) == 24
    for vector in vectors["encode"]:
        encoder, grid = parse_encoder(vector["spec"]), rows(vector["grid"])
        assert encoder.to_text(grid) == vector["text"]
        assert encoder.to_grid(vector["text"], strict=True) == grid


def test_every_published_response_is_read_or_unanswered(vectors: dict[str, Any]) -> None:
    given_responses = vectors["decode_response_null_means_unanswered"]
    assert len(given_responses) == 15
    for vector in given_responses:
        reading = read_response(parse_encoder(vector["spec"]), vector["response"])
        assert reading.grid == (None if vector["grid"] is None else rows(vector["grid"])), vector
        assert (reading.grid is None) == (reading.failure is not None)


@pytest.mark.slow
@pytest.mark.timeout(120)
@given(grid=grids)
@settings(max_examples=10_000)
def test_ten_thousand_grids_come_back(grid: Grid) -> None:
    text = BEST.to_text(grid)
    assert BEST.to_grid(text) == BEST.to_grid(text, strict=True) == grid


@pytest.mark.parametrize("spec", SPECS)
@given(grid=grids)
@settings(max_examples=200)
def test_reading_gives_the_grid_back(spec: str, grid: Grid) -> None:
    encoder = parse_encoder(spec)
    text = encoder.to_text(grid)
    assert text.startswith(encoder.opening)
    assert encoder.to_grid(text) == encoder.to_grid(text, strict=True) == grid
    response = text.removeprefix(encoder.opening)
    assert read_response(encoder, response + "\n").grid == grid
    assert read_response(encoder, response, strict=True).grid == grid


@given(encoders, st.one_of(st.text(), likely), st.booleans())
@settings(max_examples=500)
def test_no_text_raises_anything_but_a_read_error(
    encoder: Encoder, text: str, strict: bool
) -> None:
    try:
        grid = encoder.to_grid(text, strict)
    except ReadError as error:
        assert error.failure in Unreadable
        assert str(error).startswith(f"{error.failure.value}: ")
    else:
        assert len({len(row) for row in grid}) == 1
        assert all(0 <= cell <= 9 for row in grid for cell in row)
    assert (read_response(encoder, text, strict).failure is None) == (
        read_response(encoder, text, strict).grid is not None
    )


@given(encoders, likely)
@settings(max_examples=300)
def test_what_is_read_strictly_is_read_the_same_leniently(encoder: Encoder, text: str) -> None:
    strict = read_response(encoder, text, strict=True).grid
    if strict is not None:
        assert read_response(encoder, text).grid == strict


@given(grid=grids, by=st.integers(1, 3), columns=st.booleans())
@settings(max_examples=100)
def test_strict_refuses_a_shape_that_is_not_the_grids(grid: Grid, by: int, columns: bool) -> None:
    height, width = len(grid), len(grid[0])
    wrong = f"{height}x{width + by}" if columns else f"{height + by}x{width}"
    text = BEST.to_text(grid).replace(f"{height}x{width}", wrong, 1)
    assert BEST.to_grid(text) == grid
    assert read(BEST, text, strict=True).failure is Unreadable.SHAPE_MISMATCH


@given(grid=grids, where=st.integers(0, 29), number=st.integers(31, 99))
@settings(max_examples=100)
def test_strict_refuses_a_row_number_that_does_not_count(
    grid: Grid, where: int, number: int
) -> None:
    lines = BEST.to_text(grid).split("\n")
    at = 1 + where % len(grid)
    lines[at] = f"{number} {lines[at].partition(' ')[2]}"
    text = "\n".join(lines)
    assert BEST.to_grid(text) == grid
    assert read(BEST, text, strict=True).failure is Unreadable.ROW_MISMATCH


@given(grid=grids, cut=st.integers(1, 10**4))
@settings(max_examples=200)
def test_strict_never_takes_a_cut_text_for_a_whole_grid(grid: Grid, cut: int) -> None:
    response = BEST.to_text(grid).removeprefix(BEST.opening)
    part = response[: -1 - cut % (len(response) - 1)]
    reading = read_response(BEST, part, strict=True)
    if reading.grid is not None:
        # All rows were there: only the closing fence, or a part of it, is missing.
        assert reading.grid == grid
        assert response[len(part) :].strip("`\n") == ""


@pytest.mark.parametrize(
    ("encoder", "response", "lenient", "strict"),
    [
        (BEST, "", Unreadable.EMPTY, Unreadable.EMPTY),
        (BEST, " \n", Unreadable.EMPTY, Unreadable.EMPTY),
        (BEST, " is a grid", Unreadable.NO_BLOCK, Unreadable.NO_BLOCK),
        (FENCED, " 01\n```", Unreadable.NO_BLOCK, Unreadable.NO_BLOCK),
        (BEST, " shape: 0x0\n```", Unreadable.NO_ROWS, Unreadable.NO_ROWS),
        (FENCED, "\n```", Unreadable.NO_ROWS, Unreadable.NO_ROWS),
        (BEST, " shape: 2x2\n1 01\n223\n```", Unreadable.BAD_ROW_PREFIX, Unreadable.BAD_ROW_PREFIX),
        (BEST, " shape: 2x2\n1 01\n2 2a\n```", Unreadable.BAD_SYMBOL, Unreadable.BAD_SYMBOL),
        (BEST, " shape: 2x2\n1 01\n2 2\n```", Unreadable.RAGGED, Unreadable.RAGGED),
        (FENCED, "\n01\n\n23\n```", Unreadable.RAGGED, Unreadable.RAGGED),
        (BEST, " shape: 5x9\n1 01\n2 23\n```", None, Unreadable.SHAPE_MISMATCH),
        (BEST, " shape: two\n1 01\n2 23\n```", None, Unreadable.SHAPE_MISMATCH),
        (BEST, " shape: 2x2\n7 01\n1 23\n```", None, Unreadable.ROW_MISMATCH),
        (Block(Repeated(3)), "\n000121\n```", None, Unreadable.REPEAT_MISMATCH),
        (Block(Repeated(3)), "\n00012\n```", None, Unreadable.REPEAT_MISMATCH),
        (Block(Replaced(Minimal())), "\n0ñ\n```", None, Unreadable.BAD_SYMBOL),
        (Block(Separated("|")), "\n0| 1\n```", None, Unreadable.BAD_SYMBOL),
        (BEST, " shape: 3x2\n1 01\n2 23", None, Unreadable.TRUNCATED),
        (BEST, " shape: 3x2\n1 01\n2 2", Unreadable.TRUNCATED, Unreadable.TRUNCATED),
        (BEST, " shape: 3x2\n1 01\n2", Unreadable.TRUNCATED, Unreadable.TRUNCATED),
        (BEST, " shape: 3x2\n", Unreadable.TRUNCATED, Unreadable.TRUNCATED),
        (FENCED, "\n01\n23", None, Unreadable.TRUNCATED),
        (BEST, " shape: 2x2\n1 01\n2 23\n``` 9", None, None),
    ],
)
def test_every_failure_has_its_name(
    encoder: Encoder, response: str, lenient: Unreadable | None, strict: Unreadable | None
) -> None:
    assert read_response(encoder, response).failure is lenient
    assert read_response(encoder, response, strict=True).failure is strict


def test_a_failure_is_unanswered_in_every_tasks_words() -> None:
    assert Unreadable.EMPTY.unanswered is Unanswered.EMPTY
    assert Unreadable.NO_BLOCK.unanswered is Unanswered.NO_ANSWER
    assert Unreadable.TRUNCATED.unanswered is Unanswered.TRUNCATED
    assert Unreadable.RAGGED.unanswered is Unanswered.MALFORMED
    assert all(failure.unanswered in Unanswered for failure in Unreadable)


def test_lenient_reading_forgives_what_the_field_forgives() -> None:
    assert Block(Repeated(3)).to_grid("```grid\n012345\n```") == ((0, 3),)
    assert Repeated(3).to_grid("01234") == ((0, 3),)
    assert Separated("|").to_grid("0| 1 |02") == ((0, 1, 2),)
    assert Minimal().to_grid("\n\n01\r\n23\n ") == ((0, 1), (2, 3))
    assert BEST.to_grid("Here it is:\n" + BEST.to_text(((7,),)) + "\nDone.") == ((7,),)


def test_digits_of_other_scripts_are_no_colours() -> None:
    for text in ("٣", "²", "๗", "-1", "+1"):
        with pytest.raises(ReadError, match="bad_symbol"):
            Minimal().to_grid(text, strict=True)
    with pytest.raises(ReadError, match="bad_symbol"):
        Separated("|").to_grid("٣|1")
    with pytest.raises(ReadError, match="bad_symbol"):
        Separated("|").to_grid("9" * 5000 + "|1")


def test_a_grid_beyond_the_benchmarks_size_is_read() -> None:
    assert len(Minimal().to_grid("1\n" * 50)) == 50


@pytest.mark.parametrize("separator", ["", "0", "\n", "\u2028", "``", "٣", "-" * 9])
def test_a_separator_that_cannot_be_read_back_is_refused(separator: str) -> None:
    with pytest.raises(SpecError, match="expected 1 to 8 characters"):
        Separated(separator)


@pytest.mark.parametrize(
    "symbols", ["", "abc", "aabcdefghi", "0bcdefghij", "`bcdefghij", " bcdefghij", "\x1bbcdefghij"]
)
def test_symbols_that_cannot_be_read_back_are_refused(symbols: str) -> None:
    with pytest.raises(SpecError, match="expected 10 different characters"):
        Replaced(Minimal(), symbols)


def test_symbols_are_told_from_what_the_inner_encoder_writes() -> None:
    with pytest.raises(SpecError, match="not 'x'"):
        Replaced(Shaped(Minimal()), "xyzXYZUVWT")
    with pytest.raises(SpecError, match="not 'ñ'"):
        Replaced(Replaced(Minimal()))


def test_a_fence_in_a_fence_is_refused() -> None:
    with pytest.raises(SpecError, match="fenced block in a fenced block"):
        Block(RowNumbered(Shaped(Minimal())))


@pytest.mark.parametrize("n", [0, -1, 11, True, 2.0])
def test_repeats_are_a_small_whole_number(n: Any) -> None:
    with pytest.raises(SpecError, match=r"1\.\.10"):
        Repeated(n)


def test_a_read_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(ReadError(Unreadable.RAGGED, "row 2")))  # noqa: S301
    assert (error.failure, error.detail, str(error)) == (
        Unreadable.RAGGED,
        "row 2",
        "ragged: row 2",
    )


@pytest.mark.timeout(30)  # a vocabulary of 151,643 entries is read first
def test_token_costs_follow_their_formulas(shared_data: Path) -> None:
    from mull.tasks.arc.symbols import open_tokens

    folder = shared_data / "tokenizers" / "qwen2"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer in {folder}")
    tokens = open_tokens(folder)
    measured = {
        "MinimalGridEncoder()": (11, 109, 929),
        "GridCodeBlockEncoder(MinimalGridEncoder())": (16, 114, 934),
        "GridCodeBlockEncoder(RowNumberEncoder(MinimalGridEncoder()))": (22, 135, 1015),
        "GridShapeEncoder(MinimalGridEncoder())": (22, 122, 942),
        DEFAULT: (28, 143, 1023),
        "GridCodeBlockEncoder(GridWithSeparationEncoder('|'))": (22, 204, 1804),
        "GridCodeBlockEncoder(RepeatNumberEncoder(3))": (34, 314, 2734),
        "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))": (
            *(28, 143, 1023),
        ),
    }
    for spec, costs in measured.items():
        for side, cost in zip((3, 10, 30), costs, strict=True):
            text = parse_encoder(spec).to_text(grid_of(0, side, side))
            assert len(tokens.ids(text)) == cost, (spec, side)
    for h, w in ((1, 1), (2, 30), (9, 4), (12, 7), (30, 11)):
        plain = h * w + h - 1
        assert len(tokens.ids(Minimal().to_text(grid_of(1, h, w)))) == plain
        numbers = sum(len(str(i)) for i in range(1, h + 1)) + h
        shape = len(str(h)) + len(str(w)) + 9
        assert len(tokens.ids(BEST.to_text(grid_of(1, h, w)))) == plain + numbers + shape
