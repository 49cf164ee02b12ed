"""What a verifier's scores are worth: graded candidates of the series → tables and a figure.

Scores are held against grades (``mull.verifiers.calibration``): do they rank, and are they
probabilities. A score that leaves 0..1 (a reward, a log-probability) is ranked only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.metrics import Interval, Pool, mean_interval, ratio_interval
from mull.report import plots
from mull.report.curves import Series
from mull.report.tables import Column, Table, Value
from mull.verifiers.calibration import (
    Bin,
    Errors,
    Labelled,
    auc_pooled,
    auc_within,
    calibration_error,
    errors_at,
    fit_neutral,
    reliability,
    votes_right,
)

PANELS = 8
"""Reliability curves that are drawn; further ones stand in the table."""
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class VoteWorth:
    """The neutral score fitted on all problems, and what votes get right.

    The vote by logit is judged on each half of the problems by a fit on the other half.
    """

    neutral: float
    logit: Interval
    score: Interval
    majority: Interval


@dataclass(frozen=True, slots=True)
class Probable:
    """What is said of scores in 0..1 alone; ``votes`` needs two problems with answers."""

    curve: tuple[Bin, ...]
    error: float
    errors: Errors
    votes: VoteWorth | None


@dataclass(frozen=True, slots=True)
class Worth:
    """One score over one series: the candidates that have it, and what it tells of their grades.

    ``right`` is the share of candidates that is right; ``probable`` is ``None`` where a score
    lies outside 0..1.
    """

    label: str
    score: str
    given: Labelled
    right: Interval
    pooled: Interval
    within: Interval
    probable: Probable | None


def worths(lines: Sequence[Series], resamples: int) -> list[Worth]:
    """A ``Worth`` for each score of each series; those of the same samples and scores once."""
    found: list[Worth] = []
    seen: set[tuple[str, bytes, bytes]] = set()
    for line in lines:
        for name in sorted({name for digest in line.digests for name in digest.scored}):
            rows = [
                (digest.ids[at], pool)
                for digest in line.digests
                for at, pool in digest.scored.get(name, ())
            ]
            given = _labelled(rows)
            mark = (name, given.scores.tobytes(), given.right.tobytes())
            if len(given.scores) and mark not in seen:
                seen.add(mark)
                found.append(_worth(line.label, name, given, rows, resamples))
    return found


def _labelled(rows: Sequence[tuple[str, Pool]]) -> Labelled:
    scores = np.concatenate([_weights(pool) for _, pool in rows])
    right = np.concatenate([pool.correct for _, pool in rows])
    return Labelled.of(scores, right.tolist(), [name for name, pool in rows for _ in range(pool.n)])


def _weights(pool: Pool) -> NDArray[np.float64]:
    return np.full(pool.n, math.nan) if pool.weights is None else pool.weights


def _worth(
    label: str, name: str, given: Labelled, rows: Sequence[tuple[str, Pool]], resamples: int
) -> Worth:
    probable = None
    if given.scores.min() >= 0.0 and given.scores.max() <= 1.0:
        curve = reliability(given, resamples=resamples)
        errors = errors_at(given, THRESHOLD, resamples)
        probable = Probable(curve, calibration_error(curve), errors, _votes(rows, resamples))
    total = np.bincount(given.problems)
    return Worth(
        label,
        name,
        given,
        ratio_interval(np.bincount(given.problems, weights=given.right), total, resamples),
        auc_pooled(given, resamples),
        auc_within(given, resamples),
        probable,
    )


def _votes(rows: Sequence[tuple[str, Pool]], resamples: int) -> VoteWorth | None:
    """The votes by problem, the mean of its seeds; fits on halves of the problems."""
    voting = [
        (name, pool)
        for name, pool in rows
        if bool((np.isfinite(_weights(pool)) & (pool.groups >= 0)).any())
    ]
    numbers = {name: at for at, name in enumerate(dict.fromkeys(name for name, _ in voting))}
    if len(numbers) < 2:
        return None
    sums = np.zeros((len(numbers), 4))
    for half in (0, 1):
        mine = [(numbers[name], pool) for name, pool in voting if numbers[name] % 2 == half]
        others = [pool for name, pool in voting if numbers[name] % 2 != half]
        right = votes_right([pool for _, pool in mine], fit_neutral(others))
        columns = np.column_stack([right.logit, right.score, right.majority, np.ones(len(mine))])
        np.add.at(sums, [at for at, _ in mine], columns)
    means = sums[:, :3] / sums[:, 3:]
    found = [mean_interval(means[:, column], resamples) for column in range(3)]
    return VoteWorth(fit_neutral([pool for _, pool in voting]), *found)


def tables(found: Sequence[Worth]) -> list[Table]:
    """What scores tell of grades, and what they make of a vote; none without scores."""
    made = [_scores(found)] if found else []
    return [*made, _by_vote(found)] if any(map(_voted, found)) else made


def _scores(found: Sequence[Worth]) -> Table:
    heads = (
        Column("strategy, budget"),
        Column("score"),
        Column("candidates"),
        Column("right %", True),
        Column("AUC of all"),
        Column("AUC within problems"),
        Column("calibration error"),
        Column("wrong called right %", True),
        Column("right called wrong %", True),
    )
    rows: list[tuple[Value, ...]] = []
    for each in found:
        said: list[Value] = [None] * 3
        if (p := each.probable) is not None:
            said = [p.error, _known(p.errors.false_positive), _known(p.errors.false_negative)]
        ranks = (_known(each.pooled), _known(each.within))
        rows.append((each.label, each.score, len(each.given.scores), each.right, *ranks, *said))
    return Table(
        "scores",
        "What the scores are worth",
        heads,
        tuple(rows),
        "Of the candidates that have the score. AUC: how often a right candidate scores above a "
        "wrong one, among all, and the mean of the problems that have both kinds, on which a "
        "selection lives. Calibration error: the mean distance of score and share right over ten "
        "bins of equal mass; it is above 0 by chance alone, so it has no interval. "
        f"{THRESHOLD:g} and more is called right. Scores outside 0..1 are ranked only. Candidates "
        "that a search kept were chosen by these scores. Equal scores of equal samples stand once.",
    )


def _by_vote(found: Sequence[Worth]) -> Table:
    heads = (
        Column("strategy, budget"),
        Column("score"),
        Column("problems"),
        Column("neutral score"),
        Column("vote by logit %", True),
        Column("vote by score %", True),
        Column("majority %", True),
    )
    rows: list[tuple[Value, ...]] = [
        (each.label, each.score, v.score.n, v.neutral, v.logit, v.score, v.majority)
        for each in found
        if (v := _voted(each)) is not None
    ]
    return Table(
        "votes_by_score",
        "Votes by these scores",
        heads,
        tuple(rows),
        "The neutral score b is fitted on these problems, for weighted-vote(transform=logit, "
        "neutral=b) on others. The vote by logit is judged on each half of them by a fit on the "
        "other half. All three votes are of the candidates that have an answer and the score.",
    )


def _voted(each: Worth) -> VoteWorth | None:
    return None if each.probable is None else each.probable.votes


def _known(value: Interval) -> Interval | None:
    return None if math.isnan(value.value) else value


def figure(found: Sequence[Worth]) -> Any | None:
    """Reliability curves, a panel each; ``None`` where no score is a probability."""
    panels = [
        plots.Reliability(
            each.score,
            each.label,
            each.probable.curve,
            each.given.scores[each.given.right],
            each.given.scores[~each.given.right],
        )
        for each in found
        if each.probable is not None
    ]
    return plots.reliability(panels[:PANELS]) if panels else None
