"""What the page paints of a puzzle: grids as rows of digits, top answers, one failure a kind.

JSON values alone; ``templates/gallery.js`` paints them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from mull.report.data import ProblemResult, Sample
from mull.tasks.arc.augment import parse
from mull.tasks.arc.grade import grade_pair
from mull.tasks.arc.grids import Grid, Puzzle, as_text, from_text
from mull.tasks.arc.predictions import Attempts, Prediction
from mull.tasks.base import SAME

TOP: Final = 6
"""Answers shown of a problem besides its attempts."""
TEXT: Final = 1200
"""Characters shown of a response without a grid."""
DETAIL: Final = 160
"""Characters shown of what is wrong with it."""

COPY: Final = "copy"
"""The failure of a response that repeats the test input."""
NO_INVERSE: Final = "no_inverse"
"""The failure of a grid that no output looks like under its view."""
TOO_LONG: Final = "too_long"
"""The failure of a puzzle that does not fit the model's context."""
FAILED: Final = "failed"
"""The failure of a sample that did not come."""

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "empty": "Nothing was said.",
        "no_block": "There is no grid where one is looked for, or its opening mark is missing.",
        "no_rows": "There is a place for a grid, and no row in it.",
        "bad_row_prefix": "A line has no row number and space before its cells.",
        "bad_symbol": "A cell is no colour.",
        "ragged": "The rows have different lengths.",
        "truncated": "The answer was cut off before its end.",
        "shape_mismatch": "The stated shape is not that of the rows.",
        "row_mismatch": "The row numbers do not count 1, 2, 3 …",
        "repeat_mismatch": "The characters of one repeated cell differ.",
        COPY: "It is the test input again.",
        NO_INVERSE: "No output looks like this under the view that was asked.",
        TOO_LONG: "The puzzle does not fit the model's context, so nothing was asked.",
        FAILED: "The sample did not come.",
    }
)
"""Every category, and what it means, for who looks at the pictures."""

METRICS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "accuracy": "accuracy",
        "pass_n": "pass_n",
        "random_2": "random_2",
        "vote_1": "vote_1",
        "vote_2": "vote_2",
        "mean_correct_size": "right size",
        "mean_correct_pixels": "right cells",
        "any_correct_size": "any right size",
        "max_correct_pixels": "best right cells",
        "unanswered": "unanswered",
    }
)
"""What test pairs are sorted by besides, and its name on the page."""

Explain = Callable[[Sample, str], str]
"""A sample and its failure → what is wrong with this one; empty where there is no more to say."""


def puzzle(shown: Puzzle) -> dict[str, Any]:
    """A puzzle without its test outputs, grids as text."""
    return {
        "id": shown.id,
        "train": [[as_text(p.input), as_text(p.output or ())] for p in shown.train],
        "test": [as_text(p.input) for p in shown.test],
    }


def picture(
    number: int,
    index: int,
    result: ProblemResult,
    attempts: Attempts,
    predictions: Sequence[Prediction],
    input: Grid,
    explain: Explain,
) -> dict[str, Any]:
    """One test pair: truth, attempts by answer group, top answers, an example of each failure.

    ``number`` is the puzzle's among the page's; ``predictions`` are those of the result's samples,
    in their order; ``input`` is the test pair's. An example has the input and the truth as its own
    view shows them, and what was said.
    """
    groups: dict[int, list[str]] = {}
    for sample in result.samples:
        if sample.answer is not None:
            groups.setdefault(sample.group, []).append(sample.answer)
    number_of = {answers[0]: group for group, answers in groups.items()}
    sent = [number_of[as_text(grid)] for grid in attempts if grid and as_text(grid) in number_of]
    ranked = sorted(groups, key=lambda group: (-len(groups[group]), group))
    top = list(dict.fromkeys([*sent, *ranked[:TOP]]))
    bad: dict[str, list[Any]] = {}
    for sample, made in zip(result.samples, predictions, strict=True):
        if made.failure is not None:
            if made.failure not in bad:
                truth = None if result.gold is None else from_text(result.gold)
                bad[made.failure] = [
                    made.failure,
                    0,
                    sample.text[:TEXT],
                    made.view,
                    seen(made.view, input),
                    None if truth is None else seen(made.view, truth),
                    explain(sample, made.failure)[:DETAIL],
                ]
            bad[made.failure][1] += 1
    return {
        "puzzle": number,
        "index": index,
        "truth": result.gold,
        "attempts": sent,
        "top": [[group, groups[group][0]] for group in top],
        "bad": list(bad.values()),
        "metrics": _metrics(attempts, predictions, result.gold),
    }


def _metrics(
    attempts: Attempts, predictions: Sequence[Prediction], gold: str | None
) -> dict[str, float]:
    """Of one test pair, what ``METRICS`` names; nothing where the truth is unknown."""
    if gold is None:
        return {}
    sent = (*attempts, None, None)[:2]
    values = grade_pair("", 0, predictions, from_text(gold), sent).values()
    return {name: round(values[name], 4) for name in METRICS}


def seen(view: str, grid: Grid) -> str:
    """A grid as a view shows it.

    >>> seen("rot2", ((1, 2),))
    '21'
    """
    return as_text(grid if view in ("", SAME) else parse(view).grid(grid))
