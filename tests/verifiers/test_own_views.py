"""The policy judges its own answers, each under the same views of its problem by the task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.tasks.arc.world import Knows, random_puzzle
from tests.verifiers.common import branch, meter, scores

from mull.budget import Meter, Purpose
from mull.catalog import load_task, load_verifier
from mull.engines.simulated import Echo, SimulatedEngine, run_virtual
from mull.errors import SpecError, UnsupportedError
from mull.tasks.arc.task import ArcTask
from mull.tasks.base import SAME, View
from mull.types import Branch, EngineInfo, Problem, Scored, ScoreRequest, StopReason
from mull.verifiers.views import COMBINE, ViewsVerifier, own_views

CHAT = ArcTask(format="GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))")
BARE = ArcTask(format="RowNumberEncoder(MinimalGridEncoder())")
CLOSED = [ArcTask(), ArcTask(format="lists"), CHAT]
OPEN = [ArcTask(format="nvarc"), ArcTask(format="architects"), BARE]
TASKS = [*CLOSED, *OPEN]
ANSWERS = ("12\n34", "5", "678")


def problem_of(task: ArcTask, seed: int = 0) -> Problem:
    (found,) = task.problems_of(random_puzzle(seed))
    return found


def engine() -> SimulatedEngine:
    return SimulatedEngine(Knows())


def said(task: ArcTask, problem: Problem, answer: str, number: int = 0) -> Branch:
    """An answer as a plain sample says it: the whole turn."""
    text = task.solution_in(problem, View(SAME, problem.prompt), answer)
    return branch(problem, text, key=(number,), stop=StopReason.END)


@pytest.mark.parametrize("combine", list(COMBINE))
@pytest.mark.parametrize("task", TASKS)
def test_a_score_is_made_of_every_views_log_probability(task: ArcTask, combine: str) -> None:
    policy, problem = engine(), problem_of(task)
    verifier = own_views(task, policy, views=5, combine=combine, seed=2)  # type: ignore[arg-type]
    got = scores(verifier, *(said(task, problem, a, i) for i, a in enumerate(ANSWERS)))
    for answer, score in zip(ANSWERS, got, strict=True):
        views = task.views(problem, 5, 2)
        texts = [view.opening + task.solution_in(problem, view, answer) for view in views]
        by_hand = [
            math.fsum(policy.content.score(view.prompt.plain, text))  # type: ignore[attr-defined]
            + (policy.content.end(view.prompt.plain, text) if task in OPEN else 0.0)  # type: ignore[attr-defined]
            for view, text in zip(views, texts, strict=True)
        ]
        assert score == pytest.approx(COMBINE[combine](by_hand))


@pytest.mark.parametrize("task", OPEN)
def test_an_engine_that_tells_no_end_is_refused_where_the_end_must_count(task: ArcTask) -> None:
    class NoEnd(SimulatedEngine):
        @property
        def info(self) -> EngineInfo:
            known = super().info
            return replace(known, capabilities=replace(known.capabilities, ends=False))

    with pytest.raises(UnsupportedError, match=r"shows no end of its own.*format=.marked"):
        own_views(task, NoEnd(Knows()))
    with pytest.raises(UnsupportedError, match="cannot honour: end"):
        scores(
            ViewsVerifier(NoEnd(Knows()), lambda of: [ScoreRequest(of.view, of.text, end=True)]),
            said(task, problem_of(task), "5"),
        )
    assert own_views(ArcTask(), NoEnd(Knows()))


def test_a_strict_judge_passes_over_what_was_cut() -> None:
    task = ArcTask(format="nvarc", strict=True)
    problem = problem_of(task)
    cut = branch(problem, "12\n34", key=(0,), stop=StopReason.LENGTH)
    found = scores(own_views(task, engine(), views=2), cut, said(task, problem, "12\n34", 1))
    assert math.isnan(found[0])
    assert found[1] < 0


def test_every_candidate_is_judged_under_the_same_views() -> None:
    asked: list[ScoreRequest] = []

    class Watched(SimulatedEngine):
        async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
            asked.extend(requests)
            return await super().score(requests, meter)

    task = ArcTask()
    problem = problem_of(task)
    verifier = own_views(task, Watched(Knows()), views=3)
    gauge = meter(verifier)
    scores(verifier, *(said(task, problem, a, i) for i, a in enumerate(ANSWERS)), gauge=gauge)
    prompts = [view.prompt for view in task.views(problem, 3)]
    assert [request.prompt for request in asked] == prompts * len(ANSWERS)
    assert all(request.logprobs and not request.values for request in asked)
    assert [purpose for purpose, *_ in gauge.ledger.rows()] == [Purpose.VERIFIER]


def test_what_has_no_answer_has_no_score() -> None:
    task = ArcTask()
    problem = problem_of(task)
    bad = branch(problem, "1x\n2", key=(0,), stop=StopReason.END)
    good = said(task, problem, "5", 1)
    found = scores(own_views(task, engine(), views=2), bad, good)
    assert math.isnan(found[0])
    assert found[1] < 0


def test_the_spec_names_the_views_and_needs_the_policy_itself() -> None:
    policy, task = engine(), ArcTask()
    made = load_verifier("views(views=3)", task=task, policy=policy.info, policy_engine=policy)
    same = own_views(task, policy, views=3)
    problem = problem_of(task)
    assert scores(made, said(task, problem, "5")) == scores(same, said(task, problem, "5"))
    with pytest.raises(SpecError, match="not at hand"):
        load_verifier("views", task=task, policy=policy.info)


def test_closing_it_leaves_the_policy_open() -> None:
    policy, task = engine(), ArcTask()

    async def close() -> None:
        await own_views(task, policy, views=2).aclose()

    run_virtual(close())
    assert scores(own_views(task, policy, views=2), said(task, problem_of(task), "5"))


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(SpecError, match=r"views needs a task that shows .* not words"):
        own_views(load_task("words"), engine())
    with pytest.raises(SpecError, match=r"views\(views=0\): expected at least 1"):
        own_views(ArcTask(), engine(), views=0)
    with pytest.raises(UnsupportedError, match="does not score given texts"):
        own_views(ArcTask(), SimulatedEngine(Echo()))
