"""The pictures of a report: one example a failure, as its view showed it, and what is wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from tests.report.test_arc import GRIDS, cell, one_problem, result, run, sample

from mull.report.arc import Bench
from mull.report.gallery import COPY, FAILED, MEANINGS, METRICS, NO_INVERSE, TOO_LONG, seen
from mull.tasks.arc.encode import Unreadable
from mull.tasks.arc.grids import from_text
from mull.tasks.arc.task import ArcTask, puzzle_of


def test_every_category_has_a_meaning() -> None:
    own = {COPY, NO_INVERSE, TOO_LONG, FAILED}
    assert set(MEANINGS) == own | {each.value for each in Unreadable}
    assert all(text.endswith((".", "…")) for text in MEANINGS.values())


def test_an_example_shows_what_was_asked_and_said_and_where_it_is_wrong() -> None:
    problem = one_problem(4)
    puzzle, index = puzzle_of(problem)
    ragged = partial(sample, answer=None, gold=problem.answer)
    samples = [ragged(0, text="12\n3\n45"), ragged(1, text="12\n3x"), ragged(2, text="1\n23\n4")]
    bench = Bench()
    (watched,) = bench.watched(run(cell([result(problem, samples, None)]))).cells
    (shown,) = [bench.picture(each) for each in watched.problems]
    assert shown is not None
    views = ArcTask().keys(problem, 3)
    (first, second) = shown["bad"]
    asked = [seen(view, puzzle.test[index].input) for view in views]
    truth = [seen(view, from_text(problem.answer or "")) for view in views]
    row = "row 2 has 1 cells, row 1 has 2"
    assert first == ["ragged", 2, "12\n3\n45", views[0], asked[0], truth[0], row]
    assert second[:6] == ["bad_symbol", 1, "12\n3x", views[1], asked[1], truth[1]]
    assert "'x' is no colour" in second[6]


def test_a_picture_has_the_numbers_of_the_tables_to_sort_by() -> None:
    solved = [sample(i, answer, GRIDS[0]) for i, answer in enumerate((GRIDS[1], GRIDS[0], None))]
    bench = Bench()
    made = run(cell([result(one_problem(4), solved, GRIDS[1])]))
    (watched,) = bench.watched(made).cells
    (shown,) = [bench.picture(each) for each in watched.problems]
    assert shown is not None
    (graded,) = bench.solved()
    table = graded.graded.table
    assert shown["metrics"] == {name: pytest.approx(table[name][0], abs=1e-4) for name in METRICS}
    assert shown["metrics"]["pass_n"] == 1.0
    blind = run(cell([result(replace(one_problem(4), answer=None), solved, GRIDS[1])]))
    (watched,) = bench.watched(blind).cells
    (unknown,) = [bench.picture(each) for each in watched.problems]
    assert unknown is not None
    assert unknown["metrics"] == {}


def test_a_sample_that_did_not_come_says_why() -> None:
    lost = replace(sample(0, None, None, text="-"), text="", unanswered="failed")
    error = "EndpointError: HTTP 500"
    failed = result(replace(one_problem(4), answer=None), [lost], None, failure=error)
    bench = Bench()
    (watched,) = bench.watched(run(cell([failed]))).cells
    (shown,) = [bench.picture(each) for each in watched.problems]
    assert shown is not None
    ((why, _, text, _, _, truth, detail),) = shown["bad"]
    assert (why, text, truth, detail) == (FAILED, "", None, error)
