"""A weighted vote is a majority vote whose voters a verifier weighs."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import pytest
from tests.strategies.common import job, one
from tests.strategies.whole import (
    Scorer,
    answers,
    broken,
    constant,
    engines_of,
    luck,
    nan,
    solve,
    verifiers_of,
)

from mull.budget import Budget, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Script, SimulatedEngine
from mull.errors import SpecError, UsageError
from mull.selection import borda, logit
from mull.strategies.base import Ended
from mull.strategies.vote import Vote
from mull.strategies.weighted_vote import WeightedVote
from mull.types import Branch


@pytest.mark.parametrize("score", [constant, broken, nan])
def test_equal_weights_and_no_weights_are_the_majority(score: object) -> None:
    for number in range(6):
        voted = one(job(Vote(n=9), number=number), engines_of()["policy"]).result
        weighed = solve(WeightedVote(n=9), verifiers=verifiers_of(score), number=number).result  # type: ignore[arg-type]
        assert (weighed.answer, weighed.confidence) == (voted.answer, voted.confidence)
        assert [c.text for c in weighed.candidates] == [c.text for c in voted.candidates]


def test_the_answer_has_the_largest_sum_of_scores() -> None:
    for number in range(8):
        result = solve(WeightedVote(n=12), number=number, success=0.6).result
        sums: dict[str | None, float] = defaultdict(float)
        for candidate in result.candidates:
            sums[candidate.answer] += candidate.scores["prm"]
        assert sums[result.answer] == max(sums.values())
        assert result.confidence == pytest.approx(max(sums.values()) / sum(sums.values()))
        assert result.ended is Ended.COMPLETE


def test_a_candidate_without_a_score_has_no_say() -> None:
    result = solve(WeightedVote(n=20), verifiers=verifiers_of(luck), success=0.5).result
    sums: dict[str | None, float] = defaultdict(float)
    for candidate in result.candidates:
        sums[candidate.answer] += candidate.scores.get("prm", 0.0)
    unscored = [c for c in result.candidates if "prm" not in c.scores]
    assert unscored
    assert sums[result.answer] == max(sums.values())
    assert {f.error for f in result.failures} == {"ScoreError"}
    assert len(result.failures) == len({c.text for c in unscored})


@pytest.mark.parametrize(
    ("transform", "lost"), [("identity", True), ("exp", False), ("sigmoid", False)]
)
def test_a_score_that_is_no_weight_is_a_failure_and_not_a_weight(
    transform: str, lost: bool
) -> None:
    scores = verifiers_of(lambda branch: -1.0)
    result = solve(WeightedVote(n=5, transform=transform), verifiers=scores).result  # type: ignore[arg-type]
    assert [f.error for f in result.failures] == ["ScoreError"] * (5 if lost else 0)
    assert all(("prm" in c.scores) is not lost for c in result.candidates)
    if lost:
        assert "transform=exp" in result.failures[0].message
        assert result.answer is not None


@pytest.mark.parametrize("neutral", [0.2, 0.5, 0.8])
def test_logit_weights_are_summed_about_a_neutral_score(neutral: float) -> None:
    strategy = load_strategy(f"weighted-vote(n=12, transform=logit, neutral={neutral})")
    for number in range(4):
        result = solve(strategy, number=number, success=0.6).result
        sums: dict[str | None, float] = defaultdict(float)
        for candidate in result.candidates:
            sums[candidate.answer] += logit(candidate.scores["prm"]) - logit(neutral)
        assert sums[result.answer] == pytest.approx(max(sums.values()))
        assert not result.failures


def test_a_score_that_is_no_probability_has_no_logit() -> None:
    result = solve(
        WeightedVote(n=5, transform="logit"), verifiers=verifiers_of(lambda branch: 1.5)
    ).result
    assert [f.error for f in result.failures] == ["ScoreError"] * 5
    assert "transform=logit needs probabilities" in result.failures[0].message
    assert result.answer is not None


def test_borda_votes_go_by_rank_whatever_the_scale() -> None:
    for number in range(4):
        voted = one(job(Vote(n=9), number=number), engines_of()["policy"]).result
        even = solve(WeightedVote(n=9, rule="borda", power=0), number=number).result
        assert (even.answer, even.confidence) == (voted.answer, voted.confidence)
        plain = solve(WeightedVote(n=9, rule="borda"), number=number)
        scored = plain.result.candidates
        assert plain.result.parts[0] == borda(scored, "prm", power=0.5)
        # Scores below zero are no weights, and ranks all the same.
        below = {c.text: c.scores["prm"] * 7 - 100 for c in scored if "prm" in c.scores}
        other = verifiers_of(lambda branch, below=below: below[branch.text])  # type: ignore[misc]
        far = solve(WeightedVote(n=9, rule="borda"), verifiers=other, number=number).result
        assert far.failures == ()
        assert far.parts == plain.result.parts


@pytest.mark.parametrize("score", [broken, nan])
def test_borda_votes_without_a_score_are_the_majority(score: object) -> None:
    voted = one(job(Vote(n=9)), engines_of()["policy"]).result
    ranked = solve(WeightedVote(n=9, rule="borda"), verifiers=verifiers_of(score)).result  # type: ignore[arg-type]
    assert (ranked.answer, ranked.confidence) == (voted.answer, voted.confidence)


def test_options_of_the_other_rule_are_refused() -> None:
    for spec, says in (
        ("weighted-vote(rule=count)", "sum or borda"),
        ("weighted-vote(power=1)", "a power needs rule=borda"),
        ("weighted-vote(rule=borda, transform=exp)", "ranks need no transform"),
        ("weighted-vote(rule=borda, neutral=0.3)", "know no neutral score"),
        ("weighted-vote(neutral=0.3)", "needs transform=logit"),
        ("weighted-vote(transform=logit, neutral=1)", "above 0 and below 1"),
        ("weighted-vote(rule=borda, power=-1)", "power is a finite number from 0"),
    ):
        with pytest.raises(SpecError, match=says):
            load_strategy(spec)
    made = load_strategy("weighted-vote(verifier=self-certainty, rule=borda, power=0.3)")
    assert made == WeightedVote(verifier="self-certainty", rule="borda", power=0.3)


def test_samples_with_one_text_are_scored_once_and_those_without_an_answer_never() -> None:
    scorer = Scorer(lambda branch: float(answers(branch.text)[0]) / 10)
    engine = SimulatedEngine(Script(["answer 4", "no idea", "answer 4", "answer 7"]))
    result = one(job(WeightedVote(n=8)), engine, verifiers={"prm": scorer}).result
    assert sorted(b.text for b in scorer.seen) == ["answer 4", "answer 7"]
    assert [c.scores.get("prm") for c in result.candidates] == [0.4, None, 0.4, 0.7] * 2
    assert result.answer == "4"
    assert result.confidence == pytest.approx(1.6 / 3.0)


def test_candidates_that_exist_are_scored_too_unless_they_are() -> None:
    first = solve(WeightedVote(n=4), Budget(samples=4), success=0.5)
    plain = one(job(Vote(n=4), success=0.5), engines_of()["policy"])
    again = solve(WeightedVote(n=9), candidates=first.result.candidates, success=0.5)
    afresh = solve(WeightedVote(n=9), candidates=plain.result.candidates, success=0.5)
    whole = solve(WeightedVote(n=9), success=0.5)
    for solved in (again, afresh):
        assert solved.samples == 5
        assert solved.result.answer == whole.result.answer
        assert solved.result.candidates == whole.result.candidates
    spent = [s.ledger.of(Purpose.VERIFIER).prompt for s in (first, again, afresh, whole)]
    assert spent[0] + spent[1] == spent[2] == spent[3]


def test_an_infinite_score_given_is_asked_for_again() -> None:
    def given(branch: Branch) -> float:
        return math.inf

    first = solve(WeightedVote(n=3), verifiers=verifiers_of(given)).result
    assert {f.error for f in first.failures} == {"ScoreError"}
    again = solve(WeightedVote(n=3), candidates=first.candidates).result
    assert all("prm" in c.scores for c in again.candidates)


def test_a_score_given_that_is_no_weight_is_asked_for_again() -> None:
    first = solve(WeightedVote(n=3)).result
    spoilt = [replace(c, scores={**c.scores, "prm": -1.0}) for c in first.candidates]
    again = solve(WeightedVote(n=3), candidates=tuple(spoilt))
    assert again.result.candidates == first.candidates
    away = solve(WeightedVote(n=3), candidates=tuple(spoilt), verifiers=verifiers_of(broken))
    assert away.result.answer is not None
    assert not any("prm" in c.scores for c in away.result.candidates)


def test_bad_options_and_missing_verifiers_are_refused() -> None:
    with pytest.raises(SpecError, match="transform is one of identity, exp, sigmoid, logit"):
        WeightedVote(transform="log")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="quorum must lie"):
        WeightedVote(quorum=2)
    with pytest.raises(UsageError, match="needs verifier 'mine'"):
        one(job(WeightedVote(n=2, verifier="mine")), engines_of()["policy"])
