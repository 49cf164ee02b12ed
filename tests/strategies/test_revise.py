"""Revisions: chains that see their own past, do not wait for one another, and answer their best."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from tests.strategies.common import TASK, job, one
from tests.strategies.whole import (
    Scorer,
    broken,
    engines_of,
    luck,
    nan,
    solve,
    verifiers_of,
)

from mull.budget import Budget, Purpose
from mull.engines.simulated import Fault, Faults, Latency, Script, SimulatedEngine, StepModel
from mull.errors import BudgetError, SpecError, UsageError
from mull.selection import majority
from mull.strategies.base import Ended, Start
from mull.strategies.needs import Needs
from mull.strategies.revise import Mixed, Revise
from mull.strategies.vote import Vote
from mull.strategies.weighted_vote import WeightedVote
from mull.types import Branch, Candidate, Problem, Prompt


def chains_of(candidates: tuple[Candidate, ...], chains: int) -> dict[int, list[Candidate]]:
    found: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        found[candidate.key[0] % chains].append(candidate)
    return found


@pytest.mark.parametrize("select", ["verifier", "majority"])
def test_chains_of_one_attempt_are_the_vote(select: str) -> None:
    for number in range(4):
        strategy = Revise(chains=9, length=1, select=select)  # type: ignore[arg-type]
        revised = solve(strategy, number=number, success=0.6).result
        vote = WeightedVote(n=9, verifier="orm") if select == "verifier" else Vote(n=9)
        voted = solve(vote, number=number, success=0.6).result
        assert revised.answer == voted.answer
        assert revised.confidence == pytest.approx(voted.confidence)
        assert revised.candidates == voted.candidates


def test_every_chain_makes_its_attempts_and_each_sees_the_last_few() -> None:
    scorer = Scorer(lambda branch: 0.5)
    solved = solve(
        Revise(chains=3, length=7, history=2), Budget(samples=21), verifiers={"orm": scorer}
    )
    assert solved.samples == len(solved.result.candidates) == 21
    chains = chains_of(solved.result.candidates, 3)
    assert [len(own) for own in chains.values()] == [7, 7, 7]
    shown = {branch.key: tuple(past.text for past in branch.history) for branch in scorer.seen}
    for own in chains.values():
        texts = [candidate.text for candidate in own]
        for at, candidate in enumerate(own):
            assert shown[candidate.key] == tuple(texts[max(0, at - 2) : at])
    ledger = solved.ledger
    assert {m for p, m, _, _ in ledger.rows() if p is Purpose.REVISION} == {"reviser"}
    assert solved.result.ended is Ended.COMPLETE


def by_hand(candidates: list[Candidate], chains: int) -> set[str]:
    """The answers that hierarchical selection may give, by sums written out."""

    def sums(of: list[Candidate]) -> dict[str, float]:
        totals: dict[str, float] = defaultdict(float)
        for c in of:
            totals[str(c.answer)] += c.scores["orm"]
        return totals

    winners = []
    for own in chains_of(tuple(c for c in candidates if "orm" in c.scores), chains).values():
        totals = sums(own)
        answer = max(totals, key=lambda a: totals[a])
        winners.append(max((c for c in own if c.answer == answer), key=lambda c: c.scores["orm"]))
    final = sums(winners)
    return {answer for answer, total in final.items() if total == max(final.values())}


@pytest.mark.parametrize("score", [None, luck])
def test_the_best_of_each_chain_and_then_of_the_winners(score: object) -> None:
    differs = 0
    for number in range(12):
        result = solve(
            Revise(chains=4, length=4),
            verifiers=verifiers_of(score),  # type: ignore[arg-type]
            number=number,
            success=0.6,
        ).result
        assert result.answer in by_hand(list(result.candidates), 4)
        assert result.parts[0].index is not None
        chosen = result.candidates[result.parts[0].index]
        assert (chosen.answer, "orm" in chosen.scores) == (result.answer, True)
        last = [own[-1].answer for own in chains_of(result.candidates, 4).values()]
        differs += result.answer not in last
    if score is None:
        assert differs < 12


def test_a_right_attempt_that_was_revised_to_wrong_still_wins() -> None:
    engines = engines_of(solver=Script(["answer 10"]))
    engines["reviser"] = SimulatedEngine(Script(["answer 11"]))
    scores = {"orm": Scorer(lambda branch: 0.9 if "10" in branch.text else 0.1)}
    result = solve(Revise(n=6), engines=engines, verifiers=scores).result
    assert [c.answer for c in result.candidates] == ["10"] + ["11"] * 5
    assert result.answer == "10"


def test_a_majority_is_flat_over_all_attempts_and_asks_no_verifier() -> None:
    strategy = Revise(chains=2, length=4, select="majority")
    assert strategy.needs == Needs(engines=("policy", "reviser"))
    solved = solve(strategy, verifiers={}, success=0.6)
    flat = majority(solved.result.candidates)
    assert (solved.result.answer, solved.result.confidence) == (flat.answer, flat.confidence)
    assert not solved.ledger.of(Purpose.VERIFIER).prompt


@pytest.mark.parametrize("score", [nan, broken])
def test_without_a_score_the_majority_of_all_attempts_answers(score: object) -> None:
    result = solve(Revise(chains=2, length=3), verifiers=verifiers_of(score)).result  # type: ignore[arg-type]
    assert result.answer == majority(result.candidates).answer is not None
    assert len(result.failures) == 6


def test_what_has_no_answer_is_no_history() -> None:
    engines = engines_of(solver=Script(["hm", "hm", "hm", "answer 3"]))
    scorer = Scorer(lambda branch: 0.5)
    solved = solve(Revise(chains=2, length=4), engines=engines, verifiers={"orm": scorer})
    candidates = chains_of(solved.result.candidates, 2)
    assert [c.text for c in candidates[0]] == ["hm"] * 4
    assert [c.key[:1] for c in candidates[0]] == [(0,), (2,), (4,), (6,)]
    assert [c.text for c in candidates[1][:2]] == ["hm", "answer 3"]
    assert [len(b.history) for b in sorted(scorer.seen, key=lambda b: b.key)] == [0, 1, 2]


def test_a_chain_goes_on_where_an_attempt_failed() -> None:
    engines = engines_of()
    faults = Faults(rates={Fault.CONNECTION: 0.4})
    for name in ("policy", "reviser"):
        engines[name] = SimulatedEngine(StepModel(), faults=faults)
    solved = solve(Revise(chains=4, length=5), Budget(samples=20), engines=engines)
    made, lost = solved.result.candidates, solved.result.failures
    assert solved.samples == len(made) + len(lost) == 20
    assert {f.error for f in lost} == {"EngineConnectionError"}
    assert lost
    assert made


def test_no_chain_waits_for_another() -> None:
    """The time of all is the time of the slowest chain, though their attempts differ in length."""
    slow = Latency(token_ms=1)
    engines = engines_of(latency=slow, slots=4)
    solved = solve(
        Revise(chains=4, length=5, select="majority"), engines=engines, success=0.3, steps=4
    )
    times = [
        sum(c.tokens for c in own) / 1e3 for own in chains_of(solved.result.candidates, 4).values()
    ]
    assert len(set(times)) == 4
    assert solved.seconds == pytest.approx(max(times))


def test_a_slow_verifier_holds_no_attempt_back() -> None:
    engines = engines_of(latency=Latency(token_ms=1), slots=1)
    scores = verifiers_of()
    scores["orm"].batch_ms = 40  # type: ignore[attr-defined]
    solved = solve(Revise(n=6), engines=engines, verifiers=scores)
    made = sum(c.tokens for c in solved.result.candidates) / 1e3
    assert solved.seconds == pytest.approx(made + 0.04)


def test_first_attempts_may_exist_already() -> None:
    whole = solve(Revise(chains=3, length=3))
    given = tuple(replace(c, scores={}) for c in whole.result.candidates if len(c.key) == 1)
    again = solve(Revise(chains=3, length=3), candidates=given)
    assert again.samples == 6
    assert [c.text for c in again.result.candidates] == [c.text for c in whole.result.candidates]
    assert again.result.answer == whole.result.answer
    by_reviser = solve(Revise(chains=3, length=3, first="reviser"), candidates=given)
    assert by_reviser.samples == 9
    assert not by_reviser.ledger.of(Purpose.POLICY).generated


def test_a_budget_in_tokens_is_shared_out() -> None:
    solved = solve(Revise(chains=4), Budget(tokens=4000), success=0.5)
    assert solved.result.ended is Ended.BUDGET
    for own in chains_of(solved.result.candidates, 4).values():
        assert sum(c.tokens for c in own[:-1]) < 1000 <= sum(c.tokens for c in own)


def test_a_chain_without_end_gives_up_on_an_engine_that_is_away() -> None:
    engines = engines_of()
    faults = Faults(chosen=dict.fromkeys(range(4000), Fault.CONNECTION))
    engines["policy"] = SimulatedEngine(Script([""]), faults=faults)
    solved = solve(Revise(chains=2), Budget(tokens=100), engines=engines)
    assert solved.result.answer is None
    assert {f.error for f in solved.result.failures} == {"EngineConnectionError"}


TABLE = {2: [0.5, 2], 4: [0.25, 1, 4], 8: [1 / 8, 0.5, 2, 8], 16: [1 / 16, 0.25, 1, 4, 16]}


@pytest.mark.parametrize("n", TABLE)
def test_ratios_give_the_published_shapes(n: int) -> None:
    for ratio in TABLE[n]:
        chains, length = Mixed(ratio=ratio).shape(n)
        assert chains * length == n
        assert length / chains == pytest.approx(ratio)


def test_mixed_is_revise_of_its_shape() -> None:
    for n, ratio, chains in ((8, 2.0, 2), (4, 0.25, 4), (8, 1.0, 2)):
        mixed = solve(Mixed(n=n, ratio=ratio), Budget(samples=n))
        plain = solve(Revise(chains=chains, length=n // chains))
        assert mixed.result == plain.result
    assert len(solve(Mixed(), Budget(tokens=10**6)).result.candidates) == 16


@pytest.mark.parametrize(("n", "ratio"), [(7, 1.0), (16, 100.0), (16, 0.01), (13, 2.0)])
def test_a_ratio_that_does_not_divide_is_refused(n: int, ratio: float) -> None:
    with pytest.raises(BudgetError, match="cannot split"):
        Mixed(ratio=ratio).shape(n)
    assert Mixed(ratio=1.0).shape(12) == (3, 4)


@pytest.mark.parametrize(
    ("n", "ratio", "named"),
    [
        (1, 4.0, {"1": 1}),
        (3, 1.0, {"3": 3, "0.333": 1}),
        (15, 4.0, {"1.67": 5, "15": 15}),
    ],
)
def test_the_ratios_that_are_named_work(n: int, ratio: float, named: dict[str, int]) -> None:
    with pytest.raises(BudgetError) as caught:
        Mixed(ratio=ratio).shape(n)
    said = " or ".join(f"{near} (chains of {length})" for near, length in named.items())
    assert f"Give a ratio of {said}, another" in str(caught.value)
    for near, length in named.items():
        assert Mixed(ratio=float(near)).shape(n) == (n // length, length)


def test_numbers_that_contradict_each_other_are_refused() -> None:
    start = Start(Problem("p", Prompt.of("?")), TASK, Budget(samples=16))
    for bad in (Revise(n=8), Revise(chains=3), Revise(chains=2, length=4), Mixed(n=4)):
        with pytest.raises(BudgetError):
            bad.start(start)
    with pytest.raises(BudgetError, match="give two of the three"):
        Revise(n=9, chains=2, length=4).start(Start(start.problem, TASK))
    with pytest.raises(BudgetError, match="does not know how many"):
        Revise().start(Start(start.problem, TASK))


def test_bad_options_are_refused() -> None:
    for kind in (Revise, Mixed):
        with pytest.raises(SpecError, match="history=0"):
            kind(history=0)
        with pytest.raises(SpecError, match="verifier or majority"):
            kind(select="last")  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="needs a verifier"):
            kind(verifier=None)
        with pytest.raises(SpecError, match="policy or reviser"):
            kind(first="judge")  # type: ignore[arg-type]
        assert kind(verifier=None, select="majority").needs.verifiers == ()
        with pytest.raises(SpecError, match="a majority asks no verifier"):
            kind(verifier="prm", select="majority")
    with pytest.raises(SpecError, match="at least 1"):
        Revise(chains=0)
    with pytest.raises(SpecError, match="positive"):
        Mixed(ratio=0)
    with pytest.raises(UsageError, match="needs engine 'reviser'"):
        one(job(Revise(n=2, select="majority")), engines_of()["policy"])


def test_an_orm_sees_the_history_of_what_it_scores() -> None:
    seen: list[Branch] = []

    def look(branch: Branch) -> float:
        seen.append(branch)
        return 0.5

    solve(Revise(n=3), verifiers=verifiers_of(look))
    assert sorted(len(branch.history) for branch in seen) == [0, 1, 2]
