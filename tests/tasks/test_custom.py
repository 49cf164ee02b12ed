"""Laws of users' own tasks: a few functions in a file make a task, and mistakes are said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mull.errors import ConfigError, GradeError, InputError, SpecError
from mull.grades import GradeOutcome, Unanswered
from mull.tasks import BUILTIN
from mull.tasks.base import FileTask, GeneratedTask, Task
from mull.tasks.custom import load_custom

ROMAN = """
import re
base = "text"
max_tokens = 64
VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}

def number(text):
    values = [VALUES[letter] for letter in text]
    return sum(-v if v < w else v for v, w in zip(values, values[1:] + [0]))

def extract(text):
    found = re.findall("[IVXLC]+", text)
    return found[-1] if found else None

def same(a, b):
    return number(a) == number(b)

def prompt(problem):
    return f"In Roman numerals: {problem.prompt.plain}"
"""


def write(tmp_path: Path, text: str, name: str = "roman.py") -> str:
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def test_a_file_of_functions_is_a_task(tmp_path: Path) -> None:
    task = load_custom(write(tmp_path, ROMAN))
    assert isinstance(task, FileTask)
    assert not isinstance(task, GeneratedTask)
    assert task.name == "roman"
    assert task.until.max_tokens == 64
    problem = task.problem("2 + 2?")
    assert problem.prompt.plain == "In Roman numerals: 2 + 2?"
    assert task.extract(problem, "II and II make IV").answer == "IV"
    assert task.extract(problem, "four").unanswered is Unanswered.NO_ANSWER
    assert task.extract(problem, " ").unanswered is Unanswered.EMPTY
    assert task.same(problem, "IIII", "IV")
    data = tmp_path / "p.jsonl"
    data.write_text('{"question": "3 + 3?", "answer": "VI"}')
    (problem,) = task.load(str(data))
    assert problem.prompt.plain == "In Roman numerals: 3 + 3?"
    assert task.grade(problem, "IIIIII").outcome is GradeOutcome.CORRECT
    assert task.grade(problem, "V").outcome is GradeOutcome.WRONG
    assert task.grade(problem, None).outcome is GradeOutcome.UNANSWERED
    assert task.grade(problem, "?").outcome is GradeOutcome.GRADER_ERROR
    assert task.grade(task.problem("?"), "V").outcome is GradeOutcome.UNGRADED


def test_an_equality_alone_is_enough_and_the_base_does_the_rest(tmp_path: Path) -> None:
    text = "base = 'gsm8k'\ndef same(a, b):\n    return abs(float(a) - float(b)) < 0.5\n"
    task = load_custom(write(tmp_path, text))
    problem = task.problem("?")
    assert task.extract(problem, "#### 3.2").answer == "3.2"
    assert task.same(problem, "3.2", "3")


def test_a_prompt_of_its_own_gets_the_bare_question(tmp_path: Path) -> None:
    text = "base = 'gsm8k'\ndef prompt(problem):\n    return problem.prompt.plain\n"
    data = tmp_path / "p.jsonl"
    data.write_text('{"problem": null, "question": "3 + 3?"}')
    task = load_custom(write(tmp_path, text))
    assert isinstance(task, FileTask)
    (problem,) = task.load(str(data))
    assert problem.prompt.plain == "3 + 3?"


def test_problems_of_its_own_make_it_a_task_that_generates(tmp_path: Path) -> None:
    text = """
def problems():
    for n in range(5):
        yield {"id": f"n{n}", "question": f"{n} + 1?", "answer": n + 1}
def grade(answer, gold):
    return int(answer) == int(gold) if answer.isdigit() else None
"""
    task = load_custom(write(tmp_path, text))
    assert isinstance(task, GeneratedTask)
    found = list(task.problems("test", 3))
    assert [(problem.id, problem.answer) for problem in found] == [
        ("n0", "1"),
        ("n1", "2"),
        ("n2", "3"),
    ]
    assert task.grade(found[1], "02").outcome is GradeOutcome.CORRECT
    assert task.grade(found[1], "x").outcome is GradeOutcome.UNGRADED
    with pytest.raises(ConfigError, match="only the split test"):
        list(task.problems("train", 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield {'question': 'a'}\n    {}['b']", "problems: KeyError: 'b'"),
        ("return 3", "problems: TypeError: 'int' object is not iterable"),
        ("return [{}['b']]", "problems: KeyError: 'b'"),
    ],
)
def test_problems_that_break_say_so(tmp_path: Path, body: str, message: str) -> None:
    task = load_custom(write(tmp_path, f"def problems():\n    {body}\n"))
    assert isinstance(task, GeneratedTask)
    with pytest.raises(GradeError, match=f"roman.py: {message}"):
        list(task.problems("test", 3))


def test_seeded_splits(tmp_path: Path) -> None:
    text = """
def problems(split, count, seed):
    return [{"question": f"{split} {seed} {n}"} for n in range(count)]
"""
    task = load_custom(write(tmp_path, text))
    assert isinstance(task, GeneratedTask)
    assert [p.prompt.plain for p in task.problems("train", 2, 9)] == ["train 9 0", "train 9 1"]


def test_a_class_or_an_instance_is_taken_as_it_is(tmp_path: Path) -> None:
    text = "from mull.tasks.text import Text\nclass Shout(Text):\n    name = 'shout'\n"
    task = load_custom(write(tmp_path, text))
    assert task.name == "shout"
    assert isinstance(task, Task)
    text = "from mull.tasks.text import Text\ntask = Text(case=True)\n"
    assert load_custom(write(tmp_path, text)).same(task.problem("?"), "a", "A") is False


KEEPS = "def extract(text): return text\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines none of extract, same, grade, prompt, problems"),
        ("def extract(text): return text\ndef gradee(a, g): return True", "did you mean grade"),
        ("def extract(a, b): return a", r"extract\(a, b\) must take 1 parameter"),
        ("same = 3", "same must be a function"),
        ("base = 'maths'\ndef extract(t): return t", "base 'maths' is no task; expected one of"),
        ("def extract(t): return t\nmax_tokens = 0", "max_tokens must be at least 1"),
        (f"{KEEPS}max_tokens = 10.5", "max_tokens = 10.5 is not valid; expected a whole number"),
        (f"{KEEPS}max_tokens = True", "max_tokens = True is not valid; expected a whole number"),
        (f"{KEEPS}max_tokens = '5'", "max_tokens = '5' is not valid; expected a whole number"),
        (f"{KEEPS}stop = [1]", r"stop = \[1\] is not valid; expected text or a list of texts"),
        (f"{KEEPS}stop = b'ab'", "stop = b'ab' is not valid; expected text or a list of texts"),
        (f"{KEEPS}stop = 5", "stop = 5 is not valid; expected text or a list of texts"),
        (f"{KEEPS}stop = ''", "stop strings must not be empty"),
        (f"{KEEPS}separator = 5", "separator = 5 is not valid; expected text"),
        ("1 / 0", "does not run: ZeroDivisionError"),
        ("def", "does not run: SyntaxError"),
        (
            "from mull.tasks.text import Text\ntask = Text",
            r"task is the class Text; name an instance: task = Text\(\)",
        ),
        ("task = 3", "task lacks name, until, problem, extract, same, grade"),
        (
            "from mull.tasks.text import Text\nclass A(Text): pass\nclass B(Text): pass",
            r"several tasks \(A, B\)",
        ),
    ],
)
def test_mistakes_are_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_custom(write(tmp_path, text))
    with pytest.raises(SpecError, match="no such file"):
        load_custom(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def extract(t): return [t]", "extract must return text or None"),
        ("def extract(t): return t[99]", "extract: IndexError"),
    ],
)
def test_an_extraction_that_breaks_is_no_silent_answer(
    tmp_path: Path, text: str, message: str
) -> None:
    task = load_custom(write(tmp_path, text))
    with pytest.raises(GradeError, match=message):
        task.extract(task.problem("?"), "some")


@pytest.mark.parametrize("value", ["'no'", "0.5", "1", "[]", "re.match('a', a)"])
@pytest.mark.parametrize("name", ["same", "grade"])
def test_a_verdict_is_true_or_false_and_no_text(tmp_path: Path, name: str, value: str) -> None:
    """``"no"`` counts as true wherever Python asks, and would make every answer right."""
    task = load_custom(write(tmp_path, f"import re\ndef {name}(a, b): return {value}"))
    problem = replace(task.problem("?"), answer="a")
    grade = task.grade(problem, "ab")
    assert grade.outcome is GradeOutcome.GRADER_ERROR
    wanted = "a bool or None" if name == "grade" else "a bool"
    assert f"roman.py: {name} must return {wanted}, not " in grade.detail
    if name == "same":
        with pytest.raises(GradeError, match="same must return a bool, not"):
            task.same(problem, "a", "b")


def test_a_verdict_may_be_numpys(tmp_path: Path) -> None:
    text = "import numpy as np\ndef grade(a, b): return np.isclose(float(a), float(b))"
    task = load_custom(write(tmp_path, text))
    problem = replace(task.problem("?"), answer="0.3")
    assert task.grade(problem, "0.30000000001").outcome is GradeOutcome.CORRECT
    assert task.grade(problem, "0.4").outcome is GradeOutcome.WRONG


@pytest.mark.parametrize("base", ["text", "math", "json"])
def test_a_checker_of_its_own_may_read_a_gold_of_several_parts(tmp_path: Path, base: str) -> None:
    gold = {"any": ["a", "b"]}
    data = tmp_path / "p.jsonl"
    data.write_text(json.dumps({"question": "?", "answer": gold}))
    grade = "def grade(answer, gold): return answer in json.loads(gold)['any']"
    task = load_custom(write(tmp_path, f"import json\nbase = {base!r}\n{grade}"))
    (problem,) = task.load(str(data))
    assert task.grade(problem, "b").outcome is GradeOutcome.CORRECT
    assert task.grade(problem, "c").outcome is GradeOutcome.WRONG
    task = load_custom(write(tmp_path, "def extract(text): return text"))
    with pytest.raises(InputError, match=r"p\.jsonl:1: answer must be a string or a number"):
        list(task.load(str(data)))


def test_a_prompt_may_be_chat_turns_and_nothing_else(tmp_path: Path) -> None:
    turns = "[{'role': 'system', 'content': 'Brief.'}, {'role': 'user', 'content': 'Hi'}]"
    task = load_custom(write(tmp_path, f"def prompt(p): return {turns}"))
    assert [m.role for m in task.problem("?").prompt.messages] == ["system", "user"]
    task = load_custom(write(tmp_path, "def prompt(p): return 3"))
    with pytest.raises(GradeError, match="prompt must return text or a list"):
        task.problem("?")


def test_every_built_in_name_leads_to_its_task() -> None:
    import importlib

    for name in sorted(set(BUILTIN) - {"words", "countdown"}):
        module, _, attribute = BUILTIN[name].partition(":")
        task = getattr(importlib.import_module(module), attribute)()
        assert isinstance(task, FileTask)
        assert task.name == name
