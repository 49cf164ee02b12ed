"""Laws of choice: one letter or none; whatever names two options is malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mull.errors import InputError
from mull.grades import GradeOutcome, Unanswered
from mull.tasks.base import FileTask
from mull.tasks.choice import Choice, options_in
from mull.types import Problem

TASK = Choice()
ASKED = TASK.problem("Which is blue?\nA) a tomato\nB) the sky\nC) grass\nD) A minor")


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "**B**",
        "B.",
        "b",
        "The answer is B.",
        "the answer is (B) the sky",
        "Answer: **B) the sky**",
        "Answer: option B",
        r"\boxed{B}",
        r"\boxed{\text{B}}",
        r"$\boxed{\text{(B)}}$",
        "The answer is the sky.",
        "The sky is blue, tomatoes are red.\n\nB",
        "A tomato is red.\nthe sky",
        "First I thought the answer is A. Now the answer is B.",
        "<think>the answer is A</think>The answer is B",
        "The answer is B, because grass is green and tomatoes are red.",
        "The final answer is: B",
        "The correct option is B.",
        "The correct choice is (B).\nIt is.",
        "Option B",
        "**Option (B)**",
        "Grass is green.\nOption B is correct.",
        "Option B is the right answer, not A or C.",
        "I choose B.",
        "I choose option B, the sky.",
        'The answer is "B".',
        "The answer is ‘B’.",
        "The answer is B, since A and C are wrong.",
        "The answer is B, as A or C would be red.",
        "The answer is B, not A or C.",
    ],
)
def test_one_option_is_named(text: str) -> None:
    assert TASK.extract(ASKED, text).answer == "B"


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A or B.",
        "The answer is (A) or (B)",
        "Answer: A, B",
        "Answer: A and C",
        "Answer: A/B",
        "The answer is E.",
        "The answer is unclear.",
        "The answer is (B) grass",
        r"\boxed{A, B}",
        r"\boxed{B",
        "A or B",
        "Option A or B",
        "Option A or option B is correct.",
        "The correct option is A or B.",
        "I choose A or B.",
        'The answer is "A" or "B".',
        "The answer is 'A' or 'B'.",
        "The answer is A, or B since both are blue.",
    ],
)
def test_two_options_or_none_of_them_are_malformed(text: str) -> None:
    assert TASK.extract(ASKED, text).unanswered is Unanswered.MALFORMED


def test_text_that_names_no_option_has_no_answer() -> None:
    for text in (
        "I like a tomato on a Sunday.",
        "Option B is wrong.",
        "Options:",
        "The best option is to count.",
        "Option A is wrong, as B is correct.",
        "Option B is not correct.",
        "I choose a different way.",
    ):
        assert TASK.extract(ASKED, text).unanswered is Unanswered.NO_ANSWER
    assert TASK.extract(ASKED, "\n").unanswered is Unanswered.EMPTY


def test_the_text_of_an_option_that_begins_with_a_letter_is_that_option() -> None:
    assert TASK.extract(ASKED, "The answer is A minor.").answer == "D"
    assert TASK.extract(ASKED, "The answer is a tomato").answer == "A"


def test_options_are_the_last_run_from_a_on() -> None:
    text = "Example:\nA) x\nB) y\n\nQuestion\n(A) one\n(B) two\n(C) three\nZ) no"
    assert dict(options_in(text)) == {"A": "one", "B": "two", "C": "three"}
    assert dict(options_in("A) alone")) == {}
    assert dict(options_in("A. one\n - B. two")) == {"A": "one", "B": "two"}


def load(tmp_path: Path, *rows: dict[str, Any]) -> list[Problem]:
    file = tmp_path / "choices.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return list(TASK.load(str(file)))


@pytest.mark.parametrize("gold", ["B", "b", "(B)", 1, "the sky", "The Sky."])
def test_a_gold_is_a_letter_a_number_or_the_text(tmp_path: Path, gold: object) -> None:
    row = {"question": "Blue?", "choices": ["a tomato", "the sky"], "answer": gold}
    (problem,) = load(tmp_path, row)
    assert isinstance(TASK, FileTask)
    assert problem.answer == "B"
    assert problem.prompt.plain == (
        "Blue?\n\nA) a tomato\nB) the sky\n\nEnd with: The answer is (letter)."
    )
    assert TASK.grade(problem, "B").outcome is GradeOutcome.CORRECT
    assert TASK.grade(problem, "A").outcome is GradeOutcome.WRONG


def test_options_in_the_question_are_not_shown_twice(tmp_path: Path) -> None:
    (problem,) = load(tmp_path, {"question": "Blue?\nA) a tomato\nB) the sky", "answer": "B"})
    assert problem.prompt.plain.count("the sky") == 1
    assert problem.meta["choices"] == {"A": "a tomato", "B": "the sky"}


def test_chat_turns_keep_their_order(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Blue?"}]
    (problem,) = load(tmp_path, {"messages": turns, "options": {"A": "sky", "B": "grass"}})
    assert [message.role for message in problem.prompt.messages] == ["system", "user"]
    assert problem.prompt.messages[1].content.startswith("Blue?\n\nA) sky\nB) grass")
    assert TASK.grade(problem, "A").outcome is GradeOutcome.UNGRADED


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Blue?"}, "no options"),
        ({"question": "Blue?", "choices": ["one"]}, "array of 2 to 26 options"),
        ({"question": "Blue?", "choices": {"x": "1", "y": "2"}}, "capital letter"),
        ({"question": "Blue?", "choices": ["a", "b"], "answer": "C"}, "answer must be a letter"),
        ({"question": "Blue?", "choices": ["a", "b"], "answer": 2}, "answer must be a letter"),
        ({"question": "Blue?", "choices": ["a", "b"], "answer": True}, "answer must be a letter"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"choices\.jsonl:1: .*{message}"):
        load(tmp_path, row)
