"""Trees in the result record: whole while they fit, cut from the leaves, absent where none grew."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.grown import searched
from tests.runs.world import Steps, engine, small
from tests.strategies.common import TASK

from mull.report import Runs
from mull.runs import Records, run
from mull.runs.result import ResultRecord, kept_tree, record_of
from mull.strategies.drive import Solved
from mull.types import Fate, TreeNode
from mull.verifiers.simulated import SimulatedVerifier

NODES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple), st.sampled_from(Fate)
    ),
    max_size=40,
)


def record(solved: Solved) -> ResultRecord:
    problem = solved.job.start.problem
    return record_of(0, problem, TASK, solved.result, solved.ledger, solved.samples, lambda _: None)


@pytest.mark.parametrize("spec", ["mcts", "ab-mcts(reviser=policy)"])
def test_a_tree_comes_back_as_it_was(spec: str) -> None:
    for solved in searched(spec, 8, 2, steps=4):
        made = record(solved)
        assert made.tree == solved.result.tree != ()
        assert made.left_out == 0
        assert ResultRecord.unpack(made.pack()) == made


def test_a_record_without_a_tree_does_not_mention_it() -> None:
    """Its bytes are those of the time before trees, and such bytes are still read."""
    (solved,) = searched("vote", 4, 1)
    made = record(solved)
    data = json.loads(zlib.decompress(made.pack()))
    assert set(data) == set(ResultRecord.__slots__) - {"tree", "left_out"}
    assert ResultRecord.unpack(made.pack()) == made


def test_a_run_keeps_its_trees_for_the_export_and_the_report(tmp_path: Path) -> None:
    config = small(strategies=["mcts", "vote"], problems=3, samples=8)
    verifiers = {"prm": SimulatedVerifier()}
    run(config, tmp_path, engine=engine(), task=Steps(), virtual=True, verifiers=verifiers)
    with Records(tmp_path) as records:
        by_name = {cell.strategy: list(records.results(cell)) for cell in records.cells}
        assert all(record.tree for record in by_name["mcts"])
        assert not any(record.tree for record in by_name["vote"])
        rows = [json.loads(line) for line in records.export()]
    assert sum("tree" in row.get("result", {}) for row in rows) == 3
    with Runs([tmp_path]) as opened:
        problems = [p for cell in opened.runs[0].cells for p in cell.problems if p.tree]
        assert [p.tree for p in problems] == [record.tree for record in by_name["mcts"]]
        assert all(p.chosen in {node.key for node in p.tree} for p in problems)
        assert {row.purpose for p in problems for row in p.spent} == {"policy", "verifier"}


@given(given=NODES, nodes=st.integers(0, 20), text=st.integers(0, 60))
def test_what_is_kept_of_a_tree_is_a_tree(
    given: list[tuple[tuple[int, ...], Fate]], nodes: int, text: int
) -> None:
    """Every kept node has its parents, and no end is left out for a node that leads to none."""
    fates = {key[:n]: Fate.KEPT for key, _ in given for n in range(1, len(key) + 1)}
    fates.update(dict(given))
    tree = tuple(TreeNode(key, "abc", None, fates[key]) for key in sorted(fates))
    kept = kept_tree(tree, nodes, text)
    keys = [node.key for node in kept]
    assert keys == sorted(set(keys)) and set(kept) <= set(tree)
    assert len(kept) == min(nodes, text // 3, len(tree))
    assert all(key[:-1] in keys for key in keys if len(key) > 1)
    ways = {n.key[:i] for n in tree if n.fate is Fate.FINISHED for i in range(1, len(n.key) + 1)}
    assert set(keys) >= ways or set(keys) <= ways
