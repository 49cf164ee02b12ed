"""Reliability 12: verifiers that give no score, engines that fail, steps that do not end.

Every strategy that asks a verifier, under each of them: the search ends, what did not come is a
typed failure in the result, and the answer rests on what did come.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from tests.strategies.common import TASK, idle, job, one
from tests.strategies.whole import HONEST, Scorer, broken, constant, nan

from mull.budget import Budget, Meter
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, SimulatedEngine, StepModel
from mull.engines.simulated.content import Piece
from mull.grades import Unanswered
from mull.selection import majority
from mull.strategies.drive import Solved
from mull.strategies.needs import needs_of
from mull.types import Branch, Request, StopReason

TREES = (
    "beam",
    "beam(finished=bank)",
    "lookahead",
    "dvts",
    "rebase",
    "particles",
    "mcts",
    "mcts(rollout=true)",
    "tot(verifier=prm)",
)
WHOLE = (
    "best-of-n(verifier=prm)",
    "weighted-vote",
    "speculative-rejection",
    "revise",
    "mixed",
    "ab-mcts",
)
SPECS = (*TREES, *WHOLE)
N = 8


def solve(
    spec: str,
    score: Callable[[Branch], float] = constant,
    faults: Faults | None = None,
    policy: SimulatedEngine | None = None,
    number: int = 0,
    verifier: Scorer | None = None,
) -> Solved:
    """One simulated problem, every engine and verifier that the strategy names given."""
    strategy = load_strategy(spec)
    needs = needs_of(strategy)
    given = policy or SimulatedEngine(StepModel(), faults=faults, slots=5)
    engines = {**dict.fromkeys(needs.engines, given), "policy": given}
    if "judge" in engines:
        engines["judge"] = SimulatedEngine(HONEST)
    scorer = verifier or Scorer(score)
    asked = job(strategy, Budget(samples=N), number, success=0.8)
    solved = one(asked, engines, verifiers=dict.fromkeys(needs.verifiers, scorer))
    assert idle(given)
    return solved


def types(solved: Solved) -> set[str]:
    return {failure.error for failure in solved.result.failures}


def right_now(solved: Solved) -> str | None:
    """What a plain majority of the candidates answers."""
    return majority(solved.result.candidates, lambda a, b: a == b).answer


@pytest.mark.parametrize("score", [nan, broken, lambda branch: math.inf])
@pytest.mark.parametrize("spec", SPECS)
def test_without_any_score_the_majority_answers_and_the_failures_stand(
    spec: str, score: Callable[[Branch], float]
) -> None:
    for number in range(4):
        solved = solve(spec, score, number=number)
        scores = [c.scores.get(name) for c in solved.result.candidates for name in ("prm", "orm")]
        assert scores == [None] * len(scores)
        assert types(solved) == {"ScoreError"}
        voted = right_now(solved)
        if spec in WHOLE and spec != "speculative-rejection":
            assert solved.result.answer == voted
        assert (solved.result.answer is None) == (voted is None)


@pytest.mark.parametrize("spec", SPECS)
def test_an_answer_rests_on_the_scores_that_came(spec: str) -> None:
    def half(branch: Branch) -> float:
        draw = random.Random(branch.text).random()
        return math.nan if draw < 0.5 else draw

    for number in range(6):
        result = solve(spec, half, number=number).result
        named = [
            c for c in result.candidates if c.answer is not None and {"prm", "orm"} & {*c.scores}
        ]
        assert all(math.isfinite(value) for c in named for value in c.scores.values())
        if named:
            assert result.answer in {c.answer for c in named}


RANKS = {"tot(verifier=prm)", "best-of-n(verifier=prm)", "speculative-rejection"}
"""Strategies that only rank by their verifier's scores as they stand here."""
SHARES = {"particles", "mcts", "mcts(rollout=true)", "ab-mcts"}
"""Strategies that count with scores in 0..1, whatever chooses in the end."""


@pytest.mark.parametrize("score", [-2.0, 3.0])
@pytest.mark.parametrize("spec", SPECS)
def test_a_score_out_of_range_is_a_failure_where_it_cannot_be_counted_with(
    spec: str, score: float
) -> None:
    """Below 0 no vote can be weighed, beyond 0..1 no tree counted; any number can be ranked."""
    usable = spec in RANKS or (score > 0 and spec not in SHARES)
    for number in range(3):
        result = solve(spec, lambda branch: score, number=number).result
        named = [(c.scores, name) for c in result.candidates for name in ("prm", "orm")]
        scores = {given[name] for given, name in named if name in given}
        assert scores == ({score} if usable else set())
        assert {failure.error for failure in result.failures} == (
            set() if usable else {"ScoreError"}
        )
        assert (result.answer is None) == all(c.answer is None for c in result.candidates)


@pytest.mark.parametrize("spec", ["beam", "lookahead", "dvts", "rebase"])
@pytest.mark.parametrize("select", ["best", "majority"])
def test_a_search_that_only_ranks_takes_any_number(spec: str, select: str) -> None:
    """Moved by any constant, the same scores make the same search."""
    moved = []
    for by in (0.0, -7.0):
        found = solve(f"{spec}(select={select})", lambda b, by=by: luck(b) + by).result
        assert not found.failures
        moved.append((found.answer, [(node.key, node.fate) for node in found.tree]))
    assert moved[0] == moved[1]


def luck(branch: Branch) -> float:
    """Any score in 0..1, in steps that binary fractions have exactly."""
    return random.Random(branch.text).randrange(1024) / 1024


class Short(Scorer):
    """Gives one score too few."""

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        return (await super().score(branches, meter))[:-1]


@pytest.mark.parametrize("spec", SPECS)
def test_a_wrong_number_of_scores_is_never_matched_up(spec: str) -> None:
    solved = solve(spec, verifier=Short(constant))
    assert types(solved) == {"ScoreError"}
    assert not any({"prm", "orm"} & {*c.scores} for c in solved.result.candidates)
    said = {failure.message for failure in solved.result.failures}
    assert all("scores for" in message for message in said)


@pytest.mark.parametrize("failed", [1, 4, N])
@pytest.mark.parametrize("spec", SPECS)
def test_k_of_n_fail_under_every_strategy(spec: str, failed: int) -> None:
    """The first ``failed`` children of every branch are lost."""
    chosen = dict.fromkeys(range(failed), Fault.CONNECTION)
    solved = solve(spec, faults=Faults(chosen=chosen))
    assert "EngineConnectionError" in types(solved)
    assert types(solved) <= {"EngineConnectionError", "ScoreError", "BudgetError", "Quorum"}
    answers = {c.answer for c in solved.result.candidates}
    assert solved.result.answer in {None, *answers}
    if failed == N:
        assert solved.result.answer is None
        assert solved.result.confidence == 0.0


@dataclass(frozen=True)
class Endless:
    """A model whose step never ends: no separator, no answer, no end of the turn."""

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        while True:
            yield "and then ", None


@pytest.mark.parametrize("spec", SPECS)
def test_a_step_that_never_ends_is_cut_and_said_to_be(spec: str) -> None:
    result = solve(spec, policy=SimulatedEngine(Endless(), slots=5)).result
    assert result.answer is None
    assert result.confidence == 0.0
    assert result.candidates
    for candidate in result.candidates:
        assert candidate.unanswered is Unanswered.TRUNCATED
        assert candidate.stop is StopReason.LENGTH
        assert candidate.tokens <= TASK.until.max_tokens
