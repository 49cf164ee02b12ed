"""Revision examples: wrong attempts in context, the nearest last, a right solution to be said."""

from __future__ import annotations

from dataclasses import replace

from rapidfuzz.distance import Levenshtein

from mull.labels.revisions import likeliest, revision_examples, turn_examples
from mull.labels.samples import Sample
from mull.types import Problem, Prompt, StopReason

PROBLEM = Problem("p", Prompt.of("What?\n"))


def sample(index: int, text: str, correct: bool) -> Sample:
    return Sample(PROBLEM, index, text, None, text[-1:], correct, StopReason.END)


RIGHT = [sample(0, "a b c 1", True), sample(1, "c b a 1", True)]
WRONG = [sample(2 + n, text, False) for n, text in enumerate(["a b c 2", "c b x 3", "zzzzzzz 4"])]
ALL = [*RIGHT, *WRONG]


def attempts(prompt: str) -> list[str]:
    """The attempts that a prompt shows, oldest first."""
    return [part for part in prompt.removeprefix("What?\n").split("\n\n") if part]


def test_the_last_attempt_is_the_nearest_wrong_one() -> None:
    seen = set()
    for seed in range(60):
        for example in revision_examples(ALL, seed=seed):
            shown = attempts(example.prompt)
            seen.add(len(shown))
            assert example.solution in {s.text for s in RIGHT}
            assert set(shown) <= {s.text for s in WRONG}
            assert len(set(shown)) == len(shown)
            if shown:
                gaps = [Levenshtein.distance(s.text, example.solution) for s in WRONG]
                assert Levenshtein.distance(shown[-1], example.solution) == min(gaps)
    assert seen == {0, 1, 2, 3}


def test_random_pairing_has_other_last_attempts_too() -> None:
    last = {
        attempts(e.prompt)[-1]
        for seed in range(60)
        for e in revision_examples(ALL, pairing="random", seed=seed)
        if attempts(e.prompt)
    }
    assert last == {s.text for s in WRONG}


def test_a_share_of_the_examples_keeps_a_right_attempt() -> None:
    kept = {
        keep: [
            attempts(e.prompt)[-1:] == [e.solution]
            for seed in range(200)
            for e in revision_examples(ALL, keep=keep, seed=seed)
        ]
        for keep in (0.0, 0.25, 1.0)
    }
    assert not any(kept[0.0])
    assert 0.18 < sum(kept[0.25]) / len(kept[0.25]) < 0.32
    assert all(kept[1.0])


def test_examples_depend_on_the_seed_and_nothing_else() -> None:
    assert list(revision_examples(ALL, seed=4)) == list(revision_examples(ALL, seed=4))
    assert any(
        list(revision_examples(ALL, seed=4)) != list(revision_examples(ALL, seed=s))
        for s in range(5, 9)
    )


def test_without_a_right_sample_there_is_nothing_to_say() -> None:
    assert list(revision_examples(WRONG)) == []
    assert len(list(revision_examples(ALL, per_problem=1))) == 1


def test_turns_are_continued_by_their_own_right_answer_or_the_best_elsewhere() -> None:
    chain = [WRONG[0], WRONG[1], RIGHT[0]]
    own = list(turn_examples([[*chain, WRONG[2]]]))
    assert [attempts(e.prompt) for e in own] == [
        [],
        [WRONG[0].text],
        [WRONG[0].text, WRONG[1].text],
    ]
    assert {e.solution for e in own} == {RIGHT[0].text}
    assert list(turn_examples([WRONG])) == []
    taught = list(turn_examples([WRONG], best=RIGHT[1]))
    assert [e.solution for e in taught] == [RIGHT[1].text] * 4


def test_turns_show_what_a_strategy_with_that_history_shows() -> None:
    chain = [*WRONG, RIGHT[0]]
    shown = [attempts(e.prompt) for e in turn_examples([chain], most=2)]
    texts = [s.text for s in WRONG]
    assert shown == [[], texts[:1], texts[:2], texts[1:]]


def test_turns_are_bounded_and_drawn_by_the_seed() -> None:
    chains = [[*WRONG, RIGHT[0]], [*WRONG[::-1], RIGHT[1]]]
    whole = list(turn_examples(chains))
    some = list(turn_examples(chains, per_problem=3, seed=1))
    assert len(whole) == 8
    assert len(some) == 3
    assert set(some) < set(whole)
    assert some == list(turn_examples(chains, per_problem=3, seed=1))
    assert any(some != list(turn_examples(chains, per_problem=3, seed=s)) for s in range(2, 6))


def test_the_likeliest_right_attempt_teaches() -> None:
    known = [replace(s, mean_logprob=at) for s, at in zip(ALL, [-2.0, -1.0, 0, 0, 0], strict=True)]
    assert likeliest(known) == known[1]
    assert likeliest([*WRONG, RIGHT[1]]) == RIGHT[1]
    assert likeliest(WRONG) is None
