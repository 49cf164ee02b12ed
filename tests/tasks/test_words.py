"""Laws of the word problems: text ↔ graph, every order right, every slip found where it is."""

import random
import re
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.errors import ConfigError, InputError
from mull.grades import GradeOutcome, Unanswered
from mull.tasks import words, words_graph
from mull.tasks.base import GeneratedTask, ProcessTask
from mull.tasks.words import WordsTask, first_error, parse, render, solution, step

stories = st.builds(
    words_graph.draw,
    seed=st.integers(0, 10**6),
    split=st.sampled_from(["train", "validation", "test"]),
    index=st.integers(0, 10**6),
    level=st.integers(1, 10),
    distractors=st.integers(0, 3),
)
TASK = WordsTask()


@given(stories)
def test_text_and_graph_say_the_same(story: words_graph.Story) -> None:
    assert parse(render(story)) == story


@given(stories)
def test_values_stay_in_range_and_all_operations_are_needed(story: words_graph.Story) -> None:
    assert all(1 <= q.value <= words_graph.MAX_VALUE for q in story.quantities)
    for quantity in story.quantities:
        assert quantity.noun in words_graph.NOUNS
    assert 1 <= story.level <= words_graph.MAX_LEVEL
    needed = [q for q in story.quantities if q.noun in story.needed()]
    assert len(needed) == story.level


@given(stories, st.integers(0, 100))
def test_a_generated_solution_is_right_whatever_its_order(
    story: words_graph.Story, seed: int
) -> None:
    text = solution(story, random.Random(seed))
    assert first_error(story, text) is None
    assert text.endswith(f"answer {story.answer}\n")
    assert text.count("\n") == story.level + 1


def test_every_order_of_a_small_graph_is_judged_by_its_operands() -> None:
    story = parse(render(words_graph.draw(0, "test", 5, level=4)))
    lines = {q.noun: step(story, q) for q in story.quantities if q.noun in story.needed()}
    given_nouns = {q.noun for q in story.quantities if not q.operands}
    orders = list(permutations(lines))
    accepted = 0
    for order in orders:
        known, stuck = set(given_nouns), None
        for index, noun in enumerate(order):
            if not known.issuperset(story.by_noun[noun].operands):
                stuck = index
                break
            known.add(noun)
        assert first_error(story, "".join(lines[noun] for noun in order)) == stuck
        accepted += stuck is None
    assert 0 < accepted < len(orders)


@given(stories, st.integers(0, 100), st.data())
def test_a_changed_number_is_found_at_its_line(
    story: words_graph.Story, seed: int, data: st.DataObject
) -> None:
    lines = solution(story, random.Random(seed)).splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    spans = [match.span() for match in re.finditer(r"\d+", lines[index])]
    start, end = data.draw(st.sampled_from(spans))
    old = int(lines[index][start:end])
    new = data.draw(st.integers(0, 999).filter(lambda n: n != old))
    lines[index] = f"{lines[index][:start]}{new}{lines[index][end:]}"
    assert first_error(story, "".join(lines)) == index


@given(stories, st.integers(0, 100), st.data())
def test_a_missing_line_is_found_where_it_is_first_used(
    story: words_graph.Story, seed: int, data: st.DataObject
) -> None:
    order = story.order(random.Random(seed))
    gone = data.draw(st.integers(0, len(order) - 1))
    lines = [step(story, q) for q in order] + [f"answer {story.answer}\n"]
    text = "".join(lines[:gone] + lines[gone + 1 :])
    users = [i for i, q in enumerate(order) if order[gone].noun in q.operands]
    first_use = users[0] if users else len(order)
    assert first_error(story, text) == first_use - 1


@given(stories)
def test_useless_right_steps_are_no_error(story: words_graph.Story) -> None:
    known = {q.noun for q in story.quantities if not q.operands} | story.needed()
    extra = "".join(
        step(story, q)
        for q in story.quantities
        if q.operands and q.noun not in known and known.issuperset(q.operands)
    )
    text = solution(story, random.Random(0))
    answer = text.splitlines(keepends=True)[-1]
    assert first_error(story, text.removesuffix(answer) + extra + answer) is None


def test_sides_of_sums_and_products_may_be_swapped_but_not_of_differences() -> None:
    told = ", ".join(
        words._clause(q)
        for q in (
            words_graph.Quantity("cups", "given", (), None, 9),
            words_graph.Quantity("pens", "more", ("cups",), 2, 11),
            words_graph.Quantity("keys", "difference", ("pens", "cups"), None, 2),
        )
    )
    story = parse(f"In stock: {told}. How many keys are there?")
    right = "- pens = 2 + cups 9 = pens 11\n"
    assert first_error(story, right + "- keys = pens 11 - cups 9 = keys 2\nanswer 2\n") is None
    assert first_error(story, right + "- keys = cups 9 - pens 11 = keys 2\n") == 1


@pytest.mark.parametrize(
    "tail", ["answer 5\n", "- pens\n", "\n", "answer 41 \n", "answer ４２\n", "x" * 10_000]
)
def test_anything_after_the_answer_is_wrong(tail: str) -> None:
    story = words_graph.draw(0, "test", 1, level=2)
    assert first_error(story, solution(story, random.Random(0)) + tail) == 3


def test_nothing_said_is_nothing_wrong() -> None:
    assert first_error(words_graph.draw(0, "test", 1, level=2), "") is None


@given(st.text(max_size=300))
def test_hostile_text_never_breaks_the_checker(text: str) -> None:
    story = words_graph.draw(0, "test", 1, level=2)
    first_error(story, text)
    problem = next(TASK.problems("test", 1))
    TASK.grade(problem, TASK.extract(problem, text).answer)


def test_streams_are_disjoint_even_in_other_words() -> None:
    streams = {
        split: {parse(p.prompt.plain)._expression() for p in TASK.problems(split, 200)}
        for split in ("train", "validation", "test")
    }
    assert not streams["train"] & streams["test"]
    assert not streams["train"] & streams["validation"]
    assert not streams["validation"] & streams["test"]


@settings(max_examples=30)
@given(stories, st.integers(0, 10**6))
def test_the_stream_ignores_nouns_and_the_order_of_telling(
    story: words_graph.Story, seed: int
) -> None:
    rng = random.Random(seed)
    nouns = words_graph.NOUNS
    renamed = dict(zip(nouns, rng.sample(nouns, len(nouns)), strict=True))
    text = re.sub(r"[a-z]+", lambda m: renamed.get(m[0], m[0]), render(story))
    other = parse(text)
    shuffled = words_graph.Story(
        tuple(rng.sample(other.quantities, len(other.quantities))), other.asked
    )
    assert shuffled.stream() == story.stream()


def test_problems_repeat_by_seed_and_differ_between_seeds() -> None:
    once = [p.prompt.plain for p in TASK.problems("test", 20)]
    assert once == [p.prompt.plain for p in TASK.problems("test", 20)]
    assert set(once).isdisjoint(p.prompt.plain for p in TASK.problems("test", 20, seed=1))


def test_levels_come_in_equal_shares() -> None:
    levels = [p.meta["level"] for p in TASK.problems("test", 40)]
    assert sorted(levels) == sorted(list(range(1, 11)) * 4)


def test_the_task_keeps_its_contracts() -> None:
    assert isinstance(TASK, GeneratedTask)
    assert isinstance(TASK, ProcessTask)
    for problem in TASK.problems("validation", 30):
        text = TASK.reference(problem, seed=3)
        answer = TASK.extract(problem, text).answer
        assert answer == problem.answer
        assert TASK.same(problem, answer, answer)
        assert TASK.grade(problem, answer).correct is True
        assert TASK.grade(problem, "0").correct is False
        assert TASK.first_error(problem, text) is None


def test_no_answer_has_its_reason() -> None:
    problem = next(TASK.problems("test", 1))
    assert TASK.extract(problem, " \n").unanswered is Unanswered.EMPTY
    assert TASK.extract(problem, "- pens = ").unanswered is Unanswered.NO_ANSWER
    assert TASK.extract(problem, "answer many\n").unanswered is Unanswered.MALFORMED
    assert TASK.grade(problem, None).outcome is GradeOutcome.UNANSWERED


def test_a_users_own_problem_is_understood() -> None:
    text = render(words_graph.draw(9, "test", 9, level=3)).strip()
    problem = TASK.problem(f"  {text}  ", id="mine")
    assert problem.id == "mine"
    assert problem.prompt.plain == text + "\n"
    assert problem.meta["level"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("What is love?", "not a words problem"),
        ("In stock: pens 3, pens 4. How many pens are there?", "told twice"),
        ("In stock: pens 3. How many cups are there?", "nothing is told"),
        ("In stock: pens three. How many pens are there?", "cannot read"),
        (
            "In stock: pens are cups and cups, cups are pens and pens. How many pens are there?",
            "depend on each other",
        ),
    ],
)
def test_a_text_that_is_no_problem_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="levels"):
        WordsTask(levels=(0,))
    with pytest.raises(ConfigError, match="distractors"):
        WordsTask(distractors=99)
    with pytest.raises(ConfigError, match="split"):
        next(TASK.problems("exam", 1))
