"""Reliability 31: the laws of metrics, votes and budgets, on anything hypothesis can think of.

``MULL_EXAMPLES`` sets the number of examples (200 by default; 10,000 for a night).
"""

from __future__ import annotations

import itertools
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import job, one

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine, StepModel
from mull.metrics import pass_at_k
from mull.selection import SELECTORS, group, majority, weighted
from mull.strategies.base import Ended
from mull.types import Candidate

EXAMPLES = int(os.environ.get("MULL_EXAMPLES", "200"))
LAW = settings(max_examples=EXAMPLES, deadline=None)
FEW = settings(max_examples=max(20, EXAMPLES // 5), deadline=None)
pytestmark = pytest.mark.timeout(max(30, EXAMPLES // 10))

ANSWERS = st.none() | st.sampled_from(["1", "2", "3", "1/2", "0.5"])
SCORES = st.floats(-5.0, 0.0)


def same(a: str, b: str) -> bool:
    return a == b or {a, b} == {"1/2", "0.5"}


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    rows = draw(st.lists(st.tuples(ANSWERS, SCORES), min_size=1, max_size=12))
    return [
        Candidate((i,), "", answer, scores={"mean_logprob": score})
        for i, (answer, score) in enumerate(rows)
    ]


@LAW
@given(n=st.integers(1, 60), data=st.data())
def test_pass_at_k_never_falls_with_k(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    curve = [pass_at_k(n, right, k) for k in range(1, n + 1)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(curve))
    assert curve[0] == pytest.approx(right / n)
    assert curve[-1] == (1.0 if right else 0.0)


@LAW
@given(given_=candidates(), seed=st.integers(0, 2**32))
def test_a_vote_does_not_depend_on_the_order(given_: list[Candidate], seed: int) -> None:
    shuffled = list(given_)
    random.Random(seed).shuffle(shuffled)
    a, b = majority(given_, same), majority(shuffled, same)
    assert (a.answer, a.confidence, a.n_answered) == (b.answer, b.confidence, b.n_answered)
    sizes = [len(members) for members in group(given_, same)]
    if sizes:
        assert a.ranking[0].votes == max(sizes)


@LAW
@given(given_=candidates(), weight=st.floats(0.1, 10.0))
def test_equal_weights_are_a_majority(given_: list[Candidate], weight: float) -> None:
    answers = [c for c in given_ if c.answer is not None]
    even = weighted(given_, lambda _: weight, same)
    plain = majority(given_, same)
    assert (even.answer, even.index) == (plain.answer, plain.index)
    assert even.confidence == pytest.approx(plain.confidence)
    assert plain.n_answered == len(answers)


def test_every_selection_is_under_the_laws_above_or_its_own() -> None:
    """A new one must not be forgotten."""
    assert set(SELECTORS) == {"majority", "weighted", "best", "borda", "filter-vote", "per-field"}


SPECS = ["vote", "vote(stop=beta)", "vote(stop=dirichlet, flight=2)", "best-of-n", "sample"]


@FEW
@given(
    spec=st.sampled_from(SPECS),
    samples=st.integers(1, 20),
    slots=st.integers(1, 8),
    success=st.floats(0.0, 1.0),
    fails=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_a_budget_of_n_samples_asks_for_at_most_n_and_ends(
    spec: str, samples: int, slots: int, success: float, fails: float, seed: int
) -> None:
    engine = SimulatedEngine(
        StepModel(),
        latency=Latency(token_ms=1),
        slots=slots,
        faults=Faults(rates={Fault.CONNECTION: fails}),
    )
    given_ = job(load_strategy(spec), Budget(samples=samples), success=success, seed=seed)
    solved = one(given_, engine)
    failed = [f for f in solved.result.failures if f.error != "Quorum"]
    came = len(solved.result.candidates) + len(failed)
    assert came == solved.samples == engine.stats.started <= samples
    assert solved.result.ended in (Ended.COMPLETE, Ended.CONFIDENT)
    assert (solved.result.ended is Ended.COMPLETE) == (came == samples) or "stop" in spec


@FEW
@given(
    spec=st.sampled_from(SPECS),
    limit=st.integers(1, 1500),
    flight=st.integers(1, 9),
    slots=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
def test_a_token_budget_is_overrun_by_what_was_in_flight_at_most(
    spec: str, limit: int, flight: int, slots: int, seed: int
) -> None:
    name, _, rest = spec.rstrip(")").partition("(")
    options = [part for part in rest.split(", ") if part and not part.startswith("flight")]
    strategy = load_strategy(f"{name}({', '.join([*options, f'flight={flight}'])})")
    engine = SimulatedEngine(StepModel(), latency=Latency(token_ms=1), slots=slots)
    solved = one(job(strategy, Budget(tokens=limit), success=0.4, seed=seed), engine)
    lengths = [c.tokens for c in solved.result.candidates]
    assert sum(lengths) == engine.stats.generated == solved.ledger.total.generated
    assert sum(lengths[:-flight]) < limit
    assert engine.stats.max_in_flight <= min(flight, slots)
    if solved.result.ended is Ended.BUDGET:
        assert sum(lengths) >= limit
    else:
        assert solved.result.ended is Ended.CONFIDENT
