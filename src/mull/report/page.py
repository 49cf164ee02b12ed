"""Studies, tables and figures → one HTML file that needs nothing else.

Everything goes through the template engine's escaping; the browser's data is JSON in which no
markup can begin, and the script puts it on the page as text. The page's security policy allows
exactly that one script, by its hash, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mull.errors import MissingExtraError
from mull.metrics import Interval
from mull.report import plots
from mull.report.contents import Study, headline
from mull.report.data import Run
from mull.report.gallery import MEANINGS, METRICS
from mull.report.tables import Table, display, safe_terminal
from mull.report.trees import Stand

_INLINE = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.GRID: "var(--grid)",
    plots.PAPER: "var(--paper)",
    **{colour: f"var(--c-{name})" for name, colour in plots.COLOURS.items()},
    **{colour: f"var(--o-{i})" for i, colour in enumerate(plots.OTHERS)},
}
_COLOUR = re.compile("|".join(map(re.escape, _INLINE)), re.IGNORECASE)
_ID = re.compile(r'(id="|url\(#|href="#)')


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure: file name, caption, SVG text and PNG bytes."""

    name: str
    title: str
    svg: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Chapter:
    """What a pooled series shows: its figures by group, and its tables."""

    study: Study
    compute: tuple[Figure, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]


def render(
    runs: Sequence[Run],
    chapters: Sequence[Chapter],
    comparisons: Sequence[Figure],
    tables: Mapping[str, Table],
    stands: Sequence[Stand],
    browser: Sequence[Mapping[str, Any]],
    remark: str,
    version: str,
    puzzles: Sequence[Mapping[str, Any]] = (),
    reliability: Figure | None = None,
    titled: bool = False,
) -> str:
    """The page. Deterministic: the same arguments give the same text.

    ``puzzles`` are those that the browser's problems name by number (``mull.report.gallery``);
    ``titled`` says of each number which series it is of, where there are several.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingExtraError.of("mull report", "report") from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = safe_terminal
    environment.filters["inline"] = lambda figure: Markup(inline(figure))  # noqa: S704 (our SVG)
    environment.globals.update(cell=_cell, said=headline)
    script = (_template("gallery.js") if puzzles else "") + _template("report.js")
    # "</script" is the only text that could end a JSON block early; no "<" is left in it.
    words = {"meanings": dict(MEANINGS), "metrics": dict(METRICS)}
    shown = {"puzzles": list(puzzles), **words} if puzzles else {}
    data = _json({"cells": list(browser), "remark": remark, **shown})
    page: str = environment.from_string(_template("report.html.j2")).render(
        runs=runs,
        chapters=chapters,
        comparisons=comparisons,
        tables=tables,
        stands=stands,
        puzzles=len(puzzles),
        reliability=reliability,
        titled=titled,
        tiles=_tiles(chapters[0].study) if chapters else [],
        remark=remark,
        version=version,
        problems=sum(len(cell["problems"]) for cell in browser),
        policy=_policy(script),
        css=Markup(_template("report.css")),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own file)
        data=Markup(data),  # noqa: S704 (escaped by _json)
    )
    return page.lstrip() + "\n"


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def inline(figure: Figure) -> str:
    """A figure's SVG for the page: no header, colours from the page's theme, ids of its own."""
    text = figure.svg[figure.svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = _ID.sub(lambda match: f"{match[1]}{figure.name}-", text)
    text = text.replace("DejaVu Sans", "inherit").replace("'inherit', sans-serif", "inherit")
    text = _COLOUR.sub(lambda match: _INLINE[match[0].lower()], text)
    label = figure.title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _template(name: str) -> str:
    return (files("mull.report") / "templates" / name).read_text(encoding="utf-8")


def _cell(table: Table, row: Sequence[Any], i: int) -> dict[str, Any]:
    """A cell for the template: its text, its interval apart, and whether it is a number."""
    value, column = row[i], table.columns[i]
    if isinstance(value, Interval):
        number, _, bounds = display(value, column).partition(" ")
        return {"text": number, "bounds": bounds, "number": True}
    return {
        "text": safe_terminal(display(value, column)),
        "bounds": "",
        "number": not isinstance(value, str),
    }


def _tiles(study: Study) -> list[dict[str, str]]:
    """The four numbers on top of the page."""
    if not study.points:
        return []
    last = study.points[-1]
    named = [
        ("accuracy", "single sample", last.scores["accuracy"], ""),
        ("vote", f"vote of {last.n}", last.scores["vote"], ""),
        ("pass_n", f"coverage at {last.n}", last.scores["pass_n"], ""),
        ("gap", "left on the table", last.gap, "points"),
    ]
    tiles = []
    for key, title, value, unit in named:
        number, _, bounds = value.percent().partition(" ")
        tiles.append(
            {"key": key, "title": title, "number": number, "bounds": bounds, "unit": unit or "%"}
        )
    return tiles
