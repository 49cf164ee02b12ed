"""The final choice of searches over steps; and the plain vote, which is the task's everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import TASK, one, problem
from tests.strategies.whole import SILENT, Scorer, nan

from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine
from mull.engines.simulated.content import Piece
from mull.selection import NOTHING, majority
from mull.strategies.base import Failure, Start
from mull.strategies.choice import SELECTS, Select, choose, path_score
from mull.strategies.drive import Job
from mull.strategies.needs import needs_of
from mull.tasks.json_object import JsonObject
from mull.types import Candidate, Request

POOLS = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", None]),
        st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        st.integers(1, 3),
    ),
    max_size=7,
)


def pool_of(rows: list[tuple[str | None, float | None, int]]) -> list[Candidate]:
    return [
        Candidate((i,), "", answer, scores={} if score is None else {"prm": score})
        for i, (answer, score, _) in enumerate(rows)
    ]


@pytest.mark.parametrize("select", SELECTS)
@given(rows=POOLS)
def test_a_path_that_stands_for_k_chooses_like_k_paths(
    select: Select, rows: list[tuple[str | None, float | None, int]]
) -> None:
    """So merging equal paths changes no answer."""
    start = Start(problem(), TASK)
    merged = pool_of(rows)
    votes = {(i,): times for i, (_, _, times) in enumerate(rows)}
    apart = [
        Candidate((i, copy), "", c.answer, scores=c.scores)
        for i, c in enumerate(merged)
        for copy in range(votes[i,])
    ]
    few = choose(select, "prm", merged, votes, start)
    many = choose(select, "prm", apart, dict.fromkeys((c.key for c in apart), 1), start)
    assert (few.answer, few.confidence) == (many.answer, many.confidence)
    assert [g.weight for g in few.ranking] == [g.weight for g in many.ranking]
    assert few.left_out == sum(c.answer is not None for c in merged) - len(
        {i for group in few.ranking for i in group.members}
    )
    assert few.n_answered == sum(c.answer is not None for c in merged)
    for group in few.ranking:
        assert len(set(group.members)) == len(group.members)
        assert {merged[i].answer for i in group.members} == {group.answer}


@given(rows=POOLS)
def test_without_scores_every_selection_is_the_plain_vote(
    rows: list[tuple[str | None, float | None, int]],
) -> None:
    plain = pool_of([(answer, None, 1) for answer, _, _ in rows])
    votes = {c.key: 1 for c in plain}
    expected = majority(plain) if plain else NOTHING
    for select in SELECTS:
        assert choose(select, "prm", plain, votes, Start(problem(), TASK)) == expected


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("select", SELECTS)
@given(score=st.floats())
def test_a_score_is_taken_as_it_is_or_not_at_all(
    select: Select, bounded: bool, score: float
) -> None:
    read = path_score("prm", (score,), select, bounded)
    if isinstance(read, Failure):
        assert read.error == "ScoreError"
        assert not math.isfinite(score) or bounded or select == "weighted"
    else:
        assert read == score
        assert not bounded or 0 <= score <= 1
        assert select != "weighted" or score >= 0
    if 0 <= score <= 1:
        assert read == score


OBJECTS = ('{"a": 1, "b": 1, "c": 2}', '{"a": 1, "b": 2, "c": 1}', '{"a": 2, "b": 1, "c": 1}')
COMPOSED = '{"a":1,"b":1,"c":1}'


@dataclass(frozen=True)
class Objects:
    """Says another object each time; none of them is what most of them say of each field."""

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        # Samples of one root differ by index; a chain of attempts by how many it has seen.
        yield OBJECTS[(index + len(request.prompt.messages) // 2) % 3], None


VOTES = (
    "vote(n=3)",
    "filter-vote(n=3)",
    "synthesis(n=3, judge=judge)",
    "budget-forcing(n=3, min_tokens=1)",
    "confident-vote(n=3)",
    "weighted-vote(n=3)",
    "best-of-n(n=3, verifier=prm)",
    "speculative-rejection(n=3, chunk=99)",
    "revise(n=3, chains=3)",
    "revise(n=3, chains=3, select=majority)",
    "mixed(n=3, ratio=0.34, select=majority)",
    "self-refine(n=3, judge=judge, history=3)",
    "beam(keep=1, branch=3, finished=bank, select=majority)",
    "dvts(trees=3, branch=1)",
    "rebase(n=3)",
    "particles(n=3)",
    "tot(keep=1, branch=3, finished=bank)",
    "mcts(n=3)",
    "ab-mcts(n=3, depth=1)",
)


@pytest.mark.parametrize("spec", VOTES)
def test_where_no_score_decides_objects_are_voted_field_by_field(spec: str) -> None:
    """No verifier, no judge says anything: under every strategy the vote is the json task's own."""
    strategy, task = load_strategy(spec), JsonObject()
    start = Start(task.problem("Which object?"), task)
    engines = {name: SimulatedEngine(Objects(), model=name) for name in ("policy", "reviser")}
    engines["judge"] = SimulatedEngine(SILENT, model="judge")
    verifiers = dict.fromkeys(needs_of(strategy).verifiers, Scorer(nan))
    result = one(Job(strategy, start), engines, verifiers=verifiers).result
    assert len(result.candidates) >= 3
    if spec.startswith("confident-vote"):  # its own score is always there
        assert result.answer in {c.answer for c in result.candidates}
    else:
        assert result.answer == COMPOSED
        assert result.parts[0].fields == dict.fromkeys(("/a", "/b", "/c"), 2 / 3)
