"""Laws of selection (reliability 31): order, ties, weights, filters, fields."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import InputError, SpecError
from mull.grades import Unanswered
from mull.selection import (
    EDGE,
    SELECTORS,
    Best,
    Borda,
    FilterVote,
    Majority,
    PerField,
    Selection,
    Selector,
    Weighted,
    at_least,
    best,
    borda,
    exact,
    filtered,
    group,
    majority,
    selector,
    vote_fields,
    weighted,
)
from mull.types import Candidate


def candidate(key: int, answer: str | None, **scores: float) -> Candidate:
    unanswered = Unanswered.NO_ANSWER if answer is None else None
    return Candidate((key,), f"text {key}", answer, unanswered, scores=scores)


def pool(answers: Sequence[str | None], **scores: Sequence[float]) -> list[Candidate]:
    return [
        candidate(i, answer, **{name: values[i] for name, values in scores.items()})
        for i, answer in enumerate(answers)
    ]


def same_number(a: str, b: str) -> bool:
    return float(a) == float(b)


answers = st.lists(st.sampled_from(["1", "2", "2.0", "3", None]), max_size=12)
scores = st.floats(0, 1)


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    listed = draw(answers)
    some = draw(st.booleans())
    made = []
    for i, answer in enumerate(listed):
        named = {"prm": draw(scores)}
        if some or draw(st.booleans()):
            named["mean_logprob"] = -draw(scores)
        made.append(candidate(i, answer, **named))
    return made


EVERY: list[Selector] = [
    Majority(),
    Weighted("prm"),
    Weighted("prm", "exp"),
    Weighted("prm", "logit", 0.4),
    Best("prm"),
    Borda("prm"),
    FilterVote("prm", 0.5),
]


def who(candidates: Sequence[Candidate], chosen: Selection) -> tuple[object, ...]:
    """What a selection says, without positions."""
    index = chosen.index
    return (
        chosen.answer,
        None if index is None else candidates[index].key,
        chosen.confidence,
        tuple(
            (g.answer, g.votes, g.weight, tuple(candidates[i].key for i in g.members))
            for g in chosen.ranking
        ),
        chosen.n_answered,
        chosen.left_out,
    )


@given(pools(), st.randoms(use_true_random=False), st.sampled_from(EVERY))
def test_reliability_31_a_vote_does_not_depend_on_the_order_of_arrival(
    candidates: list[Candidate], chance: random.Random, select: Selector
) -> None:
    shuffled = candidates[:]
    chance.shuffle(shuffled)
    assert who(candidates, select(candidates, same_number)) == who(
        shuffled, select(shuffled, same_number)
    )


@given(pools(), st.floats(0, 1e6))
def test_reliability_31_equal_weights_give_the_majority(
    candidates: list[Candidate], weight: float
) -> None:
    plain = majority(candidates, same_number)
    equal = weighted(candidates, lambda c: weight, same_number)
    assert (equal.answer, equal.index) == (plain.answer, plain.index)
    assert [g.members for g in equal.ranking] == [g.members for g in plain.ranking]
    assert equal.confidence == pytest.approx(plain.confidence)


@given(pools(), st.sampled_from(EVERY))
def test_no_candidate_answers_if_and_only_if_there_is_no_answer(
    candidates: list[Candidate], select: Selector
) -> None:
    chosen = select(candidates, same_number)
    answered = sum(c.answer is not None for c in candidates)
    assert (chosen.answer is None) == (answered == 0) == (chosen.index is None)
    assert chosen.n_answered == answered


@given(pools(), st.sampled_from(EVERY))
def test_the_representative_gives_the_answer_and_leads_the_ranking(
    candidates: list[Candidate], select: Selector
) -> None:
    chosen = select(candidates, same_number)
    if chosen.index is not None:
        assert candidates[chosen.index].answer == chosen.answer
        assert chosen.index in chosen.ranking[0].members
        assert 0 < chosen.confidence <= 1 or chosen.ranking[0].weight == 0
        voters = sum(g.votes for g in chosen.ranking)
        assert voters + chosen.left_out == chosen.n_answered


@given(answers)
def test_the_majority_has_the_most_votes_as_a_counter_counts_them(
    listed: list[str | None],
) -> None:
    chosen = majority(pool(listed), same_number)
    counts = Counter(float(a) for a in listed if a is not None)
    if counts:
        assert counts[float(chosen.answer or "nan")] == max(counts.values())
        assert chosen.confidence == max(counts.values()) / counts.total()


@given(pools())
def test_borda_votes_without_a_power_are_the_majority(candidates: list[Candidate]) -> None:
    assert borda(candidates, "prm", same_number, 0.0) == majority(candidates, same_number)


@given(pools(), st.floats(0, 8))
def test_borda_votes_know_the_order_of_scores_and_nothing_else(
    candidates: list[Candidate], power: float
) -> None:
    values = sorted({c.scores["prm"] for c in candidates})
    ranked = {value: 3.0 * place - 100 for place, value in enumerate(values)}
    plain = borda(candidates, "prm", same_number, power)
    assert plain == borda(candidates, lambda c: ranked[c.scores["prm"]], same_number, power)


@given(answers, st.randoms(use_true_random=False))
def test_borda_votes_of_a_high_power_are_best_of_n(
    given_: list[str | None], chance: random.Random
) -> None:
    order = chance.sample(range(len(given_)), len(given_))
    candidates = pool(given_, prm=[float(place) for place in order])
    chosen = borda(candidates, "prm", power=100.0)
    assert chosen.answer == best(candidates, "prm").answer


@given(answers, st.randoms(use_true_random=False), st.sampled_from([0.3, 0.5, 1.0, 2.0]))
def test_borda_votes_are_those_of_the_formula(
    given_: list[str | None], chance: random.Random, power: float
) -> None:
    order = chance.sample(range(len(given_)), len(given_))
    candidates = pool(given_, prm=[float(place) for place in order])
    voters = sorted((c for c in candidates if c.answer), key=lambda c: -c.scores["prm"])
    votes: dict[str, float] = defaultdict(float)
    for rank, each in enumerate(voters, 1):
        votes[each.answer or ""] += (len(voters) - rank + 1) ** power
    chosen = borda(candidates, "prm", power=power)
    assert chosen.answer is None or votes[chosen.answer] == pytest.approx(max(votes.values()))
    assert chosen.confidence == pytest.approx(
        max(votes.values(), default=0) / (sum(votes.values()) or 1)
    )


def test_candidates_of_equal_score_share_what_their_ranks_weigh() -> None:
    chosen = borda(pool(["1", "2", "3"], sc=[5.0, 5.0, 1.0]), "sc", power=1.0)
    assert [g.weight for g in chosen.ranking] == pytest.approx([2.5 / 3, 2.5 / 3, 1 / 3])
    assert chosen.answer == "1"


@pytest.mark.parametrize("power", [-1.0, math.nan, math.inf])
def test_a_power_that_orders_nothing_is_refused(power: float) -> None:
    with pytest.raises(SpecError, match="power is a finite number from 0"):
        Borda("sc", power)
    with pytest.raises(ValueError, match="power of a Borda vote"):
        borda(pool(["1"], sc=[1.0]), "sc", power=power)


@given(pools())
def test_best_takes_the_highest_score_and_ignores_monotone_changes(
    candidates: list[Candidate],
) -> None:
    chosen = best(candidates, "prm", same_number)
    if chosen.index is not None:
        top = max(c.scores["prm"] for c in candidates if c.answer is not None)
        assert candidates[chosen.index].scores["prm"] == top
    tripled = best(candidates, lambda c: 3 * c.scores["prm"] - 7, same_number)
    # A tiny score may be lost beside 7: the law holds for scores that stay distinct.
    values = [c.scores["prm"] for c in candidates]
    if len({3 * v - 7 for v in values}) == len(set(values)):
        assert (tripled.answer, tripled.index) == (chosen.answer, chosen.index)


@given(pools())
def test_a_filter_that_keeps_all_or_none_is_the_plain_vote(candidates: list[Candidate]) -> None:
    plain = who(candidates, majority(candidates, same_number))
    assert who(candidates, filtered(candidates, lambda c: True, same_number)) == plain
    assert who(candidates, filtered(candidates, lambda c: False, same_number)) == plain


@given(pools())
def test_a_filtered_vote_is_the_vote_of_the_survivors(candidates: list[Candidate]) -> None:
    keep = at_least("prm", 0.5)
    kept = [c for c in candidates if keep(c)]
    if any(c.answer is not None for c in kept):
        inner = who(kept, majority(kept, same_number))
        outer = who(candidates, filtered(candidates, keep, same_number))
        assert outer[:4] == inner[:4]


def test_a_filter_may_be_followed_by_another_selection() -> None:
    candidates = pool(["1", "2", "2", "3"], prm=[0.9, 0.6, 0.7, 0.1])
    chosen = filtered(candidates, at_least("prm", 0.5), then=Best("prm"))
    assert (chosen.answer, chosen.index, chosen.left_out) == ("1", 0, 1)


def test_ties_go_to_the_likelier_group_and_without_likelihood_to_the_earliest() -> None:
    tied = pool(["a", "b", "b", "a"], mean_logprob=[-1.0, -0.2, -0.3, -0.1])
    assert majority(tied).answer == "b"
    assert majority(tied).index == 1
    assert majority(pool(["b", "a", "a", "b"])).answer == "b"
    partial = [*tied[:3], candidate(3, "a")]
    assert majority(partial).answer == "a", "one voter without a likelihood: the earliest key"
    broken = [*tied[:3], candidate(3, "a", mean_logprob=math.nan)]
    assert majority(broken).answer == "a"


def test_a_weighted_vote_can_overrule_the_majority_and_says_its_share() -> None:
    candidates = pool(["7", "7", "9"], prm=[0.2, 0.3, 0.9])
    chosen = weighted(candidates, "prm")
    assert chosen.answer == "9"
    assert chosen.confidence == pytest.approx(0.9 / 1.4)
    assert majority(candidates).answer == "7"


def test_a_missing_score_is_no_vote_never_a_negative_one() -> None:
    candidates = [candidate(0, "7"), candidate(1, "7", prm=math.nan), candidate(2, "9", prm=0.01)]
    chosen = weighted(candidates, "prm")
    assert (chosen.answer, chosen.confidence, chosen.left_out) == ("9", 1.0, 2)
    assert best(candidates, "prm").answer == "9"


def test_a_score_that_nobody_has_is_an_error_that_lists_the_scores() -> None:
    with pytest.raises(InputError, match=r"no candidate has a finite score prn; .*: prm"):
        weighted(pool(["1"], prm=[1.0]), "prn")
    assert weighted(pool([None]), "prn").answer is None
    for select in (Weighted("prn"), Best("prn"), Borda("prn"), FilterVote("prn")):
        with pytest.raises(InputError, match=r"no candidate has a finite score prn; .*: prm"):
            select(pool(["1", None], prm=[0.2, 0.3]))
        assert select(pool([None])).answer is None
    assert FilterVote("prm")(pool(["1", "1"], prm=[0.2, 0.3])).answer == "1", "among all"


def test_a_negative_weight_is_an_error_that_says_what_to_do() -> None:
    candidates = pool(["1", "2"], lp=[-3.0, -900.0])
    with pytest.raises(InputError, match="transform=exp"):
        weighted(candidates, "lp")
    assert weighted(candidates, "lp", transform="exp").answer == "1"
    with pytest.raises(InputError, match="finite"):
        weighted(pool(["1"], lp=[1e6]), "lp", transform="exp")
    assert weighted(candidates, "lp", transform="sigmoid").answer == "1"


def test_weights_too_small_or_too_large_to_sum_keep_their_shares() -> None:
    chosen = weighted(pool(["5", "5", "6"], lp=[-900.0, -900.0, -750.0]), "lp", transform="exp")
    assert (chosen.answer, chosen.confidence) == ("6", pytest.approx(1.0))
    low = weighted(pool(["5", "5", "6"], lp=[-900.0] * 3), "lp", transform="exp")
    assert (low.answer, low.confidence) == ("5", pytest.approx(2 / 3))
    high = weighted(pool(["5", "6"], lp=[708.0, 708.9]), "lp", transform="exp")
    assert (high.answer, high.confidence) == ("6", pytest.approx(1 / (1 + math.exp(-0.9))))
    huge = pool("55667", prm=[1e308] * 5)
    assert (weighted(huge, "prm").answer, weighted(huge, "prm").confidence) == ("5", 0.4)
    assert (best(huge, "prm").answer, best(huge, "prm").confidence) == ("5", 0.4)


@given(pools(), st.floats(0.001, 0.999))
def test_logit_weights_are_the_formula_summed(candidates: list[Candidate], neutral: float) -> None:
    def log_odds(p: float) -> float:
        clipped = min(max(p, EDGE), 1 - EDGE)
        return math.log(clipped / (1 - clipped))

    sums: dict[float, float] = defaultdict(float)
    for c in candidates:
        if c.answer is not None:
            sums[float(c.answer)] += log_odds(c.scores["prm"]) - math.log(neutral / (1 - neutral))
    chosen = weighted(candidates, "prm", same_number, "logit", neutral)
    assert {float(g.answer): g.weight for g in chosen.ranking} == pytest.approx(sums)
    assert chosen.answer is None or sums[float(chosen.answer)] == pytest.approx(max(sums.values()))
    assert 0.0 <= chosen.confidence <= 1.0
    positive = sum(max(0.0, total) for total in sums.values())
    if positive > 1e-9:
        assert chosen.confidence == pytest.approx(max(sums.values()) / positive)


def test_the_neutral_score_moves_the_choice_as_the_formula_says() -> None:
    """Three of .4 against one of .6: 3·(logit .4 - b) = logit .6 - b where b = -2·logit .6."""
    candidates = pool(["7", "7", "7", "9"], prm=[0.4, 0.4, 0.4, 0.6])
    odds = (0.4 / 0.6) ** 2
    turning = odds / (1 + odds)
    assert weighted(candidates, "prm", transform="logit", neutral=turning - 0.01).answer == "7"
    assert weighted(candidates, "prm", transform="logit", neutral=turning + 0.01).answer == "9"
    assert weighted(candidates, "prm", transform="logit").answer == "9", "0.5, if nothing is said"
    assert weighted(candidates, "prm").answer == "7", "raw scores cannot speak against"


def test_where_all_speak_against_their_answers_the_least_accused_wins_by_its_votes() -> None:
    candidates = pool(["7", "7", "9"], prm=[0.4, 0.4, 0.3])
    chosen = weighted(candidates, "prm", transform="logit", neutral=0.6)
    assert [g.answer for g in chosen.ranking] == ["9", "7"]
    assert all(g.weight < 0 for g in chosen.ranking)
    assert chosen.confidence == pytest.approx(1 / 3)


def test_logits_are_taken_of_probabilities_only_and_alone_know_a_neutral_score() -> None:
    with pytest.raises(InputError, match="transform=logit needs probabilities"):
        weighted(pool(["1"], orm=[3.5]), "orm", transform="logit")
    assert math.isfinite(
        weighted(pool(["1"], prm=[1.0]), "prm", transform="logit").ranking[0].weight
    )
    with pytest.raises(SpecError, match="needs transform=logit"):
        Weighted("prm", neutral=0.3)
    for neutral in (0.0, 1.0, math.nan):
        with pytest.raises(SpecError, match="above 0 and below 1"):
            Weighted("prm", "logit", neutral)


def test_grouping_asks_the_equality_only_for_strings_not_seen_before() -> None:
    asked: list[tuple[str, str]] = []

    def same(a: str, b: str) -> bool:
        asked.append((a, b))
        return same_number(a, b)

    groups = group(pool(["1", "1.0", "1", "2", "1.0", "2", None, "02"]), same)
    assert groups == ((0, 1, 2, 4), (3, 5, 7))
    assert asked == [("1", "1.0"), ("1", "2"), ("1", "02"), ("2", "02")]


def test_an_equality_that_is_not_transitive_does_not_chain_answers_together() -> None:
    def near(a: str, b: str) -> bool:
        return abs(float(a) - float(b)) <= 1

    assert group(pool(["0", "1", "2", "3"]), near) == ((0, 1), (2, 3))


def test_an_exact_vote_keeps_different_surfaces_apart() -> None:
    assert len(group(pool(["1", "1.0"]), exact)) == 2


@given(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.integers(1, 5))
def test_a_field_vote_of_equal_answers_is_that_answer(values: list[int], n: int) -> None:
    text = json.dumps({"a": values[0], "b": {"c": values[1:]}}, separators=(",", ":"))
    chosen = vote_fields(pool([text] * n))
    assert (chosen.answer, chosen.confidence) == (text, 1.0)
    assert chosen.fields == {"/a": 1.0, "/b/c": 1.0}


@given(
    st.lists(
        st.fixed_dictionaries({"x": st.integers(0, 2), "y": st.integers(0, 2)}),
        min_size=1,
        max_size=7,
    )
)
def test_a_field_vote_is_the_majority_of_each_field(objects: list[dict[str, int]]) -> None:
    composed = json.loads(vote_fields(pool([json.dumps(o) for o in objects])).answer or "")
    for name in ("x", "y"):
        chosen = majority(pool([str(o[name]) for o in objects]))
        assert str(composed[name]) == chosen.answer


def test_a_field_vote_may_compose_an_answer_that_nobody_gave() -> None:
    chosen = vote_fields(
        pool(['{"a":1,"b":2,"c":3}', '{"a":1,"b":5,"c":4}', '{"a":6,"b":2,"c":4}'])
    )
    assert chosen.answer == '{"a":1,"b":2,"c":4}'
    assert chosen.confidence == pytest.approx(2 / 3)
    assert chosen.index == 0


def test_a_field_that_most_leave_out_is_left_out_and_types_are_kept_apart() -> None:
    chosen = vote_fields(pool(['{"a":1}', '{"a":"1","b":2}', '{"a":1}']))
    assert chosen.answer == '{"a":1}'
    assert vote_fields(pool(["[1,2]", "[1, 2]", '"x"'])).answer == "[1,2]"
    assert vote_fields(pool(["{}", "{}"])).answer == "{}"


def test_leaving_a_field_out_is_a_vote_too() -> None:
    apart = vote_fields(pool(['{"a":1}', '{"b":1}', '{"c":1}']))
    assert (apart.answer, apart.confidence) == ("{}", pytest.approx(2 / 3))
    chosen = vote_fields(pool(['{"a":1,"b":1}', '{"a":1,"b":{"c":2}}', '{"a":1}', '{"a":1}']))
    assert (chosen.answer, chosen.confidence, chosen.index) == ('{"a":1}', 0.5, 2)
    assert chosen.fields == {"/a": 1.0, "/b": 0.5}
    assert vote_fields(pool(["[1]", "{}", "{}"])).index == 1, "a candidate that is an object"


@pytest.mark.parametrize("text", ["no json", "NaN", '{"a":1e999}', "[" * 100_000, '{"a":'])
def test_a_field_vote_refuses_answers_that_are_no_json(text: str) -> None:
    with pytest.raises(InputError, match="use the selection majority"):
        vote_fields(pool(['{"a":1}', text]))


def test_a_field_vote_of_deep_objects_ends() -> None:
    text = '{"a":' * 60 + "1" + "}" * 60
    assert vote_fields(pool([text, text])).answer == text


def test_selectors_are_found_by_name_and_refuse_what_they_do_not_know() -> None:
    assert selector("majority") == Majority()
    assert selector("weighted", score="prm", transform="exp") == Weighted("prm", "exp")
    assert selector("best") == Best("mean_logprob")
    assert selector("borda", score="sc") == Borda("sc", 0.5)
    assert selector("per-field") == PerField()
    assert set(SELECTORS) == {"majority", "weighted", "best", "borda", "filter-vote", "per-field"}
    with pytest.raises(SpecError, match=r"'vote'; there are: majority, weighted, best"):
        selector("vote")
    with pytest.raises(SpecError, match=r"no parameter 'scroe'; its parameters: score"):
        selector("best", scroe="prm")
    with pytest.raises(SpecError, match="needs 'score'"):
        selector("weighted")
    with pytest.raises(SpecError, match=r"'log'; there are: identity, exp, sigmoid"):
        selector("weighted", score="prm", transform="log")
