"""Laws of problem files: whatever is wrong is said with file, line, what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mull.errors import InputError
from mull.tasks.files import MAX_LINE, problem_of, read_rows
from mull.tasks.text import Text
from mull.tasks.words import WordsTask
from mull.types import Problem

TASK = Text()


def load(tmp_path: Path, data: bytes | str) -> list[Problem]:
    file = tmp_path / "p.jsonl"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(TASK.load(str(file)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"p\.jsonl is empty; expected one JSON object a line"),
        (b"\n \n", "is empty"),
        (b'{"text": "a"}\n{"text": \xff}', r"p\.jsonl:2: byte 10 is no UTF-8"),
        (b'{"text": "a"}\n{"text": ', r"p\.jsonl:2: broken JSON .* expected one object a line"),
        (b'{"text": "a", "x": NaN}', "broken JSON .NaN is no JSON"),
        (b"[1]", r"p\.jsonl:1: expected a JSON object, not an array"),
        (b"7", "expected a JSON object, not 7"),
        (b"null", "not null"),
        (b'{"task": "a"}', r"no field problem, .* or messages; the row's fields are: task"),
        (b"{}", "the row's fields are: none"),
        (b'{"text": 7}', "text must be a string, not 7"),
        (b'{"text": "  "}', "text is empty"),
        (b'{"text": "a", "id": 1}\n\n{"text": "b", "id": "1"}', r":3: id '1' .* in line 1"),
        (b'{"text": "a", "id": "1"}\n{"text": "b"}', r":2: id '1' was there before, in line 1"),
        (b'{"text": "a", "id": [1]}', "id must be a string or a whole number, not an array"),
        (b'{"text": "a", "id": true}', "not true or false"),
        (b'{"text": "a", "answer": ""}', "answer is empty; leave the field out"),
        (b'{"text": "a", "answer": ["b", "c"]}', r"p\.jsonl:1: answer must be .* not an array"),
        (b'{"text": "a", "answer": {"b": 1}}', "answer must be a string or a number, not an obj"),
        (b'{"messages": []}', "messages is empty; expected an array of at least one turn"),
        (b'{"messages": {}}', "messages must be an array of turns, not an object"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "a turn of messages is"),
        (b'{"text": "a"}\n{"text": "a \\ud800 b"}', r"p\.jsonl:2: half of a surrogate pair"),
        (rb'{"messages": [{"role": "user", "content": "\udfff"}]}', "half of a surrogate pair"),
        (rb'{"text": "a", "id": "\ud800"}', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": "' + b"x" * MAX_LINE + b'"}', r"p\.jsonl:1: the line is longer than 1048576"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, data)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl cannot be read: No such file"):
        list(TASK.load(str(tmp_path / "none.jsonl")))
    with pytest.raises(InputError, match="Is a directory"):
        list(TASK.load(str(tmp_path)))


def test_a_good_file_with_a_bom_blank_lines_and_chat_turns(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "é"}]
    rows = [{"question": "a"}, {"messages": turns, "id": 7, "answer": 12, "level": 3}]
    text = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    first, second = load(tmp_path, text)
    assert (first.id, first.answer, first.prompt.plain) == ("0", None, "a")
    assert (second.id, second.answer, second.prompt.plain) == ("7", "12", "é")
    assert dict(second.meta) == {"level": 3}


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    assert load(tmp_path, r'{"text": "\ud83d\ude00"}')[0].prompt.plain == "😀"


def test_rows_come_lazily_before_the_line_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "a"}\nbroken')
    problems = TASK.load(str(file))
    assert next(problems).prompt.plain == "a"
    with pytest.raises(InputError, match=":2:"):
        next(problems)


def test_responses_may_share_an_id(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "a", "text": "x"}\n{"id": "a", "text": "x"}')
    assert [row.id for row in read_rows(str(file))] == ["a", "a"]


def test_a_task_without_its_own_reading_gets_the_general_one(tmp_path: Path) -> None:
    class Plain:
        name, until = "plain", TASK.until
        problem, extract, same, grade = TASK.problem, TASK.extract, TASK.same, TASK.grade

    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "text": "x", "answer": "y", "level": 1}')
    (row,) = read_rows(str(file))
    assert problem_of(Plain(), row) == TASK.from_row(row)


def test_what_a_task_says_of_a_text_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"text": "What is six times seven?"}')
    (row,) = read_rows(str(file))
    with pytest.raises(InputError, match=r"p\.jsonl:1: not a words problem"):
        problem_of(WordsTask(), row)
