"""Tables as Markdown, CSV and terminal text. Every cell is hostile: model text lands here.

A table's cells are values (text, numbers, intervals); each form prints them its own way and
escapes what its reader would otherwise obey: HTML and pipes in Markdown, formulas in CSV, control
sequences in a terminal.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mull.metrics import Interval

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Value = str | int | float | Interval | None

_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")
_SAFE_LINE = frozenset("\n\t")


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; ``percent`` prints proportions times 100."""

    title: str
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A named table; ``name`` is its file name, ``note`` what a reader must know of the numbers."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.name}: a row has {len(row)} cells for {len(self.columns)} columns"
                )


def display(value: Value, column: Column) -> str:
    """A cell as a reader sees it, not yet escaped.

    >>> display(0.5, Column("share", percent=True)), display(1234567, Column("tokens"))
    ('50.0', '1,234,567')
    """
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return value.percent() if column.percent else _plain_interval(value)
    if isinstance(value, bool | str):
        return str(value)
    if column.percent:
        return f"{100 * value:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return compact(value)


def compact(value: float) -> str:
    """A number in three significant digits, large ones with their power of ten.

    >>> compact(0.01234), compact(532.7), compact(1.5e12)
    ('0.0123', '533', '1.50e12')
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.2e}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")


def _plain_interval(value: Interval) -> str:
    return f"{compact(value.value)} [{compact(value.low)}, {compact(value.high)}]"


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, with its title and note."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    lines.append("| " + " | ".join(escape_markdown(c.title) for c in table.columns) + " |")
    numeric = [_numeric(table, i) for i in range(len(table.columns))]
    lines.append("|" + "|".join("---:" if right else "---" for right in numeric) + "|")
    for row in table.rows:
        cells = [_markdown_cell(v, c) for v, c in zip(row, table.columns, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    if table.note:
        lines += ["", escape_markdown(table.note)]
    return "\n".join(lines) + "\n"


def _markdown_cell(value: Value, column: Column) -> str:
    text = display(value, column)
    return escape_markdown(text) if isinstance(value, str) else text


def escape_markdown(text: str) -> str:
    """Text that Markdown shows and does not obey, on one line.

    >>> escape_markdown("a|b <script> [x](javascript:y)")
    'a\\\\|b &lt;script&gt; \\\\[x\\\\](javascript:y)'
    """
    text = safe_terminal(text).replace("\n", " ↵ ").replace("\t", " ")
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKDOWN.sub(lambda match: "\\" + match[0], text)
    # A bare address would become a link.
    return text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def to_csv(table: Table) -> str:
    """The table as CSV (RFC 4180, UTF-8), numbers in full; an interval fills three columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    spread = [
        any(isinstance(r[i], Interval) for r in table.rows) for i in range(len(table.columns))
    ]
    heads: list[str] = []
    for column, wide in zip(table.columns, spread, strict=True):
        title = escape_csv(column.title)
        heads += [title, f"{title} low", f"{title} high"] if wide else [title]
    writer.writerow(heads)
    for row in table.rows:
        cells: list[str] = []
        for value, wide in zip(row, spread, strict=True):
            cells += _csv_cells(value, wide)
        writer.writerow(cells)
    return out.getvalue()


def _csv_cells(value: Value, wide: bool) -> list[str]:
    if isinstance(value, Interval):
        return [_full(value.value), _full(value.low), _full(value.high)]
    text = escape_csv(value) if isinstance(value, str) else "" if value is None else _full(value)
    return [text, "", ""] if wide else [text]


def _full(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.10g}"


def escape_csv(text: str) -> str:
    """Text that a spreadsheet shows and does not compute: a leading apostrophe where needed.

    >>> escape_csv("=1+1"), escape_csv("-1")
    ("'=1+1", '-1')
    """
    if _NUMBER.fullmatch(text):
        return text
    text = safe_terminal(text)
    shown = text.lstrip()
    return f"'{text}" if text.startswith(_FORMULA) or shown.startswith(_FORMULA) else text


def safe_terminal(text: str) -> str:
    """Text that a terminal shows and does not obey; newlines and tabs stay.

    Control characters (C0, C1, DEL), lone surrogates, line separators and direction marks become
    visible escapes, so neither colours, titles and links (ANSI, OSC) nor reordered lines pass.

    >>> safe_terminal("ok \\x1b[31mred\\x1b]8;;http://x\\x07")
    'ok \\\\x1b[31mred\\\\x1b]8;;http://x\\\\x07'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _harmless(c) else _visible(c) for c in text)


def _harmless(character: str) -> bool:
    if character in _SAFE_LINE:
        return True
    # Cc controls, Cf direction marks and joiners, Cs surrogates, Zl and Zp separators.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _visible(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def terminal(table: Table) -> RichTable:
    """The table for ``rich.console.Console.print``: plain text cells, no markup is read."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(safe_terminal(table.title), style="bold"),
        caption=Text(safe_terminal(table.note)) if table.note else None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for i, column in enumerate(table.columns):
        heading = Text(safe_terminal(column.title))
        side: Literal["left", "right"] = "right" if _numeric(table, i) else "left"
        # In a narrow terminal a long word goes on in the next line: nothing is cut off.
        shown.add_column(heading, justify=side, overflow="fold")
    for row in table.rows:
        pairs: Sequence[tuple[Value, Column]] = list(zip(row, table.columns, strict=True))
        shown.add_row(*(Text(safe_terminal(display(v, c))) for v, c in pairs))
    return shown


def _numeric(table: Table, i: int) -> bool:
    values = [row[i] for row in table.rows if row[i] is not None]
    return bool(values) and not any(isinstance(value, str) for value in values)
