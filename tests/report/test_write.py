"""The folder that a report is: complete, self-contained, deterministic."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.invented import cell, run

from mull.errors import MissingExtraError
from mull.report import Run, summary, write_report
from mull.report.plots import short

pytestmark = pytest.mark.timeout(30)


def write(out: Path, *runs: Run) -> str:
    return write_report(runs, out, resamples=100, draws=50).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write(out, run(cell(30, 8), cell(30, 1, strategy="greedy", independent=False)))
    return out


def test_every_table_and_plot_is_there_in_both_forms(folder: Path) -> None:
    tables = "cells compute difficulty failure_types failures ledger n_scaling unanswered "
    tables += "vote_against_coverage"
    plots = "accuracy_by_samples accuracy_by_tokens accuracy_by_flops accuracy_by_seconds "
    plots += "difficulty vote_against_coverage"
    found = {path.name for path in folder.rglob("*.*")}
    assert {f"{name}.{end}" for name in tables.split() for end in ("md", "csv")} <= found
    assert {f"{name}.{end}" for name in plots.split() for end in ("svg", "png")} <= found


def test_problems_that_are_all_equally_hard_have_one_panel(tmp_path: Path) -> None:
    whole = cell(20, 8, levels=False)
    wrong = [
        replace(p, samples=tuple(replace(s, correct=False) for s in p.samples), correct=False)
        for p in whole.problems
    ]
    write(tmp_path, run(replace(whole, problems=tuple(wrong))))
    assert (tmp_path / "plots/difficulty.svg").is_file()


def test_two_reports_of_one_run_are_byte_identical(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, run(cell(30, 8), cell(30, 1, strategy="greedy", independent=False)))
    for path in sorted(folder.rglob("*.*")):
        other = tmp_path / path.relative_to(folder)
        assert other.read_bytes() == path.read_bytes(), path.name


def test_a_report_removes_what_an_earlier_one_left_and_nothing_else(tmp_path: Path) -> None:
    beside, named = tmp_path / "tables" / "mine.md", tmp_path / "tables" / "undecided.md"
    beside.parent.mkdir()
    beside.write_text("mine")
    whole = cell(6, 2)
    first, *others = whole.problems
    unsure = replace(first, correct=None, outcome="grader_error")
    write(tmp_path, run(replace(whole, problems=(unsure, *others))))
    assert named.is_file()
    write(tmp_path, run(cell(6, 1, strategy="greedy", independent=False)))
    assert not named.exists()
    assert not list((tmp_path / "plots").iterdir())
    assert {path.stem for path in (tmp_path / "tables").glob("*.md")} == {
        "cells", "failure_types", "failures", "ledger", "unanswered", "mine"
    }  # fmt: skip


def test_a_report_removes_no_file_that_a_changed_list_names(tmp_path: Path) -> None:
    kept = tmp_path / "kept.md"
    kept.write_text("kept")
    out = tmp_path / "report"
    write(out, run(cell(6, 1, strategy="greedy", independent=False)))
    with (out / "report_files.txt").open("a") as file:
        file.write("tables/../../kept.md\n../kept.md\nreport.html\n")
    write(out, run(cell(6, 1, strategy="greedy", independent=False)))
    assert kept.is_file()


class Seen(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_no_network_and_runs_one_script_by_its_hash(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(page)
    for tag, attributes in seen.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value is not None and value.startswith("#"), (tag, value)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_embedded_data_are_the_problems_and_their_candidates(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert raw
    data = json.loads(raw[1])
    assert [c["label"] for c in data["cells"]] == ["vote · samples=8", "greedy · samples=1"]
    problems = data["cells"][0]["problems"]
    assert len(problems) == 30
    assert all(len(p["rows"]) == 8 == sum(g[2] for g in p["groups"]) for p in problems)


def test_the_page_says_the_numbers_of_the_tables(folder: Path) -> None:
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    text = (folder / "tables" / "n_scaling.md").read_text(encoding="utf-8")
    cells = [c.strip() for c in text.splitlines()[-3].split("|")[2:4]]
    assert cells[0].count("[") == 1
    for cell_text in cells:
        number, _, bounds = cell_text.partition(" ")
        assert f"{number}<small>{bounds}</small>" in page
    for fact in ("3f6c1b9e0a52d7c4", "2P+4LWc", "words-s", "What was spent"):
        assert fact in page


def test_plots_are_light_and_dark_in_the_page_and_plain_files_beside_it(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    inline = page[page.index("<main>") : page.index('<script type="application/json"')]
    assert "var(--c-vote)" in inline
    assert "#0066b3" not in inline
    svg = (folder / "plots" / "accuracy_by_samples.svg").read_text(encoding="utf-8")
    assert "#0066b3" in svg and "dc:date" not in svg
    ids = re.findall(r'\bid="([^"]+)"', inline)
    assert len(ids) == len(set(ids)), "ids of the figures do not clash"


@pytest.mark.slow
def test_several_runs_and_a_temperature_sweep_make_one_page(tmp_path: Path) -> None:
    sweep = [cell(20, 2, seed=3, levels=False, temperature=t) for t in (0.5, 1.0)]
    page = write(tmp_path, *(run(*sweep, name=name) for name in ("one", "two")))
    assert {"temperature.svg", "temperature_2.svg"} <= {p.name for p in tmp_path.rglob("*.svg")}
    assert (tmp_path / "plots" / "votes_by_flops.svg").is_file()
    assert (tmp_path / "tables" / "n_scaling_3.md").is_file()
    assert "one · vote · samples=2 · T=0.5" in page
    assert page.count("What was spent: ") == 2


@pytest.mark.slow
def test_temperatures_of_different_runs_are_no_sweep(tmp_path: Path) -> None:
    cold, hot = (cell(20, 2, levels=False, temperature=t) for t in (0.5, 1.0))
    page = write(tmp_path, run(cold, name="small"), run(hot, name="large"))
    assert not list(tmp_path.rglob("temperature*.svg"))
    lead = html.unescape(page[page.index('<p class="lead">') : page.index("<dl")])
    named = "small · vote · samples=2 · T=0.5"
    assert lead.count(named) == 2, "the sentence and the tiles say whose they are"


def test_the_cost_plot_of_a_run_has_points_of_that_run_alone(tmp_path: Path) -> None:
    one, other = (cell(20, 2, levels=False, seed=seed) for seed in (0, 1))
    greedy = cell(20, 1, strategy="greedy", independent=False)
    write(tmp_path, run(one, name="small"), run(other, greedy, name="large"))
    plots = [tmp_path / "plots" / f"accuracy_by_samples{end}.svg" for end in ("", "_2")]
    assert ["greedy" in path.read_text(encoding="utf-8") for path in plots] == [False, True]


def test_a_run_without_gold_answers_still_has_its_votes_and_its_browser(tmp_path: Path) -> None:
    from dataclasses import replace

    asked = cell(6, 4)
    free = [replace(p, gold=None, correct=None) for p in asked.problems]
    page = write(tmp_path, run(replace(asked, problems=tuple(free))))
    assert "Accuracy against compute" not in page
    assert not list((tmp_path / "plots").iterdir())
    assert '"groups":' in page


def test_without_the_extra_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingExtraError, match=r"mull report needs .* pip install 'mull\[report\]'"
    ):
        write(tmp_path, run(cell(5, 2)))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match="mull report"):
        write(tmp_path, run(cell(5, 2)))
    assert not (tmp_path / "report.html").exists()


def test_the_terminal_summary_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    tables = summary([run(cell(10, 4))], resamples=50, draws=20)
    assert [str(table.title) for table in tables] == [
        "Accuracy by number of samples",
        "What was spent: words-s on words",
    ]
    assert tables[0].row_count == 3
    both = [run(cell(10, 4), cell(10, 1, strategy="greedy", independent=False))]
    assert [str(t.title) for t in summary(both, 50, 20)][1:] == ["Strategies"]


def test_axis_numbers_are_short() -> None:
    assert [short(x) for x in (0.5, 50, 5e7, 1e12)] == ["0.5", "50", "50M", "1T"]
