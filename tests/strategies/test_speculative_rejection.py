"""A race: after each chunk the worst leave; what is left is best-of-n for less."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.strategies.common import TASK, job, one, problem
from tests.strategies.test_self_refine import Noting
from tests.strategies.whole import Scorer, answers, broken, engines_of, luck, solve, verifiers_of

from mull.budget import Budget
from mull.engines.simulated import Fault, Faults, Script, SimulatedEngine
from mull.errors import SpecError
from mull.strategies.base import Ended, Start
from mull.strategies.best_of_n import BestOfN
from mull.strategies.chains import chunk_of
from mull.strategies.drive import Job
from mull.strategies.speculative_rejection import SpeculativeRejection
from mull.trees import Fate
from mull.types import Branch, StopReason, Until

LETTERS = "abcdefghijklmnop"


def texts(length: int) -> list[str]:
    """Sixteen solutions that their first letter tells apart; ``length`` tokens with the end."""
    return [
        f"{letter}{'.' * (length - len(f'{letter}answer {number}') - 1)}answer {number}"
        for number, letter in enumerate(LETTERS, 10)
    ]


def by_letter(branch: Branch) -> float:
    """The later the letter, the better."""
    return (1 + LETTERS.index(branch.text[0])) / 20


def test_the_field_halves_with_every_chunk() -> None:
    engine = Noting(Script(texts(100)))
    strategy = SpeculativeRejection(n=16, chunk=20)
    solved = one(job(strategy), engine, verifiers={"prm": Scorer(by_letter)})
    asked = [(len(r.assistant), r.n, r.until.tokens) for r in engine.asked]
    assert asked[0] == (0, 16, 20)
    assert [asked.count((20 * depth, 1, 20)) for depth in (1, 2, 3)] == [8, 4, 2]
    assert asked[-1] == (80, 1, None)
    assert len(asked) == 16
    assert solved.result.answer == answers(texts(100)[-1])[0]
    assert solved.ledger.total.generated == 20 * (16 + 8 + 4 + 2 + 1)
    assert solved.samples == 16
    assert solved.result.ended is Ended.COMPLETE
    levels = [[n for n in solved.result.tree if len(n.key) == depth] for depth in range(1, 6)]
    dropped = [sum(node.fate is Fate.PRUNED for node in level) for level in levels]
    assert [len(level) for level in levels] == [16, 8, 4, 2, 1]
    assert dropped == [8, 4, 2, 1, 0]


@pytest.mark.parametrize("chunk", [1, 7, 64, 500])
def test_without_rejection_it_is_best_of_n(chunk: int) -> None:
    for score in (by_letter, luck_of):
        engine = SimulatedEngine(Script(texts(60)))
        verifiers = {"prm": Scorer(score)}
        whole = one(job(BestOfN(n=16, verifier="prm")), engine, verifiers=verifiers).result
        strategy = SpeculativeRejection(n=16, alpha=0.0, chunk=chunk)
        chunked = one(job(strategy), engine, verifiers=verifiers).result
        assert chunked.answer == whole.answer
        assert [c.text for c in chunked.candidates] == [c.text for c in whole.candidates]


def luck_of(branch: Branch) -> float:
    return hash_of(branch.text) if branch.finished else 0.5


def hash_of(text: str) -> float:
    return (sum(map(ord, text)) * 7919 % 101) / 101


def test_what_has_ended_competes_with_what_is_written() -> None:
    """A short solution with the best score ends the race; with the worst it only leaves it."""
    short, long = "zanswer 7", texts(100)
    for value, made, answer in ((0.99, 1, "7"), (0.01, 2, answers(long[15])[0])):
        engine = SimulatedEngine(Script([*long[13:], short]))
        scores = Scorer(lambda b, value=value: value if b.text[0] == "z" else by_letter(b))  # type: ignore[misc]
        strategy = SpeculativeRejection(n=4, chunk=20, alpha=0.75)
        result = one(job(strategy), engine, verifiers={"prm": scores}).result
        assert result.answer == answer
        assert len(result.candidates) == made


def test_what_has_no_score_leaves_first() -> None:
    def only(branch: Branch) -> float:
        return 0.1 if branch.text[0] == "p" else math.nan

    engine = SimulatedEngine(Script(texts(100)))
    strategy = SpeculativeRejection(n=16, chunk=30)
    result = one(job(strategy), engine, verifiers={"prm": Scorer(only)}).result
    assert result.answer == answers(texts(100)[-1])[0]
    assert {f.error for f in result.failures} == {"ScoreError"}


@pytest.mark.parametrize("score", [broken, luck])
def test_it_ends_with_an_answer_whatever_the_verifier_does(score: object) -> None:
    strategy = SpeculativeRejection(n=8, chunk=20)
    assert solve(strategy, verifiers=verifiers_of(score)).result.answer is not None  # type: ignore[arg-type]


def test_a_chunk_that_fails_loses_its_solution_alone() -> None:
    engines = engines_of()
    faults = Faults(rates={Fault.CONNECTION: 0.1})
    engines["policy"] = SimulatedEngine(Script(texts(100)), faults=faults)
    scores = {"prm": Scorer(by_letter)}
    result = solve(
        SpeculativeRejection(n=16, chunk=40, alpha=0.25), engines=engines, verifiers=scores
    ).result
    assert result.failures
    assert {f.error for f in result.failures} == {"EngineConnectionError"}
    best = max(result.candidates, key=lambda c: c.scores["prm"])
    assert result.answer == best.answer


def test_solutions_that_exist_race_too() -> None:
    first = solve(BestOfN(n=4, verifier="prm"), success=0.9).result
    solved = solve(SpeculativeRejection(n=8, chunk=20), candidates=first.candidates, success=0.9)
    assert solved.samples == 4
    assert {c.key for c in first.candidates} <= {c.key for c in solved.result.candidates}


def test_a_limit_truncates_as_without_chunks() -> None:
    limit = TASK.until.max_tokens
    engine = SimulatedEngine(Script([letter * (limit + 50) for letter in LETTERS]))
    strategy = SpeculativeRejection(n=4, chunk=60)
    result = one(job(strategy), engine, verifiers={"prm": Scorer(by_letter)}).result
    (candidate,) = result.candidates
    assert candidate.stop is StopReason.LENGTH
    assert candidate.tokens == limit
    assert result.answer is None


def test_a_chunk_ends_where_the_solution_must() -> None:
    assert chunk_of(Until(100), 100, 5) is None
    assert chunk_of(Until(100), 95, 5) == Until(5)
    assert chunk_of(Until(100), 94, 5) == Until(6, tokens=5)
    assert chunk_of(Until(100), 0, None) == Until(100)


def test_a_budget_without_samples_races_sixteen() -> None:
    assert solve(SpeculativeRejection(), Budget(tokens=10**6)).samples == 16
    cut = solve(SpeculativeRejection(), Budget(tokens=10))
    assert cut.result.ended is Ended.BUDGET
    assert cut.result.answer is not None  # the one finish that is owed


@pytest.mark.parametrize(
    "bad", [{"alpha": 1.0}, {"alpha": -0.1}, {"alpha": math.nan}, {"chunk": 0}]
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="speculative-rejection"):
        SpeculativeRejection(**bad)  # type: ignore[arg-type]


def test_equal_texts_are_scored_once_and_race_like_others() -> None:
    """Six samples say two things: after every chunk there are two texts to score."""
    scorer = Scorer(lambda branch: 0.25 + 0.5 * branch.text.startswith("b"))
    policy = SimulatedEngine(Script([letter * 40 + "answer 7" for letter in "ab"] * 3))
    strategy = SpeculativeRejection(n=6, chunk=10, alpha=0.0)
    solved = solve(strategy, engines={"policy": policy}, verifiers={"prm": scorer})
    seen = [(branch.text, branch.finished) for branch in scorer.seen]
    assert len(seen) == len(set(seen)) > 4
    scores = [candidate.scores["prm"] for candidate in solved.result.candidates]
    assert scores == [0.25, 0.75] * 3


def test_a_turn_that_the_task_begins_is_scored_like_others() -> None:
    """A score finds its candidate, whose text leaves out the words that the turn began with."""
    start = Start(replace(problem(), opening="So: "), TASK, Budget(samples=4))
    strategy = SpeculativeRejection(verifier="prm", chunk=500)
    engine = SimulatedEngine(Script([f"So: {text}" for text in texts(40)]))
    verifiers = {"prm": Scorer(lambda branch: 0.5 + 0.1 * branch.text.startswith("So: "))}
    result = one(Job(strategy, start), engine, verifiers=verifiers).result
    assert [candidate.scores["prm"] for candidate in result.candidates] == [0.6] * 4
