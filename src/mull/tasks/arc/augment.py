"""Augmentations as string keys: what a view changed stands in its name and can be undone.

A key is parts joined by dots, in this order, each at most once; parts that change nothing are left
out, so that a view has exactly one key.  The view that changes nothing is ``same``.

| part | meaning |
|---|---|
| ``flip`` | columns mirrored, in every grid |
| ``rot1`` ``rot2`` ``rot3`` | then quarter turns counter-clockwise, in every grid |
| ``colours0319245678`` | then colour 1 becomes 3, 2 becomes 1 …, in every grid |
| ``order2-0-1`` | the train pairs in this order |
| ``swap3-0-1-2`` | train and test pairs pooled in this order and split again; for training only |
| ``out-pad1x2c5`` | last, on outputs only: a border of 1 row and 2 columns a side in colour 5 |
| ``out-up2x3`` | every cell 2 rows high and 3 columns wide |
| ``out-mirror0a`` ``out-mirror1b`` | a reflected copy along axis 0 (rows) or 1, before or after |
| ``out-turn1`` ``out-flip2`` | quarter turns, with ``flip`` after a mirroring, of outputs alone |

The last four stand with ``in-`` as well: inputs only.  One of them at most; they make a new rule of
the puzzle's own, and what was done to outputs is undone in a prediction.

Facts: reference arc.md 3.1.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from mull.errors import ConfigError, InputError, SpecError
from mull.rng import derive
from mull.tasks.arc.changes import Change, Mirror, Pad, Symmetry, Upscale
from mull.tasks.arc.grids import COLOURS, MAX_SIDE, Grid, Pair, Puzzle, shape
from mull.tasks.base import SAME

Side = Literal["in", "out"]
UNCHANGED: Final = tuple(range(COLOURS))
STILL: Final = Symmetry()
_GRAMMAR: Final = re.compile(
    r"(?:(flip)\.)?(?:rot([1-3])\.)?(?:colours(\d{10})\.)?"
    r"(?:(order|swap)(\d{1,4}(?:-\d{1,4}){0,9999})\.)?(?:(in|out)-([a-z0-9]{1,40})\.)?",
    re.ASCII,
)
_OWN: Final = {
    "pad": re.compile(r"pad(\d{1,2})x(\d{1,2})c(\d)", re.ASCII),
    "up": re.compile(r"up(\d{1,2})x(\d{1,2})", re.ASCII),
    "mirror": re.compile(r"mirror([01])([ab])", re.ASCII),
    "turn": re.compile(r"(turn|flip)([0-3])", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A key's meaning; ``str`` gives the key and ``parse`` reads it.

    ``colours[c]`` is what colour c becomes.  ``order`` is empty where the pairs stay as they are;
    with ``swap`` it runs over train and test pairs pooled.

    >>> str(Augmentation(Symmetry(True, 2), order=(2, 0, 1), own=("out", Pad(1, 2, 5))))
    'flip.rot2.order2-0-1.out-pad1x2c5'
    >>> str(Augmentation())
    'same'
    """

    turn: Symmetry = STILL
    colours: tuple[int, ...] = UNCHANGED
    order: tuple[int, ...] = ()
    swap: bool = False
    own: tuple[Side, Change] | None = None

    def __str__(self) -> str:
        parts = ["flip"] if self.turn.flip else []
        if self.turn.turns:
            parts.append(f"rot{self.turn.turns}")
        if self.colours != UNCHANGED:
            parts.append("colours" + "".join(map(str, self.colours)))
        if self.order != tuple(range(len(self.order))):
            parts.append(("swap" if self.swap else "order") + "-".join(map(str, self.order)))
        if self.own is not None:
            parts.append("-".join(map(str, self.own)))
        return ".".join(parts) or SAME

    def apply(self, puzzle: Puzzle) -> Puzzle:
        """The view of a puzzle; its id stays.

        ``InputError`` where the order is of another number of pairs, or where a test pair without
        an output would be trained on.
        """
        train, test = puzzle.train, puzzle.test
        if self.order:
            pool = train + test if self.swap else train
            if len(pool) != len(self.order):
                raise InputError(
                    f"{puzzle.id}: {self} orders {len(self.order)} pairs; the puzzle has "
                    f"{len(pool)}"
                )
            if self.swap and any(pair.output is None for pair in pool):
                raise InputError(f"{puzzle.id}: {self} needs the output of every test pair")
            pool = tuple(pool[i] for i in self.order)
            train, test = (pool[: len(train)], pool[len(train) :]) if self.swap else (pool, test)
        return Puzzle(
            puzzle.id,
            tuple(map(self._pair, train)),
            tuple(map(self._pair, test)),
        )

    def grid(self, grid: Grid, side: Side = "out") -> Grid:
        """One grid as the view shows it: an input or an output."""
        shown = _paint(self.turn.forward(grid), self.colours)
        return self.own[1].forward(shown) if self.own and self.own[0] == side else shown

    def revert(self, grid: Grid) -> Grid:
        """The output that the view shows as ``grid``; ``InputError`` where there is none."""
        if self.own and self.own[0] == "out":
            grid = self.own[1].back(grid)
        back = [0] * COLOURS
        for colour, shown in enumerate(self.colours):
            back[shown] = colour
        return self.turn.back(_paint(grid, tuple(back)))

    def _pair(self, pair: Pair) -> Pair:
        output = None if pair.output is None else self.grid(pair.output, "out")
        return Pair(self.grid(pair.input, "in"), output)


def parse(key: str) -> Augmentation:
    """The meaning of a key; ``SpecError`` for any other text, and for a key not in its one form.

    >>> parse("flip.rot2").turn
    Symmetry(flip=True, turns=2)
    >>> parse("rot2.flip")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mull.errors.SpecError: augmentation key 'rot2.flip': expected parts ... or same
    """
    if key == SAME:
        return Augmentation()
    found = _GRAMMAR.fullmatch(key + ".")
    if found is None or not key:
        raise SpecError(
            f"augmentation key {key!r:.80}: expected parts flip, rot1..rot3, colours<10 digits>, "
            "order<indices> or swap<indices>, in-<change> or out-<change>, in this order and "
            "joined by dots, or same"
        )
    flip, turns, colours, kind, indices, side, own = found.groups()
    made = Augmentation(
        Symmetry(flip is not None, int(turns or 0)),
        tuple(map(int, colours)) if colours else UNCHANGED,
        tuple(map(int, indices.split("-"))) if indices else (),
        kind == "swap",
        ("in" if side == "in" else "out", _change(key, own)) if side else None,
    )
    if sorted(made.colours) != list(UNCHANGED):
        raise SpecError(f"augmentation key {key!r:.80}: expected every colour once in {colours}")
    if sorted(made.order) != list(range(len(made.order))):
        raise SpecError(f"augmentation key {key!r:.80}: expected every index once in {indices}")
    if str(made) != key:
        raise SpecError(f"augmentation key {key!r:.80}: its one form is {str(made)!r}")
    return made


def apply(key: str, puzzle: Puzzle) -> Puzzle:
    """The view of a puzzle that a key names; errors as ``parse`` and ``Augmentation.apply``."""
    return parse(key).apply(puzzle)


def revert(key: str, grid: Grid) -> Grid:
    """A prediction made in the view of a key, in the puzzle's own frame.

    ``InputError`` where no output looks like this in the view (a broken border, unequal halves).

    >>> revert("rot1.out-up2x2", ((1, 1), (1, 1), (2, 2), (2, 2)))
    ((2, 1),)
    """
    return parse(key).revert(grid)


def views(
    puzzle: Puzzle,
    n: int,
    seed: int,
    *,
    geometry: bool = True,
    colours: bool = True,
    order: bool = True,
) -> list[str]:
    """``n`` keys to predict from: the eight symmetries in turn, each with colours and an order.

    Any ``n`` is good, and fewer views are the first ones of more.  Keys are distinct while there
    are distinct ones, and so is what they show while a few draws find something new.  A switch
    that is off leaves that part out.

    >>> p = Puzzle("p", (Pair(((1,),), ((2,),)),), (Pair(((3,),)),))
    >>> views(p, 3, seed=0, colours=False)
    ['same', 'rot1', 'rot2']
    """
    if n < 1:
        raise ConfigError(f"views: n must be at least 1, not {n}")
    turns = [Symmetry(flip, k) for flip in (False, True) for k in range(4)] if geometry else [STILL]
    palette = _palette(puzzle)
    orders = [
        _orders(len(puzzle.train), random.Random(derive(seed, puzzle.id, "order", i)))
        if order
        else itertools.repeat(())
        for i in range(len(turns))
    ]
    keys: list[str] = []
    taken: set[str] = set()
    shown: set[tuple[object, ...]] = set()
    for i in range(n):
        rng = random.Random(derive(seed, puzzle.id, "view", i))
        turn, pairs = turns[i % len(turns)], orders[i % len(turns)]
        # Without colours the orders come without repeats, so one draw is the best draw.
        for patience in range(_PATIENCE if colours else 1, 0, -1):
            made = Augmentation(turn, draw_colours(rng) if colours else UNCHANGED, next(pairs))
            key = str(made)
            seen = (turn, made.order, tuple(made.colours[c] for c in palette))
            if key not in taken and (seen not in shown or patience == 1):
                break
        taken.add(key)
        shown.add(seen)
        keys.append(key)
    return keys


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``draw`` may change.

    ``swap``: pool train and test pairs where all outputs are known.  ``own``: the probability of a
    change to inputs or outputs alone, with the relative ``weights`` of its kinds; the defaults are
    the best of the write-up (reference arc.md 3.1).
    """

    geometry: bool = True
    colours: bool = True
    order: bool = True
    swap: bool = True
    own: float = 0.5
    weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"turn": 1, "pad": 2, "up": 4, "mirror": 4})
    )

    def __post_init__(self) -> None:
        if not 0.0 <= self.own <= 1.0:
            raise ConfigError(f"own must lie in 0..1, not {self.own}")
        bad = sorted(set(self.weights) - set(_CHANGES))
        if bad or min(self.weights.values(), default=0) < 0 or not any(self.weights.values()):
            raise ConfigError(
                f"weights: expected numbers of 0 or more, not all 0, for {', '.join(_CHANGES)}; "
                f"not {dict(self.weights)}"
            )


def draw(puzzle: Puzzle, rng: random.Random, recipe: Recipe | None = None) -> str:
    """A random key for training.

    A change to one side is left out where it would make a grid longer than 30 cells a side.
    """
    recipe = Recipe() if recipe is None else recipe
    turn = Symmetry(rng.random() < 0.5, rng.randrange(4)) if recipe.geometry else STILL
    colours = draw_colours(rng) if recipe.colours else UNCHANGED
    swap = recipe.swap and all(pair.output is not None for pair in puzzle.test)
    count = len(puzzle.train) + (len(puzzle.test) if swap else 0)
    order = tuple(rng.sample(range(count), count)) if swap or recipe.order else ()
    made = Augmentation(turn, colours, order, swap)
    if rng.random() < recipe.own:
        side: Side = "in" if rng.random() < 0.5 else "out"
        kinds = list(recipe.weights)
        [kind] = rng.choices(kinds, [recipe.weights[kind] for kind in kinds])
        change = _draw_change(kind, rng)
        grids = [g for p in puzzle.train + puzzle.test for g in (p.input, p.output)]
        sizes = [shape(g) for g in (grids[::2] if side == "in" else grids[1::2]) if g is not None]
        if all(_fits(change, turn, size) for size in sizes):
            made = Augmentation(turn, colours, order, swap, (side, change))
    return str(made)


def draw_colours(rng: random.Random) -> tuple[int, ...]:
    """A colour map: 0 stays 0 nine times in ten, the others change places.

    Colour 0 is the background of most puzzles, and a prior worth keeping.
    """
    if rng.random() < 0.1:
        return tuple(rng.sample(range(COLOURS), COLOURS))
    return (0, *rng.sample(range(1, COLOURS), COLOURS - 1))


_PATIENCE: Final = 32
_CHANGES: Final = ("turn", "pad", "up", "mirror")


def _draw_change(kind: str, rng: random.Random) -> Change:
    if kind == "turn":
        number = rng.randrange(1, 8)
        return Symmetry(number >= 4, number % 4)
    if kind == "pad":
        rows = rng.randint(1, 5)
        return Pad(rows, rows if rng.random() < 0.5 else rng.randint(1, 5), rng.randrange(COLOURS))
    if kind == "up":
        if rng.random() < 0.5:
            rows = rng.randint(2, 4)
            return Upscale(rows, rows)
        number = rng.randrange(1, 16)
        return Upscale(number // 4 + 1, number % 4 + 1)
    return Mirror(rng.randrange(2), rng.random() < 0.5)


def _fits(change: Change, turn: Symmetry, size: tuple[int, int]) -> bool:
    """Whether a grid of this size, turned, has sides of at most 30 after the change."""
    rows, columns = size[::-1] if turn.turns % 2 else size
    if isinstance(change, Pad):
        rows, columns = rows + 2 * change.rows, columns + 2 * change.columns
    elif isinstance(change, Upscale):
        rows, columns = rows * change.rows, columns * change.columns
    elif isinstance(change, Mirror):
        rows, columns = (2 * rows, columns) if change.axis == 0 else (rows, 2 * columns)
    return max(rows, columns) <= MAX_SIDE


def _palette(puzzle: Puzzle) -> list[int]:
    grids = [grid for p in puzzle.train + puzzle.test for grid in (p.input, p.output) if grid]
    return sorted({cell for grid in grids for row in grid for cell in row})


def _orders(count: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Endless orders of ``count`` pairs, each once before any comes again where they are few."""
    while math.factorial(count) <= 5040:
        every = list(itertools.permutations(range(count)))
        rng.shuffle(every)
        yield from every
    while True:
        yield tuple(rng.sample(range(count), count))


def _change(key: str, text: str) -> Change:
    if found := _OWN["pad"].fullmatch(text):
        pad = Pad(int(found[1]), int(found[2]), int(found[3]))
        if pad.rows + pad.columns > 0:
            return pad
    elif found := _OWN["up"].fullmatch(text):
        up = Upscale(int(found[1]), int(found[2]))
        if up.rows > 0 and up.columns > 0 and up.rows * up.columns > 1:
            return up
    elif found := _OWN["mirror"].fullmatch(text):
        return Mirror(int(found[1]), found[2] == "a")
    elif (found := _OWN["turn"].fullmatch(text)) and text != "turn0":
        return Symmetry(found[1] == "flip", int(found[2]))
    raise SpecError(
        f"augmentation key {key!r:.80}: {text!r} changes nothing or is unknown; expected "
        "pad<rows>x<columns>c<colour>, up<rows>x<columns>, mirror0a, mirror0b, mirror1a, "
        "mirror1b, turn1..turn3 or flip0..flip3"
    )


def _paint(grid: Grid, colours: tuple[int, ...]) -> Grid:
    if colours == UNCHANGED:
        return grid
    return tuple(tuple([colours[cell] for cell in row]) for row in grid)
