"""The trees of searches over attempts and of the race: laws at any moment, whatever comes when."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import Starts, job, one
from tests.strategies.test_speculative_rejection import LETTERS, by_letter, texts
from tests.strategies.test_whole_laws import BUDGETS, JUDGES, RATES, SCORES, faulty
from tests.strategies.whole import Scorer, Watched, engines_of, solve, verifiers_of

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Script, SimulatedEngine, StepModel
from mull.strategies.base import Result, Search, Start
from mull.trees import Fate, TreeNode
from mull.types import Branch

SPECS = {
    "revise": "orm",
    "revise(chains=3, history=2)": "orm",
    "revise(chains=4, select=majority, first=reviser)": "orm",
    "mixed(ratio=0.75)": "orm",
    "self-refine(judge=judge, history=3, approve=1)": "judge",
    "speculative-rejection(chunk=20)": "prm",
    "speculative-rejection(alpha=0.25, chunk=7)": "prm",
}


def above(key: tuple[int, ...], tree: dict[tuple[int, ...], TreeNode]) -> tuple[int, ...]:
    """The parent: one place up, or two where no criticism stands between attempts."""
    parent = key[:-1]
    return parent[:-1] if parent and parent[-1] == -1 and parent not in tree else parent


def holds(result: Result, scorer: str) -> None:
    """What is true of such a tree at any moment of the search."""
    tree = {node.key: node for node in result.tree}
    assert list(tree) == sorted(tree)
    assert len(tree) == len(result.tree)
    assert all(above(key, tree) in {(), *tree} for key in tree)
    finished = {key for key, node in tree.items() if node.fate is Fate.FINISHED}
    assert finished == {candidate.key for candidate in result.candidates}
    for candidate in result.candidates:
        key = candidate.key
        assert tree[key].score == candidate.scores.get(scorer)
        turn = max((at for at, child in enumerate(key) if child == -1), default=-1) + 1
        steps = [tree[key[:end]].text for end in range(turn + 1, len(key) + 1)]
        assert "".join(steps) == candidate.text
    parents = {above(key, tree) for key in tree}
    for key, node in tree.items():
        assert node.score is None or math.isfinite(node.score)
        assert node.visits == 1
        if node.fate in (Fate.PRUNED, Fate.FAILED):
            assert key not in parents
    chosen = result.parts[0].index
    assert chosen is None or result.candidates[chosen].key in finished


class Grown(Watched):
    """A search whose tree is looked at after every outcome."""

    scorer = ""

    def look(self) -> Result:
        result = super().look()
        holds(result, self.scorer)
        return result


def grown(spec: str, scorer: str, budget: Budget, **options: Any) -> Result:
    strategy = load_strategy(spec)

    def start(given: Start) -> Search:
        search = Grown(strategy.start(given))
        search.scorer = scorer
        return search

    options = {"engines": engines_of(), "verifiers": verifiers_of(), **options}
    engines = options.pop("engines")
    verifiers = options.pop("verifiers")
    return one(job(Starts(start), budget, **options), engines, verifiers=verifiers).result


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=10)
@given(
    budget=BUDGETS,
    schedule=st.integers(0, 2**32),
    score=SCORES,
    judge=JUDGES,
    rates=RATES,
    success=st.floats(0.2, 0.95),
)
def test_a_tree_holds_the_candidates_at_any_moment_and_is_the_same_in_any_order(
    spec: str,
    budget: Budget,
    schedule: int,
    score: Any,
    judge: Any,
    rates: dict[Fault, float],
    success: float,
) -> None:
    strategy, world = load_strategy(spec), {"success": success, "verifiers": verifiers_of(score)}
    alone = grown(spec, SPECS[spec], budget, engines=faulty(judge, rates), **world)
    again = solve(strategy, budget, engines=faulty(judge, rates), schedule=schedule, **world)
    assert again.result.tree == alone.tree
    assert alone.tree != (), "whatever came or failed to come has its node"
    extended = {above(node.key, {n.key: n for n in alone.tree}) for node in alone.tree}
    assert {n.key for n in alone.tree if n.fate is Fate.KEPT} <= extended, "at the end"


@pytest.mark.parametrize("spec", ["revise(chains=3)", "speculative-rejection(chunk=20)"])
def test_what_did_not_come_is_a_failed_node(spec: str) -> None:
    scores = verifiers_of(lambda branch: 0.5)
    for number in range(4):
        engines = engines_of(faults=Faults(rates={Fault.CONNECTION: 0.2}))
        result = solve(
            load_strategy(spec),
            Budget(samples=12),
            engines=engines,
            verifiers=scores,
            number=number,
        ).result
        failed = [node for node in result.tree if node.fate is Fate.FAILED]
        assert len(failed) == len(result.failures)
        assert {(node.text, node.score) for node in failed} <= {("", None)}


def test_an_attempt_hangs_below_the_latest_one_that_it_saw() -> None:
    scorer = Scorer(lambda branch: 0.5)
    engines = engines_of()
    engines["reviser"] = SimulatedEngine(StepModel(), faults=Faults(rates={Fault.EMPTY: 0.3}))
    result = solve(
        load_strategy("revise(chains=3, length=7, history=2)"),
        engines=engines,
        verifiers={"orm": scorer},
    ).result
    tree = {node.key: node for node in result.tree}
    shown = {branch.key: branch.history for branch in scorer.seen}
    for key, history in shown.items():
        assert bool(history) == bool(above(key, tree))
        if history:
            assert tree[above(key, tree)].text == history[-1].text
    without = [node for node in result.tree if node.text == ""]
    assert without
    assert not {node.key for node in without} & {above(key, tree) for key in tree}


def test_a_race_drops_what_scored_lowest_at_its_chunk() -> None:
    scores = verifiers_of(lambda branch: (sum(map(ord, branch.text)) * 7919 % 101) / 101)
    for number in range(4):
        result = solve(
            load_strategy("speculative-rejection(chunk=15)"),
            Budget(samples=16),
            verifiers=scores,
            number=number,
            steps=8,
        ).result
        for depth in (1, 2):
            level = [node for node in result.tree if len(node.key) == depth]
            assert all(node.score is not None for node in level)
            by = {fate: [n.score or 0.0 for n in level if n.fate is fate] for fate in Fate}
            assert len(by[Fate.PRUNED]) == len(level) // 2
            assert max(by[Fate.PRUNED]) <= min(by[Fate.KEPT])


def test_what_could_not_be_scored_failed_and_what_the_budget_stopped_was_pruned() -> None:
    engines = engines_of(solver=Script(texts(100)))

    def every_other(branch: Branch) -> float:
        return by_letter(branch) if LETTERS.index(branch.text[0]) % 2 else math.nan

    strategy = load_strategy("speculative-rejection(n=16, chunk=20)")
    raced = solve(strategy, engines=engines, verifiers=verifiers_of(every_other)).result
    first = {node.key[0]: node.fate for node in raced.tree if len(node.key) == 1}
    assert first == {at: Fate.KEPT if at % 2 else Fate.FAILED for at in range(16)}
    strategy = load_strategy("speculative-rejection(chunk=20, alpha=0)")
    budget = Budget(tokens=300, samples=16)
    stopped = solve(strategy, budget, engines=engines, verifiers=verifiers_of(by_letter)).result
    first = {node.key[0]: node.fate for node in stopped.tree if len(node.key) == 1}
    assert first == dict.fromkeys(range(15), Fate.PRUNED) | {15: Fate.KEPT}, "one is finished"
