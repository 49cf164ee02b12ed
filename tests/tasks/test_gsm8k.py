"""Laws of gsm8k: on recorded model outputs, in twelve surfaces, and against golds that differ."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mull.errors import InputError
from mull.grades import GradeOutcome, Unanswered
from mull.tasks.base import FileTask
from mull.tasks.gsm8k import Gsm8k
from mull.tasks.maths.normal import number_text, read_number
from mull.types import Problem, Prompt

pytestmark = pytest.mark.timeout(60)
TASK = Gsm8k()
ASKED = TASK.problem("How many?")
SOURCES = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> list[dict[str, Any]]:
    file = shared_data / "gsm8k" / "recorded_solutions.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def gold_of(row: dict[str, Any]) -> str:
    gold = TASK.extract(ASKED, row["ground_truth"]).answer
    assert gold is not None
    return gold


def verdict(gold: str, text: str) -> bool | None:
    problem = Problem("0", Prompt.of("?"), gold)
    return TASK.grade(problem, TASK.extract(problem, text).answer).correct


def test_verdicts_on_recorded_outputs_agree_with_the_published_ones(
    recorded: list[dict[str, Any]],
) -> None:
    pairs = [
        (verdict(gold_of(row), row[source]["solution"]), row[source]["is_correct"])
        for row in recorded
        for source in SOURCES
    ]
    assert len(pairs) == 3600
    agreed = sum(ours is theirs for ours, theirs in pairs)
    print(f"{agreed} of {len(pairs)}")
    assert agreed >= 0.999 * len(pairs)


def thousands(value: Fraction) -> str:
    text = number_text(value, True)
    whole, point, decimals = text.partition(".")
    return f"{int(whole):,}{point}{decimals}" if whole.lstrip("-") != "0" else text


def trailing(value: Fraction) -> str:
    text = number_text(value, True)
    return text + ("0." if "." in text else ".00.")


def doubled(value: Fraction) -> str:
    return f"\\frac{{{value.numerator * 2}}}{{{value.denominator * 2}}}"


SURFACES: dict[str, Callable[[Fraction], str]] = {
    "boxed": lambda v: f"Hence \\boxed{{{number_text(v, True)}}}.",
    "units": lambda v: f"A: {number_text(v, True)} dollars per week",
    "thousands": lambda v: f"The answer is {thousands(v)}.",
    "decimals": lambda v: f"#### {trailing(v)[:-1]}",
    "fraction": lambda v: f"The answer is ${doubled(v)}$.",
    "percent": lambda v: f"The answer is {number_text(v, True)}%.",
    "sentence": lambda v: (
        f"So, in the end, the answer is {number_text(v, True)}, since 7 of the 12 are left."
    ),
    "dollar": lambda v: f"Answer: {'-' if v < 0 else ''}${thousands(abs(v))}",
    "latex text": lambda v: f"The final answer is ${number_text(v, True)}\\text{{ dollars}}$.",
    "bold": lambda v: f"**Answer:** **{number_text(v, True)}**",
    "trailing zeros and stop": lambda v: f"The final answer is: {trailing(v)}",
    "words around": lambda v: f"Answer: It comes to about {number_text(v, True)} in all, I think.",
}


def surfaces_of(row: dict[str, Any], source: str) -> dict[str, str]:
    """The recorded output with its final line rewritten; nothing where it has no plain number."""
    body, mark, last = row[source]["solution"].rpartition("\nA: ")
    number = read_number(last)
    if not mark or number is None:
        return {}
    value = number[0]
    finite = value.denominator in (1, 2, 4, 5, 10, 20, 25, 50, 100, 1000)
    return {
        name: f"{body}\n{write(value)}"
        for name, write in SURFACES.items()
        # A percent sign is a unit only where percents were asked for.
        if finite and (name != "percent" or "percent" in row["question"] or "%" in row["question"])
    }


def test_twelve_surfaces_of_the_recorded_outputs_keep_their_verdicts(
    recorded: list[dict[str, Any]],
) -> None:
    assert len(SURFACES) == 12
    judged, changed = dict.fromkeys(SURFACES, 0), []
    for row in recorded:
        gold = gold_of(row)
        for source in SOURCES:
            for name, text in surfaces_of(row, source).items():
                judged[name] += 1
                if verdict(gold, text) is not row[source]["is_correct"]:
                    changed.append((name, gold, text[-80:]))
    print(judged)
    assert min(judged[name] for name in SURFACES if name != "percent") > 3500
    assert judged["percent"] > 100
    assert changed == []


def test_500_golds_of_other_problems_are_refused(recorded: list[dict[str, Any]]) -> None:
    rng = random.Random(500)
    right = [
        (gold_of(row), text)
        for row in recorded
        for source in SOURCES
        if row[source]["is_correct"]
        for text in [row[source]["solution"], *surfaces_of(row, source).values()]
    ]
    golds = sorted({gold_of(row) for row in recorded})
    accepted = 0
    for own, text in rng.sample(right, 500):
        other = rng.choice([gold for gold in golds if gold != own])
        accepted += verdict(other, text) is True
    print(f"{accepted} of 500 mismatched golds accepted")
    assert accepted <= 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 * 6 = 18 eggs.\nA: 18", "18"),
        ("She sells 16 - 7 = <<16-7=9>>9 and earns <<9*2=18>>18", "18"),
        (r"Thus \boxed{\$1{,}234.50}", "1234.5"),
        (r"\boxed{x = \frac{3}{4}}", "3/4"),
        ("The answer is 1.8 billion dollars", "1800000000"),
        ("The answer is 2 dozen eggs", "24"),
        ("The answer is 1 1/2 cups.", "3/2"),
        ("The answer is 9 * 2 = 18.", "18"),
        ("answer: −5 degrees", "-5"),
        ("Answer:\n\n**42**", "42"),
        ("the answer is 5. No, wait: the answer is 6.", "6"),
        ("<think>the answer is 5</think>The answer is 6", "6"),
        (r"\boxed{5} is wrong, \boxed{\text{6 apples}} is right", "6"),
        ("- 18 apples", "18"),
        ("The answer is 10:30", "10:30"),
        (r"\boxed{2^3}", "2^3"),
        ("He has #5 apples, 7 pears", "7"),
        ("The answer is 10!", "10"),
        ("The answer is **10!** Well done.", "10"),
        ("So she has 10!", "10"),
        (r"\boxed{5!}", "5!"),
        ("The answer is $5!$.", "5!"),
        ("The answer is 5! = 120", "120"),
        ("5!", "5!"),
        ("The answer is 16 eggs - 7 eggs = 9 eggs.", "9"),
        ("Answer: 2 boxes * 3 = 6 boxes", "6"),
        ("The answer is 9 eggs, since 16 - 8 = 8.", "9"),
        ("The answer is 9 eggs (18 = 9 * 2).", "9"),
        ("The answer is 9 eggs if x = 3", "9"),
        ("The answer is 9 eggs. Check: 9 * 2 = 18", "9"),
    ],
)
def test_an_answer_is_found_in_its_usual_places(text: str, answer: str) -> None:
    assert TASK.extract(ASKED, text).answer == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" \n", Unanswered.EMPTY),
        ("I do not know.", Unanswered.NO_ANSWER),
        ("<think>maybe 7, or", Unanswered.EMPTY),
        (r"\boxed{7", Unanswered.MALFORMED),
        (r"\boxed{none}", Unanswered.MALFORMED),
        ("The answer is 12 or 13.", Unanswered.MALFORMED),
        ("The answer is 12 eggs or 13 eggs.", Unanswered.MALFORMED),
        (r"\boxed{5 \text{ or } 6}", Unanswered.MALFORMED),
        ("The answer is 4 eggs + 8 eggs = 12 or 13 eggs.", Unanswered.MALFORMED),
    ],
)
def test_no_answer_has_a_reason(text: str, reason: Unanswered) -> None:
    assert TASK.extract(ASKED, text).unanswered is reason


def test_an_expression_is_evaluated_by_the_grader() -> None:
    assert verdict("8", r"\boxed{2^3}") is True
    assert verdict("9", r"\boxed{2^3}") is False


def test_the_published_file_loads(shared_data: Path) -> None:
    problems = list(TASK.load(str(shared_data / "gsm8k" / "test.jsonl")))
    assert len(problems) == 1319
    assert isinstance(TASK, FileTask)
    assert problems[0].answer == "18"
    assert problems[0].meta["level"] == 2
    assert all(read_number(problem.answer or "") for problem in problems)
    for problem in problems[:100]:
        answer = TASK.extract(problem, problem.meta["solution"]).answer
        assert TASK.grade(problem, answer).outcome is GradeOutcome.CORRECT


def test_a_gold_without_a_number_is_an_input_error(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"question": "How many?", "answer": "none"}\n')
    with pytest.raises(InputError, match=r"p\.jsonl:1: answer holds no number"):
        list(TASK.load(str(file)))


@pytest.mark.slow
def test_the_recipe_prints_the_four_sources_and_the_agreement(shared_data: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "gsm8k_recorded.py"
    command = [sys.executable, str(recipe), str(shared_data)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| 6B, picked by a verifier | 40.1 [" in out
    assert "| 175B, fine-tuned | 35.0 [" in out
    assert "3600 of 3600" in out
