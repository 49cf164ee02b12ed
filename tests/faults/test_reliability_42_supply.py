"""Reliability 42: what an install brings is pinned, and no import reaches for the network."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ("torch", "math", "report", "dev")
"""The extras that ``make install`` brings."""


def pinned() -> dict[str, str]:
    """Package → version of constraints.txt."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text:
            name, _, version = text.partition("==")
            found[canonicalize_name(name)] = version
    return found


def brought() -> set[str]:
    """Everything that the package and those extras need here, by the installed metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"]]
    for extra in INSTALLED:
        texts += project["optional-dependencies"][extra]
    todo = [(Requirement(text), "") for text in texts]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement, extra_of = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = importlib.metadata.requires(name) or []
            todo += [(Requirement(text), extra) for text in needs]
    return {name for name, _ in seen}


def test_every_line_pins_one_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [
        line
        for line in lines
        if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line.strip())
    ]
    assert wrong == []
    assert len(pinned()) == len([line for line in lines if not line.startswith("#")])


def test_all_that_an_install_brings_is_pinned_at_what_is_installed() -> None:
    pins, needed = pinned(), brought()
    assert len(needed) > 40
    assert sorted(needed - set(pins)) == []
    differ = {
        name: (pins[name], importlib.metadata.version(name))
        for name in needed
        if Version(pins[name]) != Version(Version(importlib.metadata.version(name)).public)
    }
    assert differ == {}


def test_the_pins_satisfy_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"]]
    for extra in INSTALLED:
        texts += project["optional-dependencies"][extra]
    pins = pinned()
    for requirement in map(Requirement, texts):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier


IMPORT_ALL = """
import importlib, pkgutil, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"{event} {arguments} while importing {current}")

current = "mull"
sys.addaudithook(refuse)
import mull
names = [m.name for m in pkgutil.walk_packages(mull.__path__, "mull.", onerror=lambda name: None)]
for current in names:
    if not current.endswith("__main__"):
        importlib.import_module(current)
print(len(names))
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_import_reaches_for_the_network() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


def test_the_refusal_works() -> None:
    """Otherwise the test above could not fail."""
    code = IMPORT_ALL.replace("import mull\n", "import socket; socket.getaddrinfo('x', 1)\n", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "socket.getaddrinfo" in done.stderr


LIGHT = """
import sys
import mull
heavy = ["torch", "transformers", "numpy", "scipy", "matplotlib", "jinja2", "aiohttp", "pydantic",
         "typer", "rich", "math_verify", "asyncio", "sqlite3"]
print(*[name for name in heavy if name in sys.modules])
mull.Budget(samples=1)
print(*[name for name in heavy if name in sys.modules])
engine = mull.load_engine("simulated")
print(*[name for name in heavy if name in sys.modules and name not in ("asyncio", "numpy")])
"""


def test_an_import_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout == "\n\n\n"
