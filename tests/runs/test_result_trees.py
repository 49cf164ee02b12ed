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

from mull.engines.replay import ReplayEngine
from mull.report import Runs
from mull.report.trees import parents_of
from mull.runs import Records, run
from mull.runs.result import ResultRecord, kept_tree, record_of
from mull.strategies.drive import Solved
from mull.trees import Fate, TreeNode
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


CHAINS = ["revise(chains=2, reviser=policy, verifier=prm)", "self-refine"]
SPECS = ["mcts", "ab-mcts(reviser=policy)", *CHAINS, "speculative-rejection(chunk=20)"]


@pytest.mark.parametrize("spec", SPECS)
def test_a_tree_comes_back_as_it_was(spec: str) -> None:
    for solved in searched(spec, 8, 2, steps=4):
        made = record(solved)
        assert made.tree == solved.result.tree != ()
        assert made.left_out == 0
        assert ResultRecord.unpack(made.pack()) == made


@pytest.mark.parametrize("spec", CHAINS)
def test_what_is_kept_of_a_chain_is_its_beginning(spec: str) -> None:
    """The keys of revisions have a -1 in them for which no node need stand."""
    for solved in searched(spec, 8, 2, steps=4):
        tree = solved.result.tree
        for nodes in range(len(tree) + 1):
            kept = kept_tree(tree, nodes)
            keys, whole = ([node.key for node in given] for given in (kept, tree))
            assert len(kept) == nodes
            assert parents_of(keys) == {key: parents_of(whole)[key] for key in keys}


def test_a_record_without_a_tree_does_not_mention_it() -> None:
    """Its bytes are those of the time before trees, and such bytes are still read."""
    (solved,) = searched("vote", 4, 1)
    made = record(solved)
    data = json.loads(zlib.decompress(made.pack()))
    assert set(data) == set(ResultRecord.__slots__) - {"tree", "left_out"}
    assert ResultRecord.unpack(made.pack()) == made


def test_a_run_keeps_its_trees_for_the_export_and_the_report(tmp_path: Path) -> None:
    searches = ["mcts", *CHAINS, "speculative-rejection(chunk=20)"]
    config = small(strategies=[*searches, "vote"], problems=3, samples=8)
    verifiers = {"prm": SimulatedVerifier()}
    run(config, tmp_path, engine=engine(), task=Steps(), virtual=True, verifiers=verifiers)
    with Records(tmp_path) as records:
        by_name = {cell.strategy: list(records.results(cell)) for cell in records.cells}
        assert all(record.tree for name in searches for record in by_name[name])
        assert not any(record.tree for record in by_name["vote"])
        rows = [json.loads(line) for line in records.export()]
    assert sum("tree" in row.get("result", {}) for row in rows) == 3 * len(searches)
    with Runs([tmp_path]) as opened:
        problems = [p for cell in opened.runs[0].cells for p in cell.problems if p.tree]
        recorded = [record.tree for name in searches for record in by_name[name]]
        assert [p.tree for p in problems] == recorded
        assert all(p.chosen in {node.key for node in p.tree} for p in problems)
        spent = {row.purpose for p in problems for row in p.spent}
        assert spent == {"policy", "revision", "judge", "verifier"}


def test_a_replay_on_other_slots_grows_the_same_trees(tmp_path: Path) -> None:
    specs = [*CHAINS, "speculative-rejection(chunk=20)"]
    config = small(strategies=specs, problems=3, verifiers={"prm": "simulated"})
    run(config, tmp_path / "made", engine=engine(slots=3), task=Steps(), virtual=True)
    again = ReplayEngine.open(tmp_path / "made")
    run(config, tmp_path / "again", engine=again, task=Steps(), virtual=True)
    trees = []
    for name in ("made", "again"):
        with Records(tmp_path / name) as records:
            trees.append([r.tree for cell in records.cells for r in records.results(cell)])
    assert trees[0] == trees[1]
    assert all(trees[0])


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
