"""Step labels: what each rule says of a solution, and that bisection finds what a walk finds."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.world import Steps

from mull.budget import Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.engines.simulated import Fault, Faults, SimulatedEngine, StepModel, simulated_problem
from mull.errors import EngineError, UsageError
from mull.labels.samples import Recorded, Sample
from mull.labels.steps import Kind, Labeller, branch_of, distinct, split
from mull.tasks.words import WordsTask
from mull.training.data import Labelled
from mull.types import Completion, Prompt, Request, StopReason

TASK = Steps()
ENGINE = SimulatedEngine(StepModel(closing="answer "))


def labels(
    kind: Kind, samples: list[Sample], rollouts: int = 12, engine: Engine = ENGINE
) -> list[Labelled]:
    rolled = kind in ("soft", "hard", "search")
    labeller = Labeller(kind, TASK, engine, rollouts) if rolled else Labeller(kind, TASK)
    return asyncio.run(labeller.label(samples))


def failing(share: float) -> SimulatedEngine:
    """The simulated policy, of which a share of the samples fails."""
    faults = Faults(rates={Fault.ENDPOINT: share})
    return SimulatedEngine(StepModel(closing="answer "), faults=faults)


def sampled(count: int, success: float = 0.6, number: int = 0) -> list[Sample]:
    """Samples of the simulated policy, graded."""
    problem = simulated_problem(f"p{number}", success, 4, 10)

    async def make() -> list[Completion]:
        meter = Meter(Ledger(), Purpose.POLICY, ENGINE.info)
        request = Request(problem.prompt, TASK.until, n=count, seed=3)
        items = [item async for item in ENGINE.generate(request, meter)]
        return [item for item in items if isinstance(item, Completion)]

    made = sorted(asyncio.run(make()), key=lambda c: c.index)
    out = []
    for c in made:
        answer = TASK.extract(problem, c.text).answer
        out.append(Sample(problem, c.index, c.text, c.token_ids, answer, answer == "10", c.stop))
    return out


@given(st.text(alphabet="ab\n", max_size=12))
def test_steps_join_to_the_text(text: str) -> None:
    steps = split(text)
    assert "".join(steps) == text
    assert all(step.count("\n") == 1 and step.endswith("\n") for step in steps[:-1])
    assert all(steps)


def test_soft_labels_are_shares_and_the_last_is_the_grade() -> None:
    for sample, labelled in zip(made := sampled(8), labels("soft", made), strict=True):
        assert len(labelled.labels) == len(split(sample.text))
        assert labelled.labels[-1] == float(sample.correct)
        assert all((12 * x).is_integer() for x in labelled.labels)
        assert labelled.ids == sample.ids


def test_hard_labels_say_whether_any_rollout_came_out_right() -> None:
    made = sampled(8)
    for soft, hard in zip(labels("soft", made), labels("hard", made), strict=True):
        assert hard.labels == tuple(float(x > 0) for x in soft.labels)


@pytest.mark.parametrize("kind", ["soft", "hard", "search"])
def test_what_no_rollout_came_back_of_has_no_label(kind: Kind) -> None:
    """A policy that fails now and then makes fewer labels, and never other ones."""
    made = sampled(40)
    whole = {e.solution: e.labels for e in labels(kind, made, 1)}
    torn = labels(kind, made, 1, failing(0.4))
    gaps = 0
    for sample, labelled in zip(made, torn, strict=True):
        known = whole[sample.text]
        assert labelled.labels[-1] == float(sample.correct is True)
        for ours, theirs in zip(labelled.labels, known, strict=True):
            gaps += math.isnan(ours)
            assert math.isnan(ours) or ours == theirs
    assert gaps
    with pytest.raises(EngineError, match=r"no rollout of \d+ prefixes came back"):
        labels(kind, made, 1, failing(1.0))


@pytest.mark.parametrize("kind", ["soft", "hard", "search", "outcome"])
def test_a_solution_without_a_grade_is_not_called_wrong(kind: Kind) -> None:
    made = [replace(sample, correct=None) for sample in sampled(8)]
    found = labels(kind, made)
    assert all(math.isnan(e.labels[-1]) for e in found)
    assert len(found) == (0 if kind in ("search", "outcome") else len(made))


def test_an_outcome_is_labelled_at_its_end_alone() -> None:
    for sample, labelled in zip(made := sampled(6), labels("outcome", made), strict=True):
        assert all(map(math.isnan, labelled.labels[:-1]))
        assert labelled.labels[-1] == float(sample.correct)


@pytest.mark.parametrize("success", [0.5, 0.8])
def test_bisection_finds_the_first_step_that_a_walk_finds(success: float) -> None:
    """Where values only fall along a solution, which they do for this policy: an error is final."""
    made = [s for n in range(5) for s in sampled(5, success, n)]
    walked, searched = labels("hard", made, 40), labels("search", made, 40)
    for sample, slow, fast in zip(made, walked, searched, strict=True):
        if sample.correct:
            assert set(fast.labels) == {1.0}
            continue
        first = slow.labels.index(0.0)
        assert fast.labels == tuple(float(at < first) for at in range(len(fast.labels)))


def test_bisection_costs_less_than_a_walk() -> None:
    made = distinct(sampled(30, 0.6))
    costs = {}
    for kind in ("hard", "search"):
        labeller = Labeller(kind, TASK, ENGINE, 12)  # type: ignore[arg-type]
        asyncio.run(labeller.label(made))
        costs[kind] = labeller.usage.generated
    assert costs["search"] < costs["hard"]


@pytest.mark.timeout(60)
def test_exact_labels_are_the_checkers(recorded: Recorded) -> None:
    task = WordsTask()
    samples = [s for group in recorded.problems() for s in group]
    labeller = Labeller("exact", task)
    for sample, labelled in zip(samples, asyncio.run(labeller.label(samples)), strict=True):
        wrong = task.first_error(sample.problem, sample.text)
        steps = len(split(sample.text))
        before = steps if wrong is None else wrong
        expected = [float(at < before) for at in range(steps)]
        if not sample.correct:
            expected[-1] = 0.0
        assert list(labelled.labels) == expected


def test_equal_texts_count_once_and_the_unanswered_not_at_all() -> None:
    made = sampled(40)
    kept = distinct(made)
    assert len({s.text for s in made if s.answer is not None}) == len(kept)
    assert all(s.answer is not None for s in kept)
    silent = Sample(made[0].problem, 99, "hm", None, None, False, StopReason.END)
    assert silent in distinct([silent], answered=False)
    assert silent not in distinct([silent])


def test_a_branch_of_a_sample_reads_as_the_sample() -> None:
    for sample in sampled(4):
        branch = branch_of(sample)
        assert branch.text == sample.text
        assert branch.finished
        assert branch.view == Prompt.of(sample.problem.prompt.plain)


def test_what_is_missing_for_a_rule_is_named() -> None:
    with pytest.raises(UsageError, match="process checker"):
        Labeller("exact", TASK)
    with pytest.raises(UsageError, match="needs the policy's engine"):
        Labeller("soft", TASK)
    with pytest.raises(UsageError, match="expected one of"):
        Labeller("fuzzy", TASK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("search", {"share": 0.5}, "share=0.5: labels=search takes all samples"),
        ("exact", {"share": 1.0}, "share=1: labels=exact takes all samples"),
        ("exact", {"rollouts": 4}, "rollouts=4: labels=exact makes none"),
        ("outcome", {"rollouts": 4}, "rollouts=4: labels=outcome makes none"),
        ("soft", {"share": 1.5}, r"share must lie in 0\.\.1"),
    ],
)
def test_what_says_nothing_to_a_rule_is_refused_by_name(
    kind: Kind, given: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Labeller(kind, WordsTask(), ENGINE, **given)  # type: ignore[arg-type]


def test_a_share_of_the_samples_is_rolled_and_the_others_keep_their_grade() -> None:
    made = sampled(60)
    labeller = Labeller("soft", TASK, ENGINE, 2, share=0.3)
    found = asyncio.run(labeller.label(made))
    bare = [e for e in found if len(e.labels) > 1 and all(map(math.isnan, e.labels[:-1]))]
    whole = [e for e in found if not any(map(math.isnan, e.labels))]
    long = [e for e in found if len(e.labels) > 1]
    assert 0.1 < (len(long) - len(bare)) / len(long) < 0.5
    assert whole
    assert [e.labels[-1] for e in found] == [float(s.correct) for s in made]
