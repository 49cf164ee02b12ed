"""Laws of countdown: brute force is exact, faults are told apart, answers have one form."""

import random
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.errors import ConfigError, InputError
from mull.grades import Unanswered
from mull.tasks import countdown_search as search
from mull.tasks.base import GeneratedTask, ProcessTask
from mull.tasks.countdown import (
    CountdownTask,
    Fault,
    Wrong,
    check,
    evaluate,
    parse,
    render,
    solution,
)

TASK = CountdownTask()
states = st.lists(st.integers(1, 10), min_size=2, max_size=4).map(tuple)
puzzles = st.builds(
    search.draw,
    seed=st.integers(0, 10**6),
    split=st.sampled_from(["train", "validation", "test"]),
    index=st.integers(0, 10**6),
    level=st.integers(1, 4),
)


def values(numbers: tuple[int, ...]) -> dict[int, int]:
    """Every reachable value → fewest moves, by splitting the numbers in two: another algorithm."""
    best: dict[int, int] = {}
    for size in range(1, len(numbers) + 1):
        for places in combinations(range(len(numbers)), size):
            for value in trees(tuple(numbers[p] for p in places)):
                best.setdefault(value, size - 1)
    return best


def trees(numbers: tuple[int, ...]) -> set[int]:
    """Values of all expressions that use every number."""
    if len(numbers) == 1:
        return {numbers[0]}
    out: set[int] = set()
    rest = range(1, len(numbers))
    for size in range(len(numbers) - 1):
        for more in combinations(rest, size):
            left = {0, *more}
            one = trees(tuple(numbers[i] for i in left))
            two = trees(tuple(numbers[i] for i in range(len(numbers)) if i not in left))
            for a in one:
                for b in two:
                    out |= {a + b, a * b}
                    if a != b:
                        out.add(abs(a - b))
                    low, high = sorted((a, b))
                    if high % low == 0:
                        out.add(high // low)
    return out


@settings(max_examples=40, deadline=None)
@given(states, st.integers(1, 60))
def test_brute_force_agrees_with_another_enumeration(state: tuple[int, ...], target: int) -> None:
    best = values(state)
    solver = search.Solver(target)
    if target in state:
        return
    assert solver.distance(state) == best.get(target)
    assert solver.reachable(state) == (target in best)
    assert (solver.count(state) > 0) == (target in best)
    assert (solver.chance(state) > 0) == (target in best)


def test_counts_and_chances_are_those_of_the_definition() -> None:
    solver = search.Solver(10)
    # 2+8, then 8+2 from the other pair of equal moves: (8, 2) gives 10 by one of its four moves.
    assert solver.count((8, 2)) == 1
    assert solver.chance((8, 2)) == 0.25

    def play(state: search.State) -> Iterator[tuple[float, bool]]:
        options = search.moves(state)
        for move in options:
            if move.result == 10:
                yield 1 / len(options), True
            else:
                yield from ((p / len(options), hit) for p, hit in play(move.state))
        if not options:
            yield 1.0, False

    played = list(play((3, 4, 6)))
    assert sum(p for p, _ in played) == pytest.approx(1.0)
    assert solver.chance((3, 4, 6)) == pytest.approx(sum(p for p, hit in played if hit))
    assert solver.count((3, 4, 6)) == sum(hit for _, hit in played)


@settings(max_examples=25, deadline=None)
@given(puzzles, st.integers(0, 9))
def test_drawn_puzzles_are_solved_in_their_level(puzzle: search.Puzzle, seed: int) -> None:
    assert parse(render(puzzle)) == puzzle
    text = solution(puzzle, random.Random(seed))
    assert check(puzzle, text) is None
    assert text.count("\n") == search.Solver(puzzle.target).distance(puzzle.numbers)
    problem = TASK.problem(render(puzzle))
    answer = TASK.extract(problem, text).answer
    assert answer is not None
    assert TASK.grade(problem, answer).correct is True
    assert evaluate(answer)[0] == puzzle.target


PUZZLE = parse("Make 20 from 7 3 5 1.")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("take 7 - 3 = 4 left 4 5 1\ntake 4 * 5 = 20 left 20 1\n", None),
        ("take 7 - 3 = 4 left 1 5 4\n", None),
        ("", None),
        ("take 7 - 3 = 5 left 5 5 1\n", Wrong(0, Fault.ARITHMETIC)),
        ("take 3 - 7 = 4 left 4 5 1\n", Wrong(0, Fault.ARITHMETIC)),
        ("take 7 / 3 = 2 left 2 5 1\n", Wrong(0, Fault.ARITHMETIC)),
        ("take 7 - 3 = 4 left 4 5\n", Wrong(0, Fault.TABLE)),
        ("take 7 + 9 = 16 left 16 3 5 1\n", Wrong(0, Fault.MISSING)),
        ("take 5 + 5 = 10 left 10 7 3 1\n", Wrong(0, Fault.MISSING)),
        ("take 7 - 3 = 4 left 4 5 1\nso there\n", Wrong(1, Fault.MALFORMED)),
        ("take 7 * 5 = 35 left 35 3 1\ntake 35 * 3 = 105 left 105 1\n", Wrong(0, Fault.DEAD_END)),
        (
            "take 7 - 3 = 4 left 4 5 1\ntake 4 * 5 = 20 left 20 1\ntake 20 * 1 = 20 left 20\n",
            Wrong(2, Fault.MALFORMED),
        ),
    ],
)
def test_each_fault_has_its_name_and_place(text: str, wrong: Wrong | None) -> None:
    assert check(PUZZLE, text) == wrong


@settings(max_examples=25, deadline=None)
@given(puzzles, st.data())
def test_a_wrong_result_is_found_at_its_line(puzzle: search.Puzzle, data: st.DataObject) -> None:
    lines = solution(puzzle, random.Random(0)).splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    head, tail = lines[index].split(" = ")
    result, left = tail.split(" left ")
    slip = int(result) + data.draw(st.integers(1, 9))
    lines[index] = f"{head} = {slip} left {left}"
    assert check(puzzle, "".join(lines)) == Wrong(index, Fault.ARITHMETIC)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("take 3 + 1 = 4 left 4 7 5\ntake 5 * 4 = 20 left 20 7\n",) * 2,
        (
            "take 7 + 3 = 10 left 10 5 1\ntake 10 + 5 = 15 left 15 1\n",
            "take 5 + 3 = 8 left 8 7 1\ntake 8 + 7 = 15 left 15 1\n",
        ),
        (
            "take 7 - 3 = 4 left 4 5 1\ntake 5 + 4 = 9 left 9 1\n",
            "take 5 + 7 = 12 left 12 3 1\ntake 12 - 3 = 9 left 9 1\n",
        ),
    ],
)
def test_commuting_steps_give_one_answer(one: str, two: str) -> None:
    problem = TASK.problem(render(PUZZLE))
    assert TASK.extract(problem, one).answer == TASK.extract(problem, two).answer


def test_other_ways_are_other_answers_and_both_right() -> None:
    problem = TASK.problem(render(PUZZLE))
    one = TASK.extract(problem, "take 3 + 1 = 4 left 4 7 5\ntake 5 * 4 = 20 left 20 7\n").answer
    two = TASK.extract(problem, "take 7 - 3 = 4 left 4 5 1\ntake 4 * 5 = 20 left 20 1\n").answer
    assert one is not None and two is not None
    assert not TASK.same(problem, one, two)
    assert TASK.grade(problem, one).correct and TASK.grade(problem, two).correct


@pytest.mark.parametrize(
    "answer",
    [
        "20",
        "5*4",
        "7-3",
        "(7-3)*5*1*1",
        "7-3)*5",
        "__import__('os')",
        "9**9**9",
        "(" * 150,
        "1/0",
        "7 3",
    ],
)
def test_answers_that_cheat_are_wrong(answer: str) -> None:
    assert TASK.grade(TASK.problem(render(PUZZLE)), answer).correct is False


def test_streams_are_disjoint() -> None:
    streams = {
        split: {
            (puzzle.target, tuple(sorted(puzzle.numbers)))
            for puzzle in (parse(p.prompt.plain) for p in TASK.problems(split, 150))
        }
        for split in ("train", "validation", "test")
    }
    assert not streams["train"] & streams["test"]
    assert not streams["train"] & streams["validation"]
    assert not streams["validation"] & streams["test"]


def test_the_task_keeps_its_contracts() -> None:
    assert isinstance(TASK, GeneratedTask)
    assert isinstance(TASK, ProcessTask)
    problems = list(TASK.problems("test", 30))
    assert [p.prompt for p in problems] == [p.prompt for p in TASK.problems("test", 30)]
    for problem in problems:
        text = TASK.reference(problem)
        assert TASK.first_error(problem, text) is None
        assert TASK.grade(problem, problem.answer).correct is True
        assert TASK.grade(problem, TASK.extract(problem, text).answer).correct is True


def test_no_answer_has_its_reason() -> None:
    problem = TASK.problem(render(PUZZLE))
    assert TASK.extract(problem, "").unanswered is Unanswered.EMPTY
    assert TASK.extract(problem, "hello").unanswered is Unanswered.MALFORMED
    unfinished = TASK.extract(problem, "take 7 - 3 = 4 left 4 5 1\n").answer
    assert unfinished == "7-3"
    assert TASK.grade(problem, unfinished).correct is False


def test_reading_an_answer_checks_nothing() -> None:
    problem = TASK.problem(render(PUZZLE))
    for text, answer in (
        ("take 7 * 3 = 20 left 20 5 1\n", "3*7"),
        ("take 9 + 9 = 20 left 20\n", "9+9"),
        ("take 7 + 3 = 4 left 4 5 1\ntake 4 * 5 = 20 left 20 1\n", "(3+7)*5"),
    ):
        read = TASK.extract(problem, text).answer
        assert read == answer
        assert TASK.grade(problem, read).correct is False


def test_an_impossible_puzzle_has_no_gold() -> None:
    problem = TASK.problem("Make 999 from 1 1.")
    assert problem.answer is None
    assert problem.meta["level"] is None


@given(st.text(max_size=200))
def test_hostile_text_never_breaks_checker_or_grader(text: str) -> None:
    problem = TASK.problem(render(PUZZLE))
    TASK.first_error(problem, text)
    TASK.grade(problem, TASK.extract(problem, text).answer)
    TASK.grade(problem, text)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="countdown"):
        parse("Make love")
    with pytest.raises(InputError, match="positive"):
        parse("Make 24 from 0 3.")
    with pytest.raises(ConfigError, match="levels"):
        CountdownTask(levels=(7,))
    with pytest.raises(ConfigError, match="split"):
        next(TASK.problems("exam", 1))
