"""The error tree: drawn as it is, picklable, one root."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from mull import errors
from mull.errors import MissingExtraError, MullError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def drawn() -> dict[str, str | None]:
    """Class → parent, read from the drawing in the docstring by its indentation."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│├└─ ]*)(\w*Error)\b", line)
        if not found:
            continue
        depth = len(found[1])
        above = [(d, name) for d, name in above if d < depth]
        parents[found[2]] = above[-1][1] if above else None
        above.append((depth, found[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    real = {
        kind.__name__: next((b.__name__ for b in kind.__bases__ if issubclass(b, MullError)), None)
        for kind in CLASSES
    }
    assert drawn() == real


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_documented_and_survives_a_process_border(kind: type[MullError]) -> None:
    assert kind.__doc__
    assert issubclass(kind, MullError)
    again = pickle.loads(pickle.dumps(kind("what was wrong")))  # noqa: S301 - our own bytes
    assert type(again) is kind
    assert str(again) == "what was wrong"


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtraError.of("Reports", "report")
    assert str(error) == "Reports needs an optional dependency: pip install 'mull[report]'"
    assert isinstance(error, ImportError)
