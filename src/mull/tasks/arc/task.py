"""The task ``arc``: each test pair of a puzzle is one problem, its answer a grid.

Answers are the grid's rows of digits (``grids.as_text``). The problem's ``meta`` holds the puzzle
without any test output, so that a run's records are enough to show, vote and submit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from mull.engines.adapt import Parts
from mull.errors import ConfigError, InputError
from mull.grades import Extraction, Grade, Unanswered
from mull.tasks.arc import augment
from mull.tasks.arc.adapt import lessons
from mull.tasks.arc.data import load
from mull.tasks.arc.encode import Reading, Unreadable
from mull.tasks.arc.grids import MAX_SIDE, Pair, Puzzle, as_json, as_text, from_text
from mull.tasks.arc.grids import puzzle_of as checked
from mull.tasks.arc.prompts import Layout
from mull.tasks.arc.writing import Writing, writing
from mull.tasks.base import SAME, View, graded
from mull.types import Problem, Prompt, Until

LEVELS: Final = (5, 10, 15, 20, MAX_SIDE)
"""Levels of difficulty 1 to 5: the longest side of any grid that the problem shows."""
# A full grid with row numbers and a stated shape has 1,023 tokens where digits are tokens.
MAX_TOKENS: Final = 1100


@dataclass(frozen=True, slots=True)
class ArcTask:
    """Grid puzzles from the benchmark's files (see ``data.load`` for the forms of ``path``).

    ``format`` is how puzzles are written: a compact format (``marked``) or a grid encoder's spec
    string, asked in a chat of ``layout`` short or long. ``strict`` refuses answers whose stated
    shape or row numbers contradict their cells, and those that the model did not end, where their
    text cannot show it (no closing mark, or one that is a stop string). An answer that repeats the
    test input counts as none unless ``copies``. ``characters`` bounds the prompt: train pairs
    beyond it are left out, the last first. Views turn grids (``geometry``), rename colours and
    reorder the train pairs, each of which can be switched off.

    >>> task = ArcTask()
    >>> puzzle = '{"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}'
    >>> problem = task.problem(puzzle)
    >>> problem.prompt.text, task.extract(problem, "4").answer
    ('<1=2><3=', '4')
    """

    name: ClassVar[str] = "arc"
    format: str = "marked"
    layout: Layout = "short"
    strict: bool = False
    copies: bool = False
    characters: int | None = None
    geometry: bool = True
    colours: bool = True
    order: bool = True
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        if self.characters is not None and self.characters < 1:
            raise ConfigError(f"arc: characters must be at least 1, not {self.characters}")
        writing(self.format, self.layout)

    @property
    def until(self) -> Until:
        """Steps are rows; a compact format's closing mark ends a solution."""
        return Until(self.max_tokens, stop=self._writing.stop)

    @property
    def closes(self) -> bool:
        """Whether an answer's text shows where it ends; see ``ViewedTask``."""
        return self._writing.closes

    @property
    def needs_end(self) -> bool:
        """Strict, where an answer's text alone does not show that it is whole.

        No mark closes it, or the mark is a stop string, of which the text has nothing: either way
        one cut between two rows looks whole.
        """
        return self.strict and (not self.closes or bool(self._writing.stop))

    def load(self, path: str) -> Iterator[Problem]:
        """Every test pair of every puzzle of a file or folder, one by one."""
        for puzzle in load(path):
            yield from self.problems_of(puzzle)

    def problems_of(self, puzzle: Puzzle) -> Iterator[Problem]:
        """Every test pair of a puzzle that is read already, one by one."""
        for index in range(len(puzzle.test)):
            yield self._problem(puzzle, index)

    def problem(self, text: str, id: str = "0") -> Problem:
        """The first test pair of a puzzle given as JSON (``{"train": …, "test": …}``)."""
        import json

        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"problem {id}: expected a puzzle as JSON, "
                f'{{"train": [...], "test": [...]}}, not {text[:40]!r} ({error})'
            ) from None
        return self._problem(checked(id, value), 0)

    def extract(self, problem: Problem, text: str) -> Extraction:
        """The grid in an assistant's turn."""
        return self._answer(problem, self._writing.read(text, self.strict), None)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        """Grids are equal cell by cell, and so are their texts."""
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        """Right where every cell is."""
        return graded(self, problem, answer)

    def views(self, problem: Problem, count: int, seed: int = 0) -> Sequence[View]:
        """The puzzle under ``count`` augmentations (``augment.views``), the prompts fitted."""
        known, index = _known(problem), int(problem.meta["index"])
        shows = (self.format, self.layout, self.characters)
        asked = (shows, (self.geometry, self.colours, self.order), index, count, seed)
        found = known.views.get(asked)
        if found is None:
            shown = (
                (key, augment.apply(key, known.puzzle)) for key in self.keys(problem, count, seed)
            )
            found = tuple(View(key, *self._ask(puzzle, index)) for key, puzzle in shown)
            if count <= _KEPT_VIEWS:
                known.views[asked] = found
        return found

    def keys(self, problem: Problem, count: int, seed: int = 0) -> list[str]:
        """The keys of the first ``count`` views."""
        return augment.views(
            puzzle_of(problem)[0],
            count,
            seed,
            geometry=self.geometry,
            colours=self.colours,
            order=self.order,
        )

    def adaptation(self, problem: Problem, count: int, seed: int = 0) -> Sequence[Parts]:
        """The puzzle's own demonstrations, one left out at a time (``adapt.lessons``).

        Equal for all test pairs of a puzzle.
        """
        return lessons(
            puzzle_of(problem)[0],
            self._writing,
            count,
            seed,
            geometry=self.geometry,
            colours=self.colours,
            order=self.order,
            characters=self.characters,
        )

    def extract_from(self, problem: Problem, view: View, text: str) -> Extraction:
        """The grid in a turn under a view, turned back; one that cannot be is malformed."""
        return self._answer(problem, self._writing.read(text, self.strict), view)

    def solution_in(self, problem: Problem, view: View, answer: str) -> str:
        """What the model would say for this answer under the view."""
        grid = from_text(answer)
        if view.key != SAME:
            grid = augment.parse(view.key).grid(grid)
        return self._writing.solution(grid).removeprefix(view.opening)

    def asked(self, problem: Problem, key: str) -> str:
        """The prompt of the view of a key, as a human reads it, with the turn's opening."""
        puzzle, index = puzzle_of(problem)
        prompt, opening = self._ask(augment.apply(key, puzzle), index)
        return prompt.plain + opening

    def opening(self, problem: Problem) -> str:
        """What the assistant's turn begins with under every view of a problem."""
        return self._ask(*puzzle_of(problem))[1]

    def why(self, text: str) -> Unreadable | None:
        """Why an assistant's turn gives no grid, ``None`` where it gives one."""
        return self.reading(text).failure

    def reading(self, text: str) -> Reading:
        """What an assistant's turn gives, as its view has it: a grid, or why there is none."""
        return self._writing.read(text, self.strict)

    @property
    def _writing(self) -> Writing:
        return writing(self.format, self.layout)

    def _ask(self, puzzle: Puzzle, index: int) -> tuple[Prompt, str]:
        train = puzzle.train
        while True:
            asked, opening = self._writing.ask(replace(puzzle, train=train), index)
            fits = self.characters is None or len(asked.plain) + len(opening) <= self.characters
            if fits or len(train) == 1:
                return asked, opening
            train = train[:-1]

    def _problem(self, puzzle: Puzzle, index: int) -> Problem:
        gold = puzzle.test[index].output
        shown = replace(puzzle, test=tuple(Pair(pair.input) for pair in puzzle.test))
        grids = [g for p in (*shown.train, shown.test[index]) for g in (p.input, p.output) if g]
        side = max(max(len(grid), len(grid[0])) for grid in grids)
        level = next((n for n, most in enumerate(LEVELS, 1) if side <= most), len(LEVELS))
        prompt, opening = self._ask(shown, index)
        return Problem(
            f"{puzzle.id}/{index}",
            prompt,
            None if gold is None else as_text(gold),
            {"puzzle": as_json(shown), "index": index, "level": level},
            opening,
        )

    def _answer(self, problem: Problem, reading: Reading, view: View | None) -> Extraction:
        if reading.grid is None:
            failure = reading.failure
            return Extraction(None, failure.unanswered if failure else Unanswered.MALFORMED)
        grid = reading.grid
        if view is not None and view.key != SAME:
            try:
                grid = augment.revert(view.key, grid)
            except InputError:
                return Extraction(None, Unanswered.MALFORMED)
        puzzle, index = puzzle_of(problem)
        if not self.copies and grid == puzzle.test[index].input:
            return Extraction(None, Unanswered.NO_ANSWER)
        return Extraction(as_text(grid))


def puzzle_of(problem: Problem) -> tuple[Puzzle, int]:
    """The puzzle that a problem of this task belongs to, and which test pair it asks for."""
    return _known(problem).puzzle, int(problem.meta["index"])


@dataclass(frozen=True, slots=True)
class _Known:
    """A puzzle that was read, the value it was read from, and its views as far as they are made."""

    value: object
    puzzle: Puzzle
    views: dict[tuple[object, ...], tuple[View, ...]]


# Every candidate asks for its puzzle, and every verdict for its views: checking all cells, and
# writing all prompts, each time costs more than reading the answer. An entry holds the value that
# it was read from, so that its place in memory cannot be taken by another one.
_READ: dict[int, _Known] = {}
_KEPT: Final = 256
_KEPT_VIEWS: Final = 64


def _known(problem: Problem) -> _Known:
    value, name = problem.meta["puzzle"], problem.id.rpartition("/")[0] or problem.id
    known = _READ.get(id(value))
    if known is None or known.value is not value or known.puzzle.id != name:
        if len(_READ) >= _KEPT:
            _READ.clear()
        known = _READ[id(value)] = _Known(value, checked(name, value, largest=None), {})
    return known
