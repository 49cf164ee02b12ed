"""Task names → tasks: the built-in ones, entry points, and users' own files."""

from __future__ import annotations

from typing import Any, cast

from mull.catalog.options import build
from mull.catalog.plugins import attribute, check_instance, entry_points, is_file
from mull.catalog.spec import parse, unknown
from mull.errors import SpecError
from mull.tasks import BUILTIN
from mull.tasks.base import Task

GROUP = "mull.tasks"


def task_names() -> list[str]:
    """Names that ``load_task`` knows, entry points included."""
    return sorted({*BUILTIN, *entry_points(GROUP)})


def load_task(spec: str | Task) -> Task:
    """A task from its spec string, a user's ``file.py``, or itself.

    >>> load_task("text").name
    'text'
    """
    if not isinstance(spec, str):
        check_instance("task", spec)
        if not callable(getattr(spec, "extract", None)):
            raise SpecError(
                f"task = {spec!r} is not valid; expected a task's name, as in 'text', a path of a "
                "Python file, or a task"
            )
        return spec
    if is_file(spec):
        from mull.tasks.custom import load_custom

        return load_custom(spec)
    parsed = parse(spec)
    return cast(Task, build(parsed.name, _factory(parsed.name), parsed.parameters))


def _factory(name: str) -> Any:
    if name in BUILTIN:
        return attribute(BUILTIN[name])
    found = entry_points(GROUP)
    if name in found:
        return found[name].load()
    raise unknown("task", name, task_names())
