"""Laws of the checker: exact is exact, errors come at their rates and belong to the text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import TASK, problem
from tests.verifiers.common import branch, meter, scores, whole

from mull.catalog import load_task
from mull.errors import UnsupportedError
from mull.tasks.base import ProcessTask
from mull.types import StopReason
from mull.verifiers.base import Verifier, check_policy
from mull.verifiers.checker import ADMIRED, CheckerVerifier

WORDS = load_task("words")
STORY = WORDS.problem(
    "In stock: cups 3, pens are 2 more than cups, caps are 4 times pens. How many caps are there?"
)
assert isinstance(WORDS, ProcessTask)
RIGHT = WORDS.reference(STORY).splitlines(keepends=True)
RATES = st.floats(0, 0.5)


def test_it_is_a_verifier_of_any_policy() -> None:
    checker = CheckerVerifier(WORDS)
    assert isinstance(checker, Verifier)
    check_policy(checker, replace(checker.info, model="any"))


def test_a_branch_scores_1_while_it_is_right_so_far() -> None:
    checker = CheckerVerifier(WORDS)
    prefixes = [branch(STORY, *RIGHT[:count]) for count in range(1, len(RIGHT) + 1)]
    assert scores(checker, *prefixes) == [1.0] * len(RIGHT)
    wrong = branch(STORY, "- caps = cups 3 * 4 = caps 12\n")
    assert scores(checker, wrong, branch(STORY, *wrong.text.splitlines(True), "x\n")) == [0.0, 0.0]


def test_a_whole_solution_is_what_its_answer_is_graded() -> None:
    """Best of n by the exact checker is coverage: it finds a right answer wherever there is one."""
    lucky = whole(STORY, "- nonsense\n", RIGHT[-1])
    cut = branch(STORY, *RIGHT[:-1], stop=StopReason.LENGTH)
    cases = [whole(STORY, *RIGHT), lucky, whole(STORY, "answer 7\n"), whole(STORY, ""), cut]
    assert scores(CheckerVerifier(WORDS), *cases) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_without_a_gold_answer_there_is_no_verdict() -> None:
    unknown = replace(STORY, answer=None)
    (score,) = scores(CheckerVerifier(WORDS), whole(unknown, *RIGHT))
    assert math.isnan(score)


def test_a_task_without_a_process_checker_has_no_word_on_unfinished_branches() -> None:
    given = problem()
    checker = CheckerVerifier(TASK)
    assert scores(checker, whole(given, f"answer {given.answer}")) == [1.0]
    with pytest.raises(UnsupportedError, match="plain has no process checker"):
        scores(checker, branch(given, "step\n"))


def test_it_costs_nothing() -> None:
    checker = CheckerVerifier(WORDS)
    gauge = meter(checker)
    scores(checker, branch(STORY, RIGHT[0]), whole(STORY, *RIGHT), gauge=gauge)
    assert gauge.samples == (0, 1)
    assert gauge.total.tokens == 0


@given(RATES, RATES, RATES, st.integers(0, 9), st.integers(0, 9))
def test_equal_texts_get_equal_verdicts(
    positive: float, negative: float, exploit: float, seed: int, number: int
) -> None:
    checker = CheckerVerifier(
        WORDS, false_positive=positive, false_negative=negative, exploit=exploit, seed=seed
    )
    at = branch(STORY, f"- step {number}\n", key=(1, 2))
    elsewhere = branch(STORY, f"- step {number}\n", key=(7,))
    assert checker.verdict(at) == checker.verdict(elsewhere)
    assert checker.verdict(whole(STORY, *RIGHT)) in (0.0, 1.0, ADMIRED)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"false_positive": 0.2}, {0.0: 0.8, 1.0: 0.2}),
        ({"exploit": 0.1}, {0.0: 0.9, 1.0: 0.1}),
        ({"false_positive": 0.2, "exploit": 0.1}, {0.0: 0.7, ADMIRED: 0.2, 1.0: 0.1}),
    ],
)
def test_wrong_branches_are_praised_at_the_rates_chosen(
    rates: dict[str, float], expected: dict[float, float]
) -> None:
    found = [
        CheckerVerifier(WORDS, **rates).verdict(branch(STORY, f"- wrong {number}\n"))
        for number in range(4000)
    ]
    assert {score: found.count(score) / 4000 for score in set(found)} == pytest.approx(
        expected, abs=0.025
    )


def test_right_branches_are_blamed_at_the_rate_chosen() -> None:
    found = [
        CheckerVerifier(WORDS, false_negative=0.3, seed=seed).verdict(branch(STORY, *RIGHT))
        for seed in range(2000)
    ]
    assert found.count(0.0) / 2000 == pytest.approx(0.3, abs=0.04)


def test_an_exploit_stands_above_every_right_branch() -> None:
    checker = CheckerVerifier(WORDS, exploit=1.0)
    assert checker.verdict(branch(STORY, "- wrong\n")) > checker.verdict(whole(STORY, *RIGHT)) > 0.5


@pytest.mark.parametrize(
    "rates", [{"false_positive": 1.1}, {"exploit": -0.1}, {"exploit": 0.6, "false_positive": 0.6}]
)
def test_rates_that_are_no_shares_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        CheckerVerifier(WORDS, **rates)
