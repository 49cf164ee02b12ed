"""Scores that cannot be used are failures; a selection by score falls back to the majority."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.whole import Scorer, constant, solve

from mull.budget import Budget
from mull.selection import Best, Weighted, best, majority, weighted
from mull.strategies.base import Failure
from mull.strategies.scored import ByScore, FirstBest, score_of
from mull.strategies.weighted_vote import WeightedVote
from mull.types import Candidate

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
