"""Countdown by brute force: legal moves, exact reachability, counts of solutions, random drawing.

A *state* is the tuple of numbers still on the table, positive integers.  A *move* takes two of
them and puts back one result of + - * /, which must be a positive integer; * and / by one are
left out, because they change nothing.  The target is *reached* as soon as a move gives it; numbers
may be left over.

Source: family F2 of the reproduction protocol, reference section 12.2.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from mull.rng import derive

Split = Literal["train", "validation", "test"]
State = tuple[int, ...]

MAX_LEVEL: Final = 4
LARGEST_NUMBER: Final = 10
TARGETS: Final = range(10, 51)
_STREAMS: Final[tuple[Split, ...]] = ("test", "validation", "train", "train")
_KEY: Final = b"mull countdown streams"


@dataclass(frozen=True, slots=True)
class Move:
    """``a symbol b = result``, and the ``state`` it leads to: the result first, then the rest."""

    a: int
    symbol: str
    b: int
    result: int
    state: State


def apply(a: int, symbol: str, b: int) -> int | None:
    """The result of a legal operation, ``None`` if it is illegal.

    >>> apply(12, "/", 4), apply(12, "/", 5), apply(3, "-", 3)
    (3, None, None)
    """
    if symbol == "+":
        return a + b
    if symbol == "*":
        return a * b
    if symbol == "-":
        return a - b if a > b else None
    return a // b if b and a % b == 0 else None


def moves(state: State) -> list[Move]:
    """All moves that differ in operands or operation; the larger operand comes first."""
    seen: set[tuple[int, int]] = set()
    out: list[Move] = []
    for i, j, pair in _pairs(state):
        if pair in seen:
            continue
        seen.add(pair)
        a, b = pair
        rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
        results = [("+", a + b)]
        if a > b:
            results.append(("-", a - b))
        if b > 1:
            results.append(("*", a * b))
            if a % b == 0:
                results.append(("/", a // b))
        out.extend(Move(a, symbol, b, value, (value, *rest)) for symbol, value in results)
    return out


def _pairs(state: State) -> list[tuple[int, int, tuple[int, int]]]:
    """(i, j, larger and smaller number) of every two places i < j."""
    return [
        (i, j, (a, b) if a >= b else (b, a))
        for i, a in enumerate(state)
        for j, b in enumerate(state[i + 1 :], start=i + 1)
    ]


@dataclass
class Solver:
    """Exact answers about one target, remembered between calls.

    >>> solver = Solver(24)
    >>> solver.distance((4, 6, 9, 1)), solver.distance((1, 1, 1))
    (1, None)
    """

    target: int
    _within: dict[tuple[State, int], bool] = field(default_factory=dict, repr=False)
    _counts: dict[State, int] = field(default_factory=dict, repr=False)
    _chances: dict[State, float] = field(default_factory=dict, repr=False)

    def within(self, state: State, count: int) -> bool:
        """Whether ``count`` moves or fewer can reach the target."""
        if count < 1 or len(state) < 2:
            return False
        if self._at_once(state):
            return True
        if count == 1 or len(state) == 2:
            return False
        key = (tuple(sorted(state)), count)
        known = self._within.get(key)
        if known is None:
            known = any(self.within(move.state, count - 1) for move in moves(state))
            self._within[key] = known
        return known

    def _at_once(self, state: State) -> bool:
        # The innermost loop of the search: no move is built only to be looked at.
        t = self.target
        return any(
            a + b == t or a - b == t or a * b == t or a == b * t for _, _, (a, b) in _pairs(state)
        )

    def reachable(self, state: State) -> bool:
        """V*: whether the target can still be reached (it is not yet)."""
        return self.within(state, len(state) - 1)

    def distance(self, state: State) -> int | None:
        """Fewest moves to the target, ``None`` if it is out of reach."""
        return next((d for d in range(1, len(state)) if self.within(state, d)), None)

    def count(self, state: State) -> int:
        """Number of move sequences that end on the target."""
        key = tuple(sorted(state))
        if key not in self._counts:
            self._counts[key] = sum(
                1 if move.result == self.target else self.count(move.state) for move in moves(state)
            )
        return self._counts[key]

    def chance(self, state: State) -> float:
        """Probability that moves drawn evenly among the legal ones reach the target."""
        key = tuple(sorted(state))
        if key not in self._chances:
            options = moves(state)
            total = sum(
                1.0 if move.result == self.target else self.chance(move.state) for move in options
            )
            self._chances[key] = total / len(options) if options else 0.0
        return self._chances[key]

    def shortest(self, state: State, rng: random.Random) -> list[Move]:
        """A shortest solution; each move is drawn evenly among those that stay on a shortest one.

        Raises:
            ValueError: the target is out of reach.
        """
        left = self.distance(state)
        if left is None:
            raise ValueError(f"{self.target} is out of reach from {state}")
        out: list[Move] = []
        while left:
            left -= 1
            good = [
                move
                for move in moves(state)
                if (self.within(move.state, left) if left else move.result == self.target)
            ]
            out.append(rng.choice(good))
            state = out[-1].state
        return out


@dataclass(frozen=True)
class Puzzle:
    """Numbers in the order of telling, and the target."""

    target: int
    numbers: State

    def stream(self) -> Split:
        """The one stream that this puzzle may appear in: a keyed hash of target and numbers."""
        name = f"{self.target} from {sorted(self.numbers)}"
        digest = hashlib.blake2b(name.encode(), key=_KEY, digest_size=1).digest()
        return _STREAMS[digest[0] % len(_STREAMS)]


@lru_cache(maxsize=64)
def solver(puzzle: Puzzle) -> Solver:
    """The puzzle's solver, shared by whoever asks about it soon again: searches are dear."""
    return Solver(puzzle.target)


def draw(seed: int, split: Split, index: int, level: int) -> Puzzle:
    """Puzzle ``index`` of a stream whose shortest solution has ``level`` moves (1..4).

    Levels up to 3 have 4 or 5 numbers, level 4 needs 5.

    >>> puzzle = draw(0, "train", 3, level=2)
    >>> Solver(puzzle.target).distance(puzzle.numbers), puzzle.stream()
    (2, 'train')
    """
    if not 1 <= level <= MAX_LEVEL:
        raise ValueError(f"level must lie in 1..{MAX_LEVEL}, not {level}")
    rng = random.Random(derive(seed, "countdown", split, index, level))
    while True:
        count = 5 if level == MAX_LEVEL else rng.choice((4, 5))
        numbers = tuple(rng.randint(1, LARGEST_NUMBER) for _ in range(count))
        puzzle = Puzzle(_play(rng, numbers, level), numbers)
        if puzzle.target not in TARGETS or puzzle.target in numbers or puzzle.stream() != split:
            continue
        # Played in `level` moves by construction; keep it if no fewer would do.
        if not solver(puzzle).within(numbers, level - 1):
            return puzzle


def _play(rng: random.Random, numbers: State, count: int) -> int:
    """Result of the last of ``count`` random moves."""
    state: Sequence[int] = numbers
    for _ in range(count):
        state = rng.choice(moves(tuple(state))).state
    return state[0]
