"""From records to numbers: digests, costs, series over seeds, difficulty panels, sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.report.invented import cell, problem, run

from mull.metrics import Interval
from mull.report import contents
from mull.report.browser import GROUP_LIMIT, TEXT_LIMIT, TextBudget
from mull.report.console import summary
from mull.report.curves import panels, points, series
from mull.report.data import Cell, LedgerRow, ProblemResult, Run
from mull.report.digest import UNITS, digest
from mull.report.write import study_all, write_report
from mull.types import Usage


def studies(*runs: Run) -> list[contents.Study]:
    return study_all(runs, TextBudget(), resamples=100, draws=50)


def failed(id: str, gold: str | None = "1") -> ProblemResult:
    return ProblemResult(id, "text", gold, 1, (), None, False, failure="DeadlineError: 30 s passed")


def test_the_cost_of_all_samples_is_what_was_charged() -> None:
    given = cell(20, 8)
    made = digest(given, TextBudget())
    spent = sum((s.usage for p in given.problems for s in p.samples), Usage())
    total = dict(zip(UNITS, made.total.sum(axis=0), strict=True))
    assert total["samples"] == 20 * 8
    assert total["tokens"] == pytest.approx(spent.tokens)
    assert total["flops"] == pytest.approx(spent.flops)
    assert total["seconds"] == pytest.approx(spent.seconds)
    assert made.cost(8) == pytest.approx(made.total.mean(axis=0))


def test_more_samples_cost_more_but_the_prompt_only_once() -> None:
    made = digest(cell(20, 8), TextBudget())
    one, two, four = made.cost(1), made.cost(2), made.cost(4)
    assert (two > one).all()
    assert four - two == pytest.approx(2 * (two - one))
    tokens = UNITS.index("tokens")
    assert 2 * one[tokens] - two[tokens] == pytest.approx(80), "the prompt's tokens"


def test_a_problem_that_failed_stays_in_the_denominator() -> None:
    whole = cell(19, 4)
    with_failure = replace(whole, problems=(*whole.problems, failed("lost")))
    before, after = studies(run(whole))[0], studies(run(with_failure))[0]
    for key in ("pass_n", "vote", "accuracy"):
        expected = before.points[-1].scores[key].value * 19 / 20
        assert after.points[-1].scores[key].value == pytest.approx(expected)
    assert after.accuracy.n == 20
    assert contents.failures([after]).rows[0][2:] == ("lost", "DeadlineError: 30 s passed")


def test_problems_without_gold_are_shown_and_not_counted() -> None:
    whole = cell(10, 4)
    asked = [replace(p, gold=None, correct=None) for p in whole.problems][:5]
    mixed = studies(run(replace(whole, problems=(*asked, *tuple(whole.problems)[5:]))))[0]
    assert mixed.points[0].scores["vote"].n == 5
    none = studies(run(replace(whole, problems=tuple(asked))))[0]
    assert none.points == ()
    assert contents.cells([none]).rows[0][3] is None
    assert contents.headline(none) == []


def test_a_problem_without_a_verdict_is_left_out_and_counted(tmp_path: Path) -> None:
    """Neither right nor wrong: nothing but n changes, and the report says how many and why."""
    whole = cell(20, 4)
    unsure = [
        replace(p, correct=None, outcome="grader_error" if i else "grader_timeout")
        for i, p in enumerate(tuple(whole.problems)[:3])
    ]
    kept = tuple(whole.problems)[3:]
    last = kept[-1]
    odd = replace(last.samples[0], correct=None, outcome="grader_error")
    kept = (*kept[:-1], replace(last, samples=(odd, *last.samples[1:])))
    before = studies(run(replace(whole, problems=kept)))[0]
    found = run(replace(whole, problems=(*unsure, *kept)))
    after = studies(found)[0]
    assert after.accuracy == before.accuracy
    assert after.accuracy.n == 17
    for key in ("pass_n", "vote", "accuracy"):
        assert after.points[-1].scores[key] == before.points[-1].scores[key]
    table = contents.undecided([after])
    label = after.line.label
    assert table.rows == ((label, "grader_error", 2, 1, 17), (label, "grader_timeout", 1, 0, 17))
    assert any(str(shown.title) == table.title for shown in summary([found]))
    assert contents.undecided([before]).rows[0][2:] == (0, 1, 17)
    page = write_report([found], tmp_path, resamples=100, draws=50).read_text()
    assert table.title in page
    assert "grader_timeout" in (tmp_path / "tables" / "undecided.csv").read_text()


def test_a_seed_without_a_verdict_leaves_its_problem_out_of_the_series() -> None:
    one, other = cell(10, 4, seed=0), cell(10, 4, seed=1)
    first, *others = other.problems
    lost = replace(first, correct=None, outcome="grader_error")
    study = studies(run(one, replace(other, problems=(lost, *others))))[0]
    assert study.accuracy.n == 9
    assert contents.undecided([study]).rows[0][2:] == (1, 0, 9)


def test_where_no_verdict_came_there_is_no_accuracy() -> None:
    whole = cell(6, 4)
    lost = [replace(p, correct=None, outcome="grader_error") for p in whole.problems]
    study = studies(run(replace(whole, problems=tuple(lost))))[0]
    assert contents.cells([study]).rows[0][3:6] == (None, None, None)
    assert contents.headline(study) == []


def test_the_last_row_of_the_table_is_the_vote_of_the_run_itself() -> None:
    study = studies(run(cell(60, 8)))[0]
    assert study.points[-1].scores["vote"].value == pytest.approx(study.accuracy.value)


def test_cells_that_differ_in_their_seed_are_one_series() -> None:
    both = studies(run(cell(30, 4, seed=0), cell(30, 4, seed=1)))
    assert len(both) == 1
    alone = [studies(run(cell(30, 4, seed=s)))[0].points[-1].scores["vote"].value for s in (0, 1)]
    assert both[0].points[-1].scores["vote"].value == pytest.approx(np.mean(alone))
    assert contents.cells(both).rows[0][1] == 2


def test_every_share_of_a_strategy_has_its_interval_and_a_terminal_the_first_alone() -> None:
    found = studies(run(cell(30, 4), cell(30, 4, seed=1), cell(30, 1, strategy="greedy")))
    for row in contents.cells(found).rows:
        assert all(isinstance(value, Interval) and value.n == 30 for value in row[3:7])
    line = found[0].line
    assert found[0].single.value == pytest.approx(line.mean("single").mean())
    assert found[0].covered.value == pytest.approx(line.mean("covered").mean())
    shares = [digest.unanswered.mean() for digest in line.digests]
    assert found[0].unanswered.value == pytest.approx(np.mean(shares))
    for row in contents.brief(found).rows:
        assert [isinstance(value, Interval) for value in row].count(True) == 1


def test_pools_that_share_their_samples_get_one_chapter_and_searches_none() -> None:
    many = studies(
        run(cell(20, 4), cell(20, 8), cell(20, 8, strategy="best-of-n"),
            cell(20, 8, temperature=0.5), cell(20, 8, strategy="beam", independent=False))
    )  # fmt: skip
    assert [(s.line.label, bool(s.points), s.name) for s in many] == [
        ("vote · samples=4", False, ""),
        ("vote · samples=8", True, ""),
        ("best-of-n · samples=8", False, "_2"),
        ("vote · samples=8 · T=0.5", True, "_2"),
        ("beam · samples=8", False, "_3"),
    ]


def test_a_cell_whose_problems_have_unequal_samples_is_no_pool() -> None:
    chance = np.random.default_rng(0)
    rows = tuple(problem(i, 2 + i % 3, 0.5, 1, chance) for i in range(9))
    study = studies(run(Cell("vote(stop=beta)", "samples=4", 0, rows)))[0]
    assert study.points == ()
    assert study.line.cost()["samples"] == pytest.approx(3)


def test_levels_make_panels_and_without_levels_a_held_out_pass_rate_does() -> None:
    by_level = studies(run(cell(40, 8)))[0]
    assert [p.title for p in by_level.panels] == [f"level {i}" for i in range(1, 6)]
    assert sum(p.problems for p in by_level.panels) == 40
    assert by_level.panels[0].points[-1].n == 8
    measured = studies(run(cell(40, 8, levels=False)))[0]
    assert measured.panels[0].title.startswith("hardest fifth")
    assert measured.panels[0].points[-1].n == 4, "the other half of the samples"
    assert "half of the samples" in contents.difficulty(measured).note
    line = series([digest(cell(10, 2, levels=False), TextBudget())])[0]
    assert panels(line, 10, 10) == (), "two samples cannot be halved and voted on"
    assert len(points(line, 10, 10)) == 2


def test_the_headline_claims_a_gain_only_where_the_interval_bears_it_out() -> None:
    study = studies(run(cell(60, 8)))[0]
    assert "Voting gains" in " ".join(contents.headline(study))
    last = study.points[-1]
    unclear = replace(last, gain=replace(last.gain, low=-0.01))
    said = " ".join(contents.headline(replace(study, points=(study.points[0], unclear))))
    assert "no clear difference" in said
    loss = replace(last, gain=replace(last.gain, value=-0.1, low=-0.2, high=-0.05))
    said = " ".join(contents.headline(replace(study, points=(study.points[0], loss))))
    assert "Voting loses 10.0 [5.0, 20.0] points" in said


def test_a_small_run_keeps_every_text_and_a_large_one_an_example_a_group() -> None:
    small = TextBudget()
    entries = [small.entry(p) for p in cell(5, 8).problems]
    small.settle()
    assert all(len(entry.payload["texts"]) == 8 for entry in entries)
    assert small.remark == ""
    large = TextBudget(all_texts=100, some_texts=100_000)
    entries = [large.entry(p) for p in cell(5, 32).problems]
    large.settle()
    for entry in entries:
        numbers = {entry.payload["rows"][int(i)][0] for i in entry.payload["texts"]}
        assert len(numbers) == len(entry.payload["texts"]) <= GROUP_LIMIT + 1
        assert len(entry.payload["rows"]) == 32, "numbers of all candidates stay"
    assert "of 160 candidate texts are in this page" in large.remark


def test_texts_never_exceed_their_room_but_for_one_a_problem() -> None:
    tight = TextBudget(all_texts=0, some_texts=0)
    entries = [tight.entry(p) for p in cell(5, 8).problems]
    tight.settle()
    assert all(len(entry.payload["texts"]) == 1 for entry in entries)


def test_a_long_text_is_cut_and_that_is_said() -> None:
    one = problem(0, 1, 1.0, 1, np.random.default_rng(0))
    long = replace(one, samples=(replace(one.samples[0], text="x" * (TEXT_LIMIT + 7)),))
    budget = TextBudget()
    text = budget.entry(long).payload["texts"]["0"]
    budget.settle()
    assert text.endswith("… 7 more characters")
    assert budget.remark == "1 long texts are cut. The run's store has all."


def test_a_bill_says_nothing_of_flops_and_money_that_nobody_knows() -> None:
    known, unknown = Usage(9, 0, 12, 5e6, 1.0, 0.25), Usage(9, 0, 12, 0.0, 1.0, 0.0)
    rows = (LedgerRow("policy", "m", unknown, 2), LedgerRow("verifier", "v", known, 2))
    mixed = contents.ledger(replace(run(), ledger=rows)).rows
    assert [row[7] for row in mixed] == [None, 5e6, None]
    assert [row[9] for row in mixed] == [None, 0.25, None]
    assert [row[6] for row in mixed] == [12, 12, 24]
    (row,) = contents.ledger(replace(run(), ledger=(LedgerRow("failed", "m", Usage(), 1),))).rows
    assert (row[7], row[9]) == (0.0, 0.0), "nothing was computed, and that is known"
