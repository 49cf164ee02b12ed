"""What the page paints of a puzzle: grids as rows of digits, top answers, one failure a kind.

JSON values alone; ``templates/gallery.js`` paints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mull.report.data import ProblemResult
from mull.tasks.arc.grids import Puzzle, as_text
from mull.tasks.arc.predictions import Attempts, Prediction

TOP: Final = 6
"""Answers shown of a problem besides its attempts."""
TEXT: Final = 1200
"""Characters shown of a response without a grid."""


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
) -> dict[str, Any]:
    """One test pair: truth, attempts by answer group, top answers, an example of each failure.

    ``number`` is the puzzle's among the page's; ``predictions`` are those of the result's samples,
    in their order.
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
            kind = bad.setdefault(made.failure, [made.failure, 0, sample.text[:TEXT], made.view])
            kind[1] += 1
    return {
        "puzzle": number,
        "index": index,
        "truth": result.gold,
        "attempts": sent,
        "top": [[group, groups[group][0]] for group in top],
        "bad": list(bad.values()),
    }
