"""The task ``words``: English word problems over a graph of quantities, one operation a line.

    In stock: apples 12, pears are 5 more than apples, coats 9, plums are 3 times pears,
    figs are plums minus pears. How many figs are there?

    - pears = apples 12 + 5 = pears 17
    - plums = pears 17 * 3 = plums 51
    - figs = plums 51 - pears 17 = figs 34
    answer 34

(The prompt is one line and ends with a newline.)  A solution may take any order that derives
operands first.  A step is right if its noun is a derived quantity of the problem, if what it is
derived from is given or derived in an earlier line, and if the arithmetic is right; sides of
+ and * may be swapped.  A right step that the answer does not need is useless, not wrong: a
process reward model has nothing to blame in it.  The last step states the answer; nothing may
follow it.

The surface is made for models of 0.2M parameters: a value always follows its noun ("apples 12")
and nothing else does, so that looking a value up is one induction step; a line opens with a dash,
so that the noun after it is the very token of the prompt.  Both were measured to matter
(recipes/README.md).

Graphs, levels and the disjoint streams: :mod:`mull.tasks.words_graph`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from mull.errors import ConfigError, InputError
from mull.grades import Extraction, Grade, Unanswered
from mull.tasks.base import graded
from mull.tasks.words_graph import (
    MAX_LEVEL,
    SYMBOL,
    Operation,
    Quantity,
    Split,
    Story,
    compute,
    draw,
)
from mull.types import Problem, Prompt, Until

LEVELS: Final = tuple(range(1, MAX_LEVEL + 1))
_NUMBER: Final = r"([0-9]{1,4})"
_SIDE: Final = r"(?:([a-z]+) )?([0-9]{1,4})"
_STEP: Final = re.compile(rf"- ([a-z]+) = {_SIDE} ([-+*]) {_SIDE} = ([a-z]+) {_NUMBER}")
_ANSWER: Final = re.compile(rf"answer {_NUMBER}")
_QUESTION: Final = re.compile(r"In stock: (.+)\. How many ([a-z]+) are there\?")
_CLAUSES: Final[tuple[tuple[Operation, re.Pattern[str]], ...]] = (
    ("given", re.compile(rf"([a-z]+) {_NUMBER}")),
    ("more", re.compile(rf"([a-z]+) are {_NUMBER} more than ([a-z]+)")),
    ("fewer", re.compile(rf"([a-z]+) are {_NUMBER} fewer than ([a-z]+)")),
    ("times", re.compile(rf"([a-z]+) are {_NUMBER} times ([a-z]+)")),
    ("sum", re.compile(r"([a-z]+) are ([a-z]+) and ([a-z]+)")),
    ("difference", re.compile(r"([a-z]+) are ([a-z]+) minus ([a-z]+)")),
)


def render(story: Story) -> str:
    """The problem in English, one line, newline included."""
    told = ", ".join(_clause(quantity) for quantity in story.quantities)
    return f"In stock: {told}. How many {story.asked} are there?\n"


def parse(text: str) -> Story:
    """Read a problem's text back into its graph; ``parse(render(story)) == story``.

    Raises:
        InputError: the text is not of this form, names a quantity twice or not at all, or the
            quantities depend on one another in a circle.

    >>> parse("In stock: cups 3, pens are 2 more than cups. How many pens are there?").answer
    5
    """
    shape = _QUESTION.fullmatch(text.strip())
    if shape is None:
        raise InputError(
            "not a words problem: expected 'In stock: <clauses>. How many <noun> are there?'"
        )
    told: dict[str, tuple[Operation, tuple[str, ...], int | None]] = {}
    for clause in shape[1].split(", "):
        noun, operation, operands, number = _read_clause(clause)
        if noun in told:
            raise InputError(f"words problem: {noun!r} is told twice")
        told[noun] = (operation, operands, number)
    values = _values(told)
    if shape[2] not in values:
        raise InputError(f"words problem: nothing is told about {shape[2]!r}")
    quantities = tuple(
        Quantity(noun, operation, operands, None if operation == "given" else number, values[noun])
        for noun, (operation, operands, number) in told.items()
    )
    return Story(quantities, shape[2])


def step(story: Story, quantity: Quantity) -> str:
    """The solution line that derives ``quantity``, newline included."""
    sides = [f"{noun} {value}" if noun else f"{value}" for noun, value in _sides(story, quantity)]
    computed = f" {SYMBOL[quantity.operation]} ".join(sides)
    return f"- {quantity.noun} = {computed} = {quantity.noun} {quantity.value}\n"


def solution(story: Story, rng: random.Random) -> str:
    """A right solution in a random valid order, its answer line included."""
    lines = [step(story, quantity) for quantity in story.order(rng)]
    return "".join(lines) + f"answer {story.answer}\n"


def first_error(story: Story, text: str) -> int | None:
    """Index of the first wrong line of a solution, or ``None`` if every line so far is right.

    >>> story = parse("In stock: cups 3, pens are 2 more than cups. How many pens are there?")
    >>> first_error(story, "- pens = cups 3 + 2 = pens 6\\nanswer 6\\n")
    0
    """
    known = {q.noun for q in story.quantities if not q.operands}
    answered = False
    for index, line in enumerate(text.removesuffix("\n").split("\n") if text else ()):
        if answered:
            return index
        answer = _ANSWER.fullmatch(line)
        if answer is not None:
            answered = story.asked in known and int(answer[1]) == story.answer
            if not answered:
                return index
            continue
        noun = _derived(story, line, known)
        if noun is None:
            return index
        known.add(noun)
    return None


@dataclass(frozen=True)
class WordsTask:
    """Word problems of the given levels in equal shares.

    ``distractors`` is the most quantities per problem that do not matter.

    >>> task = WordsTask(levels=(2,))
    >>> problem = next(task.problems("test", 1))
    >>> task.grade(problem, problem.answer).correct
    True
    """

    levels: Sequence[int] = LEVELS
    distractors: int = 2

    def __post_init__(self) -> None:
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ConfigError(f"words: levels must lie in 1..{MAX_LEVEL}, not {self.levels!r}")
        if not 0 <= self.distractors <= 8:
            raise ConfigError(f"words: distractors must lie in 0..8, not {self.distractors}")

    @property
    def name(self) -> str:
        return "words"

    @property
    def until(self) -> Until:
        """Room for ten operations and as many useless ones; the model ends its own solutions."""
        return Until(max_tokens=320, separator="\n")

    def problems(self, split: str, count: int, seed: int = 0) -> Iterator[Problem]:
        """``count`` problems of a split, lazily; problem ``i`` has level ``levels[i % len]``."""
        stream = _split(split)
        for index in range(count):
            level = self.levels[index % len(self.levels)]
            story = draw(seed, stream, index, level, self.distractors)
            meta = {"level": level, "quantities": len(story.quantities), "split": split}
            yield Problem(
                f"words-{split}-{seed}-{index}", Prompt.of(render(story)), str(story.answer), meta
            )

    def problem(self, text: str, id: str = "0") -> Problem:
        """A user's own word problem; its answer is worked out, so it can be graded."""
        story = parse(text)
        meta = {"level": story.level, "quantities": len(story.quantities)}
        return Problem(id, Prompt.of(render(story)), str(story.answer), meta)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The number on the last line that states an answer."""
        if not text.strip():
            return Extraction(None, Unanswered.EMPTY)
        stated = [line for line in text.split("\n") if line.startswith("answer")]
        if not stated:
            return Extraction(None, Unanswered.NO_ANSWER)
        read = _ANSWER.fullmatch(stated[-1].strip())
        if read is None:
            return Extraction(None, Unanswered.MALFORMED)
        return Extraction(str(int(read[1])))

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Equal text: extracted answers are canonical integers."""
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        return graded(self, problem, answer)

    def first_error(self, problem: Problem, text: str) -> int | None:
        """Index of the first wrong line, ``None`` if every line so far is right."""
        return first_error(parse(problem.prompt.plain), text)

    def reference(self, problem: Problem, seed: int = 0) -> str:
        """A right solution; seeds differ in the order of the steps."""
        return solution(parse(problem.prompt.plain), random.Random(seed))


def _split(name: str) -> Split:
    for split in get_args(Split):
        if name == split:
            return split  # type: ignore[no-any-return]
    raise ConfigError(f"unknown split {name!r}: expected one of {', '.join(get_args(Split))}")


def _clause(quantity: Quantity) -> str:
    noun, constant, operands = quantity.noun, quantity.constant, quantity.operands
    match quantity.operation:
        case "given":
            return f"{noun} {quantity.value}"
        case "more":
            return f"{noun} are {constant} more than {operands[0]}"
        case "fewer":
            return f"{noun} are {constant} fewer than {operands[0]}"
        case "times":
            return f"{noun} are {constant} times {operands[0]}"
        case "sum":
            return f"{noun} are {operands[0]} and {operands[1]}"
        case "difference":
            return f"{noun} are {operands[0]} minus {operands[1]}"


def _read_clause(clause: str) -> tuple[str, Operation, tuple[str, ...], int | None]:
    """(noun, operation, operands, number) of one clause."""
    for operation, pattern in _CLAUSES:
        read = pattern.fullmatch(clause)
        if read is None:
            continue
        if operation in ("sum", "difference"):
            return read[1], operation, (read[2], read[3]), None
        return read[1], operation, read.groups()[2:], int(read[2])
    raise InputError(f"words problem: cannot read {clause[:80]!r}")


def _values(told: Mapping[str, tuple[Operation, tuple[str, ...], int | None]]) -> dict[str, int]:
    """Value of every noun, in as many passes as the graph is deep."""
    values: dict[str, int] = {}
    while len(values) < len(told):
        before = len(values)
        for noun, (operation, operands, number) in told.items():
            if noun in values or not all(operand in values for operand in operands):
                continue
            numbers = [values[operand] for operand in operands]
            if number is not None:
                numbers.append(number)
            values[noun] = (
                numbers[0] if operation == "given" else compute(SYMBOL[operation], *numbers)
            )
        if len(values) == before:
            stuck = ", ".join(sorted(set(told) - set(values)))
            raise InputError(f"words problem: {stuck} depend on each other or on nothing told")
    return values


def _derived(story: Story, line: str, known: set[str]) -> str | None:
    """The noun that a line derives rightly from what is known, ``None`` if it does not."""
    read = _STEP.fullmatch(line)
    if read is None:
        return None
    noun, first, a, symbol, second, b, repeated, result = read.groups()
    quantity = story.by_noun.get(noun)
    if quantity is None or not quantity.operands or not known.issuperset(quantity.operands):
        return None
    if symbol != SYMBOL[quantity.operation] or repeated != noun:
        return None
    sides = _sides(story, quantity)
    written = [(first, int(a)), (second, int(b))]
    if written != sides and (symbol == "-" or written != sides[::-1]):
        return None
    return noun if int(result) == quantity.value else None


def _sides(story: Story, quantity: Quantity) -> list[tuple[str | None, int]]:
    """(noun, value) of both operands of a derived quantity; a constant has no noun."""
    sides: list[tuple[str | None, int]] = [
        (noun, story.by_noun[noun].value) for noun in quantity.operands
    ]
    if quantity.constant is not None:
        sides.append((None, quantity.constant))
    return sides
