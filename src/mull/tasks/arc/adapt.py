"""What a puzzle teaches before it is answered: its own demonstrations, one left out at a time.

Each text is the puzzle without its test pairs: one demonstration is asked for, the others stand
before it in any order, all turned and recoloured alike, and every output is to be learnt: many
lessons a text (reference arc.md 4.1). Test pairs are not looked at.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from mull.engines.adapt import Parts
from mull.errors import ConfigError, InputError, UnsupportedError
from mull.rng import derive
from mull.tasks.arc import augment
from mull.tasks.arc.compact import Format, Rows
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.writing import Compact, Writing
from mull.types import Problem


def lessons(
    puzzle: Puzzle,
    writing: Writing,
    count: int,
    seed: int,
    *,
    geometry: bool = True,
    colours: bool = True,
    order: bool = True,
    characters: int | None = None,
) -> list[Parts]:
    """``count`` texts of a puzzle; fewer of them are the first of more.

    The demonstration left out goes round, so that each is asked for equally often. Where a text
    would have more than ``characters``, its first demonstrations are left out. None at all for a
    puzzle with a single demonstration: there is nothing to learn it from.

    Raises ``UnsupportedError`` for a writing in a chat: what its template says is not known here.

    >>> from mull.tasks.arc.grids import Pair
    >>> from mull.tasks.arc.writing import writing
    >>> pairs = (Pair(((1,),), ((2,),)), Pair(((3,),), ((4,),)))
    >>> [lesson] = lessons(Puzzle("p", pairs, pairs[:1]), writing("marked"), 1, 0, colours=False)
    >>> lesson.text
    '<3=4><1=2>'
    """
    if count < 1:
        raise ConfigError(f"adaptation: count must be at least 1, not {count}")
    if not isinstance(writing, Compact):
        raise UnsupportedError(
            "a puzzle written in a chat is no training text yet: use a compact format, as in "
            "format=marked"
        )
    made: list[Parts] = []
    if len(puzzle.train) < 2:
        return made
    for number in range(count):
        rng = random.Random(derive(seed, puzzle.id, "lesson", number))
        left = number % len(puzzle.train)
        shown = [pair for at, pair in enumerate(puzzle.train) if at != left]
        if order:
            rng.shuffle(shown)
        recipe = augment.Recipe(geometry, colours, order=False, swap=False, own=0.0)
        asked = Puzzle(puzzle.id, tuple(shown), (puzzle.train[left],))
        view = augment.apply(augment.draw(asked, rng, recipe), asked)
        made.append(_fitted(view, writing.form, characters))
    return made


class Teacher(Protocol):
    """Of the task ``arc``: what a puzzle teaches, under the task's own views and limits."""

    def problems_of(self, puzzle: Puzzle) -> Iterator[Problem]: ...

    def adaptation(self, problem: Problem, count: int, seed: int = 0) -> Sequence[Parts]: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Puzzles that are learnt together, by their ids, and the texts of all of them."""

    puzzles: tuple[str, ...]
    texts: tuple[Parts, ...]


def pooled(
    puzzles: Sequence[Puzzle], task: Teacher, count: int, seed: int, groups: int = 1
) -> list[Group]:
    """The texts of all puzzles, ``count`` a puzzle, in ``groups`` of neighbours of equal size.

    Each puzzle teaches what ``task`` would learn from it alone. Puzzles with a single demonstration
    teach nothing and are in no group.

    Raises:
        InputError: no puzzle has two demonstrations.
        ConfigError: more groups than puzzles that teach.
    """
    teaching = [puzzle for puzzle in puzzles if len(puzzle.train) > 1]
    if not teaching:
        raise InputError(
            f"none of {len(puzzles)} puzzles has two demonstrations: there is nothing to learn one "
            "from another"
        )
    if not 1 <= groups <= len(teaching):
        raise ConfigError(
            f"groups must lie in 1..{len(teaching)} (puzzles with two demonstrations or more), "
            f"not {groups}"
        )
    bounds = [len(teaching) * at // groups for at in range(groups + 1)]
    return [
        Group(
            tuple(puzzle.id for puzzle in teaching[a:b]),
            tuple(text for puzzle in teaching[a:b] for text in _taught(puzzle, task, count, seed)),
        )
        for a, b in pairwise(bounds)
    ]


def _taught(puzzle: Puzzle, task: Teacher, count: int, seed: int) -> Sequence[Parts]:
    # All test pairs of a puzzle teach the same.
    return task.adaptation(next(task.problems_of(puzzle)), count, seed)


def _fitted(view: Puzzle, form: Format, characters: int | None) -> Parts:
    """The text of a view, shortened by its first demonstrations until it fits, if it can."""
    while True:
        text = _written(view, form)
        if characters is None or len(text.text) <= characters or len(view.train) == 1:
            return text
        view = replace(view, train=view.train[1:])


def _written(view: Puzzle, form: Format) -> Parts:
    """A puzzle with its answer; as a demonstration ends, so does the text."""
    answer = view.test[0].output
    if answer is None:
        raise ConfigError(f"{view.id}: a demonstration without an output teaches nothing")
    end = form.end if isinstance(form, Rows) else ""
    pieces = [(piece.text, piece.said) for piece in form.pieces(view)]
    return Parts((*pieces, (form.solution(answer) + end, True)))
