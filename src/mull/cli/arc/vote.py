"""`mull arc vote`: predictions made anywhere → a submission of two attempts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Final

import typer

from mull.cli import options
from mull.cli.arc.shared import puzzles_of
from mull.errors import InputError, UsageError
from mull.tasks.arc import submission
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.predictions import Prediction, load, write_answers
from mull.tasks.arc.vote import (
    OTHER,
    Ranked,
    Ranking,
    Rule,
    by_cells,
    by_likelihood,
    by_votes,
    by_votes_and_likelihood,
    geometry,
    hierarchical,
    per_cell,
    vote_all,
)

RULES: Final[Mapping[str, Rule]] = {
    "v1": by_votes,
    "v2": by_votes_and_likelihood,
    "cells": by_cells,
    "hierarchical": hierarchical,
    "mean": partial(by_likelihood, how="mean"),
    "sum": partial(by_likelihood, how="sum"),
    "max": partial(by_likelihood, how="max"),
    "lower": partial(by_likelihood, how="lower"),
}
"""v1: votes; v2: votes, ties by likelihood; cells: each cell's vote, then v2; hierarchical: the
best of each kind of view, then a vote of those; the last four by likelihood alone."""


def vote(
    files: Annotated[
        list[str], typer.Argument(metavar="PREDICTIONS…", help="Predictions or task results.")
    ],
    out: Annotated[str, typer.Option(help="The submission to write.")],
    puzzles: Annotated[
        str | None, typer.Option(help="Puzzles that the submission must be complete for.")
    ] = None,
    rule: Annotated[str, typer.Option(help=f"{', '.join(RULES)}.")] = "v2",
    drop_copies: Annotated[
        bool, typer.Option(help="Leave out predictions that copy the test input.")
    ] = False,
    fill: Annotated[
        bool, typer.Option(help="Fill an empty attempt with the vote of each cell.")
    ] = False,
) -> int:
    """Vote: the predictions of all files together give two attempts for every test input."""
    chosen = RULES.get(rule)
    if chosen is None:
        raise UsageError(f"--rule {rule[:80]!r} is unknown; expected one of {', '.join(RULES)}")
    if drop_copies and puzzles is None:
        raise UsageError("--drop-copies needs --puzzles: predictions do not hold the test inputs")
    made = [each for file in files for each in load(file)]
    asked, problems = puzzles_of(puzzles) if puzzles is not None else (None, [])
    if asked is not None:
        made, others = _asked(made, asked)
        problems += others
    if chosen is hierarchical and made and all(geometry(each) == OTHER for each in made):
        raise UsageError(
            "--rule hierarchical votes by kinds of views, and no prediction names its view: give "
            "task results (task_results.json), which do, or another rule"
        )
    answers = _answers(made, chosen, asked, drop_copies, fill)
    if asked is not None:
        submission.write(out, answers, asked)
    else:
        write_answers(out, answers, submission.FILLER)
    pairs = [pair for each in answers.values() for pair in each]
    empty = sum(pair[0] is None for pair in pairs)
    print(
        f"{len(made):,} predictions, {len(answers):,} puzzles, {len(pairs):,} test inputs, "
        f"{empty:,} without an answer"
    )
    options.say(problems, sys.stderr)
    return options.FAILURES if problems else 0


def _answers(
    made: list[Prediction],
    rule: Rule,
    puzzles: list[Puzzle] | None,
    drop_copies: bool,
    fill: bool,
) -> submission.Submission:
    counts = {each.id: len(each.test) for each in puzzles or ()}
    if drop_copies:  # a copy of the test input is hardly ever the answer
        inputs = {(each.id, i): p.input for each in puzzles or () for i, p in enumerate(each.test)}
        made = [each for each in made if each.grid != inputs[each.puzzle, each.index]]

    def filled(own: Sequence[Prediction]) -> Ranking:
        filler = per_cell(own) if fill else None
        return rule(own) if filler is None else (*rule(own), Ranked(filler, 0))

    return vote_all(made, filled, tests=counts)


def _asked(made: list[Prediction], puzzles: list[Puzzle]) -> tuple[list[Prediction], list[str]]:
    """The predictions for test inputs of the puzzles, and a line on each puzzle with others."""
    counts = {puzzle.id: len(puzzle.test) for puzzle in puzzles}
    kept = [each for each in made if each.index < counts.get(each.puzzle, 0)]
    if made and not kept:
        raise InputError(
            f"{made[0].puzzle}: predictions for other puzzles: none is for one of the "
            f"{len(puzzles)} expected, as {puzzles[0].id}; name the puzzles that were predicted"
        )
    odd = dict.fromkeys(each.puzzle for each in made if each.index >= counts.get(each.puzzle, 0))
    return kept, [
        f"{id}: predictions for test inputs that are not among the puzzles'; left out" for id in odd
    ]
