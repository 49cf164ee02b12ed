"""The task ``countdown``: reach a target from 4 or 5 numbers, one operation a line.

    Make 24 from 8 3 1 5.

    take 8 - 5 = 3 left 3 3 1
    take 3 * 3 = 9 left 9 1
    ...

(The prompt is one line and ends with a newline.)  A line takes two numbers from the table, puts
back the result, and says what is left (any order).  The solution ends with the line that reaches
the target; numbers may be left over.  Results are positive integers.

Any solution that reaches the target is right, so the answer is the *expression* that reached it,
in a canonical form: nested sums and products are flattened and sorted, ``a - b`` is a sum with a
negative part, ``a / b`` a product with an inverse part.  Two solutions that differ only in the
order of independent or commuting steps have the same answer, which is what a vote counts.

Reading an answer checks nothing: a line is taken at its word, wrong arithmetic included, so that a
vote has no secret verifier.  Grading computes the expression: it must give the target from the
puzzle's numbers.
"""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final, get_args

from mull.errors import ConfigError, InputError
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.syntax import parse_expression
from mull.tasks.countdown_search import (
    MAX_LEVEL,
    Move,
    Puzzle,
    Split,
    apply,
    draw,
    solver,
)
from mull.types import Problem, Prompt, Until

# Evaluation has the four levels in equal shares.  Training has more of the easy ones: the last move
# of every solution is an easy puzzle, so what is learned there is used everywhere.
MIXES: Final[dict[Split, tuple[int, ...]]] = {
    "train": (1, 2, 1, 3, 2, 1, 4, 2, 3, 1),
    "validation": (1, 2, 3, 4),
    "test": (1, 2, 3, 4),
}
_QUESTION: Final = re.compile(r"Make (\d{1,4}) from (\d{1,4}(?: \d{1,4}){1,5})\.")
_LINE: Final = re.compile(r"take (\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9}) left (\d[\d ]{0,60})")


Operation = tuple[int, str, int, int]
"""a, symbol, b, result."""


class Fault(StrEnum):
    """What is wrong with a step."""

    MALFORMED = "malformed"
    """Not a line of a solution, or a line after the target was reached."""
    MISSING = "missing"
    """A number is taken that is not on the table."""
    ARITHMETIC = "arithmetic"
    """The operation is illegal or its result wrong."""
    TABLE = "table"
    """The numbers said to be left are not those left."""
    DEAD_END = "dead_end"
    """A legal move after which the target is out of reach."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """The first wrong step: its line ``index`` and what is wrong with it."""

    index: int
    fault: Fault


def render(puzzle: Puzzle) -> str:
    """The problem, one line, newline included."""
    return f"Make {puzzle.target} from {' '.join(map(str, puzzle.numbers))}.\n"


def parse(text: str) -> Puzzle:
    """Read a problem's text; raises ``InputError`` if it is not of this form.

    >>> parse("Make 24 from 8 3 1 5.")
    Puzzle(target=24, numbers=(8, 3, 1, 5))
    """
    read = _QUESTION.fullmatch(text.strip())
    if read is None:
        raise InputError("not a countdown problem: expected 'Make <target> from <2 to 6 numbers>.'")
    numbers = tuple(map(int, read[2].split()))
    if 0 in numbers or int(read[1]) == 0:
        raise InputError("countdown numbers and targets are positive")
    return Puzzle(int(read[1]), numbers)


def step(move: Move) -> str:
    """The solution line of a move, newline included."""
    left = " ".join(map(str, move.state))
    return f"take {move.a} {move.symbol} {move.b} = {move.result} left {left}\n"


def solution(puzzle: Puzzle, rng: random.Random) -> str:
    """A random shortest solution."""
    return "".join(map(step, solver(puzzle).shortest(puzzle.numbers, rng)))


def claims(text: str) -> list[Operation] | None:
    """The operations as a solution writes them, right or wrong; ``None`` if a line is none."""
    read = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    if not all(read):
        return None
    return [(int(line[1]), line[2], int(line[3]), int(line[4])) for line in read if line]


def follow(puzzle: Puzzle, text: str) -> tuple[list[Operation], Wrong | None]:
    """The legal operations (a, symbol, b, result) of a solution, up to its first broken line.

    Dead ends are not looked for here: they need a search, this is linear.
    """
    table = Counter(puzzle.numbers)
    done: list[Operation] = []
    for index, line in enumerate(text.removesuffix("\n").split("\n") if text else ()):
        read = _LINE.fullmatch(line)
        if read is None or (done and done[-1][3] == puzzle.target):
            return done, Wrong(index, Fault.MALFORMED)
        a, symbol, b, result = int(read[1]), read[2], int(read[3]), int(read[4])
        taken = Counter((a, b))
        if not taken <= table:
            return done, Wrong(index, Fault.MISSING)
        if apply(a, symbol, b) != result:
            return done, Wrong(index, Fault.ARITHMETIC)
        table = table - taken + Counter((result,))
        if Counter(map(int, read[5].split())) != table:
            return done, Wrong(index, Fault.TABLE)
        done.append((a, symbol, b, result))
    return done, None


def check(puzzle: Puzzle, text: str) -> Wrong | None:
    """The first wrong step of a solution, dead ends included; ``None`` if all is right so far.

    >>> check(parse("Make 24 from 8 3 1 5."), "take 8 * 3 = 24 left 24 1 5\\n")
    """
    done, broken = follow(puzzle, text)
    search = solver(puzzle)
    table = Counter(puzzle.numbers)
    for index, (a, _, b, result) in enumerate(done):
        table = table - Counter((a, b)) + Counter((result,))
        if result != puzzle.target and not search.reachable(tuple(table.elements())):
            return Wrong(index, Fault.DEAD_END)
    return broken


def expression(done: Sequence[Operation]) -> str:
    """The last result as an expression of the numbers, in canonical form, as the steps claim it.

    A number that was made is what it was made of, the latest first; any other stands for itself.

    >>> expression([(2, "+", 3, 5), (5, "*", 4, 20)])
    '(2+3)*4'
    """
    made: dict[int, list[_Tree]] = {}
    tree = _Tree("", "")
    for a, symbol, b, result in done:
        one, two = (
            made[number].pop() if made.get(number) else _Tree("", str(number)) for number in (a, b)
        )
        tree = _join(one, symbol, two)
        made.setdefault(result, []).append(tree)
    return tree.text


@dataclass(frozen=True)
class CountdownTask:
    """Countdown puzzles; the level is the number of moves of a shortest solution.

    ``levels`` are repeated in order, so each has its share; by default every split has its own mix.

    >>> task = CountdownTask()
    >>> problem = next(task.problems("test", 1))
    >>> answer = task.extract(problem, task.reference(problem)).answer
    >>> task.grade(problem, answer).correct
    True
    """

    levels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        allowed = set(range(1, MAX_LEVEL + 1))
        if self.levels is not None and not (self.levels and set(self.levels) <= allowed):
            raise ConfigError(f"countdown: levels must lie in 1..{MAX_LEVEL}, not {self.levels!r}")

    @property
    def name(self) -> str:
        return "countdown"

    @property
    def until(self) -> Until:
        """Four lines of at most 22 tokens, and some room."""
        return Until(max_tokens=112, separator="\n")

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        """``count`` problems of a split, lazily; ``answer`` is one canonical solution of many."""
        stream = next((s for s in get_args(Split) if s == split), None)
        if stream is None:
            raise ConfigError(f"unknown split {split!r}: one of {', '.join(get_args(Split))}")
        levels = self.levels or MIXES[stream]
        for index in range(count):
            level = levels[index % len(levels)]
            puzzle = draw(seed, stream, index, level)
            meta = {"level": level, "numbers": len(puzzle.numbers), "split": split}
            answer = _gold(puzzle)
            yield Problem(
                f"countdown-{split}-{seed}-{index}", Prompt.of(render(puzzle)), answer, meta
            )

    def problem(self, text: str, id: str = "0") -> Problem:
        """A user's own puzzle; ``answer`` is ``None`` where the target is out of reach."""
        puzzle = parse(text)
        level = solver(puzzle).distance(puzzle.numbers)
        meta = {"level": level, "numbers": len(puzzle.numbers)}
        answer = None if level is None else _gold(puzzle)
        return Problem(id, Prompt.of(render(puzzle)), answer, meta)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The canonical expression that the lines claim for the last result."""
        if not text.strip():
            return Extraction(None, Unanswered.EMPTY)
        done = claims(text)
        if done is None:
            return Extraction(None, Unanswered.MALFORMED)
        return Extraction(expression(done))

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Equal canonical expressions."""
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Right if the expression uses the puzzle's numbers, each once at most, and is the target.

        Needs no gold answer: the puzzle says what is right.
        """
        if answer is None:
            return Grade(GradeOutcome.UNANSWERED)
        puzzle = parse(problem.prompt.plain)
        try:
            value, used = evaluate(answer)
        except InputError as error:
            return Grade(GradeOutcome.WRONG, str(error))
        right = value == puzzle.target and Counter(used) <= Counter(puzzle.numbers)
        return Grade(GradeOutcome.CORRECT if right else GradeOutcome.WRONG)

    def first_error(self, problem: Problem, text: str) -> int | None:
        """Index of the first wrong line, dead ends included; ``None`` if all is right so far."""
        wrong = check(parse(problem.prompt.plain), text)
        return None if wrong is None else wrong.index

    def reference(self, problem: Problem, seed: int = 0) -> str:
        """A shortest solution; seeds draw among them."""
        return solution(parse(problem.prompt.plain), random.Random(seed))


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Value and numbers of an expression of + - * / ( ) and integers; nothing else is run.

    Raises:
        InputError: any other character, malformed, longer than 200 characters, division by zero.

    >>> evaluate("(2+3)*4")
    (Fraction(20, 1), [2, 3, 4])
    """
    if len(text) > 200 or not re.fullmatch(r"[-+*/() 0-9]+", text) or "**" in text:
        raise InputError("not an expression of + - * / ( ) and integers")
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(int(number)):
                used.append(number)
                return Fraction(number)
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Sub(), right):
                return value(left) - value(right)
            case ast.BinOp(left, ast.Mult(), right):
                return value(left) * value(right)
            case ast.BinOp(left, ast.Div(), right):
                return value(left) / value(right)
        raise InputError("not an expression of + - * / ( ) and integers")

    try:
        return value(parse_expression(text.strip())), used
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as error:
        raise InputError(f"malformed expression: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class _Tree:
    """A canonical expression; of a sum or product (``kind`` + or *) also its sorted parts.

    A part is (inverted, text): inverted parts are subtracted or divided by.
    """

    kind: str
    text: str
    parts: tuple[tuple[bool, str], ...] = ()


def _join(a: _Tree, symbol: str, b: _Tree) -> _Tree:
    kind = "+" if symbol in "+-" else "*"
    inverse = "-" if kind == "+" else "/"
    flipped = symbol in "-/"
    parts = sorted([*_parts(a, kind, False), *_parts(b, kind, flipped)])
    # The first part is never inverted: False sorts before True, and one part is positive.
    text = parts[0][1] + "".join((inverse if inv else kind) + part for inv, part in parts[1:])
    return _Tree(kind, text, tuple(parts))


def _parts(tree: _Tree, kind: str, flip: bool) -> list[tuple[bool, str]]:
    if tree.kind == kind:
        return [(inverted != flip, text) for inverted, text in tree.parts]
    return [(flip, f"({tree.text})" if tree.kind == "+" else tree.text)]


def _gold(puzzle: Puzzle) -> str:
    found = solver(puzzle).shortest(puzzle.numbers, random.Random(0))
    return expression([(move.a, move.symbol, move.b, move.result) for move in found])
