"""Laws of text: what normalisation ignores, what it keeps, and what counts as the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.grades import GradeOutcome, Unanswered
from mull.tasks.base import FileTask
from mull.tasks.text import Text, normalise
from mull.types import Problem, Prompt

TASK = Text()
ASKED = TASK.problem("Which tower?")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The Eiffel Tower.", "eiffel  tower"),
        ("ﬁnal", "final"),
        ("Ｐａｒｉｓ", "paris"),
        ("e\u0301cole", "école"),
        ("well-known", "well known"),
        ("don't", "dont"),
        ("“Paris”", "Paris"),
        ("Straße", "STRASSE"),
        ("3.50", "3.50."),
        ("U.S.A.", "USA"),
        ("5 p.m.", "5 pm"),
        ("J.K. Rowling", "J. K. Rowling"),
        ("# Paris", "Paris"),
        ("and/or", "and or"),
        ("Paris: 3", "Paris 3"),
    ],
)
def test_what_does_not_matter(a: str, b: str) -> None:
    assert TASK.same(ASKED, a, b)
    assert TASK.same(ASKED, b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("3.5", "35"),
        ("-3", "3"),
        ("1,000", "1 000"),
        ("Paris", "London"),
        ("?", "!"),
        ("the", "a"),
        ("C#", "C"),
        ("C#", "C++"),
        ("A#", "#"),
        ("3/4", "3 4"),
        ("10:30", "10 30"),
    ],
)
def test_what_matters(a: str, b: str) -> None:
    assert not TASK.same(ASKED, a, b)


def test_the_options_say_what_matters() -> None:
    assert not Text(case=True).same(ASKED, "Paris", "paris")
    assert not Text(punctuation=True).same(ASKED, "Paris!", "Paris")
    assert not Text(articles=True).same(ASKED, "the Louvre", "Louvre")


@given(st.text(max_size=60))
def test_normalisation_is_idempotent_and_never_loses_everything(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once or not once
    assert bool(once) == bool(text.strip()) or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("  Paris \n", "Paris"),
        ("It stands in France.\nAnswer: Paris", "Paris"),
        ("I think the answer is Paris.\nSo the answer is Lyon.", "Lyon."),
        (r"Hence \boxed{Paris}", "Paris"),
        ("<think>Lyon?</think>\nParis", "Paris"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_the_answer_is_what_is_marked_or_everything(text: str, answer: str) -> None:
    assert TASK.extract(ASKED, text).answer == answer


def test_no_text_no_answer() -> None:
    assert TASK.extract(ASKED, " \n").unanswered is Unanswered.EMPTY
    assert TASK.extract(ASKED, "<think>endless").unanswered is Unanswered.EMPTY


def test_gold_answers_are_optional(tmp_path: Path) -> None:
    assert isinstance(TASK, FileTask)
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"question": "Capital of France?", "answer": "Paris", "level": 2}\n{"text": "Hi"}'
    )
    first, second = TASK.load(str(file))
    assert (first.id, first.answer, first.meta["level"]) == ("0", "Paris", 2)
    assert first.prompt.plain == "Capital of France?"
    assert TASK.grade(first, "paris").outcome is GradeOutcome.CORRECT
    assert TASK.grade(first, "Lyon").outcome is GradeOutcome.WRONG
    assert TASK.grade(first, None).outcome is GradeOutcome.UNANSWERED
    assert TASK.grade(second, "anything").outcome is GradeOutcome.UNGRADED


def test_a_whole_number_gold_is_text() -> None:
    assert TASK.grade(Problem("0", Prompt.of("?"), "7"), "7.").correct is True
