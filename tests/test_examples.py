"""The examples in docstrings run, in every module that has any."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import mull

HOME = Path(mull.__file__).parent
MODULES = sorted(
    ".".join(("mull", *path.relative_to(HOME).with_suffix("").parts)).removesuffix(".__init__")
    for path in HOME.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    found = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
