"""Rollouts: a branch's value is the share of continuations that come out right, each paid once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.runs.world import Steps

from mull.engines.simulated import SimulatedEngine, StepModel, simulated_problem
from mull.errors import UsageError
from mull.labels.rollouts import Value, prefixes, values
from mull.types import Branch, Completion, Step, StopReason, Usage

TASK = Steps()
ENGINE = SimulatedEngine(StepModel(closing="answer "))


def roll(branches: list[Branch], **options: int) -> dict[tuple[int, ...], Value]:
    async def collect() -> list[Value]:
        return [value async for value in values(branches, ENGINE, TASK, **options)]

    return {value.branch.key: value for value in asyncio.run(collect())}


def root(success: float, number: int = 0) -> Branch:
    return Branch.root(simulated_problem(f"p{number}", success, 3, 10 + number))


def test_a_sure_policy_has_value_one_and_a_hopeless_one_zero() -> None:
    assert roll([root(1.0)], rollouts=8)[()].mean == 1.0
    assert roll([root(0.0)], rollouts=8)[()].mean == 0.0


def test_the_value_is_that_of_the_policy() -> None:
    """Three steps, each right with probability .7: .343, within three standard errors."""
    found = roll([root(0.7)], rollouts=600)[()]
    assert found.n == 600
    assert abs(found.mean - 0.7**3) < 3 * (0.343 * 0.657 / 600) ** 0.5
    assert found.usage.generated > 600


def test_a_finished_branch_needs_no_rollout() -> None:
    made = Completion(0, "answer 10", StopReason.END, Usage())
    right = root(0.5).child(made)
    wrong = root(0.5).child(replace(made, index=1, text="answer 11"))
    found = roll([right, wrong], rollouts=5)
    assert [(v.right, v.n, v.usage.tokens) for v in found.values()] == [(1, 1, 0), (0, 1, 0)]


def test_the_same_branch_has_the_same_rollouts_in_any_company() -> None:
    branches = [root(0.6, number) for number in range(6)]
    named = [replace(b, key=(at,)) for at, b in enumerate(branches)]
    together = roll(named, rollouts=9)
    for branch in named:
        assert roll([branch], rollouts=9)[branch.key].right == together[branch.key].right


def test_prefixes_grow_step_by_step_and_are_told_apart() -> None:
    steps = tuple(Step(f"{n}\n", StopReason.STEP) for n in range(3))
    found = list(prefixes(replace(root(0.5), key=(4,), steps=steps)))
    assert [b.text for b in found] == ["0\n", "0\n1\n", "0\n1\n2\n"]
    assert [b.key for b in found] == [(4, 1), (4, 2), (4, 3)]


def test_no_rollouts_are_refused() -> None:
    with pytest.raises(UsageError, match="rollouts must be at least 1"):
        roll([root(0.5)], rollouts=0)


def test_a_rollout_is_as_long_as_the_prefix_leaves_of_a_sample() -> None:
    """No rollout reaches an answer that no sample of the policy could."""
    limit = TASK.until.max_tokens
    for tokens in (0, limit - 7, limit, limit + 5):
        step = Step("one step\n", StopReason.STEP, tokens=tokens)
        branch = replace(root(0.9), steps=(step,))
        found = roll([branch], rollouts=3)[()]
        assert found.usage.generated <= 3 * max(1, limit - tokens)
        if tokens:
            assert found.usage.generated >= 3
