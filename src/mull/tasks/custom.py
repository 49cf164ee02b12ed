"""A task of the user's own: one Python file of a few lines, named by path.

The file defines any of these functions; what it leaves out comes from ``base``::

    base = "text"                     # a built-in task's name
    def extract(text): ...            # the answer in a solution: text, or None
    def same(a, b): ...               # whether two answers mean the same: bool
    def grade(answer, gold): ...      # whether an answer is right: bool, or None (cannot say)
    def prompt(problem): ...          # a mull.types.Problem → text, or a list of chat turns
    def problems(): ...               # rows like those of a jsonl file: dicts
    max_tokens, stop, separator       # where a solution ends

Or it defines one class that implements ``mull.tasks.base.Task``, or an instance named ``task``.
The file is the user's code and runs as such, in this process and without limits.
"""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np

from mull.errors import ConfigError, GradeError, InputError, MullError, SpecError
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.tasks import BUILTIN
from mull.tasks.base import Task
from mull.tasks.files import QUESTIONS, Row, load_problems, problem_of
from mull.types import Message, Problem, Prompt, Until

HOOKS: Final[Mapping[str, int]] = {"extract": 1, "same": 2, "grade": 2, "prompt": 1, "problems": 0}
"""What a file may define, and with how many parameters."""
_ENDS: Final[Mapping[str, tuple[type, str]]] = {
    "max_tokens": (int, "a whole number"),
    "stop": (str, "text or a list of texts"),
    "separator": (str, "text"),
}
"""Where a file may say that a solution ends: of which type, and in words."""


def load_custom(path: str) -> Task:
    """The task that a Python file defines; its name is the file's.

    ``SpecError`` says what is wrong with the file: not there, does not run, defines nothing of a
    task, a function with the wrong parameters, an unknown ``base``.
    """
    module = _run(path)
    found = getattr(module, "task", None)
    if found is None:
        found = _only_class(module, path)
    if inspect.isclass(found):
        name = found.__name__
        raise SpecError(f"{path}: task is the class {name}; name an instance: task = {name}()")
    if found is not None:
        if not isinstance(found, Task):
            missing = [name for name in _members() if not hasattr(found, name)]
            raise SpecError(f"{path}: task lacks {', '.join(missing)} of mull.tasks.base.Task")
        return found
    hooks = {name: function for name in HOOKS if (function := getattr(module, name, None))}
    own = _own(module)
    for name in own:
        close = difflib.get_close_matches(name, HOOKS, 1, 0.8)
        if name not in HOOKS and close and close[0] not in hooks:
            raise SpecError(f"{path}: {name} is no part of a task; did you mean {close[0]}?")
    if not hooks:
        raise SpecError(
            f"{path} defines none of {', '.join(HOOKS)}, no class that implements "
            "mull.tasks.base.Task and no task; see the page on tasks in the docs"
        )
    for name, function in hooks.items():
        _check(path, name, function)
    base = _base(path, getattr(module, "base", "text"))
    try:
        until = replace(base.until, **_ends(path, module))
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    kind = GeneratedCustom if "problems" in hooks else Custom
    return kind(Path(path).stem, path, base, until, hooks)


@dataclass(frozen=True)
class Custom:
    """A task put together from a user's functions and a built-in task."""

    name: str
    path: str
    base: Task
    until: Until
    hooks: Mapping[str, Callable[..., Any]]

    def problem(self, text: str, id: str = "0") -> Problem:
        """A problem of the user's own, rendered by the file's ``prompt`` or the base."""
        return self._rendered(self.base.problem(text, id), Prompt.of(text))

    def from_row(self, row: Row) -> Problem:
        """The problem in a row of a file."""
        problem = problem_of(self.base, self._with_gold_text(row))
        plain = next((row.value[q] for q in QUESTIONS if row.value.get(q) is not None), None)
        asked = Prompt.of(plain) if isinstance(plain, str) else problem.prompt
        return self._rendered(problem, asked)

    def load(self, path: str) -> Iterator[Problem]:
        """Problems of a jsonl file, lazily; ``InputError`` names the line that is wrong."""
        return load_problems(path, self.from_row)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The file's ``extract``, else the base's; ``GradeError`` when it raises."""
        if "extract" not in self.hooks:
            return self.base.extract(problem, text)
        if not text.strip():
            return Extraction(None, Unanswered.EMPTY)
        answer = self._call("extract", text)
        if answer is None or answer == "":
            return Extraction(None, Unanswered.NO_ANSWER)
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            answer = str(answer)
        if not isinstance(answer, str):
            raise GradeError(f"{self.path}: extract must return text or None, not {answer!r:.60}")
        return Extraction(answer)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """The file's ``same``, either way round, else the base's."""
        if "same" not in self.hooks:
            return self.base.same(problem, a, b)
        return a == b or bool(self._verdict("same", a, b)) or bool(self._verdict("same", b, a))

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """The file's ``grade``, else its ``same`` with the gold answer, else the base's grade."""
        if "grade" not in self.hooks and "same" not in self.hooks:
            return self.base.grade(problem, answer)
        if problem.answer is None:
            return Grade(GradeOutcome.UNGRADED)
        if answer is None:
            return Grade(GradeOutcome.UNANSWERED)
        try:
            if "grade" in self.hooks:
                right = self._verdict("grade", answer, problem.answer)
            else:
                right = self.same(problem, problem.answer, answer)
        except GradeError as error:
            return Grade(GradeOutcome.GRADER_ERROR, str(error))
        if right is None:
            return Grade(GradeOutcome.UNGRADED, f"{self.path}: grade returned None")
        return Grade(GradeOutcome.CORRECT if right else GradeOutcome.WRONG)

    def _with_gold_text(self, row: Row) -> Row:
        """A gold of several parts as JSON text, where a function of the file reads it."""
        gold = row.value.get("answer")
        if isinstance(gold, list | dict) and not self.hooks.keys().isdisjoint(("grade", "same")):
            text = json.dumps(gold, sort_keys=True, ensure_ascii=False)
            return replace(row, value={**row.value, "answer": text})
        return row

    def _rendered(self, problem: Problem, asked: Prompt) -> Problem:
        if "prompt" not in self.hooks:
            return problem
        found = self._call("prompt", replace(problem, prompt=asked))
        try:
            if isinstance(found, str):
                turns = [Message("user", found)]
            else:
                turns = [Message(turn["role"], turn["content"]) for turn in found]
            return replace(problem, prompt=Prompt.chat(*turns))
        except (TypeError, KeyError, ValueError):
            raise GradeError(
                f"{self.path}: prompt must return text or a list of "
                f'{{"role": …, "content": …}}, not {found!r:.60}'
            ) from None

    def _verdict(self, name: str, *values: object) -> bool | None:
        """What ``same`` or ``grade`` says; any text would count as true, so none is taken."""
        found = self._call(name, *values)
        if isinstance(found, bool | np.bool_):
            return bool(found)
        if found is None and name == "grade":
            return None
        wanted = "a bool or None" if name == "grade" else "a bool"
        raise GradeError(f"{self.path}: {name} must return {wanted}, not {found!r:.60}")

    def _call(self, name: str, *values: object) -> Any:
        with self._named(name):
            return self.hooks[name](*values)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """What the user's code raises becomes a ``GradeError`` that names the file and function."""
        try:
            yield
        except MullError:
            raise
        except Exception as error:
            raise GradeError(
                f"{self.path}: {name}: {type(error).__name__}: {error}"[:400]
            ) from error


class GeneratedCustom(Custom):
    """A user's task that brings its own problems."""

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        """``count`` problems of the file's ``problems()``, which are all of the split ``test``.

        ``problems(split, count, seed)`` in the file may serve other splits and chance.
        """
        function = self.hooks["problems"]
        if len(inspect.signature(function).parameters) == 3:
            arguments: tuple[object, ...] = (split, count, seed)
        elif split == "test":
            arguments = ()
        else:
            raise ConfigError(
                f"{self.path}: problems() has only the split test, not {split!r}; define "
                "problems(split, count, seed) for others"
            )
        for index, value in enumerate(islice(self._rows(*arguments), count)):
            if not isinstance(value, dict):
                raise InputError(
                    f"{self.path}: problems() must give dicts with a question, not {value!r:.60}"
                )
            yield self.from_row(Row(f"{self.path}: problems()", index + 1, index, value))

    def _rows(self, *arguments: object) -> Iterator[Any]:
        with self._named("problems"):
            yield from self.hooks["problems"](*arguments)


def _run(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file():
        raise SpecError(f"{path}: no such file; expected a Python file that defines a task")
    name = f"mull_task_{file.stem}"
    description = spec_from_file_location(name, file)
    if description is None or description.loader is None:
        raise SpecError(f"{path} is no Python file; expected one that defines a task")
    module = module_from_spec(description)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        description.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SpecError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module


def _own(module: ModuleType) -> list[str]:
    """Public functions and classes that the file itself defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _members() -> list[str]:
    return ["name", "until", "problem", "extract", "same", "grade"]


def _only_class(module: ModuleType, path: str) -> Any:
    classes = [
        kind
        for name in _own(module)
        if inspect.isclass(kind := getattr(module, name))
        and all(hasattr(kind, member) for member in ("problem", "extract", "same", "grade"))
    ]
    if not classes:
        return None
    if len(classes) > 1:
        names = ", ".join(kind.__name__ for kind in classes)
        raise SpecError(f"{path} defines several tasks ({names}); name one: task = {names[0]}()")
    try:
        return classes[0]()
    except TypeError as error:
        raise SpecError(f"{path}: {error}; or define task = {classes[0].__name__}(…)") from error


def _check(path: str, name: str, function: object) -> None:
    if not callable(function):
        raise SpecError(f"{path}: {name} must be a function, not {function!r:.60}")
    wanted = {HOOKS[name], 3} if name == "problems" else {HOOKS[name]}
    signature = inspect.signature(function)
    for count in wanted:
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return
    raise SpecError(f"{path}: {name}{signature} must take {HOOKS[name]} parameter(s)")


def _base(path: str, name: object) -> Task:
    if name not in BUILTIN:
        raise SpecError(f"{path}: base {name!r} is no task; expected one of {', '.join(BUILTIN)}")
    module, _, attribute = BUILTIN[cast(str, name)].partition(":")
    return cast(Task, getattr(import_module(module), attribute)())


def _ends(path: str, module: ModuleType) -> dict[str, Any]:
    """The fields of ``Until`` that the file sets; ``SpecError`` where one is of another type."""
    found = {name: getattr(module, name) for name in _ENDS if hasattr(module, name)}
    stop = found.get("stop")
    if isinstance(stop, str | list):
        found["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    for name, value in found.items():
        kind, words = _ENDS[name]
        values = value if name == "stop" and isinstance(value, tuple) else (value,)
        if any(not isinstance(each, kind) or isinstance(each, bool) for each in values):
            said = getattr(module, name)
            raise SpecError(f"{path}: {name} = {said!r:.80} is not valid; expected {words}")
    return found
