"""README and docs are true: their examples run as written, their links and file maps hold.

Blocks marked ```python run top to bottom, a file in one namespace. Lines that begin with `$ mull`
in ```console blocks run in order in an empty folder; a block under `<!-- long -->` takes minutes
and is checked for its words only (its options must exist).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(<!-- long -->\n+)?^```(\w+)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
ANCHOR = re.compile(r"\[[^\]]*\]\(([^)#\s]*)#([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[tuple[bool, str]]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(bool(long), body) for long, name, body in found if name == language]


def with_blocks(language: str) -> list[Path]:
    return [page for page in PAGES if page.is_file() and blocks(page, language)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", with_blocks("python"), ids=name)
def test_python_examples_run(page: Path, tmp_path: Path) -> None:
    script = "\n".join(body for _, body in blocks(page, "python"))
    file = tmp_path / "example.py"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", with_blocks("console"), ids=name)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for long, body in blocks(page, "console"):
        for line in re.findall(r"^\$ (mull .*)$", body.replace("\\\n", " "), re.M):
            words = shlex.split(line, comments=True)
            command = [*words[:2], "--help"] if long else words
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_file()], ids=name)
def test_links_to_files_exist(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    local = [
        target for target in targets if "://" not in target and not target.startswith("mailto:")
    ]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_file()], ids=name)
def test_links_to_headings_exist(page: Path) -> None:
    found = ANCHOR.findall(page.read_text(encoding="utf-8"))
    missing = [
        f"{target}#{anchor}"
        for target, anchor in found
        if "://" not in target and anchor not in headings(page.parent / target if target else page)
    ]
    assert not missing


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings: lower case, without signs, spaces as dashes."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_room_is_on_the_map() -> None:
    rooms = {
        path.name
        for path in (ROOT / "src" / "mull").iterdir()
        if (path.is_dir() and path.name != "__pycache__") or path.suffix == ".py"
    } - {"py.typed"}
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w.]+?)/?` \|", text, re.M))
    assert named == rooms
