"""The task of grid puzzles: each test pair a problem; views that are asked and brought back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tasks.arc.world import random_puzzle

from mull.catalog import load_task
from mull.errors import ConfigError, InputError, SpecError
from mull.grades import Extraction, GradeOutcome, Unanswered
from mull.runs.prepare import problem_from_json, problem_to_json
from mull.tasks.arc.encode import Unreadable
from mull.tasks.arc.grids import Pair, Puzzle, as_json, as_text
from mull.tasks.arc.task import LEVELS, ArcTask, puzzle_of
from mull.tasks.base import SAME, FileTask, View, ViewedTask, settled
from mull.types import Branch, Problem, StopReason

BEST = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
FORMATS = ["marked", "architects", BEST, "MinimalGridEncoder()"]
SYMBOLS = "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))"


def only(task: ArcTask, puzzle: Puzzle) -> Problem:
    (found,) = task.problems_of(puzzle)
    return found


@pytest.mark.parametrize("format", [*FORMATS, SYMBOLS])
@given(seed=st.integers(0, 2**32), draw=st.integers(0, 5))
@settings(max_examples=15)
def test_what_is_said_under_a_view_is_read_back(format: str, seed: int, draw: int) -> None:
    task = ArcTask(format=format, copies=True)
    problem = only(task, random_puzzle(seed))
    assert problem.answer is not None
    views = task.views(problem, 10, draw)
    assert len({view.key for view in views}) == 10
    for view in views:
        said = view.opening + task.solution_in(problem, view, problem.answer)
        assert task.extract_from(problem, view, said).answer == problem.answer
        assert task.why(said) is None


@pytest.mark.parametrize("format", FORMATS)
def test_a_solution_is_what_the_layout_says_the_view_shows(format: str) -> None:
    task = ArcTask(format=format, colours=False, order=False)
    problem = only(task, random_puzzle(1))
    (same,) = task.views(problem, 1)
    assert same.key == "same"
    assert same.prompt == problem.prompt
    assert problem.answer is not None
    whole = same.opening + task.solution_in(problem, same, problem.answer)
    assert task.extract(problem, whole).answer == problem.answer


@pytest.mark.parametrize("format", FORMATS)
def test_a_problem_carries_the_opening_of_its_turn_into_records_and_fresh_attempts(
    format: str,
) -> None:
    task = ArcTask(format=format)
    problem = only(task, random_puzzle(2))
    assert problem_from_json(problem_to_json(problem)) == problem
    root = Branch.root(problem)
    assert root.text == task.opening(problem) == root.revision().text
    assert root.said == ""


def test_it_keeps_the_contracts_of_tasks() -> None:
    assert isinstance(ArcTask(), FileTask | ViewedTask)
    assert isinstance(load_task(f'arc(format="{BEST}", strict=true)'), ViewedTask)
    assert ArcTask().until.stop == (">",)
    assert ArcTask(format=BEST, max_tokens=50).until.max_tokens == 50


def test_every_test_pair_is_a_problem_that_shows_no_truth(tmp_path: Path) -> None:
    puzzle = random_puzzle(2, tests=2, id="two")
    path = tmp_path / "two.json"
    path.write_text(json.dumps(as_json(puzzle)))
    found = list(ArcTask().load(str(path)))
    assert [p.id for p in found] == ["two/0", "two/1"]
    assert [p.answer for p in found] == [as_text(pair.output or ()) for pair in puzzle.test]
    for problem, pair in zip(found, puzzle.test, strict=True):
        shown, index = puzzle_of(problem)
        assert shown.test == tuple(Pair(each.input) for each in puzzle.test)
        assert shown.train == puzzle.train
        assert shown.test[index].input == pair.input
        assert "output" not in json.dumps(problem.meta["puzzle"]["test"])


def test_a_puzzle_without_solutions_is_asked_and_not_graded() -> None:
    puzzle = random_puzzle(3)
    blind = replace(puzzle, test=(Pair(puzzle.test[0].input),))
    problem = only(ArcTask(), blind)
    assert problem.answer is None
    assert ArcTask().grade(problem, "1").outcome is GradeOutcome.UNGRADED
    assert problem.prompt == only(ArcTask(), puzzle).prompt


def test_grades_are_cell_by_cell() -> None:
    task, problem = ArcTask(), only(ArcTask(), random_puzzle(4))
    assert task.grade(problem, problem.answer).correct is True
    assert task.grade(problem, None).outcome is GradeOutcome.UNANSWERED
    assert task.grade(problem, f"{problem.answer}\n1").correct is False
    assert task.same(problem, "12", "12")
    assert not task.same(problem, "12", "1\n2")


@pytest.mark.parametrize("stop", list(StopReason))
@pytest.mark.parametrize(
    ("format", "closes", "shows"),
    [
        ("marked", True, False),
        ("lists", True, True),
        (BEST, True, True),
        ("nvarc", False, False),
        ("architects", False, False),
        ("RowNumberEncoder(MinimalGridEncoder())", False, False),
    ],
)
def test_a_strict_read_takes_only_an_ended_answer_where_its_text_does_not_show_the_end(
    format: str, closes: bool, shows: bool, stop: StopReason
) -> None:
    """Every beginning of an answer that ends at a row border is an answer as well."""
    for strict in (False, True):
        task = ArcTask(format=format, strict=strict)
        assert task.closes is closes
        problem = only(task, random_puzzle(6))
        first = task.solution_in(problem, View(SAME, problem.prompt), "12\n34")
        read = task.extract(problem, first)
        assert read.answer == "12\n34"
        found = settled(task, read, stop)
        if shows or not strict or stop in (StopReason.END, StopReason.STOP):
            assert found == read
        else:
            cut = stop is not StopReason.FILTERED
            reason = Unanswered.TRUNCATED if cut else Unanswered.FILTERED
            assert found == Extraction(None, reason)


@pytest.mark.parametrize("format", [*FORMATS, SYMBOLS, "nvarc", "lists"])
@given(seed=st.integers(0, 2**32), cut=st.floats(0, 1))
@settings(max_examples=25)
def test_no_cut_text_is_strictly_taken_for_another_answer(
    format: str, seed: int, cut: float
) -> None:
    task = ArcTask(format=format, strict=True, copies=True)
    problem = only(task, random_puzzle(seed))
    assert problem.answer is not None
    (view,) = task.views(problem, 1)
    whole = view.opening + task.solution_in(problem, view, problem.answer)
    part = whole[: round(cut * len(whole))]
    for stop in task.until.stop:  # an engine takes it away
        part = part.partition(stop)[0]
    found = settled(task, task.extract_from(problem, view, part), StopReason.LENGTH)
    assert found.answer in (None, problem.answer)


def test_a_copy_of_the_test_input_is_no_answer_unless_it_may_be() -> None:
    puzzle = random_puzzle(5)
    copy = as_text(puzzle.test[0].input)
    problem = only(ArcTask(), puzzle)
    for task, answer in ((ArcTask(), None), (ArcTask(copies=True), copy)):
        for view in task.views(problem, 8):
            said = task.solution_in(problem, view, copy)
            read = task.extract_from(problem, view, said)
            assert read.answer == answer
            assert read.unanswered == (None if answer else Unanswered.NO_ANSWER)


@pytest.mark.parametrize(
    ("format", "text", "why", "reason"),
    [
        ("marked", "12\n3", Unreadable.RAGGED, Unanswered.MALFORMED),
        ("marked", "1x\n34", Unreadable.BAD_SYMBOL, Unanswered.MALFORMED),
        ("marked", "", Unreadable.EMPTY, Unanswered.EMPTY),
        (BEST, "I do not know.", Unreadable.NO_BLOCK, Unanswered.NO_ANSWER),
        (BEST, "```grid shape: 2x2\n12\n```", Unreadable.BAD_ROW_PREFIX, Unanswered.MALFORMED),
    ],
)
def test_what_gives_no_grid_has_a_reason(
    format: str, text: str, why: Unreadable, reason: Unanswered
) -> None:
    task = ArcTask(format=format)
    problem = only(task, random_puzzle(6))
    for view in task.views(problem, 3):
        assert task.extract_from(problem, view, text).unanswered is reason
    assert task.why(text) is why


def test_strict_refuses_what_contradicts_itself() -> None:
    text = "```grid shape: 5x5\n1 12\n2 34\n```"
    problem = only(ArcTask(format=BEST), random_puzzle(7))
    assert ArcTask(format=BEST).extract(problem, text).answer == "12\n34"
    assert ArcTask(format=BEST, strict=True).extract(problem, text).answer is None
    assert ArcTask(format=BEST, strict=True).why(text) is Unreadable.SHAPE_MISMATCH


@pytest.mark.parametrize("format", ["marked", BEST])
@given(seed=st.integers(0, 2**32), room=st.integers(1, 800))
@settings(max_examples=20)
def test_prompts_fit_by_leaving_out_the_last_pairs(format: str, seed: int, room: int) -> None:
    whole, fitted = ArcTask(format=format), ArcTask(format=format, characters=room)
    puzzle = random_puzzle(seed)
    full = only(whole, puzzle).prompt.plain + whole.opening(only(whole, puzzle))
    shown = only(fitted, puzzle).prompt.plain + fitted.opening(only(fitted, puzzle))
    least = only(whole, replace(puzzle, train=puzzle.train[:1]))
    most = [
        only(whole, replace(puzzle, train=puzzle.train[:count])).prompt.plain
        for count in range(1, len(puzzle.train) + 1)
    ]
    assert only(fitted, puzzle).prompt.plain in most
    if len(full) <= room:
        assert shown == full
    assert len(shown) <= max(room, len(least.prompt.plain + whole.opening(least)))
    assert puzzle_of(only(fitted, puzzle))[0].train == puzzle.train, "the records keep all pairs"


def test_levels_are_the_longest_side_that_is_shown() -> None:
    small, large = random_puzzle(8, side=2), random_puzzle(8, side=2)
    large = replace(large, train=(Pair(((0,) * 12,), ((1,),)), *large.train))
    assert [only(ArcTask(), p).meta["level"] for p in (small, large)] == [1, 3]
    row = replace(small, id="1d_long", train=(Pair(((0,) * 60,), ((1,),)), *small.train))
    assert only(ArcTask(), row).meta["level"] == len(LEVELS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "p: expected a puzzle as JSON"),
        ("[]", "p: expected an object with train and test"),
        ('{"train": [], "test": []}', "p: expected a list of train pairs"),
        (
            '{"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": []}',
            "p: train 0 input: rows of 2 and 1 cells",
        ),
        ('{"train": [{"input": [[1]], "output": [[10]]}], "test": []}', "colours 0..9, not 10"),
        ("[" * 9999, "expected a puzzle as JSON"),
    ],
)
def test_bad_puzzles_are_named_with_the_field(value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ArcTask().problem(value, "p")


@pytest.mark.parametrize(
    ("bad", "error"),
    [({"characters": 0}, ConfigError), ({"format": "nonsense"}, SpecError),
     ({"format": "GridShapeEncoder()"}, SpecError)],
)  # fmt: skip
def test_bad_options_are_refused(bad: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ArcTask(**bad)


def test_views_can_be_switched_off() -> None:
    problem = only(ArcTask(), random_puzzle(9))
    still = ArcTask(geometry=False, colours=False).keys(problem, 4)
    assert all(key == "same" or key.startswith("order") for key in still)
    turned = ArcTask(colours=False, order=False).keys(problem, 8)
    assert len(set(turned)) == 8
    assert not any("colours" in key or "order" in key for key in turned)


def test_a_puzzle_that_was_read_is_never_taken_for_another() -> None:
    task = ArcTask()
    for seed in range(600):  # more than are kept, each value dropped and its place taken again
        puzzle = random_puzzle(seed, side=2, id="same")
        problem = only(task, puzzle)
        first = [view.prompt.plain for view in task.views(problem, 2)]
        assert puzzle_of(problem)[0].train == puzzle.train
        assert [view.prompt.plain for view in task.views(problem, 2)] == first
        other = replace(problem, id="other/0")
        assert puzzle_of(other)[0].id == "other"
    wide = ArcTask(characters=1)
    problem = only(task, random_puzzle(1))
    assert task.views(problem, 2) != wide.views(problem, 2)
    assert task.views(problem, 2)[0].key == wide.views(problem, 2)[0].key
