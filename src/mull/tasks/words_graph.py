"""Stories: graphs of quantities with one asked for, drawn at random; no text here.

A story holds *given* quantities and quantities derived from one or two others.  The *needed*
ones are those the asked quantity depends on; the rest are distractors.  The level of a story is
the number of needed operations.

Streams.  A story belongs to ``train``, ``validation`` or ``test`` by a keyed hash of the
expression that its answer computes (operands of + and * sorted; nouns, sentence order and
distractors dropped).  So the streams are disjoint by construction, and no test problem is a
training problem in other words.

Source: family F1 of the reproduction protocol (reference section 12.2), as a graph.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from mull.rng import derive

Split = Literal["train", "validation", "test"]
Operation = Literal["given", "more", "fewer", "times", "sum", "difference"]

MAX_LEVEL: Final = 10
MAX_VALUE: Final = 99
# fmt: off
NOUNS: Final = (
    "apples", "bags", "balls", "bells", "boats", "books", "boxes", "cakes", "cards",
    "chairs", "coats", "coins", "cups", "dolls", "eggs", "figs", "hats", "jars",
    "keys", "kites", "lamps", "maps", "nuts", "pears", "pens", "plums",
)
# fmt: on
SYMBOL: Final[dict[Operation, str]] = {
    "more": "+",
    "fewer": "-",
    "times": "*",
    "sum": "+",
    "difference": "-",
}
# One quarter of all expressions is test, one quarter validation, the rest training: rejection
# then costs four tries at most on average, and level 1 keeps enough distinct test problems.
_STREAMS: Final[tuple[Split, ...]] = ("test", "validation", "train", "train")
_KEY: Final = b"mull words streams"
_TRIES: Final = 20


def compute(symbol: str, a: int, b: int) -> int:
    """``a symbol b`` for + - *.

    >>> compute("*", 6, 7)
    42
    """
    if symbol == "+":
        return a + b
    return a - b if symbol == "-" else a * b


@dataclass(frozen=True, slots=True)
class Quantity:
    """A noun with its value and how it comes about.

    ``operands`` are the nouns that it is derived from: none if given, one beside ``constant`` for
    more, fewer and times, two for sum and difference.
    """

    noun: str
    operation: Operation
    operands: tuple[str, ...]
    constant: int | None
    value: int


@dataclass(frozen=True)
class Story:
    """Quantities in the order of telling, and the noun asked for."""

    quantities: tuple[Quantity, ...]
    asked: str
    by_noun: dict[str, Quantity] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_noun", {q.noun: q for q in self.quantities})

    @property
    def answer(self) -> int:
        """Value of the asked quantity."""
        return self.by_noun[self.asked].value

    def needed(self) -> set[str]:
        """Nouns of the derived quantities that the answer depends on, itself included."""
        found: set[str] = set()
        stack = [self.asked]
        while stack:
            quantity = self.by_noun[stack.pop()]
            if quantity.operands and quantity.noun not in found:
                found.add(quantity.noun)
                stack.extend(quantity.operands)
        return found

    @property
    def level(self) -> int:
        """Number of operations that the answer needs."""
        return len(self.needed())

    def order(self, rng: random.Random) -> list[Quantity]:
        """The needed quantities in a random order that derives operands first.

        Each next one is drawn evenly among those that are ready.
        """
        waiting = [q for q in self.quantities if q.noun in self.needed()]
        known = {q.noun for q in self.quantities if not q.operands}
        out: list[Quantity] = []
        while waiting:
            ready = [q for q in waiting if known.issuperset(q.operands)]
            chosen = rng.choice(ready)
            waiting.remove(chosen)
            known.add(chosen.noun)
            out.append(chosen)
        return out

    def stream(self) -> Split:
        """The one stream that this story may appear in."""
        digest = hashlib.blake2b(self._expression().encode(), key=_KEY, digest_size=1).digest()
        return _STREAMS[digest[0] % len(_STREAMS)]

    def _expression(self) -> str:
        """A name of the answer's expression, equal for stories that differ only in words.

        Shared parts are hashed, not spelled out: a graph of ten sums of itself stays short.
        """
        names: dict[str, str] = {}
        ready = [q for q in self.quantities if not q.operands]
        for quantity in (*ready, *self.order(random.Random(0))):
            if not quantity.operands:
                names[quantity.noun] = str(quantity.value)
                continue
            parts = [names[noun] for noun in quantity.operands]
            if quantity.constant is not None:
                parts.append(str(quantity.constant))
            symbol = SYMBOL[quantity.operation]
            if symbol != "-":
                parts.sort()
            spelled = f"({parts[0]} {symbol} {parts[1]})"
            names[quantity.noun] = hashlib.blake2b(spelled.encode(), digest_size=8).hexdigest()
        return names[self.asked]


def draw(seed: int, split: Split, index: int, level: int, distractors: int = 2) -> Story:
    """Story ``index`` of a stream, with ``level`` needed operations and up to ``distractors`` more.

    >>> story = draw(0, "train", 7, level=4)
    >>> story.level, story.stream()
    (4, 'train')
    """
    if not 1 <= level <= MAX_LEVEL:
        raise ValueError(f"level must lie in 1..{MAX_LEVEL}, not {level}")
    rng = random.Random(derive(seed, "words", split, index, level))
    while True:
        nodes = _grow(rng, level)
        if nodes is None:
            continue
        asked = len(nodes) - 1
        for _ in range(rng.randint(0, distractors)):
            _distract(rng, nodes)
        nouns = rng.sample(NOUNS, len(nodes))
        quantities = tuple(nodes[i].named(nouns[i], nouns) for i in _telling(rng, nodes))
        story = Story(quantities, nouns[asked])
        if story.stream() == split:
            return story


def _telling(rng: random.Random, nodes: Sequence[_Node]) -> list[int]:
    """A random order of telling in which nothing is mentioned before it is told."""
    waiting = list(range(len(nodes)))
    told: list[int] = []
    while waiting:
        chosen = rng.choice([i for i in waiting if set(told).issuperset(nodes[i].operands)])
        waiting.remove(chosen)
        told.append(chosen)
    return told


@dataclass(frozen=True, slots=True)
class _Node:
    """A quantity before it has a noun; operands are positions."""

    operation: Operation
    operands: tuple[int, ...]
    constant: int | None
    value: int

    def named(self, noun: str, nouns: Sequence[str]) -> Quantity:
        operands = tuple(nouns[i] for i in self.operands)
        return Quantity(noun, self.operation, operands, self.constant, self.value)


def _given(rng: random.Random) -> _Node:
    return _Node("given", (), None, rng.randint(2, 40))


def _grow(rng: random.Random, level: int) -> list[_Node] | None:
    """Givens and ``level`` operations that all flow into the last one; ``None`` if stuck.

    ``loose`` are the positions that nothing uses yet.  One operation ties at most one loose end,
    so there may never be more of them than operations left plus one.
    """
    nodes = [_given(rng) for _ in range(rng.randint(1, min(3, level + 1)))]
    loose = set(range(len(nodes)))
    for left in reversed(range(level)):
        for _ in range(_TRIES):
            operands = _pick(rng, len(nodes), sorted(loose), must_tie=len(loose) > left + 1)
            rest = loose.difference(operands)
            node = _derive(rng, nodes, operands) if len(rest) <= left else None
            if node is not None:
                loose = rest | {len(nodes)}
                nodes.append(node)
                break
        else:
            return None
    return nodes if loose == {len(nodes) - 1} else None


def _pick(rng: random.Random, count: int, loose: Sequence[int], must_tie: bool) -> tuple[int, ...]:
    """One or two operand positions; chains and joins both occur often."""
    if count >= 2 and (must_tie or rng.random() < 0.4):
        if len(loose) >= 2 and (must_tie or rng.random() < 0.5):
            return tuple(rng.sample(loose, 2))
        return tuple(rng.sample(range(count), 2))
    return (rng.choice(loose) if rng.random() < 0.7 else rng.randrange(count),)


def _derive(rng: random.Random, nodes: Sequence[_Node], operands: tuple[int, ...]) -> _Node | None:
    """An operation on these operands with a value in 1..99, or ``None`` if none was found."""
    if len(operands) == 2:
        one, two = operands
        if rng.random() < 0.5:
            value, operation = nodes[one].value + nodes[two].value, "sum"
        else:
            if nodes[one].value < nodes[two].value:
                one, two = two, one
            value, operation = nodes[one].value - nodes[two].value, "difference"
        if 1 <= value <= MAX_VALUE:
            return _Node("sum" if operation == "sum" else "difference", (one, two), None, value)
        return None
    choices: tuple[Operation, ...] = ("more", "fewer", "times")
    for _ in range(6):
        chosen = rng.choice(choices)
        constant = rng.randint(2, 5) if chosen == "times" else rng.randint(2, 20)
        value = compute(SYMBOL[chosen], nodes[operands[0]].value, constant)
        if 1 <= value <= MAX_VALUE:
            return _Node(chosen, operands, constant, value)
    return None


def _distract(rng: random.Random, nodes: list[_Node]) -> None:
    """Add one quantity that the asked one does not use."""
    if rng.random() < 0.35:
        nodes.append(_given(rng))
        return
    for _ in range(_TRIES):
        node = _derive(rng, nodes, _pick(rng, len(nodes), range(len(nodes)), must_tie=False))
        if node is not None:
            nodes.append(node)
            return
