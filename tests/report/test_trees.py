"""Recorded trees: kept in the record, read back, drawn; old records are untouched."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.test_reliability_41_escaping import PAYLOADS, structure
from tests.report.grown import grown
from tests.report.invented import run

from mull.report import Cell, ProblemResult, write_report
from mull.report.data import Sample
from mull.report.trees import Grove, depths, draw, isotonic, parents_of, place, tone
from mull.trees import Fate, TreeNode

pytestmark = pytest.mark.timeout(30)
KEYS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), unique=True)


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, Cell]:
    return grown("mcts", 8, steps=4), grown("ab-mcts(reviser=policy)", 8, steps=4)


@pytest.fixture(scope="module")
def chains() -> tuple[Cell, Cell]:
    revised = grown("revise(chains=2, reviser=policy, verifier=prm)", 8, steps=4)
    return revised, grown("speculative-rejection(chunk=16)", 8, steps=4)


def page(out: Path, *cells: Cell) -> str:
    return write_report([run(*cells)], out, resamples=20, draws=10).read_text(encoding="utf-8")


@given(wish=st.lists(st.floats(-1e3, 1e3), max_size=30))
def test_isotonic_regression_keeps_order_and_the_mean(wish: list[float]) -> None:
    got = isotonic(wish)
    assert got == sorted(got) and len(got) == len(wish)
    assert sum(got) == pytest.approx(sum(wish), abs=1e-6)


@given(keys=KEYS, pitch=st.floats(1.0, 50.0))
def test_nodes_of_a_depth_keep_their_distance_and_the_order_of_their_parents(
    keys: list[tuple[int, ...]], pitch: float
) -> None:
    parents = parents_of(sorted(keys))
    depth = depths(parents)
    columns = [
        sorted(k for k in keys if depth[k] == d) for d in range(1, max([*depth.values()]) + 1)
    ]
    places = place(columns, parents, pitch)
    assert set(places) == set(keys)
    for column in columns:
        heights = sorted(places[key][1] for key in column)
        assert all(b - a >= pitch - 1e-6 for a, b in pairwise(heights))
        families = [parents[key] for key in sorted(column, key=lambda k: places[k][1])]
        first = list(dict.fromkeys(families))
        assert families == [above for above in first for _ in range(families.count(above))]


def test_a_revision_hangs_below_the_attempt_that_it_revises() -> None:
    parents = parents_of([(0,), (0, -1, 0), (0, -1, 0, -1, 1), (2,)])
    assert parents == {(0,): (), (2,): (), (0, -1, 0): (0,), (0, -1, 0, -1, 1): (0, -1, 0)}
    assert depths(parents)[0, -1, 0, -1, 1] == 3


@pytest.mark.parametrize("length", [1, 2, 8, 24, 64, 120])
def test_a_chain_of_any_length_can_be_read(length: int) -> None:
    """Attempts keep apart, and what stands above them is no wider than their column."""
    keys = [(0, *(-1, 0) * turn) for turn in range(length)]
    tree = tuple(TreeNode(key, "s", 0.5, Fate.FINISHED) for key in keys)
    samples = tuple(
        Sample(key, "s", "123456"[: 1 + turn % 6], 0, turn % 2 == 0, "correct")
        for turn, key in enumerate(keys)
    )
    chosen = keys[length // 2]
    problem = ProblemResult("p", "q", "1", None, samples, "1", True, tree=tree, chosen=chosen)
    picture = draw("solved", problem)
    assert len({mark.y for mark in picture.marks}) == 1
    assert [mark.way for mark in picture.marks] == [turn <= length // 2 for turn in range(length)]
    assert [mark.chosen for mark in picture.marks].index(True) == length // 2
    for before, after in pairwise(picture.marks):
        gap = after.x - before.x + 0.11  # places are rounded
        assert before.r + after.r <= gap
        assert 6 * len(before.note) + 12 * (before.right is not None) <= gap
    assert all(b - a >= 18 for (a, _), (b, _) in pairwise(picture.columns))
    assert picture.marks[-1].note == samples[-1].answer, "behind the last there is room"
    if length <= 8:
        assert [mark.note for mark in picture.marks] == [sample.answer for sample in samples]


def test_every_node_is_drawn_once_with_its_fate_and_the_way_to_the_answer(
    cells: tuple[Cell, Cell], chains: tuple[Cell, Cell]
) -> None:
    for cell in (*cells, *chains):
        for problem in cell.problems:
            picture = draw("solved", problem)
            assert len(picture.marks) == len(picture.rows) == len(problem.tree) > 4
            assert sum(picture.counts.values()) == len(problem.tree)
            assert sum(mark.chosen for mark in picture.marks) == 1
            way = {mark.x for mark in picture.marks if mark.way}
            assert len(way) == sum(mark.way for mark in picture.marks), "one node a depth"
            assert all(0 <= mark.y <= picture.height for mark in picture.marks)
            assert all(0 <= mark.x <= picture.width - 60 for mark in picture.marks)
            spent = {row[0] for row in picture.spent}
            assert {"policy", "verifier"} <= spent


def test_of_a_cell_one_solved_one_failed_and_the_largest_are_drawn() -> None:
    cell = grown("mcts", 8, problems=8, steps=4)
    some = list(cell.problems)
    some[3] = replace(some[3], correct=False)
    grove = Grove()
    assert list(grove.watch(replace(cell, problems=some))) == some
    list(grove.watch(replace(cell, problems=some, seed=1)))
    (stand,) = grove.stands()
    shown = {why: p.problem for p in stand.pictures for why in p.why.split(" and ")}
    assert shown["solved"] == next(p for p in some if p.correct)
    assert shown["failed"] == next(p for p in some if p.correct is False)
    assert len(shown["largest"].tree) == max(len(p.tree) for p in some)
    assert len({p.problem.id for p in stand.pictures}) == len(stand.pictures)


def test_the_page_has_the_trees_and_needs_nothing_else_for_them(
    cells: tuple[Cell, Cell], tmp_path: Path
) -> None:
    text = page(tmp_path / "a", *cells)
    assert text == page(tmp_path / "b", *cells), "equal records give equal bytes"
    section = text[text.index('<section id="trees">') : text.index('<section id="spent">')]
    assert section.count('<svg class="tree') == sum(len(s.pictures) for s in stands(cells))
    assert not re.search(r"#[0-9a-f]{6}", section), "colours come from the page's theme"
    words = html.unescape(section)
    for word in ("kept", "pruned", "finished", "failed", "selected", "step 1: ok"):
        assert word in words
    ids = re.findall(r'\bid="([^"]+)"', text[: text.index('id="data"')])
    assert len(ids) == len(set(ids))


def stands(cells: tuple[Cell, ...]) -> list[object]:
    grove = Grove()
    for cell in cells:
        list(grove.watch(cell))
    return list(grove.stands())


def test_a_run_without_trees_has_no_such_section(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert 'id="trees"' not in text and "#trees" not in text


def hostile(texts: list[str]) -> Cell:
    """Trees in which every field that a model fills holds such a text."""
    problems = []
    for at, text in enumerate(texts):
        tree = (
            TreeNode((0,), text, 0.5, Fate.KEPT, 2),
            TreeNode((0, 0), text, 0.9, Fate.FINISHED),
            TreeNode((0, 1), text, None, Fate.FAILED),
            TreeNode((1,), text, 0.1, Fate.PRUNED),
        )
        made = ProblemResult(
            f"{at}", text, text, 1, (), text, at % 2 == 0, tree=tree, chosen=(0, 0)
        )
        problems.append(made)
    return Cell("mcts", "samples=4", 0, tuple(problems), independent=False)


def test_hostile_texts_in_a_tree_add_no_tag_and_no_attribute(tmp_path: Path) -> None:
    """Two payloads at a time are the solved and the failed problem; their drawings are compared."""
    from mull.report.page import render
    from mull.report.tables import Column, Table

    empty = Table("x", "x", (Column("x"),), ())
    tables = {"cells": empty, "ledger": empty, "unanswered": empty}
    tables |= {"failure_types": empty, "failures": empty}

    def drawn(texts: list[str]) -> str:
        grove = Grove(cells=len(texts))
        for at in range(0, len(texts), 2):
            list(grove.watch(replace(hostile(texts[at : at + 2]), strategy=f"mcts{at}")))
        made = render([run()], [], [], tables, grove.stands(), [], "", "0")
        assert made.count('<svg class="tree') == len(texts)
        return made.replace("<svg", "<div").replace("</svg>", "</div>")

    bad = structure(drawn(PAYLOADS))
    good = structure(drawn([f"harmless {at}" for at in range(len(PAYLOADS))]))
    assert bad.tags == good.tags
    assert bad.values == good.values


def test_tones_run_from_the_lowest_score_to_the_highest() -> None:
    assert [tone(x, 0.0, 1.0) for x in (0.0, 0.5, 1.0, None, float("nan"))] == [0, 4, 8, -1, -1]
    assert tone(0.3, 1.0, 1.0) == 0


def test_a_very_large_tree_is_cut_and_says_so() -> None:
    wide = tuple(TreeNode((i,), "s", 0.5, Fate.PRUNED) for i in range(900))
    deep = tuple(TreeNode((7,) * n, "s", 0.5, Fate.KEPT) for n in range(2, 9))
    end = TreeNode((7,) * 9, "s", 0.5, Fate.FINISHED)
    tree = tuple(sorted((*wide, *deep, end), key=lambda node: node.key))
    problem = ProblemResult("p", "q", None, None, (), None, None, tree=tree, left_out=5)
    picture = draw("largest", problem)
    assert len(picture.marks) == 800
    assert picture.remark == "113 more nodes are not drawn."
    assert sum(mark.fate == "finished" for mark in picture.marks) == 1


def test_numbers_in_the_page_are_json_and_markup_is_whole(
    cells: tuple[Cell, Cell], tmp_path: Path
) -> None:
    text = page(tmp_path, *cells)
    json.loads(
        text[text.index('id="data">') + 10 : text.index("</script>", text.index('id="data"'))]
    )
    for tag in ("svg", "g", "figure", "details", "ol", "table"):
        opened = re.findall(rf"<{tag}(?: [^<>]*[^<>/])?>", text)  # <g id="x"/> closes itself
        assert len(opened) == text.count(f"</{tag}>"), tag
