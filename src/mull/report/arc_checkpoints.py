"""What several checkpoints made of the same puzzles → one table, differences, sizes of outputs.

A checkpoint of several models, each with puzzles of its own, is one row: its cells are joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mull.metrics import Interval
from mull.report.arc import SolvedCell
from mull.report.arc_tables import label, side
from mull.report.tables import Column, Table, Value
from mull.tasks.arc.grade import by_output_size, compare
from mull.tasks.arc.predictions import by_pair

METRICS = {
    "accuracy": "accuracy %",
    "pass_n": "pass_n %",
    "random_2": "random_2 %",
    "vote_2": "vote_2 %",
    "attempt_1": "attempt 1 %",
    "voting_accuracy": "vote_2 / pass_n %",
    "mean_correct_size": "right size %",
}


@dataclass(frozen=True, slots=True)
class Training:
    """What a checkpoint was trained on at test time, summed over its models."""

    tokens: int
    flops: float


def joined(cells: Sequence[SolvedCell], order: Iterable[str]) -> SolvedCell:
    """One cell of cells that were each asked other puzzles, in the ``order`` of puzzles' ids."""
    if len(cells) == 1:
        return cells[0]
    puzzles = {puzzle.id: puzzle for cell in cells for puzzle in cell.puzzles}
    known = [id for id in order if id in puzzles]
    pairs = by_pair(each for cell in cells for each in cell.predictions)
    keys = [(id, index) for id in known for index in range(len(puzzles[id].test))]
    counts = [sum(len(puzzle.test) for puzzle in cell.puzzles) for cell in cells]

    def mean(values: Iterable[float]) -> float:
        total = sum(value * count for value, count in zip(values, counts, strict=True))
        return total / max(1, sum(counts))

    return replace(
        cells[0],
        puzzles=tuple(puzzles[id] for id in known),
        predictions=tuple(each for key in keys for each in pairs.get(key, ())),
        answers={id: cell.answers[id] for id in known for cell in cells if id in cell.answers},
        first={id: cell.first[id] for id in known for cell in cells if id in cell.first},
        too_long=tuple(id for cell in cells for id in cell.too_long),
        spent=(mean(cell.spent[0] for cell in cells), mean(cell.spent[1] for cell in cells)),
    )


def tables(
    solved: Sequence[SolvedCell], trained: Mapping[str, Training] | None = None
) -> list[Table]:
    """Every table of cells that all have puzzles with solutions; ``run`` names the checkpoint.

    ``trained`` says what was spent on training at test time, by the checkpoint's name.
    """
    return [rows(solved, trained or {}), *differences(solved), sizes(solved)]


def rows(solved: Sequence[SolvedCell], trained: Mapping[str, Training]) -> Table:
    """A row a checkpoint (and cell, where there are several)."""
    heads = [Column("checkpoint"), *(Column(title, True) for title in METRICS.values())]
    heads += [Column("training tokens"), Column("training FLOPs")] if trained else []
    made: list[tuple[Value, ...]] = []
    for each in solved:
        row: list[Value] = [label(each, solved)]
        row += [_known(each.graded.summary[name]) for name in METRICS]
        spent = trained.get(each.run)
        cost: list[Value] = [None, None] if spent is None else [spent.tokens, spent.flops]
        made.append((*row, *(cost if trained else [])))
    note = (
        "Means over puzzles with 95 % intervals, bootstrap over puzzles. accuracy: a prediction is "
        "right; pass_n: some prediction is; random_2: one of two drawn at random is; vote_2: one "
        "of the two attempts is; attempt 1: the first is; vote_2 / pass_n: the voting accuracy; "
        "right size: the share of predictions of the right shape."
    )
    if trained:
        note += " Training at test time, summed over groups: 6 FLOPs a parameter and token."
    return Table("arc_checkpoints", "Checkpoints", tuple(heads), tuple(made), note)


def differences(solved: Sequence[SolvedCell]) -> list[Table]:
    """Each checkpoint against the first, cell by cell; no table for a single one."""
    first = {_cell(each): each for each in reversed(solved) if each.run == solved[0].run}
    names = [name for name in METRICS if name != "voting_accuracy"]
    made: list[tuple[Value, ...]] = []
    for each in solved:
        base = first.get(_cell(each))
        if each.run != solved[0].run and base is not None:
            gaps = compare(each.graded, base.graded)
            made.append((label(each, solved), *(gaps[name] for name in names)))
    if not made:
        return []
    heads = (Column("checkpoint"), *(Column(METRICS[name], True) for name in names))
    title = f"Against {solved[0].run}, points"
    note = "Differences are paired over puzzles; 95 % intervals, bootstrap over puzzles."
    return [Table("arc_differences", title, heads, tuple(made), note)]


def sizes(solved: Sequence[SolvedCell]) -> Table:
    """The metrics of every checkpoint by the size of the true output."""
    names = {
        "accuracy": "accuracy %",
        "pass_n": "pass_n %",
        "vote_2": "vote_2 %",
        "mean_correct_size": "right size %",
        "mean_correct_pixels": "right cells %",
    }
    made: list[tuple[Value, ...]] = [
        (
            label(each, solved),
            side(row.above, row.upto),
            row.n,
            *(row.summary[name] for name in names),
        )
        for each in solved
        for row in by_output_size(each.graded)
    ]
    return Table(
        "arc_sizes",
        "By size of the output",
        (
            Column("checkpoint"),
            Column("output"),
            Column("test pairs"),
            *(Column(title, True) for title in names.values()),
        ),
        tuple(made),
        "By number of cells: more than in the row above, up to a square of this side.",
    )


def _cell(solved: SolvedCell) -> tuple[str, str, int, float | None]:
    return solved.strategy, solved.budget, solved.seed, solved.temperature


def _known(value: Interval) -> Interval | None:
    return None if math.isnan(value.value) else value
