"""Where names lead: into Mull, to installed entry points, and to Python files named by path.

A file is the user's own code, named by the user on this machine; it is run as such. Nothing that a
request, a data file or a model names is ever loaded here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mull.errors import SpecError


@lru_cache(maxsize=16)
def entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Installed entry points of a group, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def attribute(place: str) -> Any:
    """What a table of Mull's own names, as in ``mull.strategies.vote:Vote``; imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def is_file(spec: str) -> bool:
    """Whether a spec names a Python file rather than something in the catalog."""
    return spec.endswith(".py")


def from_file(path: str, wanted: str) -> Any:
    """``wanted`` of a user's Python file; ``SpecError`` where there is none."""
    file = Path(path)
    if not file.is_file():
        raise SpecError(f"{path}: no such file; expected a Python file that defines {wanted!r}")
    name = f"mull_user_{file.stem}"
    description = importlib.util.spec_from_file_location(name, file)
    if description is None or description.loader is None:
        raise SpecError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    try:
        description.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SpecError(f"{path}: {type(error).__name__}: {error}") from error
    if not hasattr(module, wanted):
        raise SpecError(f"{path} defines no {wanted!r}")
    return getattr(module, wanted)


def check_instance(wanted: str, found: object, path: str = "") -> None:
    """Raise ``SpecError`` for a class where an instance of it is meant; ``path``: of whose file."""
    if isinstance(found, type):
        place, name = f"{path}: " if path else "", found.__name__
        raise SpecError(
            f"{place}{wanted} is the class {name}; name an instance: {wanted} = {name}()"
        )
