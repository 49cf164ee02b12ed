"""Values refuse what cannot be; what is read from a branch is what its completions said."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.common import TASK

from mull import types
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.strategies.base import Start
from mull.types import (
    Attempt,
    Branch,
    Completion,
    Message,
    Problem,
    Prompt,
    Request,
    Sampling,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
    Usage,
)

USAGES = st.builds(
    Usage,
    *[st.integers(0, 99)] * 3,
    *[st.integers(0, 99).map(float)] * 3,
    st.booleans(),
)
PROBLEM = Problem("p", Prompt.of("2 + 2 ="))


@pytest.mark.parametrize(
    "given",
    [{}, {"text": "a", "token_ids": (1,)}, {"text": "", "messages": (Message("user", "a"),)}],
)
def test_a_prompt_has_exactly_one_form(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="exactly one of messages, text, token_ids"):
        Prompt(**given)  # type: ignore[arg-type]


def test_prompts_read_plainly() -> None:
    assert Prompt.of("").plain == ""
    assert Prompt(token_ids=(1, 2)).plain == "1 2"
    assert Prompt.chat(Message("system", "a"), Message("user", "b")).plain == "a\n\nb"


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": math.nan},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": math.nan},
    ],
)
def test_sampling_out_of_range_is_refused(bad: dict[str, float]) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must"):
        Sampling(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_tokens", "steps", "tokens"])
def test_an_end_is_at_least_one_token_away(name: str) -> None:
    with pytest.raises(ValueError, match=f"until.{name} must be at least 1"):
        Until(**{"max_tokens": 5, name: 0})  # type: ignore[arg-type]


def test_a_threshold_is_a_probability_and_says_how_many_can_be_so_likely() -> None:
    for threshold in (0.0, 1.01, float("nan"), -1.0):
        with pytest.raises(ValueError, match="probability"):
            ThresholdDFS(threshold)
    assert [ThresholdDFS(t).width for t in (1.0, 0.1, 1 / 3, 0.07)] == [1, 10, 3, 14]


def test_empty_stop_strings_and_separators_are_refused() -> None:
    for bad in ({"stop": ("",)}, {"separator": ""}):
        with pytest.raises(ValueError, match="must not be empty"):
            Until(5, **bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width must be at least 1"):
        TokenBeam(0)
    for bad in ({"n": 0}, {"first": -1}):
        with pytest.raises(ValueError, match="n >= 1 and first >= 0"):
            Request(Prompt.of("a"), Until(5), **bad)  # type: ignore[arg-type]


@given(USAGES, USAGES, USAGES)
def test_usages_add_up(a: Usage, b: Usage, c: Usage) -> None:
    assert a + Usage() == a
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert (a + b).tokens == a.tokens + b.tokens


def test_a_truncated_text_is_never_stopped() -> None:
    assert {reason for reason in StopReason if reason.truncated} == {
        StopReason.LENGTH,
        StopReason.CONTEXT,
    }
    assert {reason for reason in StopReason if not reason.finished} == {
        StopReason.STEP,
        StopReason.TOKENS,
    }


def test_an_extraction_has_an_answer_or_a_reason() -> None:
    for bad in ((None, None), ("4", Unanswered.EMPTY)):
        with pytest.raises(ValueError, match="either an answer or a reason"):
            Extraction(*bad)


def test_a_grade_says_nothing_where_nothing_can_be_said() -> None:
    found = {outcome: Grade(outcome).correct for outcome in GradeOutcome}
    assert found == {
        GradeOutcome.CORRECT: True,
        GradeOutcome.WRONG: False,
        GradeOutcome.UNANSWERED: False,
        GradeOutcome.UNGRADED: None,
        GradeOutcome.GRADER_TIMEOUT: None,
        GradeOutcome.GRADER_ERROR: None,
    }


def completion(index: int, text: str, stop: StopReason = StopReason.STEP) -> Completion:
    ids = tuple(text.encode())
    return Completion(index, text, stop, Usage(generated=len(ids)), ids, (-0.5,) * len(ids))


@given(st.lists(st.tuples(st.integers(0, 9), st.text("ab\n", min_size=1)), max_size=5))
def test_a_branch_is_its_steps(parts: list[tuple[int, str]]) -> None:
    branch = Branch.root(PROBLEM)
    for index, text in parts:
        before, branch = branch, branch.child(completion(index, text))
        assert before.key == branch.key[:-1]
    joined = "".join(text for _, text in parts)
    assert branch.text == joined
    assert branch.token_ids == tuple(joined.encode())
    assert branch.key == tuple(index for index, _ in parts)
    assert branch.depth == len(parts)
    assert not branch.finished


def test_a_revision_sees_the_attempt_and_starts_over() -> None:
    first = Branch.root(PROBLEM).child(completion(3, "answer 5", StopReason.END))
    again = first.revision("no")
    assert first.finished
    assert again.history == (Attempt("answer 5", "no"),)
    assert (again.steps, again.key) == ((), (3, -1))
    assert again.child(completion(0, "x")).revision().history[0] == again.history[0]


def test_attempts_are_not_shown_behind_token_ids() -> None:
    root = Branch.root(Problem("p7", Prompt(token_ids=(5, 6, 7))))
    again = root.child(completion(0, "answer 5")).revision()
    assert root.prompt.token_ids == (5, 6, 7)
    with pytest.raises(ValueError, match=r"problem p7: .* give the problem as Prompt.of\(text\)"):
        _ = again.prompt


def test_one_step_without_ids_leaves_the_branch_without() -> None:
    blind = dataclasses.replace(completion(0, "b"), token_ids=None, logprobs=None)
    branch = Branch.root(PROBLEM).child(completion(0, "a")).child(blind)
    assert branch.token_ids is None


def test_a_candidate_counts_tokens_where_the_engine_gave_no_ids() -> None:
    """An endpoint may tell how many tokens it made, and not which."""
    known = completion(0, "answer 4", StopReason.END)
    blind = dataclasses.replace(known, token_ids=None, logprobs=None)
    start = Start(PROBLEM, TASK)
    seen = [start.candidate(Branch.root(PROBLEM).child(made)) for made in (known, blind)]
    assert [candidate.tokens for candidate in seen] == [8, 8]
    assert seen[0].scores == {"logprob": -4.0, "mean_logprob": -0.5}
    assert seen[1].scores == {}


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("so", StopReason.END, Unanswered.NO_ANSWER),
        ("so", StopReason.LENGTH, Unanswered.TRUNCATED),
        ("so", StopReason.CONTEXT, Unanswered.TRUNCATED),
        ("", StopReason.FILTERED, Unanswered.FILTERED),
        ("answer 4", StopReason.LENGTH, None),
    ],
)
def test_a_candidate_says_why_it_has_no_answer(
    text: str, stop: StopReason, expected: Unanswered | None
) -> None:
    made = Start(PROBLEM, TASK).candidate(Branch.root(PROBLEM).child(completion(0, text, stop)))
    assert made.unanswered == expected
    assert (made.answer is None) == (expected is not None)


def test_what_travels_can_be_sent_to_another_process() -> None:
    branch = Branch.root(PROBLEM).child(completion(0, "answer 4", StopReason.END))
    for value in (branch, Request(PROBLEM.prompt, Until(5)), Sampling(), Usage(1, 1, 1)):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - our own bytes


def test_values_are_frozen() -> None:
    kinds = [kind for kind in vars(types).values() if dataclasses.is_dataclass(kind)]
    assert len(kinds) > 15
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
