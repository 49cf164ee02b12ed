"""Responses made elsewhere: each is graded as it stands, or they vote, and none is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mull.catalog import load_task
from mull.errors import GradeError, InputError, SandboxTimeoutError
from mull.grades import Grade, GradeOutcome, Unanswered
from mull.runs.responses import grade_responses, select_responses
from mull.selection import Best, FilterVote, Majority, Weighted
from mull.tasks.text import Text
from mull.types import Problem

ROW = {"problem": "2 + 2?", "answer": "4"}


def file(path: Path, *rows: Mapping[str, Any]) -> str:
    place = path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(place)


def test_each_row_is_graded_in_its_order(tmp_path: Path) -> None:
    said = ["The answer is 4.", "#### 5", "", "I do not know.", "It is $4.00"]
    rows = [{**ROW, "id": str(i), "response": text} for i, text in enumerate(said)]
    graded = list(grade_responses(file(tmp_path, *rows), load_task("gsm8k")))
    assert [response.problem.id for response in graded] == ["0", "1", "2", "3", "4"]
    assert [response.grade.outcome for response in graded] == [
        GradeOutcome.CORRECT,
        GradeOutcome.WRONG,
        GradeOutcome.UNANSWERED,
        GradeOutcome.UNANSWERED,
        GradeOutcome.CORRECT,
    ]
    assert [response.extraction.unanswered for response in graded] == [
        None,
        None,
        Unanswered.EMPTY,
        Unanswered.NO_ANSWER,
        None,
    ]


def test_the_same_problem_may_be_answered_often(tmp_path: Path) -> None:
    rows = [{**ROW, "id": "1", "response": "4"}] * 3
    graded = list(grade_responses(file(tmp_path, *rows), load_task("gsm8k")))
    assert [response.grade.correct for response in graded] == [True] * 3


def test_without_a_gold_answer_there_is_no_verdict(tmp_path: Path) -> None:
    (graded,) = grade_responses(
        file(tmp_path, {"problem": "2 + 2?", "response": "4"}), load_task("gsm8k")
    )
    assert (graded.grade.outcome, graded.grade.correct) == (GradeOutcome.UNGRADED, None)


@dataclass(frozen=True)
class Broken(Text):
    """A grader that breaks on some answers."""

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        if answer == "bomb":
            raise SandboxTimeoutError("killed after 1.5 s")
        if answer == "odd":
            raise GradeError("cannot be read")
        return super().grade(problem, answer)


def test_a_grader_that_breaks_is_an_outcome_and_spoils_no_other(tmp_path: Path) -> None:
    rows = [{**ROW, "response": text} for text in ("bomb", "odd", "4")]
    outcomes = [r.grade.outcome for r in grade_responses(file(tmp_path, *rows), Broken())]
    assert outcomes == [
        GradeOutcome.GRADER_TIMEOUT,
        GradeOutcome.GRADER_ERROR,
        GradeOutcome.CORRECT,
    ]
    (chosen,) = select_responses(file(tmp_path, rows[0]), Broken(), Majority())
    assert chosen.grade.outcome is GradeOutcome.GRADER_TIMEOUT


@pytest.mark.parametrize("response", [None, 4, ["4"], {}])
def test_a_response_is_text(response: Any, tmp_path: Path) -> None:
    path = file(tmp_path, {**ROW, "response": "4"}, {**ROW, "response": response})
    for rows in (
        grade_responses(path, load_task("gsm8k")),
        select_responses(path, load_task("gsm8k"), Majority()),
    ):
        # Before the first row is given: nobody prints half of a broken file.
        with pytest.raises(InputError, match=r"rows\.jsonl:2: response must be a string"):
            next(rows)


def test_responses_to_one_problem_vote_by_the_tasks_equality(tmp_path: Path) -> None:
    said = ["4.0", "3", "It is $4", "", "4"]
    rows = [{"id": "7", **ROW, "response": text} for text in said]
    other = {"id": "8", "problem": "1 + 2?", "answer": "4", "response": "3"}
    chosen = list(select_responses(file(tmp_path, *rows, other), load_task("gsm8k"), Majority()))
    assert [(each.problem.id, each.responses) for each in chosen] == [("7", 5), ("8", 1)]
    assert [each.grade.correct for each in chosen] == [True, False]
    assert chosen[0].selection.confidence == 0.75


def test_without_ids_rows_belong_together_by_their_problem(tmp_path: Path) -> None:
    rows = [
        {"problem": "a?", "response": "1"},
        {"problem": "b?", "response": "2"},
        {"problem": "a?", "response": "1"},
    ]
    chosen = list(select_responses(file(tmp_path, *rows), load_task("text"), Majority()))
    assert [(each.responses, each.selection.answer) for each in chosen] == [(2, "1"), (1, "2")]
    assert [each.problem.id for each in chosen] == ["0", "1"]  # their first rows' numbers


def test_rows_belong_together_by_a_unique_id_too(tmp_path: Path) -> None:
    rows = [{"unique_id": "x", "problem": "a?", "response": each} for each in "112"]
    (chosen,) = select_responses(file(tmp_path, *rows), load_task("text"), Majority())
    assert (chosen.problem.id, chosen.responses, chosen.selection.answer) == ("x", 3, "1")


def test_scores_decide_where_the_selection_asks_for_them(tmp_path: Path) -> None:
    rows = [
        {**ROW, "id": "1", "response": "3", "scores": {"prm": 0.1}, "mean_logprob": -0.1},
        {**ROW, "id": "1", "response": "3", "scores": {"prm": 0.2}, "mean_logprob": -0.9},
        {**ROW, "id": "1", "response": "4", "scores": {"prm": 0.9}, "mean_logprob": -0.5},
    ]
    path, task = file(tmp_path, *rows), load_task("gsm8k")
    chosen = {
        str(select): next(select_responses(path, task, select)).selection.answer
        for select in (Majority(), Weighted("prm"), Best(), Best("prm"), FilterVote("prm"))
    }
    assert list(chosen.values()) == ["3", "4", "3", "4", "4"]


@pytest.mark.parametrize("given", [{"scores": 1}, {"scores": {"a": "1"}}, {"logprob": True}])
def test_a_score_is_a_number(given: Mapping[str, Any], tmp_path: Path) -> None:
    path = file(tmp_path, {**ROW, "response": "4", **given})
    with pytest.raises(InputError, match=r"rows\.jsonl:1: .*number"):
        next(select_responses(path, load_task("gsm8k"), Majority()))
