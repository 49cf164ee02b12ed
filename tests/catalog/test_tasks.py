"""Names of tasks: built in, installed, or a user's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mull.catalog import load_task, task_names
from mull.errors import SpecError
from mull.tasks.base import Task
from mull.tasks.text import Text


@pytest.mark.parametrize("name", task_names())
def test_every_built_in_task_loads_and_keeps_the_contract(name: str) -> None:
    task = load_task(name)
    assert isinstance(task, Task)
    assert task.name == name
    assert task.__doc__
    assert load_task(task) is task


def test_the_built_in_names() -> None:
    assert {"choice", "countdown", "gsm8k", "json", "math", "text", "words"} <= set(task_names())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("word", "unknown task 'word'; valid: .*Did you mean 'words'"),
        ("text(x=1)", "unknown parameter of text 'x'; valid: "),
        ("text(", "is no spec"),
        ("none.py", "none.py"),
    ],
)
def test_what_is_wrong_is_said(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_task(spec)


def test_a_class_is_no_task() -> None:
    with pytest.raises(SpecError, match=r"^task is the class Text; .*: task = Text\(\)"):
        load_task(Text)  # type: ignore[arg-type]


def test_a_users_file_brings_its_own_task(tmp_path: Path) -> None:
    path = tmp_path / "last_word.py"
    path.write_text("def extract(text):\n    return text.split()[-1] if text.split() else None\n")
    task = load_task(str(path))
    problem = task.problem("Say a word.")
    assert task.extract(problem, "it is green").answer == "green"
    assert task.extract(problem, " ").answer is None
