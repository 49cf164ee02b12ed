"""One name is a way to write puzzles: asked, solved and read by it, whatever the form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.arc.world import random_puzzle

from mull.errors import SpecError
from mull.tasks.arc.compact import FORMATS
from mull.tasks.arc.encode import Unreadable
from mull.tasks.arc.grids import Grid
from mull.tasks.arc.writing import Chat, Compact, writing

SHAPED = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
NAMES = [*FORMATS, "MinimalGridEncoder()", "GridCodeBlockEncoder(MinimalGridEncoder())", SHAPED]
GRID: Grid = ((1, 2), (3, 4))


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_solution_is_read_back(name: str, seed: int) -> None:
    way, puzzle = writing(name), random_puzzle(seed)
    prompt, opening = way.ask(puzzle)
    for pair in puzzle.train:
        assert pair.output is not None
        said = way.solution(pair.output)
        assert said.startswith(opening)
        for strict in (False, True):
            assert way.read(said, strict).grid == pair.output
    assert prompt.plain


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_string_that_was_met_is_not_missed(name: str) -> None:
    way = writing(name)
    said = way.solution(GRID)
    for stop in way.stop:
        assert stop in said
        assert way.read(said.partition(stop)[0], strict=True).grid == GRID


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_no_grid(name: str) -> None:
    for text in ("", " \n "):
        assert writing(name).read(text).failure in (Unreadable.EMPTY, Unreadable.NO_BLOCK)


def test_a_name_is_a_format_or_an_encoder() -> None:
    assert isinstance(writing("marked"), Compact)
    assert isinstance(writing(SHAPED), Chat)
    for name in ("mark", "", "Grid()", "GridShapeEncoder(3)"):
        with pytest.raises(SpecError):
            writing(name)


def test_a_chat_is_read_behind_its_heading_or_without_one() -> None:
    way = writing(SHAPED, "long")
    said = way.solution(GRID)
    body = said[said.index("```") :]
    assert way.read(said).grid == way.read(body).grid == way.read("So:\n" + said).grid == GRID
    assert len(way.ask(random_puzzle(0))[0].plain) > len(
        writing(SHAPED).ask(random_puzzle(0))[0].plain
    )


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=60))
@settings(max_examples=30)
def test_any_text_is_read_without_an_error(name: str, text: str) -> None:
    reading = writing(name).read(text)
    assert (reading.grid is None) == (reading.failure is not None)
