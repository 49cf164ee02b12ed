"""Laws of json: the last readable object is the answer, canonical as text, voted by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError
from mull.grades import GradeOutcome, Unanswered
from mull.selection import vote_fields
from mull.tasks.base import FileTask
from mull.tasks.json_object import JsonObject, canonical
from mull.types import Candidate, Problem, Prompt

TASK = JsonObject()
ASKED = TASK.problem("Who wrote Faust?")
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=4)


AROUND = (
    ("", ""),
    ("Sure: ", ""),
    ("", "\nDone."),
    ("```json\n", "\n```"),
    ("Let f = {x | x > 0: ", " it's"),
    (r"By \frac{1}{2} and {x : x > 0} it's: ", "}"),
    ('{"draft": 1} or "better": ', " ."),
)


@given(OBJECTS, st.sampled_from(AROUND))
def test_an_object_is_found_whatever_stands_around_it(
    value: dict[str, Any], around: tuple[str, str]
) -> None:
    text = json.dumps(value, indent=1).join(around)
    assert TASK.extract(ASKED, text).answer == canonical(value)


@given(OBJECTS)
def test_the_canonical_text_is_canonical(value: dict[str, Any]) -> None:
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert TASK.same(ASKED, text, json.dumps(value))


def test_the_last_object_wins_and_a_fenced_one_before_it() -> None:
    assert TASK.extract(ASKED, '{"a": 1} or rather {"a": 2}').answer == '{"a":2}'
    assert TASK.extract(ASKED, '```\n{"a": 1}\n```\nI dislike {"a": 2}').answer == '{"a":1}'
    assert TASK.extract(ASKED, 'Let f = {x | \nso {"a": 3} it\'s').answer == '{"a":3}'
    assert TASK.extract(ASKED, '{"a": "}{"}').answer == '{"a":"}{"}'


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{'a': 1}",
        '{"a": 1,}',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        "{" * 5000,
        '{"a": {"b": 1},}',
        '{"a": {"b": 1}, "c": ',
        "{'a': {\"b\": 1}}",
        '{"a":' * 200 + "1" + "}" * 200,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud800"}',
    ],
)
def test_what_cannot_be_read_is_malformed_and_no_part_of_it_is_the_answer(text: str) -> None:
    assert TASK.extract(ASKED, text).unanswered is Unanswered.MALFORMED


def test_no_object_no_answer() -> None:
    assert TASK.extract(ASKED, "Goethe").unanswered is Unanswered.NO_ANSWER
    assert TASK.extract(ASKED, "[1, 2]").unanswered is Unanswered.NO_ANSWER
    assert TASK.extract(ASKED, " ").unanswered is Unanswered.EMPTY


def test_required_fields_are_required() -> None:
    task = JsonObject(fields="author, year")
    assert task.extract(ASKED, '{"author": "Goethe"}').unanswered is Unanswered.MALFORMED
    assert task.extract(ASKED, '{"author": "Goethe", "year": 1808} {"x": 1}').answer is not None


def test_numbers_by_value_strings_by_unicode_and_true_is_not_one() -> None:
    assert TASK.same(ASKED, '{"a":1}', '{"a": 1.0}')
    assert TASK.same(ASKED, '{"a":"x  y"}', '{"a":" x y "}')
    assert not TASK.same(ASKED, '{"a":"x"}', '{"a":"X"}')
    assert not TASK.same(ASKED, '{"a":1}', '{"a":true}')
    assert not TASK.same(ASKED, '{"a":1}', '{"a":"1"}')
    assert TASK.same(ASKED, '"x "', '"x"')  # a field's value, as a per-field vote compares it


def test_fields_are_voted_one_by_one() -> None:
    answers = ['{"a":1,"b":"x"}', '{"a":1.0,"b":"y"}', '{"a":2,"b":"y "}']
    candidates = [Candidate((i,), "", answer) for i, answer in enumerate(answers)]
    chosen = vote_fields(candidates, lambda a, b: TASK.same(ASKED, a, b))
    assert TASK.same(ASKED, chosen.answer or "", '{"a":1,"b":"y"}')


def test_the_grade_names_the_fields_that_differ() -> None:
    problem = Problem("0", Prompt.of("?"), '{"a":1,"b":2,"c":3}')
    assert TASK.grade(problem, '{"c":3,"b":2.0,"a":1}').outcome is GradeOutcome.CORRECT
    grade = TASK.grade(problem, '{"a":true,"b":2,"d":4}')
    assert grade.outcome is GradeOutcome.WRONG
    assert grade.detail == "fields that differ: a, c, d"
    assert TASK.grade(problem, None).outcome is GradeOutcome.UNANSWERED
    assert TASK.grade(ASKED, "{}").outcome is GradeOutcome.UNGRADED


def test_files_take_objects_and_texts_as_gold(tmp_path: Path) -> None:
    assert isinstance(TASK, FileTask)
    file = tmp_path / "j.jsonl"
    file.write_text(
        '{"prompt": "?", "answer": {"b": 1, "a": 2}}\n{"prompt": "?", "answer": "{}"}\n'
    )
    assert [problem.answer for problem in TASK.load(str(file))] == ['{"a":2,"b":1}', "{}"]
    file.write_text('{"prompt": "?", "answer": [1]}')
    with pytest.raises(InputError, match=r"j\.jsonl:1: answer must be a JSON object"):
        list(TASK.load(str(file)))
    file.write_text('{"prompt": "?", "fields": "a"}')
    with pytest.raises(InputError, match="fields must be an array"):
        list(TASK.load(str(file)))
