"""Scores that cannot be used are failures; a selection by score falls back to the majority."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.whole import Scorer, committed, constant, solve

from mull.budget import Budget, Meter
from mull.catalog import load_strategy
from mull.selection import Best, Weighted, best, majority, weighted
from mull.strategies.base import Failure
from mull.strategies.scored import ByScore, FirstBest, score_of
from mull.strategies.weighted_vote import WeightedVote
from mull.types import Branch, Candidate

ANSWERS = st.sampled_from(["1", "2", "3", None])
SCORES = st.none() | st.sampled_from([0.0, 0.2, 0.5, 1.0, math.nan, math.inf])
POOLS = st.lists(st.tuples(ANSWERS, SCORES), max_size=8).map(
    lambda pairs: [
        Candidate((i,), "", a, scores={} if s is None else {"prm": s})
        for i, (a, s) in enumerate(pairs)
    ]
)


@given(pool=POOLS)
def test_by_score_is_the_selection_or_the_majority(pool: list[Candidate]) -> None:
    scored = any(c.answer and math.isfinite(c.scores.get("prm", math.nan)) for c in pool)
    for select, plain in ((Weighted("prm"), weighted), (Best("prm"), best)):
        expected = plain(pool, "prm") if scored else majority(pool)
        assert ByScore("prm", select)(pool) == expected


@given(pool=POOLS)
def test_of_equal_scores_the_first_wins(pool: list[Candidate]) -> None:
    known = [
        c for c in pool if c.answer is not None and math.isfinite(c.scores.get("prm", math.nan))
    ]
    if known:
        top = max(c.scores["prm"] for c in known)
        first = next(c for c in known if c.scores["prm"] == top)
        chosen = FirstBest("prm")(pool)
        assert chosen.index == pool.index(first)
        assert chosen.answer == first.answer
        assert chosen.ranking[0].weight == top == best(pool, "prm").ranking[0].weight
        assert FirstBest("prm")(pool[::-1]).answer == first.answer


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_score(score: float) -> None:
    for transform in (None, "identity", "exp", "sigmoid"):
        got = score_of("prm", (score,), transform)
        assert isinstance(got, Failure)
        assert got.error == "ScoreError"


def test_scores_and_weights() -> None:
    away = Failure("DeadlineError", "")
    assert score_of("prm", away) is away
    assert score_of("prm", (-2.0,)) == -2.0
    assert score_of("prm", (-2.0,), "exp") == -2.0
    assert isinstance(score_of("prm", (-2.0,), "identity"), Failure)
    assert isinstance(score_of("prm", (1e9,), "exp"), Failure)
    assert score_of("prm", (0.0,), "identity") == 0.0


def test_a_score_is_asked_for_as_its_sample_takes_effect() -> None:
    """Verification overlaps generation: the verifier is not kept for the end."""
    strategy = WeightedVote(flight=2)
    scorer = Scorer(constant)
    seen: list[int] = []

    class Noting(Scorer):
        async def score(self, branches, meter):  # type: ignore[no-untyped-def]
            seen.append(len(branches))
            return await scorer.score(branches, meter)

    solve(strategy, Budget(tokens=1500), verifiers={"prm": Noting(constant)}, schedule=1)
    assert len(seen) > 4
    assert max(seen) <= 2


class Generating(Scorer):
    """Writes 500 tokens about each branch before it gives its score."""

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        for index in range(len(branches)):
            meter.charge(index, generated=500)
        return await super().score(branches, meter)


@pytest.mark.parametrize(
    ("spec", "flight"),
    [
        ("best-of-n(verifier=prm)", 8),
        ("weighted-vote(flight=3)", 3),
        ("speculative-rejection", 16),
        ("mcts", 8),
        ("ab-mcts(flight=2)", 2),
        ("revise", 2),
    ],
)
@pytest.mark.parametrize("tokens", [100, 500])
def test_a_verifier_that_generates_is_asked_nothing_once_the_budget_is_spent(
    spec: str, flight: int, tokens: int
) -> None:
    """Its first score tells that it does; until that took effect, what is in flight is asked."""
    found = []
    for schedule in (None, 1, 2):
        dear = Generating(constant)
        verifiers, budget = {"prm": dear, "orm": dear}, Budget(tokens=tokens)
        solved = solve(load_strategy(spec), budget, verifiers=verifiers, schedule=schedule)
        assert len(dear.seen) <= flight
        assert {failure.error for failure in solved.result.failures} <= {"BudgetError"}
        assert solved.result.answer is not None
        found.append((solved.result, committed(solved)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("spec", ["best-of-n(verifier=prm)", "revise(chains=2)", "ab-mcts"])
def test_a_score_that_generates_nothing_is_given_whatever_was_spent(spec: str) -> None:
    free = Scorer(constant)
    verifiers = {"prm": free, "orm": free}
    solved = solve(load_strategy(spec), Budget(tokens=100), verifiers=verifiers)
    assert not solved.result.failures
    assert all({"prm", "orm"} & c.scores.keys() for c in solved.result.candidates)
