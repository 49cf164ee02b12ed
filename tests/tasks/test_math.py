"""Laws of math: MATH-500 whole, mismatched golds, equality, and where an answer stands."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from mull.errors import SandboxTimeoutError
from mull.grades import GradeOutcome, Unanswered
from mull.tasks.base import FileTask
from mull.tasks.maths import judge
from mull.tasks.maths.normal import normal, number_text, read_number, refusal
from mull.tasks.maths.task import Math
from mull.types import Problem, Prompt

pytestmark = pytest.mark.timeout(120)
TASK = Math()


@pytest.fixture(scope="module")
def problems(shared_data: Path) -> list[Problem]:
    return list(TASK.load(str(shared_data / "math" / "math500_test.jsonl")))


def correct(gold: str, answer: str | None) -> bool | None:
    return TASK.grade(Problem("0", Prompt.of("?"), gold), answer).correct


def test_500_of_500_reference_solutions_are_right(problems: list[Problem]) -> None:
    answers = [TASK.extract(problem, problem.meta["solution"]).answer for problem in problems]
    right = sum(
        TASK.grade(problem, answer).correct is True
        for problem, answer in zip(problems, answers, strict=True)
    )
    assert right == len(problems) == 500


def test_math_verify_itself_accepts_every_gold_that_is_no_plain_number(
    problems: list[Problem],
) -> None:
    """The fast paths do not hide a grader that cannot read the golds."""
    golds = [problem.answer or "" for problem in problems]
    hard = [gold for gold in golds if read_number(gold) is None]
    assert len(hard) > 90
    refused = [gold for gold in hard if not judge.pool().call(judge.verify, gold, gold, seconds=10)]
    assert refused == []


@pytest.mark.slow
def test_golds_of_other_problems_are_refused(problems: list[Problem]) -> None:
    rng = random.Random(500)
    accepted = 0
    for problem in problems:
        others = [o for o in problems if normal(o.answer or "") != normal(problem.answer or "")]
        answer = TASK.extract(problem, problem.meta["solution"]).answer
        accepted += correct(rng.choice(others).answer or "", answer) is True
    print(f"{accepted} of {len(problems)} mismatched golds accepted")
    assert accepted <= 5


def test_500_of_500_golds_are_read_back_from_a_sentence_in_bold(problems: list[Problem]) -> None:
    golds = [problem.answer or "" for problem in problems]
    asked = TASK.problem("?")
    read = {gold: TASK.extract(asked, f"The answer is **{gold}**.").answer for gold in golds}
    assert [gold for gold in golds if not correct(gold, read[gold])] == []


EQUAL = [
    ("0.5", r"\frac{1}{2}"),
    ("1,000", "1000"),
    (r"10,\!080", "10080"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"1\frac{4}{5}", "1.8"),
    (r"\frac{1}{3}", "0.333333"),
    (r"30^\circ", "30"),
    (r"\text{even}", "Even"),
    (r"\text{(E)}", "E"),
    ("52_8", "52_{8}"),
    (r"\$18.90", "18.9"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
    (r"6\sqrt{2}", r"\sqrt{72}"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"(-\infty, 2) \cup (3, \infty)", r"(-\infty,2)\cup(3,\infty)"),
    ("x=5", "5"),
    (r"(-\infty,3)", "x<3"),
    ("[2,3)", r"2 \le x < 3"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"2\pi r", "2pi r"),
    (r"\pi + 1", "pi+1"),
    (r"x^3+3x-6", "3x - 6 + x^3"),
    (r"9\%", "9"),
    ("3, 5, 7", "7, 3, 5"),
    ("2, 3", "x=2 or x=3"),
]
DIFFERENT = [
    ("2", "2 or 3"),
    ("3", "x=2 and x=3"),
    ("2", "3"),
    ("0.33", r"\frac{1}{3}"),
    ("-2,1", "-21"),
    ("(2,3)", "(3,2)"),
    (r"\sqrt{2}", "1.4"),
    ("x", "y"),
    (r"\text{even}", r"\text{odd}"),
    ("52_8", "52_9"),
    ("5", "-5"),
    ("1.5", "15"),
    ("(2,3)", r"2 \le x < 3"),
    (r"\{1, 2\}", "1"),
    ("5", "x>4"),
    (r"\pi", "p"),
]


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_answers_are_the_same_both_ways(a: str, b: str) -> None:
    problem = TASK.problem("?")
    assert TASK.same(problem, a, b)
    assert TASK.same(problem, b, a)
    assert correct(a, b) is correct(b, a) is True


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_answers_are_not_the_same_either_way(a: str, b: str) -> None:
    problem = TASK.problem("?")
    assert not TASK.same(problem, a, b)
    assert not TASK.same(problem, b, a)
    assert correct(a, b) is correct(b, a) is False


@pytest.mark.parametrize(
    ("gold", "answer"), [("x^2+y^2=4", "4"), ("2x+y=5", "5"), ("(2,3)", "3, 2")]
)
def test_a_part_of_what_is_asked_for_is_wrong(gold: str, answer: str) -> None:
    assert correct(gold, answer) is False


def test_the_fast_path_for_numbers_agrees_with_math_verify() -> None:
    """Numbers are decided here; math-verify, asked about the same pairs, says the same."""
    rng = random.Random(7)
    pairs = []
    for _ in range(150):
        a = rng.choice([f"{rng.randint(-9, 9)}", f"{rng.randint(1, 9)}/{rng.randint(1, 9)}"])
        number = read_number(a)
        assert number is not None
        near = f"{float(number[0]):.{rng.choice([2, 6, 8])}f}"
        pairs.append((a, rng.choice([near, number_text(*number), f"{rng.randint(-9, 9)}"])))
    ours = [judge.compare(a, b)[0] is judge.Verdict.SAME for a, b in pairs]
    theirs = [bool(judge.pool().call(judge.verify, a, b, seconds=10)) for a, b in pairs]
    assert [pair for pair, x, y in zip(pairs, ours, theirs, strict=True) if x is not y] == []
    assert any(ours)
    assert not all(ours)


def test_outcomes_are_told_apart() -> None:
    gold = Problem("0", Prompt.of("?"), r"\sqrt{2}")
    outcomes = [
        TASK.grade(gold, answer).outcome for answer in (r"2^{1/2}", "2", None, "9^{9^{9^{9}}}")
    ]
    assert outcomes == [
        GradeOutcome.CORRECT,
        GradeOutcome.WRONG,
        GradeOutcome.UNANSWERED,
        GradeOutcome.GRADER_TIMEOUT,
    ]
    assert TASK.grade(TASK.problem("?"), "2").outcome is GradeOutcome.UNGRADED


def test_a_timeout_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = Problem("0", Prompt.of("?"), r"\sqrt{3}")

    def late(*args: object, **kwargs: object) -> bool:
        raise SandboxTimeoutError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(judge.pool(), "call", late)
        assert TASK.grade(gold, "3^{1/2}").outcome is GradeOutcome.GRADER_TIMEOUT
    assert TASK.grade(gold, "3^{1/2}").outcome is GradeOutcome.CORRECT


def test_no_gold_of_math_500_is_refused_unseen(problems: list[Problem]) -> None:
    assert [problem.answer for problem in problems if refusal(problem.answer or "")] == []
    for fair in (r"x^x e^{\sin x}", "2^3 3^2", "e^{x^2}", "(x^2)^3", "2^{2009}", "5^{x^{y}}"):
        assert refusal(fair) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{1}, no: \boxed{\frac{x}{\sqrt{2}}}.", r"\frac{x}{\sqrt{2}}"),
        (r"\boxed{\boxed{x}}", "x"),
        (r"\fbox{3} and \boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{2} but then \boxed{3", "2"),
        (r"\boxed 7", "7"),
        ("Thus $x = 3$ and the answer is $\\sqrt{2}$.", r"\sqrt{2}"),
        ("**Answer:** $(1, 2)$", "(1, 2)"),
        ("The answer is $2$ or $3$.", "2 or 3"),
        (r"Answer: \(x=2\), $x=3$ and $x=4$.", "x=2, x=3 and x=4"),
        ("The answers: the answer is $$2$$ and $$3$$", "2 and 3"),
        ("The answer is $5$, since $2+3=5$.", "5"),
        (r"The answer is $5$ $\text{cm}$.", "5"),
        ("The answer is 5. Indeed, $2+3=5$.", "5"),
        (r"The answer is $\$18$ or $\$20$.", r"\$18 or \$20"),
        (r"The answer is $\text{St. Louis}$.", r"\text{St. Louis}"),
        ("The answer is **3/4**.", "3/4"),
        ("The answer is **(3, 4)**. ", "(3, 4)"),
        ("The answer is **Monday**. It was a Sunday before.", "Monday"),
        ("The answer is *even*,", "even"),
        ("**The answer is x^2+1.**", "x^2+1"),
        ("#### x + 1", "x + 1"),
        ("We get\n\\(a + b\\), then finally \\[c^2\\]", "c^2"),
        ("even", "even"),
        ("so 2", "2"),
        ("x + 1", "x + 1"),
        ("There are 12 ways in all.", "12"),
        ("5! ways", "5!"),
    ],
)
def test_an_answer_is_found_in_its_usual_places(text: str, answer: str) -> None:
    assert TASK.extract(TASK.problem("?"), text).answer == answer


def test_no_answer_has_a_reason() -> None:
    problem = TASK.problem("?")
    assert TASK.extract(problem, r"\boxed{1").unanswered is Unanswered.MALFORMED
    assert TASK.extract(problem, "").unanswered is Unanswered.EMPTY
    assert TASK.extract(problem, "I am not sure how to do it").unanswered is Unanswered.NO_ANSWER


def test_files_of_either_kind_load(tmp_path: Path, problems: list[Problem]) -> None:
    assert isinstance(TASK, FileTask)
    assert problems[0].id == "test/precalculus/807.json"
    assert {problem.meta["level"] for problem in problems} == {1, 2, 3, 4, 5}
    row = {
        "problem": "1+1?",
        "solution": r"It is $\boxed{2}$.",
        "level": "Level 3",
        "type": "Algebra",
    }
    file = tmp_path / "math.jsonl"
    file.write_text(json.dumps(row))
    (problem,) = TASK.load(str(file))
    assert (problem.id, problem.answer, problem.meta["level"]) == ("0", "2", 3)
    assert problem.prompt.plain.startswith("1+1?\n\nSolve step by step.")
