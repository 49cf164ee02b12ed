"""The likeliest sample answers, or the one that a verifier or a judge holds best."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from tests.strategies.common import job, one, rows
from tests.strategies.whole import (
    HONEST,
    SILENT,
    Judge,
    answers,
    broken,
    constant,
    engines_of,
    nan,
    solve,
    verifiers_of,
)

from mull.budget import Budget, Meter, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Script, SimulatedEngine, StepModel
from mull.errors import SpecError, UnsupportedError, UsageError
from mull.strategies.base import Ended, Strategy
from mull.strategies.best_of_n import BestOfN
from mull.strategies.needs import Needs
from mull.strategies.token_beam import TokenBeamSearch
from mull.strategies.vote import Vote
from mull.types import (
    Candidate,
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Request,
)

ENGINE = SimulatedEngine(StepModel())


@pytest.mark.parametrize("score", ["mean_logprob", "logprob"])
def test_the_answer_has_the_best_score_of_all(score: str) -> None:
    for number in range(8):
        result = one(job(BestOfN(n=12, score=score), number=number), ENGINE).result  # type: ignore[arg-type]
        answered = [c for c in result.candidates if c.answer is not None]
        best = max(answered, key=lambda c: c.scores[score])
        assert result.answer == best.answer
        share = sum(c.answer == best.answer for c in answered) / len(answered)
        assert result.confidence == pytest.approx(share)


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(SpecError, match="score is mean_logprob or logprob"):
        BestOfN(score="prm")  # type: ignore[arg-type]


class Bare(SimulatedEngine):
    """An engine that gives text alone; it notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(StepModel())
        self.requests: list[Request] = []

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, capabilities=Capabilities())

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        self.requests.append(request)
        async for item in super().generate(request, meter):
            yield item


@pytest.mark.parametrize("strategy", [TokenBeamSearch(), BestOfN(n=4)])
def test_an_engine_that_lacks_what_is_needed_is_refused_before_any_work(strategy: Strategy) -> None:
    engine = Bare()
    with pytest.raises(UnsupportedError, match="use another engine or strategy"):
        one(job(strategy), engine)
    assert not engine.requests


def test_a_verifier_picks_the_sample_that_it_scores_best() -> None:
    for number in range(6):
        result = solve(BestOfN(n=12, verifier="prm"), number=number, success=0.6).result
        best = max(result.candidates, key=lambda c: c.scores["prm"])
        assert result.answer == best.answer
        assert result.parts[0].index == result.candidates.index(best)


def test_a_constant_verifier_gives_the_first_sample() -> None:
    for number in range(12):
        scores = verifiers_of(constant)
        result = solve(
            BestOfN(n=9, verifier="prm"), verifiers=scores, number=number, success=0.4
        ).result
        assert result.answer == result.candidates[0].answer
        assert result.parts[0].index == 0


def test_a_verifier_that_scores_nothing_leaves_the_majority() -> None:
    voted = one(job(Vote(n=9), success=0.5), ENGINE).result
    for score in (nan, broken):
        result = solve(
            BestOfN(n=9, verifier="prm"), verifiers=verifiers_of(score), success=0.5
        ).result
        assert result.answer == voted.answer
        assert len(result.failures) == 9


def test_a_score_and_a_verifier_contradict_each_other() -> None:
    with pytest.raises(SpecError, match="give one of them"):
        BestOfN(score="logprob", verifier="prm")
    assert BestOfN(verifier="orm").needs == Needs(verifiers=("orm",))


# A judge in the verifier's place ------------------------------------------------------------

PAIRS = BestOfN(n=12, judge="judge", compare="pairs")
ALWAYS_A = Judge(lambda right, prompt, index: "[[A]]")


def most_voted(candidates: Sequence[Candidate]) -> str | None:
    """The answer with most votes, of equals the first."""
    given = [c.answer for c in candidates if c.answer is not None]
    return max(dict.fromkeys(given), key=given.count)


def larger(right: bool, prompt: str, index: int) -> str:
    """A judge that holds the larger number for the better answer."""
    first, second = map(int, answers(prompt)[-2:])
    return "[[A]]" if first > second else "[[B]]"


@pytest.mark.parametrize("compare", ["grade", "pairs"])
def test_an_honest_judge_finds_the_answer_wherever_a_sample_has_it(compare: str) -> None:
    found = 0
    strategy = load_strategy(f"best-of-n(n=8, judge=judge, compare={compare})")
    for number in range(10):
        solved = solve(strategy, number=number, success=0.5)
        given = [c.answer for c in solved.result.candidates]
        gold = solved.job.start.problem.answer
        if gold in given:
            found += 1
            assert solved.result.answer == gold
            assert solved.result.parts[0].index == given.index(gold)
            share = given.count(gold) / len([a for a in given if a is not None])
            assert solved.result.confidence == pytest.approx(share)
        assert not solved.result.failures
    assert found >= 5


def test_a_grade_is_the_mean_of_those_that_came() -> None:
    grades = ["[[2]]", "[[8]]", "None.", "[[5]]"]
    judge = Judge(lambda right, prompt, index: grades[index])
    strategy = BestOfN(n=6, judge="judge", votes=4)
    result = solve(strategy, engines=engines_of(judge), success=0.5).result
    assert {c.scores["judge"] for c in result.candidates} == {0.5}
    assert result.answer == result.candidates[0].answer, "of equal grades the first"
    texts = {c.text for c in result.candidates}
    assert [f.error for f in result.failures] == ["NoVerdict"] * len(texts)


def test_every_answer_but_one_loses_one_match_asked_in_both_orders() -> None:
    for number in range(6):
        solved = solve(PAIRS, engines=engines_of(Judge(larger)), number=number, success=0.3)
        given = {c.answer for c in solved.result.candidates if c.answer is not None}
        assert solved.result.answer == max(given, key=int)
        assert solved.ledger.of(Purpose.JUDGE).generated > 0 or len(given) == 1
        asked = sum(row[3] for (purpose, _), row in rows(solved).items() if purpose == "judge")
        assert asked == 2 * (len(given) - 1)
        assert solved.samples == 12
        ranking = solved.result.parts[0].ranking
        assert {found.answer for found in ranking} == given
        assert [found.weight for found in ranking] == sorted(
            (found.weight for found in ranking), reverse=True
        )


@pytest.mark.parametrize(("judge", "each"), [(ALWAYS_A, 1), (SILENT, 2)])
def test_without_a_verdict_votes_decide_and_then_the_first(judge: Judge, each: int) -> None:
    for number in range(6):
        result = solve(PAIRS, engines=engines_of(judge), number=number, success=0.4).result
        given = Counter(c.answer for c in result.candidates if c.answer is not None)
        assert result.answer == most_voted(result.candidates)
        assert [f.error for f in result.failures] == ["NoVerdict"] * each * (len(given) - 1)


def test_a_judge_that_calls_both_equal_gives_a_verdict() -> None:
    even = Judge(lambda right, prompt, index: "[[tie]]")
    result = solve(PAIRS, engines=engines_of(even), success=0.4).result
    assert (result.answer, result.failures) == (most_voted(result.candidates), ())


def test_samples_that_agree_are_not_compared() -> None:
    engines = {"policy": SimulatedEngine(Script(["answer 4"])), "judge": SimulatedEngine(HONEST)}
    solved = solve(PAIRS, engines=engines)
    assert (solved.result.answer, solved.result.confidence) == ("4", 1.0)
    assert Purpose.JUDGE not in {purpose for purpose, _ in rows(solved)}


def test_a_judge_that_is_away_leaves_the_votes_and_its_errors() -> None:
    engines = engines_of(HONEST)
    engines["judge"] = SimulatedEngine(HONEST, faults=Faults(rates={Fault.CONNECTION: 1.0}))
    result = solve(PAIRS, engines=engines, success=0.4).result
    assert result.answer == most_voted(result.candidates)
    assert {f.error for f in result.failures} == {"EngineConnectionError"}


def test_a_round_that_the_budget_refused_is_the_last() -> None:
    budget = Budget(samples=12, tokens=100)
    result = solve(PAIRS, budget, success=0.3).result
    first = len({c.answer for c in result.candidates if c.answer is not None}) // 2
    assert first >= 1
    assert result.ended is Ended.BUDGET
    assert [f.error for f in result.failures] == ["BudgetError"] * 2 * first
    assert result.answer == most_voted(result.candidates)


def test_too_few_samples_are_not_compared() -> None:
    engines = engines_of(HONEST)
    faults = Faults(chosen=dict.fromkeys(range(8), Fault.CONNECTION))
    engines["policy"] = SimulatedEngine(Script(["answer 1", "answer 2"]), faults=faults)
    solved = solve(PAIRS, engines=engines)
    assert solved.result.answer is None
    assert solved.ledger.of(Purpose.JUDGE).generated == 0


def test_a_judge_and_its_options_belong_together() -> None:
    for spec, says in (
        ("best-of-n(compare=pairs)", "needs judge"),
        ("best-of-n(votes=2)", "needs judge"),
        ("best-of-n(judge=judge, verifier=prm)", "give one of them"),
        ("best-of-n(judge=judge, compare=both)", "grade or pairs"),
        ("best-of-n(judge=judge, compare=pairs, votes=3)", "votes are of grades"),
        ("best-of-n(judge=judge, votes=0)", "at least 1"),
        ("best-of-n(judge='')", "give an engine's name"),
    ):
        with pytest.raises(SpecError, match=says):
            load_strategy(spec)
    assert BestOfN(judge="policy").needs == Needs()
    with pytest.raises(UsageError, match="needs engine 'judge'"):
        one(job(BestOfN(n=2, judge="judge")), engines_of()["policy"])
