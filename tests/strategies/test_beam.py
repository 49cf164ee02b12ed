"""Step beam search and lookahead: what they keep, and what finished paths do to the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import job, one, rows, tokens
from tests.strategies.curves import misses

from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.engines.simulated.content import Piece
from mull.errors import BudgetError
from mull.strategies.base import Strategy
from mull.strategies.beam import Beam, BeamRule, Finished, Lookahead, beam_size
from mull.strategies.drive import Solved
from mull.strategies.levels_rule import Entry, Level
from mull.trees import Fate
from mull.types import Request
from mull.verifiers.simulated import SimulatedVerifier

PAID = (
    Purpose.POLICY,
    Purpose.LOOKAHEAD,
    Purpose.VERIFIER,
    Purpose.SPECULATIVE,
    Purpose.CANCELLED,
)
ENTRIES = st.lists(
    st.builds(Entry, st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), max_size=12
)


def solve(strategy: Strategy, samples: int | None = None, number: int = 0) -> Solved:
    budget = None if samples is None else Budget(samples=samples)
    given = job(strategy, budget, number, success=0.8, steps=5)
    return one(given, SimulatedEngine(StepModel()), verifiers={"prm": SimulatedVerifier()})


@settings(max_examples=10, deadline=None)
@given(
    keep=st.integers(1, 4),
    branch=st.integers(1, 4),
    finished=st.sampled_from(["compete", "bank", "reserve"]),
    number=st.integers(0, 50),
)
def test_lookahead_zero_is_the_beam(
    keep: int, branch: int, finished: Finished, number: int
) -> None:
    beam = solve(Beam(keep, branch, finished=finished), number=number)
    ahead = solve(Lookahead(keep, branch, 0, finished=finished), number=number)
    assert beam.result == ahead.result
    assert list(beam.ledger.rows()) == list(ahead.ledger.rows())


@given(
    entries=ENTRIES,
    n=st.integers(1, 12),
    branch=st.integers(1, 5),
    finished=st.sampled_from(["compete", "bank", "reserve"]),
)
def test_the_best_get_their_children_first(
    entries: list[Entry], n: int, branch: int, finished: Finished
) -> None:
    level = Level(1, tuple(entries))
    shares = BeamRule(n, branch, finished).allocate(level)
    rule = BeamRule(n, branch, finished)
    given_away = [a + b for a, b in zip(shares.children, shares.votes, strict=True)]
    if finished == "bank":
        assert shares.votes == tuple(int(entry.finished) for entry in entries)
        alive = [i for i, entry in enumerate(entries) if not entry.finished]
        assert sum(shares.children) == (n if alive else 0)
        given_away = [shares.children[i] for i in alive]
        entries = [entries[i] for i in alive]
    else:
        assert sum(given_away) == min(n, branch * len(entries))
        assert max(given_away, default=0) <= branch
    for i, own in enumerate(entries):
        for j, other in enumerate(entries):
            if (own.score, -i) > (other.score, -j):
                assert given_away[i] >= given_away[j]
    if n % branch == 0:
        assert all(count % rule.unit == 0 for count in shares.children)


def test_what_finished_paths_do() -> None:
    """The best path has ended: it keeps its place, leaves it to the others, or takes it along."""
    level = Level(3, (Entry(0.9, finished=True), Entry(0.5), Entry(0.4), Entry(0.1)))
    compete = BeamRule(4, 2, "compete").allocate(level)
    assert (compete.children, compete.votes) == ((2, 2, 0, 0), (0, 0, 0, 0))
    bank = BeamRule(4, 2, "bank").allocate(level)
    assert (bank.children, bank.votes) == ((0, 2, 2, 0), (1, 0, 0, 0))
    reserve = BeamRule(4, 2, "reserve").allocate(level)
    assert (reserve.children, reserve.votes) == ((0, 2, 0, 0), (2, 0, 0, 0))
    later = Level(4, (Entry(0.3), Entry(0.6)), banked=2)
    assert BeamRule(4, 2, "reserve").allocate(later).children == (0, 2)


def test_a_bank_refills_the_beam_from_the_best() -> None:
    level = Level(2, (Entry(0.2), Entry(0.7), Entry(0.1, finished=True)))
    assert BeamRule(8, 2, "bank").allocate(level).children == (4, 4, 0)


def test_a_beam_that_reserves_ends_with_as_many_votes_as_paths() -> None:
    for number in range(10):
        result = solve(Beam(4, 4), number=number).result
        assert len(result.candidates) <= 16
        (selection,) = result.parts
        assert selection.answer is not None
        level = [node for node in result.tree if len(node.key) == 1]
        assert sum(node.visits for node in level) == 16
        kept = [node for node in level if node.fate is Fate.KEPT]
        others = [node for node in level if node.fate is Fate.PRUNED]
        worst = min(node.score or 0 for node in kept)
        assert worst >= max(node.score or 0 for node in others)
        assert sum(node.visits for node in kept) >= 4


def test_lookahead_pays_for_its_rollouts_apart() -> None:
    """16 samples buy 8 paths with one step of lookahead, and both are on the ledger."""
    for k, n in ((0, 16), (1, 8), (3, 4)):
        solved = solve(load_strategy(f"lookahead(k={k})"), 16)
        assert sum(node.visits for node in solved.result.tree if len(node.key) == 1) == n
        assert solved.samples == 16
        ahead = solved.ledger.of(Purpose.LOOKAHEAD)
        assert bool(ahead.generated) == (k > 0)
        assert tokens(solved.ledger.total) == tokens(solved.ledger.of(*PAID))


@dataclass(frozen=True)
class Distinct:
    """Four steps and an answer, of which no two paths have one in common."""

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        for depth in range(request.assistant.count("\n"), 4):
            yield f"step {depth} of {request.seed} {index}\n", None
        yield f"answer {index}", None


@pytest.mark.parametrize("limit", [30, 60, 120])
def test_where_no_texts_are_equal_merging_changes_nothing_that_is_spent(limit: int) -> None:
    """So without it, too, no rollout is asked for once the budget is spent."""
    results, bills = [], []
    for merge in (True, False):
        strategy = Lookahead(keep=4, branch=4, k=2, merge=merge)
        engine, prm = SimulatedEngine(Distinct(), slots=2), {"prm": SimulatedVerifier()}
        solved = one(job(strategy, Budget(tokens=limit)), engine, verifiers=prm)
        results.append(solved.result)
        bills.append({p: rows(solved)[p, m] for p, m in rows(solved) if p in PAID[:3]})
    assert results[0] == results[1]
    assert bills[0] == bills[1]
    assert "BudgetError" in {failure.error for failure in results[0].failures}


@pytest.mark.parametrize(
    ("keep", "branch", "samples", "size"),
    [
        (None, None, None, (16, 4)),
        (None, None, 64, (64, 4)),
        (None, None, 2, (2, 2)),
        (None, None, 11, (11, 4)),
        (None, 8, 16, (16, 8)),
        (None, 8, None, (32, 8)),
        (3, None, None, (12, 4)),
        (3, None, 12, (12, 4)),
        (3, 5, None, (15, 5)),
    ],
)
def test_the_size_of_a_beam(
    keep: int | None, branch: int | None, samples: int | None, size: tuple[int, int]
) -> None:
    assert beam_size("beam", keep, branch, samples) == size


def test_a_beam_that_does_not_divide_its_budget_uses_all_of_it() -> None:
    solved = solve(Beam(), 11)
    depths = {len(node.key) for node in solved.result.tree}
    for depth in depths:
        level = [node for node in solved.result.tree if len(node.key) == depth]
        assert sum(node.visits for node in level) <= 11
    assert solved.samples == 11
    with pytest.raises(BudgetError, match=r"beam\(keep=9\) contradicts the budget of 8"):
        beam_size("beam", 9, None, 8)
    with pytest.raises(BudgetError, match=r"keep=3"):
        solve(Beam(3), 11)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("spec", "model", "published"),
    [
        ("beam(branch=4)", {}, {4: 0.76, 16: 0.88, 64: 0.98}),
        ("beam(branch=4)", {"deceptive": 0.02}, {4: 0.74, 16: 0.73, 64: 0.53}),
        ("beam(branch=4, finished=compete)", {"exploit": 0.002}, {4: 0.73, 16: 0.72, 64: 0.48}),
        ("beam(branch=4, finished=bank)", {"exploit": 0.002}, {4: 0.77, 16: 0.87, 64: 0.97}),
        ("beam(branch=4, finished=reserve)", {"exploit": 0.002}, {4: 0.73, 16: 0.88, 64: 0.97}),
        ("lookahead(branch=2, k=1)", {}, {4: 0.61}),
        ("lookahead(branch=4, k=1)", {}, {16: 0.86, 64: 0.95}),
        # A quarter of the paths, sqrt of them a step.
        ("lookahead(branch=1, k=3)", {}, {4: 0.32}),
        ("lookahead(branch=2, k=3)", {}, {16: 0.75}),
        ("lookahead(branch=4, k=3)", {}, {64: 0.92}),
    ],
)
def test_the_simulated_curves(
    spec: str, model: dict[str, float], published: dict[int, float]
) -> None:
    """Beam search gains with n, loses to errors that the verifier cannot see, and a path that ends
    early with a high score ruins it only where such paths crowd out the others."""
    assert max(misses(spec, published, **model).values()) < 3.5
