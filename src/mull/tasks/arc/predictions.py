"""Predictions: what one view of a puzzle made of one test pair, and the two files that keep them.

The files are those of the field: *predictions* (puzzle → test pairs → ``attempt_1`` …) and *task
results* (a list of rows with response, log-probability and tokens). A failed prediction is an
empty list there; why it failed stands in Mull's own records alone.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mull.errors import InputError, SpecError
from mull.fileio import write_atomic
from mull.tasks.arc.augment import UNCHANGED, Augmentation, parse
from mull.tasks.arc.changes import Symmetry
from mull.tasks.arc.grids import Grid, as_rows, grid_of, short
from mull.tasks.files import unique
from mull.types import EMPTY

UNSTATED: Final = "unstated"
"""The failure of a prediction that was read from a file which does not say more."""
ATTEMPT: Final = "attempt_"
_INT: Final = {int}
_FIELDS: Final = {"hflip", "n_rot90", "color_map"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer to test pair ``index`` of ``puzzle``, seen through ``view``; reverted already.

    Exactly one of ``grid`` and ``failure`` (the category of what could not be read) is given.
    ``logprob`` is the natural log-probability of the whole response, ``tokens`` its length; both
    are ``None`` where unknown.

    >>> Prediction("p", 0, "", ((1,),), logprob=-0.5, tokens=2).mean_logprob
    -0.25
    """

    puzzle: str
    index: int
    view: str
    grid: Grid | None
    failure: str | None = None
    response: str = ""
    logprob: float | None = None
    tokens: int | None = None
    prompt: str = ""

    def __post_init__(self) -> None:
        if (self.grid is None) == (self.failure is None):
            raise ValueError("a prediction has either a grid or a failure")
        if self.logprob is not None and not math.isfinite(self.logprob):
            raise ValueError(f"logprob must be finite, not {self.logprob}; None means unknown")

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token; ``None`` where either is unknown or there are no tokens."""
        if self.logprob is None or not self.tokens:
            return None
        return self.logprob / self.tokens

    @property
    def problem(self) -> str:
        """The id of the problem that it answers: ``<puzzle>/<index>``."""
        return f"{self.puzzle}/{self.index}"


Attempts = tuple[Grid | None, ...]
"""Grids of one test pair in order of preference; ``None`` is none."""
Answers = Mapping[str, Sequence[Attempts]]
"""Puzzle id → test pairs → attempts."""


def by_pair(predictions: Iterable[Prediction]) -> dict[tuple[str, int], list[Prediction]]:
    """Predictions by (puzzle, test index), pairs and predictions in order of first appearance."""
    pairs: dict[tuple[str, int], list[Prediction]] = {}
    for each in predictions:
        pairs.setdefault((each.puzzle, each.index), []).append(each)
    return pairs


def write_predictions(
    path: str, predictions: Iterable[Prediction], tests: Mapping[str, int] = EMPTY
) -> None:
    """Write the predictions file, whole or not at all.

    ``tests`` (puzzle id → number of test pairs) adds the puzzles and pairs without a prediction;
    without it a puzzle has as many pairs as its highest index says.
    """
    pairs = by_pair(predictions)
    counts = dict(tests)
    for puzzle, index in pairs:
        counts[puzzle] = max(counts.get(puzzle, 0), index + 1)
    answers = {
        puzzle: [tuple(each.grid for each in pairs.get((puzzle, i), ())) for i in range(count)]
        for puzzle, count in counts.items()
    }
    write_answers(path, answers)


def write_answers(path: str, answers: Answers, filler: Sequence[Sequence[int]] = ()) -> None:
    """Write attempts in the schema of the predictions file; ``None`` is written as ``filler``."""
    empty = [list(row) for row in filler]
    table = {
        puzzle: [
            {
                f"{ATTEMPT}{k}": empty if grid is None else as_rows(grid)
                for k, grid in enumerate(attempts, 1)
            }
            for attempts in pairs
        ]
        for puzzle, pairs in answers.items()
    }
    write_atomic(path, json.dumps(table))


def read_predictions(path: str) -> list[Prediction]:
    """The predictions of a predictions (or submission) file, in its order.

    The view of a prediction is the name of its attempt. ``InputError`` names puzzle, test pair
    and attempt that are wrong.
    """
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(f"{path}: expected an object of puzzles, not {short(table)}")
    read, found = GridReader(), []
    for puzzle in list(table):
        # Popped, so that a large file's lists are freed while they are read.
        for index, attempts in enumerate(_pairs(path, puzzle, table.pop(puzzle))):
            for name, value in attempts.items():
                where = (path, puzzle, f"test {index}", name)
                found.append(_prediction(puzzle, index, name, read(value, where)))
    return found


def _prediction(puzzle: str, index: int, view: str, grid: Grid | None) -> Prediction:
    return Prediction(puzzle, index, view, grid, UNSTATED if grid is None else None)


def _pairs(path: str, puzzle: str, value: Any) -> Iterator[dict[str, Any]]:
    """The attempts of each test pair, in the order of their numbers."""
    if not isinstance(value, list):
        raise InputError(
            f"{path}: {puzzle}: expected a list of test pairs with attempts, not {short(value)}"
        )
    for index, attempts in enumerate(value):
        where = f"{path}: {puzzle}: test {index}"
        if not isinstance(attempts, dict):
            raise InputError(f"{where}: expected an object of attempts, not {short(attempts)}")
        numbers = {name: attempt_number(where, name) for name in attempts}
        yield {name: attempts[name] for name in sorted(attempts, key=lambda name: numbers[name])}


def attempt_number(where: str, name: str) -> int:
    """The number in ``attempt_<number>``; ``InputError`` for another name."""
    number = name.removeprefix(ATTEMPT)
    # One way to write a number: attempt_01 would be a second attempt_1.
    if number == name or not re.fullmatch(r"[1-9][0-9]{0,8}", number):
        raise InputError(f"{where}: unknown field {short(name)}; expected attempt_1, attempt_2 …")
    return int(number)


def write_task_results(
    path: str,
    predictions: Iterable[Prediction],
    augmentation: Callable[[str], Mapping[str, Any]] | None = None,
) -> None:
    """Write the task-results file, whole or not at all.

    ``augmentation`` says what is written for a view; default: ``field_augmentation``.
    """
    describe = augmentation or field_augmentation
    rows = [
        {
            "task_id": each.puzzle,
            "idx": each.index,
            "data_augmentation_kwargs": dict(describe(each.view)),
            "prompt": each.prompt,
            "grid": [] if each.grid is None else as_rows(each.grid),
            "response": each.response,
            "cumulative_logprob": each.logprob,
            "n_tokens": each.tokens,
        }
        for each in predictions
    ]
    write_atomic(path, json.dumps(rows, allow_nan=False))


def read_task_results(
    path: str, view: Callable[[Mapping[str, Any]], str] | None = None
) -> list[Prediction]:
    """The predictions of a task-results file, in its order.

    ``view`` turns an augmentation into a view key; default: ``view_of_field``. A row needs
    ``task_id``, ``idx`` and ``grid``. ``InputError`` names row, puzzle and field.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of rows, not {short(rows)}")
    name, read, found = view or view_of_field, GridReader(), []
    for number, row in enumerate(rows):
        rows[number] = None
        where = f"{path}: row {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, not {short(row)}")
        puzzle, index = row.get("task_id"), row.get("idx")
        if not isinstance(puzzle, str) or not puzzle:
            raise InputError(f"{where}: task_id: expected a puzzle's id, not {short(puzzle)}")
        where = f"{where}: {puzzle}"
        if type(index) is not int or index < 0:
            raise InputError(f"{where}: idx: expected a test index from 0, not {short(index)}")
        if "grid" not in row:
            raise InputError(f"{where}: no grid; expected rows of colours, or [] where it failed")
        grid = read(row["grid"], (where, "grid"))
        kwargs = row.get("data_augmentation_kwargs") or {}
        if not isinstance(kwargs, dict):
            raise InputError(f"{where}: data_augmentation_kwargs: expected an object")
        found.append(
            Prediction(
                puzzle,
                index,
                name(kwargs),
                grid,
                UNSTATED if grid is None else None,
                _text(where, row, "response"),
                _number(where, row, "cumulative_logprob"),
                _tokens(where, row),
                _text(where, row, "prompt"),
            )
        )
    return found


def load(path: str) -> list[Prediction]:
    """The predictions of either file: a list is task results, an object predictions."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            start = file.read(4096).lstrip("\ufeff \t\r\n")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with _collector_paused():
        return read_task_results(path) if start.startswith("[") else read_predictions(path)


class GridReader:
    """JSON grids → checked grids; equal rows and grids become one object, which saves memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._grids: dict[Grid, Grid] = {}

    def __call__(self, value: Any, where: Sequence[str] = ("grid",)) -> Grid | None:
        """The grid, ``None`` for an empty list; ``InputError`` names ``where``."""
        if value == [] or value is None:
            return None
        known = self._known(value)
        if known is None:
            grid = grid_of(value, ": ".join(where), largest=None)
            known = tuple(self._rows.setdefault(row, row) for row in grid)
        return self._grids.setdefault(known, known)

    def _known(self, value: Any) -> Grid | None:
        # Most rows were seen before: a look-up instead of a check of every cell. The types must be
        # checked all the same, since true and 1.0 are found where 1 is.
        rows, made = self._rows, []
        if not isinstance(value, list):
            return None
        for row in value:
            if not isinstance(row, list) or set(map(type, row)) != _INT:
                return None
            found = rows.get(tuple(row))
            if found is None or len(found) != len(value[0]):
                return None
            made.append(found)
        return tuple(made)


def read_json(path: str) -> Any:
    """The JSON of a file; ``InputError`` names what is malformed, or a key given twice."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}:{error.colno}: malformed JSON: {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected UTF-8 JSON") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; expected lists of grids") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


@contextmanager
def _collector_paused() -> Iterator[None]:
    # Millions of new lists without one cycle: looking for cycles takes longer than all the rest.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _unreadable(path: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{path[:200]}: {reason}; expected a readable JSON file")


def field_augmentation(view: str) -> dict[str, Any]:
    """What the field writes for a view: ``hflip``, ``n_rot90`` and ``color_map``.

    The order of the demonstrations is not written there. A view that is no augmentation of this
    kind is ``{"view": …}``, the empty view is empty.

    >>> field_augmentation("flip.rot1")["n_rot90"]
    1
    """
    if not view:
        return {}
    try:
        made = parse(view)
    except SpecError:
        return {"view": view}
    if made.own is not None or made.swap:
        return {"view": view}
    colours = {str(colour): shown for colour, shown in enumerate(made.colours)}
    return {"hflip": made.turn.flip, "n_rot90": made.turn.turns, "color_map": colours}


def view_of_field(augmentation: Mapping[str, Any]) -> str:
    """The view key of what the field wrote; a JSON text where it is something else.

    >>> view_of_field({"hflip": True, "n_rot90": 1})
    'flip.rot1'
    """
    if not augmentation:
        return ""
    if set(augmentation) == {"view"} and isinstance(augmentation["view"], str):
        return augmentation["view"]
    flip, turns = augmentation.get("hflip", False), augmentation.get("n_rot90", 0)
    given = augmentation.get("color_map") or {}
    if set(augmentation) <= _FIELDS and type(flip) is bool and turns in range(4):
        if not given:
            return str(Augmentation(Symmetry(flip, turns)))
        if isinstance(given, dict) and set(given) == {str(colour) for colour in UNCHANGED}:
            colours = tuple(given[str(colour)] for colour in UNCHANGED)
            if set(map(type, colours)) == _INT and sorted(colours) == list(UNCHANGED):
                return str(Augmentation(Symmetry(flip, turns), colours))
    return json.dumps(augmentation)


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {name}: expected text, not {short(value)}")
    return value or ""


def _number(where: str, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {name}: expected a number, not {short(value)}")
    try:
        made = float(value)
    except OverflowError:
        made = math.inf
    return made if math.isfinite(made) else None


def _tokens(where: str, row: Mapping[str, Any]) -> int | None:
    value = row.get("n_tokens")
    if value is not None and (type(value) is not int or value < 0):
        raise InputError(f"{where}: n_tokens: expected a whole number, not {short(value)}")
    return value
