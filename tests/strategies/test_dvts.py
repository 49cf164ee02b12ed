"""Diverse verifier tree search: subtrees that know nothing of each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, job, one
from tests.strategies.test_contract import World

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.strategies.base import Ended, Generate, Outcome, Room, Score, Start, Strategy
from mull.strategies.beam import Beam
from mull.strategies.drive import Solved
from mull.strategies.dvts import Dvts
from mull.trees import Fate
from mull.verifiers.simulated import SimulatedVerifier


def solve(
    strategy: Strategy, budget: Budget | None = None, number: int = 0, slots: int = 8
) -> Solved:
    given = job(strategy, budget, number, success=0.8, steps=5)
    engine = SimulatedEngine(StepModel(), slots=slots)
    return one(given, engine, verifiers={"prm": SimulatedVerifier()})


@settings(max_examples=10, deadline=None)
@given(branch=st.integers(1, 6), number=st.integers(0, 50))
def test_one_subtree_is_the_beam_that_keeps_one(branch: int, number: int) -> None:
    tree = solve(Dvts(1, branch), number=number)
    beam = solve(Beam(1, branch), number=number)
    assert tree.result == beam.result
    assert list(tree.ledger.rows()) == list(beam.ledger.rows())


def test_every_subtree_keeps_its_best_child_and_brings_an_answer() -> None:
    result = solve(Dvts(4, 4)).result
    first = [node for node in result.tree if len(node.key) == 1]
    for tree in range(4):
        own = [node for node in first if node.key[0] // 4 == tree]
        (kept,) = [node for node in own if node.fate is Fate.KEPT]
        assert kept.score == max(node.score or 0.0 for node in own)
    assert {candidate.key[0] // 4 for candidate in result.candidates} == {0, 1, 2, 3}


def test_a_subtree_does_not_wait_for_the_others() -> None:
    """With every outcome of the first held back, the second still runs to its end."""
    world = World(4)
    search = load_strategy("dvts(trees=2, branch=2, verifier=v)").start(
        Start(TASK.problem("x"), TASK)
    )
    held = 0
    for _ in range(100):
        for action in search.ask(Room(0)):
            if isinstance(action, Generate):
                for index in range(action.first, action.first + action.count):
                    if (*action.branch.key, index)[0] < 2:
                        held += 1
                        continue
                    made = world.complete(action, index)
                    search.tell(Outcome(action.id, index, made))
            elif isinstance(action, Score):
                scores = tuple(world.score(branch) for branch in action.branches)
                search.tell(Outcome(action.id, 0, scores))
    assert held == 2, "no more than its first children"
    assert not search.done
    result = search.result()
    assert result.answer is not None
    assert result.ended is Ended.UNFINISHED


@pytest.mark.parametrize("samples", range(3, 20))
def test_no_depth_has_more_paths_than_samples_whatever_they_are_divided_by(samples: int) -> None:
    """The last subtree is narrower from its first step to its last, on any number of slots."""
    few, some, many = (solve(Dvts(), Budget(samples=samples), slots=s) for s in (1, 4, 64))
    assert few.result == some.result == many.result
    depths = [len(node.key) for node in few.result.tree]
    for depth in range(1, max(depths) + 1):
        level = [node for node in few.result.tree if len(node.key) == depth]
        assert sum(node.visits for node in level) <= samples
    assert few.samples == some.samples == many.samples == samples
    assert not few.result.failures


@pytest.mark.parametrize("limit", [200, 400, 800])
def test_subtrees_share_a_limit_in_equal_parts(limit: int) -> None:
    """None spends what another left, since none sees another: the result cannot depend on time."""
    solved = solve(Dvts(4, 2), Budget(tokens=limit))
    assert solved.ledger.total.generated >= limit or solved.result.ended is Ended.COMPLETE
