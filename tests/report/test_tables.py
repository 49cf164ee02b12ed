"""Tables: one value, three readers."""

from __future__ import annotations

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mull.metrics import Interval
from mull.report.tables import (
    Column,
    Table,
    compact,
    display,
    escape_csv,
    markdown,
    safe_terminal,
    terminal,
    to_csv,
)

TABLE = Table(
    "scores",
    "Scores",
    (Column("strategy"), Column("n"), Column("accuracy %", percent=True), Column("cost")),
    (
        ("vote", 64, Interval(0.5, 0.4, 0.6123, 100), 1.5e12),
        ("greedy", 1, Interval(0.25, 0.2, 0.3, 100), None),
    ),
    "A note.",
)


def test_markdown_prints_intervals_in_percent_and_aligns_numbers() -> None:
    assert markdown(TABLE).splitlines() == [
        "### Scores",
        "",
        "| strategy | n | accuracy % | cost |",
        "|---|---:|---:|---:|",
        "| vote | 64 | 50.0 [40.0, 61.2] | 1.50e12 |",
        "| greedy | 1 | 25.0 [20.0, 30.0] | – |",
        "",
        "A note.",
    ]


def test_csv_gives_numbers_in_full_and_an_interval_three_columns() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(TABLE), newline="")))
    assert rows[0] == ["strategy", "n", "accuracy %", "accuracy % low", "accuracy % high", "cost"]
    assert rows[1] == ["vote", "64", "0.5", "0.4", "0.6123", "1.5e+12"]
    assert rows[2][-1] == ""


def test_a_terminal_shows_every_cell_and_reads_no_markup() -> None:
    hostile = Table("t", "[bold]T", (Column("a"),), (("[red]x[/red] :smile:",),))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(hostile))
    shown = console.export_text()
    assert "[red]x[/red] :smile:" in shown
    assert "[bold]T" in shown


def test_a_narrow_terminal_folds_what_is_long_and_cuts_nothing_off() -> None:
    rows = tuple((f"best-of-n(verifier=prm{i})", 1234567, 0.5) for i in range(2))
    columns = (Column("strategy"), Column("samples"), Column("accuracy"))
    wide = Table("t", "T", columns, rows)
    console = Console(width=30, record=True, file=io.StringIO())
    console.print(terminal(wide))
    shown = console.export_text()
    assert "…" not in shown
    first = "".join(line[:12].split(" " * 3)[0].strip() for line in shown.splitlines())
    assert "best-of-n(verifier=prm0)best-of-n(verifier=prm1)" in first


@given(st.text(st.characters(codec=None), max_size=60))
def test_safe_text_has_no_control_character_left_and_keeps_plain_text(text: str) -> None:
    safe = safe_terminal(text)
    kinds = {unicodedata.category(c) for c in safe if c not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    safe.encode()
    assert safe_terminal(safe) == safe
    if text.isascii() and text.isprintable():
        assert safe == text


@given(st.text(max_size=40))
def test_csv_cells_come_back_as_they_went_in_but_for_what_a_program_would_obey(text: str) -> None:
    table = Table("t", "t", (Column("a"), Column("b")), ((text, "end"),))
    rows = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert rows[1] == [escape_csv(text), "end"]
    assert escape_csv(text).removeprefix("'") in (
        safe_terminal(text),
        safe_terminal(text).removeprefix("'"),
    )


@given(st.text(max_size=60))
def test_a_markdown_cell_stays_in_its_row(text: str) -> None:
    table = Table("t", "t", (Column("a"), Column("b")), ((text, "end"),))
    lines = markdown(table).splitlines()
    assert len(lines) == 5
    assert lines[4].startswith("| ") and lines[4].endswith(" | end |")
    assert lines[4].replace("\\|", "").count("|") == 3 + lines[4].count("\\\\|")


def test_numbers_are_short_and_right() -> None:
    assert [compact(x) for x in (0, 0.5, 12.345, 999.4, 99_999, 1e5, -2e-7)] == [
        "0",
        "0.5",
        "12.3",
        "999",
        "99,999",
        "1.00e5",
        "-2.00e-7",
    ]
    assert display(True, Column("x")) == "True"
    assert display(0.123, Column("x", percent=True)) == "12.3"
    assert display(Interval(0.5, 0.25, 1.5, 3), Column("x")) == "0.5 [0.25, 1.5]"


def test_a_row_with_a_cell_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="table t: a row has 2 cells for 1 columns"):
        Table("t", "t", (Column("a"),), (("x", "y"),))
