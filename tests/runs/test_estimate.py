"""Laws of estimates: they count what a run will ask for, and what is shared once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import Steps, engine, small
from tests.tasks.arc.world import random_puzzle

from mull.cli.arc.solve import Given
from mull.engines.adapt import Parts
from mull.engines.simulated import run_virtual
from mull.runs import Records, estimate, prepare, run
from mull.runs.estimate import Estimate
from mull.strategies.base import Search, Start
from mull.strategies.vote import Vote
from mull.tasks.arc.task import ArcTask
from mull.types import Problem, Prompt, Usage


@dataclass(frozen=True)
class Teaching(Steps):
    """A task whose problems show something to learn from, or nothing."""

    teaches: bool = True

    def adaptation(self, problem: Any, count: int, seed: int = 0) -> list[Parts]:
        return [Parts(((problem.id, True),))] * self.teaches


def guess(*strategies: str, task: Steps | None = None) -> Estimate:
    config = small(strategies=list(strategies), samples=None, problems=3)
    return run_virtual(estimate(prepare(config, task=task or Steps()), engine(), 0))


@dataclass(frozen=True)
class Watched:
    """A vote that keeps what its searches began with."""

    begun: list[Start] = field(default_factory=list)

    def start(self, start: Start) -> Search:
        self.begun.append(start)
        return Vote(n=2).start(start)


def test_a_search_is_checked_and_counted_as_it_is_run(tmp_path: Path) -> None:
    watched = Watched()
    config = small(problems=1, samples=None, temperatures=[0.5], top_k=7, speculate=False)
    given: dict[str, Any] = {
        "task": Steps(),
        "strategies": dict.fromkeys(config.strategies, watched),
    }
    plan = prepare(config, **given)
    run_virtual(estimate(plan, engine(), 0))
    run(config, tmp_path, engine=engine(), virtual=True, **given)
    assert len(watched.begun) == 2 * 4, "checked, counted, checked, run"
    assert all(start == watched.begun[0] for start in watched.begun)


@pytest.mark.parametrize("teaches", [True, False])
def test_a_search_under_adapted_weights_is_counted_like_one_without(teaches: bool) -> None:
    task = Teaching(teaches=teaches)
    plain = guess("vote(n=4)", task=task)
    adapted = guess("ttft(then=vote, n=4, steps=2)", task=task)
    assert adapted.samples == plain.samples == 3 * 4
    assert adapted.generated_tokens == plain.generated_tokens
    assert (adapted.left_out, plain.left_out) == (("adaptation",), ())


def test_samples_of_other_weights_are_not_shared() -> None:
    two = ["ttft(then=vote, n=4, steps=2)", "ttft(then=vote, n=2, steps=3)"]
    assert guess("vote(n=8)", "vote(n=4)", *two, task=Teaching()).samples == 3 * (8 + 4 + 2)


def test_a_search_is_shared_by_those_who_ask_for_the_same_ranks() -> None:
    whole, same = "token-dfs(threshold=0.25)", "token-dfs(threshold=0.25, best_of=4)"
    assert guess(whole, same).samples == 3 * 4
    assert guess(whole, "token-dfs(threshold=0.25, best_of=2)").samples == 3 * (4 + 2)


def guess_arc(*strategies: str, samples: int | None = None) -> Estimate:
    """Of three puzzles, where views are shown."""
    puzzles = tuple(random_puzzle(seed) for seed in range(3))
    fields: dict[str, Any] = {"file": "puzzles.json", "problems": 3, "samples": samples}
    config = small(strategies=list(strategies), temperatures=[0.0], task="arc", **fields)
    return run_virtual(estimate(prepare(config, task=Given(puzzles=puzzles)), engine(), 0))


@pytest.mark.parametrize(
    ("strategy", "samples"),
    [
        ("airv(n=8)", 8),
        ("airv(n=16, per_view=2)", 16),
        ("airv(n=20, threshold=0.1)", 20),
        ("airv(n=64)", 64),
        ("airv(n=12, beam=3)", 12),
        ("airv(n=16, per_view=4, keep=likeliest)", 16),
        ("airv(n=8, rank=verify)", 8),
        ("ttft(n=8, steps=2)", 8),
    ],
)
def test_the_views_of_a_problem_share_its_samples(strategy: str, samples: int) -> None:
    found = guess_arc(strategy)
    assert found.samples == 3 * samples
    assert found.generated_tokens == 3 * samples * ArcTask().until.max_tokens


def test_a_window_of_views_stands_for_all_of_them() -> None:
    assert guess_arc("airv", samples=10).samples == 3 * 10


def test_views_are_shared_by_those_who_see_the_same() -> None:
    assert guess_arc("airv(n=8)", "airv(n=4)", "airv(n=8, rank=views)").samples == 3 * 8
    assert guess_arc("airv(n=8)", "airv(n=16, per_view=2)").samples == 3 * 16
    assert guess_arc("airv(n=8)", "airv(n=8, seed=1)").samples == 3 * (8 + 8)


@dataclass(frozen=True)
class Long(Steps):
    """Problems whose prompts are most of what a sample costs."""

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        for problem in super().problems(split, count, seed):
            yield replace(problem, prompt=Prompt.of("context " * 100 + problem.prompt.plain))


@pytest.mark.parametrize("measured", [16, 0])
def test_a_prompt_is_paid_once_a_problem_however_many_samples_follow(measured: int) -> None:
    config, price = small(strategies=["vote"]), (1.0, 0.1, 0.0)
    found = run_virtual(estimate(prepare(config, task=Long()), engine(price=price), measured))
    assert found.prompt_tokens > 12 * 100
    assert found.cost == pytest.approx(found.prompt_tokens / 1e6, rel=0.01)


def test_what_is_measured_tells_what_is_then_spent(tmp_path: Path) -> None:
    config, price = small(strategies=["vote"], samples=32), (1.0, 0.1, 2.0)
    found = run_virtual(estimate(prepare(config, task=Long()), engine(price=price)))
    run(config, tmp_path, engine=engine(price=price), task=Long(), virtual=True)
    with Records(tmp_path) as records:
        results = [result for cell in records.cells for result in records.results(cell)]
    spent = sum((result.total for result in results), Usage())
    assert found.prompt_tokens == pytest.approx(spent.prompt, rel=0.01)
    assert found.flops == pytest.approx(spent.flops, rel=0.2)
    assert found.cost == pytest.approx(spent.cost, rel=0.2)
