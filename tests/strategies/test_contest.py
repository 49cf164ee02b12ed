"""Laws of judged selection, against simulated judges: the best is found, order is free."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.strategies.contest import (
    Match,
    PairwiseSelection,
    Verify,
    VerifyRanking,
    bradley_terry,
)


def verified(search: VerifyRanking, rates: list[float], seed: int, shuffle: int = 0) -> int:
    """Drive a search with verdicts that depend on the question alone, in shuffled order; how many
    it asked for."""
    mixer, asked = random.Random(shuffle), 0
    while questions := search.ask():
        asked += len(questions)
        assert search.ask() == []
        mixer.shuffle(questions)
        for each in questions:
            draw = random.Random(f"{seed} {each}").random()
            search.tell(each, draw < rates[each.candidate])
    return asked


def played(
    search: PairwiseSelection, judge: Callable[[Match], int | None], shuffle: int = 0
) -> list[Match]:
    mixer, every = random.Random(shuffle), []
    while matches := search.ask():
        mixer.shuffle(matches)
        for each in matches:
            search.tell(each, judge(each))
        every += matches
    return every


def by_strength(strength: list[float], seed: int) -> Callable[[Match], int]:
    def judge(match: Match) -> int:
        a, b = strength[match.first], strength[match.second]
        draw = random.Random(f"{seed} {match}").random()
        return match.first if draw < a / (a + b) else match.second

    return judge


def test_a_good_judge_finds_the_right_candidate() -> None:
    found = Counter[int]()
    for seed in range(40):
        search = VerifyRanking(6, most=32)
        verified(search, [0.1, 0.2, 0.15, 0.8, 0.1, 0.3], seed)
        found[search.ranking()[0]] += 1
    assert found[3] >= 39


def test_hopeless_candidates_are_given_up_early() -> None:
    rates = [0.9, 0.8, *([0.02] * 8)]
    search = VerifyRanking(10, most=128)
    asked = verified(search, rates, 0)
    assert set(search.ranking()[:2]) == {0, 1}
    assert 2 * 128 <= asked < 2 * 128 + 8 * 20


def test_without_difference_everyone_is_asked_to_the_end() -> None:
    search = VerifyRanking(4, most=30)
    assert verified(search, [1.0] * 4, 0) == 4 * 30
    assert search.ranking() == (0, 1, 2, 3)


@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 9), st.integers(0, 9))
def test_the_order_of_verdicts_does_not_matter(rates: list[float], seed: int, other: int) -> None:
    searches = [VerifyRanking(len(rates), most=16) for _ in range(2)]
    first, second = (
        verified(search, rates, seed, shuffle)
        for search, shuffle in zip(searches, (0, other), strict=True)
    )
    assert searches[0].ranking() == searches[1].ranking()
    assert first == second <= 16 * len(rates)


def test_unreadable_verdicts_are_no_verdicts() -> None:
    search = VerifyRanking(2, batch=2, least=2, most=2)
    questions = search.ask()
    assert questions == [Verify(0, 0), Verify(0, 1), Verify(1, 0), Verify(1, 1)]
    for each, verdict in zip(questions, (None, True, False, True), strict=True):
        search.tell(each, verdict)
    assert search.ask() == []
    assert (search.rate(0), search.rate(1)) == (1.0, 0.5)


@pytest.mark.parametrize("candidates", [0, 1])
def test_without_rivals_nothing_is_asked(candidates: int) -> None:
    assert VerifyRanking(candidates).ask() == PairwiseSelection(candidates).ask() == []
    assert PairwiseSelection(candidates).ranking() == tuple(range(candidates))
    assert VerifyRanking(candidates).ranking() == tuple(range(candidates))


def test_answers_to_what_was_not_asked() -> None:
    verify, select = VerifyRanking(2), PairwiseSelection(2, matches=1)
    with pytest.raises(ValueError, match="not asked"):
        verify.tell(Verify(0, 99), True)
    (match,) = select.ask()
    with pytest.raises(ValueError, match="one of the two"):
        select.tell(match, 7)
    select.tell(match, match.first)
    with pytest.raises(ValueError, match="not asked for"):
        select.tell(match, match.first)


def test_a_sure_judge_gives_the_best_two() -> None:
    for n in range(2, 20):
        order = list(range(n))
        random.Random(n).shuffle(order)
        search = PairwiseSelection(n, matches=8, seed=n)
        played(search, lambda match, order=order: min(match.first, match.second, key=order.index))
        assert search.ranking()[0] == order[0]
        assert sorted(search.ranking()) == list(range(n))
        if n <= 4:
            assert search.ranking()[1] == order[1]


def test_noise_is_outvoted() -> None:
    strength = [1.0, 1.0, 1.0, 1.0, 8.0, 1.0, 3.0, 1.0]
    tops = Counter[int]()
    for seed in range(40):
        search = PairwiseSelection(8, matches=16, seed=seed)
        played(search, by_strength(strength, seed))
        tops[search.ranking()[0]] += 1
    assert tops[4] >= 36


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 9))
def test_halving_costs_what_it_says(n: int, matches: int, seed: int) -> None:
    search = PairwiseSelection(n, matches, seed)
    every = played(search, by_strength([1.0] * n, seed))
    field, expected, rounds = n, 0, 1 + math.ceil(math.log2(n))
    for turn in range(rounds):
        each = matches if field % 2 == 0 else math.ceil(matches * field / (field - 1))
        if turn == rounds - 1 and each % 2 == 0:
            each += 1
        expected += each * (field // 2)
        field = max(2, math.ceil(field / 2))
    assert len(every) == len({match.number for match in every}) == expected


@given(st.integers(2, 8), st.integers(0, 9), st.integers(1, 9))
def test_the_order_of_results_does_not_matter(n: int, seed: int, other: int) -> None:
    searches = [PairwiseSelection(n, 4, seed) for _ in range(2)]
    for search, shuffle in zip(searches, (0, other), strict=True):
        played(search, by_strength([1.0 + i for i in range(n)], seed), shuffle)
    assert searches[0].ranking() == searches[1].ranking()
    assert searches[0].strengths() == searches[1].strengths()


def test_both_places_are_used() -> None:
    search = PairwiseSelection(2, matches=20)
    firsts = Counter(match.first for match in played(search, by_strength([1.0, 1.0], 0)))
    assert abs(firsts[0] - firsts[1]) <= 2


def test_a_judge_that_cannot_be_read_leaves_the_votes_order() -> None:
    search = PairwiseSelection(4, matches=2)
    played(search, lambda match: None)
    assert search.ranking() == (0, 1, 2, 3)


@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=6))
def test_strengths_are_recovered_from_expected_results(strength: list[float]) -> None:
    wins = [[1000 * a / (a + b) if a is not b else 0.0 for b in strength] for a in strength]
    for i in range(len(strength)):
        wins[i][i] = 0.0
    found = bradley_terry(wins, tolerance=1e-9)
    mean = math.exp(sum(map(math.log, strength)) / len(strength))
    assert found == pytest.approx([each / mean for each in strength], rel=1e-3)
    assert math.prod(found) == pytest.approx(1.0)


def test_who_never_lost_and_who_never_played_have_a_strength() -> None:
    best, worst, absent = bradley_terry([[0, 5, 0], [0, 0, 0], [0, 0, 0]])
    assert math.inf > best > absent > worst > 0
    assert bradley_terry([]) == []
    with pytest.raises(ValueError, match="square"):
        bradley_terry([[0, 1]])


@pytest.mark.parametrize("most", [0, 3])
def test_limits_that_contradict(most: int) -> None:
    with pytest.raises(ValueError, match="batch <= most"):
        VerifyRanking(2, most=most)
    with pytest.raises(ValueError, match="matches >= 1"):
        PairwiseSelection(2, matches=0)
