"""Unlimited one-row puzzles of thirteen 1D-ARC kinds: seeded generators and exact rules.

1D-ARC (Xu et al. 2023, arXiv 2305.18354) has 901 puzzles of 18 kinds, 50 of each and 51 of
``1d_scale_dp``, three train pairs and a test pair of one row each.  ``KINDS`` are the thirteen that
may be trained on; ``HELD_OUT`` are never made here, so that they measure what carries over to rules
unseen.

A rule is a function on rows, tested against every pair of its kind in the data; a generator draws
inputs like the data's (widths, lengths, margins, colours) and the rule makes the outputs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import count as naturals
from itertools import groupby, islice
from typing import Final, NamedTuple

from mull.errors import InputError
from mull.rng import derive
from mull.tasks.arc.grids import Grid, Pair, Puzzle

Row = tuple[int, ...]
HELD_OUT: Final = (
    "1d_mirror",
    "1d_recolor_cmp",
    "1d_recolor_cnt",
    "1d_recolor_oe",
    "1d_scale_dp",
)
TRAIN_PAIRS: Final = 3


class Run(NamedTuple):
    """Cells of one colour side by side, not 0."""

    start: int
    length: int
    colour: int

    @property
    def end(self) -> int:
        """The first cell after it."""
        return self.start + self.length


def runs(row: Row) -> list[Run]:
    """The coloured runs of a row, left to right.

    >>> runs((0, 2, 2, 3, 0))
    [Run(start=1, length=2, colour=2), Run(start=3, length=1, colour=3)]
    """
    found, start = [], 0
    for colour, cells in groupby(row):
        length = len(list(cells))
        if colour:
            found.append(Run(start, length, colour))
        start += length
    return found


def paint(width: int, parts: Iterable[Run]) -> Row:
    """A row of zeros with the runs painted over, in order."""
    row = [0] * width
    for part in parts:
        row[part.start : part.end] = [part.colour] * part.length
    return tuple(row)


def denoise(row: Row) -> Row:
    """Single cells go, the long run stays."""
    return paint(len(row), [max(runs(row), key=lambda run: run.length)])


def denoise_inside(row: Row) -> Row:
    """Specks inside the thing take its colour, the most frequent one."""
    return tuple(_main_colour(row) if cell else 0 for cell in row)


def fill(row: Row) -> Row:
    """The gap between two cells is filled, pair by pair."""
    found = runs(row)
    pairs = zip(found[::2], found[1::2], strict=True)
    return paint(len(row), (Run(a.start, b.end - a.start, a.colour) for a, b in pairs))


def flip(row: Row) -> Row:
    """The thing is turned end for end, in its place."""
    start, end = _extent(row)
    return row[:start] + row[start:end][::-1] + row[end:]


def hollow(row: Row) -> Row:
    """Only the ends of the run stay."""
    [run] = runs(row)
    ends = (Run(run.start, 1, run.colour), Run(run.end - 1, 1, run.colour))
    return paint(len(row), ends)


def move(by: int) -> Callable[[Row], Row]:
    """The run goes ``by`` cells to the right."""

    def rule(row: Row) -> Row:
        [run] = runs(row)
        return paint(len(row), [run._replace(start=run.start + by)])

    return rule


def move_towards(row: Row) -> Row:
    """The run goes two cells towards the marker, a single cell on its right that stays."""
    run, marker = runs(row)
    return paint(len(row), [run._replace(start=run.start + 2), marker])


def move_up_to(row: Row) -> Row:
    """The run goes right until it touches the marker, which stays."""
    run, marker = runs(row)
    return paint(len(row), [run._replace(start=marker.start - run.length), marker])


def copy_pattern(row: Row) -> Row:
    """The first run shows a length of three; every single cell grows to it, around itself."""
    first, *rest = runs(row)
    return paint(len(row), [first, *(Run(run.start - 1, 3, run.colour) for run in rest)])


# Noise cells before and after the long run, as the data has them most.
_SIDES: Final = [(a, b) for a in range(4) for b in range(5) if 0 < a + b <= 5]


def _noisy(rng: random.Random, width: int, colours: list[int]) -> Row:
    length = rng.randint(10, 15)
    before, after = rng.choice(_SIDES)
    at, parts = rng.randint(0, 4), []
    for i in range(before + 1 + after):
        size = length if i == before else 1
        parts.append(Run(at, size, colours[0]))
        at += size + rng.randint(1 if i in (before - 1, before) else 2, 4)
    return paint(width, parts) if parts[-1].end < width else _noisy(rng, width, colours)


def _specked(rng: random.Random, width: int, colours: list[int]) -> Row:
    length = rng.randint(20, 26)
    start = rng.randint(0, width - 3 - length)
    row = list(paint(width, [Run(start, length, colours[0])]))
    # No speck at an end: the thing's own colour shows where it begins.
    for place in rng.sample(range(start + 1, start + length - 1), rng.randint(1, 4)):
        row[place] = rng.choice([colour for colour in range(1, 10) if colour != colours[0]])
    return tuple(row)


def _block(rng: random.Random, width: int, colours: list[int], right: int = 1) -> Run:
    length = rng.randint(3, width - right)
    return Run(rng.randint(0, width - right - length), length, colours[0])


def _ends(rng: random.Random, width: int, colours: list[int]) -> Row:
    return hollow(_whole(rng, width, colours))


def _whole(rng: random.Random, width: int, colours: list[int]) -> Row:
    return paint(width, [_block(rng, width, colours)])


def _ends_thrice(rng: random.Random, width: int, colours: list[int]) -> Row:
    return _ends(rng, width // 3, colours) * 3


def _headed(rng: random.Random, width: int, colours: list[int]) -> Row:
    length = rng.randint(3, min(16, width - 1))
    start = rng.randint(0, width - 1 - length)
    return paint(width, [Run(start, 1, colours[1]), Run(start + 1, length - 1, colours[0])])


def _movable(rng: random.Random, width: int, colours: list[int]) -> Row:
    return paint(width, [_block(rng, width, colours, right=4)])


def _near(rng: random.Random, width: int, colours: list[int]) -> Row:
    run = _block(rng, width, colours, right=4)
    return paint(width, [run, Run(run.end + 2, 1, colours[-1])])


def _far(rng: random.Random, width: int, colours: list[int]) -> Row:
    run = _block(rng, width, colours, right=4)
    return paint(width, [run, Run(rng.randint(run.end + 2, width - 1), 1, colours[-1])])


def _pattern(many: bool) -> Callable[[random.Random, int, list[int]], Row]:
    def draw(rng: random.Random, width: int, colours: list[int]) -> Row:
        parts = [Run(rng.randint(1, 2), 3, colours[0])]
        for _ in range(rng.randint(1, 3)):
            gap = rng.randint(2 if len(parts) == 1 else 3, 4 if len(parts) == 1 else 5)
            colour = rng.randint(1, 9) if many else colours[0]
            parts.append(Run(parts[-1].end + gap, 1, colour))
        return paint(width, parts)

    return draw


class Kind(NamedTuple):
    """A rule, and a row to apply it to of (random numbers, width, the pair's colours)."""

    rule: Callable[[Row], Row]
    draw: Callable[[random.Random, int, list[int]], Row]
    widths: range


KINDS: Final[dict[str, Kind]] = {
    "1d_denoising_1c": Kind(denoise, _noisy, range(32, 34)),
    "1d_denoising_mc": Kind(denoise_inside, _specked, range(32, 34)),
    "1d_fill": Kind(fill, _ends, range(8, 32)),
    "1d_flip": Kind(flip, _headed, range(9, 33)),
    "1d_hollow": Kind(hollow, _whole, range(8, 32)),
    "1d_move_1p": Kind(move(1), _movable, range(7, 31)),
    "1d_move_2p": Kind(move(2), _movable, range(7, 31)),
    "1d_move_3p": Kind(move(3), _movable, range(7, 31)),
    "1d_move_2p_dp": Kind(move_towards, _near, range(7, 31)),
    "1d_move_dp": Kind(move_up_to, _far, range(7, 31)),
    "1d_padded_fill": Kind(fill, _ends_thrice, range(24, 94, 3)),
    "1d_pcopy_1c": Kind(copy_pattern, _pattern(False), range(32, 34)),
    "1d_pcopy_mc": Kind(copy_pattern, _pattern(True), range(32, 34)),
}
"""Kinds by the names of the data's folders; widths are the data's."""


def puzzles(
    kind: str,
    seed: int,
    count: int | None = None,
    exclude: Container[frozenset[Pair]] = (),
    avoid: Container[Pair] = (),
) -> Iterator[Puzzle]:
    """Puzzles of a kind: three train pairs, one test pair, one width and four inputs apart.

    Endless without ``count``; equal seeds give equal puzzles.  ``exclude`` holds the
    ``fingerprint`` of puzzles that must not come out: those of the data.  ``avoid`` is stricter,
    and holds pairs that no puzzle may show: the data's test pairs.  Rows are short, so without it
    they do come up: in 1 of 3 puzzles of ``1d_pcopy_1c``, in 1 of 20 of ``1d_move_1p``.

    >>> [p] = puzzles("1d_fill", seed=0, count=1)
    >>> len(p.train), len(p.test), p.id
    (3, 1, '1d_fill-0-0')
    """
    if kind in HELD_OUT:
        raise InputError(f"{kind} is held out to measure unseen rules; it is never generated")
    if kind not in KINDS:
        raise InputError(f"no kind {kind!r}; expected one of {', '.join(KINDS)}")
    made = (_puzzle(kind, seed, index) for index in naturals())
    good = (
        puzzle
        for puzzle in made
        if fingerprint(puzzle) not in exclude
        and not any(pair in avoid for pair in puzzle.train + puzzle.test)
    )
    return islice(good, count)


def fingerprint(puzzle: Puzzle) -> frozenset[Pair]:
    """What two puzzles share that differ only in their order and in which pair is the test."""
    return frozenset(puzzle.train + puzzle.test)


def solve(kind: str, grid: Grid) -> Grid:
    """The output that a kind's rule makes of a one-row grid.

    >>> solve("1d_move_dp", ((0, 4, 4, 0, 0, 9, 0),))
    ((0, 0, 0, 4, 4, 9, 0),)
    """
    if kind not in KINDS or len(grid) != 1:
        raise InputError(f"{kind!r} of {len(grid)} rows; expected one of {', '.join(KINDS)}, 1 row")
    return (KINDS[kind].rule(grid[0]),)


def _puzzle(kind: str, seed: int, index: int) -> Puzzle:
    rule, draw, widths = KINDS[kind]
    rng = random.Random(derive(seed, kind, index))
    width = rng.choice(widths)
    # The marker of a puzzle has one colour in all its pairs, and nothing else there has it.
    marker = rng.randint(1, 9)
    pairs: list[Pair] = []
    while len(pairs) <= TRAIN_PAIRS:
        colours = rng.sample([c for c in range(1, 10) if c != marker], 2)
        row = draw(rng, width, [*colours, marker])
        pair = Pair((row,), (rule(row),))
        if pair not in pairs:
            pairs.append(pair)
    return Puzzle(f"{kind}-{seed}-{index}", tuple(pairs[:-1]), (pairs[-1],))


def _main_colour(row: Row) -> int:
    return Counter(cell for cell in row if cell).most_common(1)[0][0]


def _extent(row: Row) -> tuple[int, int]:
    found = runs(row)
    return found[0].start, found[-1].end
