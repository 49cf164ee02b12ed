"""MCTS: the laws of every search, what PUCT does, and what a tree promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, idle, job, one, problem, rows, run
from tests.strategies.test_contract import MANY_SLOTS, ONE_SLOT, SEEDS, SLOTS
from tests.strategies.worlds import BUDGETS, Unsure, engine, in_any_order, sampled

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.engines.simulated import Latency, SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UsageError
from mull.grades import Unanswered
from mull.strategies.base import Ended, Generate, Outcome, Room, Start
from mull.strategies.mcts import Mcts, MctsSearch
from mull.trees import Fate
from mull.types import Completion, StopReason, Until, Usage
from mull.verifiers.simulated import SimulatedVerifier

KINDS = [
    Mcts(n=12, branch=2, verifier="verifier"),
    Mcts(simulations=16, root_branch=2, branch=2, flight=2, verifier="verifier", select="best"),
    Mcts(n=14, branch=2, flight=6, prior="logprob", verifier="verifier", select="majority"),
    Mcts(n=10, branch=2, rollout=True, flight=3, verifier="verifier"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 50), slots=SLOTS, schedule=SEEDS, tokens=st.integers(0, 200))
def test_timing_and_slots_change_neither_result_nor_ledger(
    kind: Mcts, world: int, slots: dict[str, int], schedule: int, tokens: int
) -> None:
    budget = Budget(tokens=tokens) if tokens else None
    expected, alone = in_any_order(kind, world, ONE_SLOT, 0, budget)
    result, driver = in_any_order(kind, world, slots, schedule, budget)
    assert result == expected
    assert driver.committed() == alone.committed()
    assert driver.ledger.total.tokens == driver.made


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_most_worlds_have_an_answer(kind: Mcts) -> None:
    results = [in_any_order(kind, world, MANY_SLOTS, world, None)[0] for world in range(10)]
    assert sum(result.answer is not None for result in results) >= 8


@pytest.mark.parametrize("spec", ["mcts", "mcts(rollout=true, flight=3)", "mcts(branch=3)"])
@settings(max_examples=8, deadline=None)
@given(
    budget=BUDGETS,
    slots=st.integers(1, 9),
    token_ms=st.floats(0.1, 20.0),
    rate=st.sampled_from([0.0, 0.15]),
    nan=st.sampled_from([0.0, 0.2]),
    fails=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_any_latency_any_failure_and_any_budget_give_the_same_result(
    spec: str,
    budget: Budget,
    slots: int,
    token_ms: float,
    rate: float,
    nan: float,
    fails: float,
) -> None:
    strategy = load_strategy(spec)
    jobs = [job(strategy, budget, number, success=0.6 + 0.1 * number) for number in range(3)]
    alone = run(jobs, engine(rate, slots=1), verifiers={"prm": Unsure(nan, fails)})
    timed = engine(rate, slots, Latency(token_ms))
    crowd = run(jobs, timed, verifiers={"prm": Unsure(nan, fails, batch_ms=3.0)})
    assert [s.result for s in crowd] == [s.result for s in alone]
    # A batch that fails is tried again job by job, so a failing verifier's row follows the batches.
    if not fails:
        assert [rows(s) for s in crowd] == [rows(s) for s in alone]
    assert idle(timed)
    for solved in crowd:
        assert solved.result.ended in (Ended.COMPLETE, Ended.BUDGET)
        if budget.samples is not None:
            assert solved.samples <= budget.samples
            assert not [f for f in solved.result.failures if f.error == "BudgetError"]


@given(seconds=st.floats(0.05, 2.0), slots=st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_a_deadline_ends_it_with_its_best_answer_so_far(seconds: float, slots: int) -> None:
    timed = engine(slots=slots, latency=Latency(token_ms=3))
    verifiers = {"prm": SimulatedVerifier(batch_ms=5)}
    solved = one(job(Mcts(), Budget(seconds=seconds)), timed, verifiers=verifiers)
    assert solved.seconds <= seconds + 0.0051  # the batch that was being scored ends
    assert (solved.result.answer is None) == (not solved.result.candidates)
    assert idle(timed)


@given(tokens=st.integers(1, 900), flight=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_the_overrun_of_a_budget_is_at_most_what_was_in_flight_and_one_finish(
    tokens: int, flight: int
) -> None:
    kind = Mcts(flight=flight, branch=2, root_branch=2)
    verifiers = {"prm": SimulatedVerifier()}
    solved = one(job(kind, Budget(tokens=tokens), steps=6), engine(), verifiers=verifiers)
    spent = solved.ledger.total.generated
    finish = 6 * 61
    assert spent < tokens + flight * 2 * 61 + finish
    assert spent >= tokens or solved.result.ended is Ended.COMPLETE


def test_no_depth_is_asked_for_more_than_n_and_the_tree_says_what_became_of_it() -> None:
    solved = one(
        job(Mcts(n=8), success=0.8, steps=5), engine(), verifiers={"prm": SimulatedVerifier()}
    )
    tree = solved.result.tree
    assert solved.samples == 8
    assert max(sampled(solved.result).values()) <= 8
    keys = [node.key for node in tree]
    assert keys == sorted(set(keys))
    ends = {node.key for node in tree if node.fate is Fate.FINISHED}
    assert ends == {candidate.key for candidate in solved.result.candidates}
    parents = {node.key[:-1] for node in tree} - {()}
    assert parents == {node.key for node in tree if node.fate is Fate.KEPT}
    for node in tree:
        below = sum(n.visits for n in tree if n.key[:-1] == node.key)
        assert node.visits >= 1 + below - (node.key == ())


def test_one_simulation_at_a_time_follows_puct_by_hand() -> None:
    """Q + c·P·√N/(1+n), with P a half each: the better child until its visits weigh it down."""
    search = Mcts(simulations=4, branch=2, root_branch=2, flight=1).start(Start(problem(), TASK))
    worth = {(0,): 0.6, (1,): 0.5, (0, 0): 0.1, (0, 1): 0.1}
    asked: list[tuple[int, ...]] = []
    for _ in range(30):
        for action in search.ask(Room(8)):
            if isinstance(action, Generate):
                asked.append(action.branch.key)
                for i in range(action.first, action.first + action.count):
                    text = f"step {i}\n"
                    step = Completion(i, text, StopReason.STEP, Usage(generated=1))
                    search.tell(Outcome(action.id, i, step))
            else:
                (branch,) = action.branches  # type: ignore[union-attr]
                search.tell(Outcome(action.id, 0, (worth.get(branch.key, 0.2),)))
    # Third: .8/3 + .625·√4/4 for (0,), which has two children of .1, and .5 + .625·√4/2 for (1,).
    # Fourth: .8/3 + .625·√6/4 against .9/3 + .625·√6/4; its children are equal, the first is asked.
    assert asked == [(), (0,), (1,), (1, 0)]


@pytest.mark.parametrize("rollout", [False, True])
def test_before_the_end_an_end_that_came_before_its_turn_counts(rollout: bool) -> None:
    search = Mcts(n=8, branch=2, root_branch=2, rollout=rollout).start(Start(problem(), TASK))
    (root,) = search.ask(Room(8))
    end = Completion(1, "answer 7", StopReason.END, Usage(generated=1))
    if rollout:
        for i in range(2):
            step = Completion(i, f"step {i}\n", StopReason.STEP, Usage(generated=1))
            search.tell(Outcome(root.id, i, step))  # type: ignore[union-attr]
        _, second = (a for a in search.ask(Room(8)) if isinstance(a, Generate))
        search.tell(Outcome(second.id, second.first, replace(end, index=second.first)))
    else:
        search.tell(Outcome(root.id, 1, end))  # type: ignore[union-attr]
    result = search.result()
    assert (result.answer, result.ended) == ("7", Ended.UNFINISHED)
    (candidate,) = result.candidates
    assert candidate.key == ((1, 2) if rollout else (1,))
    assert [node.key for node in result.tree if node.fate is Fate.FINISHED] == [candidate.key]


def test_equal_siblings_are_one_node_that_keeps_their_visits() -> None:
    search = Mcts(simulations=1, root_branch=4).start(Start(problem(), TASK))
    (action,) = search.ask(Room(8))
    assert isinstance(action, Generate) and action.count == 4
    for i, text in enumerate(("a\n", "b\n", "a\n", "a\n")):
        search.tell(Outcome(action.id, i, Completion(i, text, StopReason.STEP, Usage())))
    scored = [a.branches[0].key for a in search.ask(Room(8)) if not isinstance(a, Generate)]  # type: ignore[union-attr]
    assert scored == [(0,), (1,)], "an equal text is scored once"
    for number in (1, 2):
        search.tell(Outcome(number, 0, (0.5,)))
    tree = search.result().tree
    assert [(node.key, node.visits) for node in tree] == [((0,), 3), ((1,), 1)]
    assert search.done


def test_a_late_child_does_not_keep_the_others_waiting() -> None:
    """While (0,) is in flight, the search goes on below (1,)."""
    search = Mcts(simulations=6, branch=2, root_branch=2, flight=2).start(Start(problem(), TASK))
    (first,) = search.ask(Room(8))
    for i in range(2):
        text = f"{i}\n"
        search.tell(Outcome(first.id, i, Completion(i, text, StopReason.STEP, Usage())))  # type: ignore[union-attr]
    for action in search.ask(Room(8)):
        search.tell(Outcome(action.id, 0, (0.5,)))  # type: ignore[union-attr]
    flying = [a for a in search.ask(Room(8)) if isinstance(a, Generate)]
    assert [a.branch.key for a in flying] == [(0,), (1,)]


def test_a_path_that_never_ends_is_cut_and_answered_for() -> None:
    """At ``max_steps`` the rest comes in one piece; a path out of tokens is a truncated end."""
    model = SimulatedEngine(StepModel())
    verifiers = {"prm": SimulatedVerifier()}
    solved = one(job(Mcts(n=4, max_steps=2), steps=6), model, verifiers=verifiers)
    assert {len(c.key) for c in solved.result.candidates} == {2}
    assert all(c.answer is not None for c in solved.result.candidates)
    short = job(Mcts(n=4), steps=6)
    start = replace(short.start, until=Until(max_tokens=90))
    cut = one(replace(short, start=start), model, verifiers=verifiers)
    assert cut.result.ended is Ended.COMPLETE
    assert max(c.tokens for c in cut.result.candidates) <= 90
    assert {c.stop for c in cut.result.candidates} == {StopReason.LENGTH}
    assert cut.result.answer is None


@pytest.mark.parametrize("rollout", [False, True])
def test_a_path_whose_last_token_ends_a_step_is_a_truncated_end(rollout: bool) -> None:
    start = Start(problem(), TASK, until=Until(max_tokens=2))
    search = Mcts(n=2, branch=2, root_branch=2, rollout=rollout).start(start)
    (root,) = search.ask(Room(8))
    for i, text in enumerate(("answer 7\n", "well\n")):
        step = Completion(i, text, StopReason.STEP, Usage(generated=2))
        search.tell(Outcome(root.id, i, step))  # type: ignore[union-attr]
    for action in search.ask(Room(8)):
        search.tell(Outcome(action.id, 0, (0.5,)))  # type: ignore[union-attr]
    result = search.result()
    assert search.done and result.ended is Ended.COMPLETE
    assert (result.answer, {c.stop for c in result.candidates}) == ("7", {StopReason.LENGTH})
    assert [c.unanswered for c in result.candidates] == [None, Unanswered.TRUNCATED]
    assert all(c.scores["prm"] == 0.5 for c in result.candidates)
    assert {node.fate for node in result.tree} == {Fate.FINISHED}


def test_a_verifier_that_never_scores_leaves_the_plain_majority() -> None:
    verifiers = {"prm": Unsure(nan=0.5, fails=0.5)}
    solved = one(job(Mcts(n=16), success=0.95), engine(), verifiers=verifiers)
    assert solved.result.answer == solved.job.start.problem.answer
    assert {f.error for f in solved.result.failures} == {"ScoreError"}
    assert all("prm" not in c.scores for c in solved.result.candidates)


def test_a_rollout_is_a_candidate_and_its_score_is_what_its_node_is_worth() -> None:
    solved = one(
        job(Mcts(n=8, branch=2, rollout=True), steps=4),
        engine(),
        verifiers={"prm": SimulatedVerifier()},
    )
    assert solved.samples <= 8
    rolled = [c for c in solved.result.candidates if c.key[-1] == 2]
    assert rolled and all("prm" in c.scores for c in rolled)
    inner = {n.key: n for n in solved.result.tree if n.fate is not Fate.FINISHED}
    assert all(inner[c.key[:-1]].score is None for c in rolled)


def test_more_exploration_spreads_the_simulations() -> None:
    def share(exploration: float) -> float:
        kind = Mcts(simulations=40, branch=3, exploration=exploration, flight=1)
        solved = one(job(kind, steps=8), engine(), verifiers={"prm": SimulatedVerifier()})
        top = [node.visits for node in solved.result.tree if len(node.key) == 1]
        return max(top) / sum(top)

    assert share(0.0) > share(10.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"flight": 0},
        {"branch": 0},
        {"root_branch": 0},
        {"simulations": 0},
        {"max_steps": 0},
        {"exploration": -1.0},
        {"exploration": math.nan},
        {"select": "last"},
        {"prior": "value"},
    ],
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="mcts"):
        Mcts(**bad)  # type: ignore[arg-type]


def test_its_n_and_the_budget_must_agree_and_something_must_end_it() -> None:
    with pytest.raises(BudgetError, match="contradicts"):
        Mcts(n=4).start(Start(problem(), TASK, Budget(samples=5)))
    with pytest.raises(BudgetError, match="does not know"):
        Mcts().start(Start(problem(), TASK))
    search = Mcts(simulations=3).start(Start(problem(), TASK))
    assert isinstance(search, MctsSearch) and search.root_branch == 8


def test_without_its_verifier_it_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="needs verifier 'prm'"):
        one(job(Mcts(n=2)), engine())


def test_a_result_does_not_need_a_single_outcome() -> None:
    search = Mcts(n=4).start(Start(problem(), TASK))
    assert search.result().answer is None and search.result().tree == ()
    search.ask(Room(1))
    assert search.result().ended is Ended.UNFINISHED
