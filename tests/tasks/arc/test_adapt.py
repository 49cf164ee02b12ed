"""What a puzzle teaches: its own demonstrations, each asked for in turn, never a test output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.arc.test_augment import puzzles

from mull.engines.adapt import weights_name
from mull.errors import ConfigError, InputError, UnsupportedError
from mull.strategies.ttft import Ttft
from mull.tasks.arc.adapt import lessons, pooled
from mull.tasks.arc.compact import CHARACTERS, FORMATS
from mull.tasks.arc.grids import Grid, Pair, Puzzle, as_text, from_text
from mull.tasks.arc.task import ArcTask
from mull.tasks.arc.writing import writing
from mull.tasks.base import AdaptableTask

TASK = ArcTask()
MARKED = writing("marked")
RECIPE = Ttft(then="vote", n=1).recipe
golds = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=1), min_size=1, max_size=6)


def marked(puzzle: Puzzle) -> set[str]:
    """The demonstrations, each as the format writes it."""
    return {f"<{as_text(p.input)}={as_text(p.output)}>" for p in puzzle.train if p.output}


def split(text: str) -> list[str]:
    return [f"<{pair}" for pair in text.split("<")[1:]]


def with_gold(puzzle: Puzzle, gold: Grid | None) -> Puzzle:
    return replace(puzzle, test=tuple(Pair(pair.input, gold) for pair in puzzle.test))


def test_it_is_an_adaptable_task() -> None:
    assert isinstance(TASK, AdaptableTask)


@given(puzzle=puzzles, gold=golds.map(lambda rows: tuple(map(tuple, rows))))
def test_the_test_outputs_change_nothing(puzzle: Puzzle, gold: Grid) -> None:
    """Neither texts nor name: what is learnt is the same without a gold, and with any other."""
    told = []
    for other in (puzzle, with_gold(puzzle, gold), with_gold(puzzle, None)):
        for problem in TASK.problems_of(other):
            for answer in (problem.answer, None, as_text(gold)):
                texts = TASK.adaptation(replace(problem, answer=answer), 7, seed=3)
                told.append(weights_name(texts, RECIPE))
    # All test pairs of a puzzle learn the same: they share one training.
    assert len(set(told)) == 1


@given(puzzle=puzzles)
def test_a_text_is_the_demonstrations_and_nothing_else(puzzle: Puzzle) -> None:
    task = replace(TASK, geometry=False, colours=False)
    problem = next(iter(task.problems_of(puzzle)))
    texts = task.adaptation(problem, 9)
    if len(puzzle.train) < 2:
        assert texts == []
        return
    shown = sorted(
        split(
            "".join(f"<{as_text(p.input)}={as_text(p.output)}>" for p in puzzle.train if p.output)
        )
    )
    for each in texts:
        assert sorted(split(each.text)) == shown
        said = "".join(text for text, speak in each.parts if speak)
        assert said == "".join(pair.partition("=")[2] for pair in split(each.text))
    held = [split(each.text)[-1] for each in texts]
    assert set(held[: len(puzzle.train)]) == marked(puzzle)


@given(puzzle=puzzles, count=st.integers(1, 9), seed=st.integers(0, 99))
def test_fewer_texts_are_the_first_of_more(puzzle: Puzzle, count: int, seed: int) -> None:
    more = lessons(puzzle, MARKED, 9, seed)
    assert lessons(puzzle, MARKED, count, seed) == more[:count]
    assert lessons(puzzle, MARKED, 9, seed) == more


@given(puzzle=puzzles)
def test_texts_are_views_and_stay_in_the_vocabulary(puzzle: Puzzle) -> None:
    texts = lessons(puzzle, MARKED, 24, 0)
    assert all(set(each.text) <= set(CHARACTERS) for each in texts)
    areas = sorted(len(p.input) * len(p.input[0]) for p in puzzle.train)
    for each in texts:
        inputs = [from_text(pair[1:].partition("=")[0]) for pair in split(each.text)]
        assert sorted(len(grid) * len(grid[0]) for grid in inputs) == areas
    if len(puzzle.train) > 2:
        assert len({each.text for each in texts}) > 1


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_compact_format_teaches_the_answer(form: str) -> None:
    puzzle = Puzzle("p", (Pair(((1,),), ((2,),)), Pair(((3,),), ((4,),))), (Pair(((5,),)),))
    (text,) = lessons(puzzle, writing(form), 1, 0, geometry=False, colours=False)
    last, said = text.parts[-1]
    assert said
    assert writing(form).read(last).grid in (((2,),), ((4,),))
    assert "5" not in text.text.replace("ABCDEFGHJKLMNPQRSTUVWXYZ", "")


def test_a_chat_is_refused_typed() -> None:
    puzzle = Puzzle("p", (Pair(((1,),), ((2,),)),) * 2, (Pair(((5,),)),))
    with pytest.raises(UnsupportedError, match="compact"):
        lessons(puzzle, writing("GridShapeEncoder(MinimalGridEncoder())"), 1, 0)


@given(puzzle=puzzles, most=st.integers(10, 200))
def test_texts_are_shortened_to_fit_but_never_below_two_pairs(puzzle: Puzzle, most: int) -> None:
    whole = lessons(puzzle, MARKED, 5, 0)
    short = lessons(puzzle, MARKED, 5, 0, characters=most)
    for full, cut in zip(whole, short, strict=True):
        assert full.text.endswith(cut.text)
        pairs = split(cut.text)
        assert len(cut.text) <= most or len(pairs) == 2
        if len(cut.text) < len(full.text):
            assert len("".join(split(full.text)[-len(pairs) - 1 :])) > most


@given(many=st.lists(puzzles, min_size=1, max_size=9), groups=st.integers(1, 9))
def test_pooled_groups_hold_every_teaching_puzzle_once(many: list[Puzzle], groups: int) -> None:
    many = [replace(puzzle, id=f"p{number}") for number, puzzle in enumerate(many)]
    teaching = [puzzle for puzzle in many if len(puzzle.train) > 1]
    if groups > len(teaching):
        with pytest.raises(ConfigError if teaching else InputError, match=r"groups|nothing"):
            pooled(many, TASK, 2, 0, groups)
        return
    made = pooled(many, TASK, 2, 0, groups)
    sizes = [len(group.puzzles) for group in made]
    assert len(made) == groups and max(sizes) - min(sizes) <= 1
    assert [id for group in made for id in group.puzzles] == [puzzle.id for puzzle in teaching]
    told = [text for group in made for text in group.texts]
    assert told == [t for puzzle in teaching for t in lessons(puzzle, MARKED, 2, 0)]


@pytest.mark.parametrize(
    "switches",
    [{"geometry": False}, {"colours": False}, {"order": False}, {"characters": 40},
     {"geometry": False, "colours": False, "order": False, "characters": 40}],
)  # fmt: skip
@given(puzzle=puzzles)
def test_a_group_learns_of_a_puzzle_what_the_puzzle_alone_would_teach(
    switches: dict[str, Any], puzzle: Puzzle
) -> None:
    """Whatever the task's views leave out, pooled texts leave out as well."""
    if len(puzzle.train) < 2:
        return
    task = replace(TASK, **switches)
    [group] = pooled([puzzle], task, 3, 5)
    for problem in task.problems_of(puzzle):
        assert group.texts == tuple(task.adaptation(problem, 3, 5))
    assert group.texts == tuple(lessons(puzzle, MARKED, 3, 5, **switches))


def test_no_text_at_all_cannot_be_asked_for() -> None:
    puzzle = Puzzle("p", (Pair(((1,),), ((2,),)),) * 2, (Pair(((5,),)),))
    with pytest.raises(ConfigError, match="count"):
        lessons(puzzle, MARKED, 0, 0)
