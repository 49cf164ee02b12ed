"""Series and points → the tables and the sentences of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mull.budget import known
from mull.metrics import Bootstrap, Interval, ScalingRow, mean_interval
from mull.report.curves import Panel, Series
from mull.report.data import BETWEEN, Run
from mull.report.tables import Column, Table, Value
from mull.types import Usage

FAILURE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Study:
    """A series with its numbers; ``points`` and ``panels`` are empty where it is no pool.

    ``accuracy`` is that of what the strategy itself selected, ``single`` that of one candidate, and
    ``covered`` says where some candidate is right, all over the graded problems; ``unanswered`` is
    the share of candidates without an answer. ``run`` names its run where there are several.
    """

    name: str
    line: Series
    accuracy: Interval
    single: Interval
    covered: Interval
    unanswered: Interval
    points: tuple[ScalingRow, ...] = ()
    panels: tuple[Panel, ...] = ()
    run: str = ""


def means(line: Series, resamples: int) -> dict[str, Interval]:
    """The numbers of a study that every series has, by their names there."""
    columns = [line.mean(name) for name in ("selected", "single", "covered")]
    boot = Bootstrap(np.column_stack(columns), resamples)
    unanswered = np.mean([digest.unanswered for digest in line.digests], axis=0)
    return {
        "accuracy": boot.mean(0),
        "single": boot.mean(1),
        "covered": boot.mean(2),
        "unanswered": mean_interval(unanswered, resamples),
    }


def brief(studies: Sequence[Study]) -> Table:
    """The strategies side by side, narrow enough for a terminal: what all share is said below."""
    full = cells(studies)
    labels, ending = _parted([study.line.label for study in studies])
    shared = [ending] if ending else []
    shown = [2, 3, 5, 7, 8, 9]
    if len({row[2] for row in full.rows}) == 1:
        shown.remove(2)
        shared.append(f"{full.rows[0][2]:,} problems")
    heads = tuple(full.columns[i] for i in (0, *shown))
    rows = tuple(
        (label, *(_point(row[i]) if i == 5 else row[i] for i in shown))
        for label, row in zip(labels, full.rows, strict=True)
    )
    note = f"{f'{BETWEEN.join(shared)}. ' if shared else ''}Costs are means a problem."
    return Table("brief", full.title, heads, rows, note)


def _point(value: Value) -> Value:
    return value.value if isinstance(value, Interval) else value


def _parted(labels: Sequence[str]) -> tuple[list[str], str]:
    """Labels without the parts at their ends that all share, and these.

    >>> _parted(["vote · samples=4 · T=1", "beam · samples=16 · T=1"])
    (['vote · samples=4', 'beam · samples=16'], 'T=1')
    """
    parts = [label.split(BETWEEN) for label in labels]
    ending: list[str] = []
    while all(len(each) > 1 for each in parts) and len({each[-1] for each in parts}) == 1:
        ending = [each.pop() for each in parts][:1] + ending
    return [BETWEEN.join(each) for each in parts], BETWEEN.join(ending)


def cells(studies: Sequence[Study]) -> Table:
    """One row a series: what was asked for, what came out, what it cost a problem."""
    heads = (
        Column("strategy, budget"),
        Column("seeds"),
        Column("problems"),
        Column("accuracy %", percent=True),
        Column("single sample %", percent=True),
        Column("coverage %", percent=True),
        Column("unanswered %", percent=True),
        Column("samples"),
        Column("tokens"),
        Column("FLOPs"),
        Column("slot seconds"),
    )
    rows: list[tuple[Value, ...]] = []
    for study in studies:
        line, cost = study.line, study.line.cost()
        graded = bool(line.graded.any())
        numbers: list[Value] = [
            *([study.accuracy, study.single, study.covered] if graded else [None] * 3),
            study.unanswered,
        ]
        costs: list[Value] = [cost.get(unit) for unit in ("samples", "tokens", "flops", "seconds")]
        named: list[Value] = [line.label, len(line.digests), len(line.first.ids)]
        rows.append((*named, *numbers, *costs))
    return Table(
        "cells",
        "Strategies",
        heads,
        tuple(rows),
        "Accuracy is what the strategy selected. 95 % intervals, bootstrap over problems; "
        "samples, tokens (computed: new prompt and generated), FLOPs and slot seconds are means a "
        "problem.",
    )


def n_scaling(study: Study, titled: bool = False) -> Table:
    """The n-scaling table as the ARC write-up prints it, each number with its interval."""
    best = all("best" in point.scores for point in study.points)
    heads = [Column("n"), Column("pass_n %", True), Column("vote %", True)]
    heads += [Column("best-of-n %", True)] if best else []
    heads += [Column("accuracy %", True), Column("unanswered %", True)]
    keys = ["pass_n", "vote", *(["best"] if best else []), "accuracy", "unanswered"]
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (p.n, *(p.scores[key] for key in keys)) for p in study.points
    )
    return Table(
        _name("n_scaling", study),
        _title("Accuracy by number of samples", study, titled),
        tuple(heads),
        rows,
        "pass_n: some of n samples is right (unbiased); vote: majority of n, a mean over subsets; "
        "best-of-n: the likeliest of n, exact; accuracy and unanswered: means of the samples. "
        f"95 % intervals, bootstrap over {_graded(study):,} problems.",
    )


def vote_against_coverage(study: Study, titled: bool = False) -> Table:
    """What the vote leaves on the table, and what it gains over one sample."""
    heads = (
        Column("n"),
        Column("coverage %", True),
        Column("vote %", True),
        Column("coverage − vote, points", True),
        Column("vote − single sample, points", True),
        Column("vote / coverage %", True),
    )
    rows = tuple(
        (p.n, p.scores["pass_n"], p.scores["vote"], p.gap, p.gain, p.selection)
        for p in study.points
    )
    return Table(
        _name("vote_against_coverage", study),
        _title("Vote against coverage", study, titled),
        heads,
        rows,
        "Differences are paired over problems. Vote / coverage is the selection accuracy.",
    )


def compute(study: Study, titled: bool = False) -> Table:
    """What n samples cost a problem, with the accuracy they buy."""
    costs = [study.line.cost(point.n) for point in study.points]
    units = list(costs[-1]) if costs else []
    words = {"samples": "samples", "tokens": "tokens", "flops": "FLOPs", "seconds": "slot seconds"}
    heads = (*(Column(words[unit]) for unit in units), Column("vote %", True))
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (*(cost.get(unit) for unit in units), point.scores["vote"])
        for point, cost in zip(study.points, costs, strict=True)
    )
    return Table(
        _name("compute", study),
        _title("Cost a problem", study, titled),
        heads,
        rows,
        "The prompt is computed once; each sample adds its own tokens. At the full n this is what "
        "the ledger was charged for the samples.",
    )


def difficulty(study: Study, titled: bool = False) -> Table:
    """Each difficulty at its largest n."""
    heads = (
        Column("difficulty"),
        Column("problems"),
        Column("n"),
        Column("single sample %", True),
        Column("vote %", True),
        Column("coverage %", True),
        Column("coverage − vote, points", True),
    )
    keys = ("accuracy", "vote", "pass_n")
    rows: list[tuple[Value, ...]] = []
    for panel in study.panels:
        last = panel.points[-1]
        scores = last.scores
        rows.append((panel.title, panel.problems, last.n, *(scores[key] for key in keys), last.gap))
    measured = any("fifth" in panel.title for panel in study.panels)
    note = (
        "Fifths by pass rate measured on half of the samples; the numbers come from the other half."
        if measured
        else "Levels are the task's own."
    )
    name, title = _name("difficulty", study), _title("By difficulty", study, titled)
    return Table(name, title, heads, tuple(rows), note)


def ledger(run: Run, name: str = "ledger") -> Table:
    """What was spent: a row for each cell, purpose and model, then what is in no cell's bill; the
    total of a run of one cell.
    """
    titles = ["strategy", "purpose", "model", "completions", "prompt new", "prompt cached"]
    titles += ["generated", "FLOPs", "slot seconds", "cost"]
    bills = [(row.cell, row.purpose, row.model, row.completions, row.usage) for row in run.ledger]
    bills += [(row.reason, row.purpose, row.model, row.count, row.usage) for row in run.waste]
    estimated = any(usage.estimated for *_, usage in bills)
    rows: list[tuple[Value, ...]] = []
    for what, purpose, model, completions, usage in bills:
        shown = f"{purpose} *" if usage.estimated else purpose
        rows.append((what, shown, model, completions, *_spent([usage])))
    several = len({row.cell for row in run.ledger}) > 1
    if len(rows) > 1 and not several:
        completions = sum(count for _, _, _, count, _ in bills)
        rows.append(("total", "", "", completions, *_spent([usage for *_, usage in bills])))
    note = f"Cost model of the FLOPs: {run.cost_model}."
    if several:
        note += " Each strategy's bill stands alone; samples that several share were made once."
    if run.waste:
        reasons = ", ".join(sorted({row.reason for row in run.waste}))
        note += f" In no strategy's bill, for no result came of it: {reasons}."
    if estimated:
        note += " * partly estimated: the endpoint did not say."
    heads = tuple(Column(title) for title in titles)
    return Table(name, f"What was spent: {run.name}", heads, tuple(rows), note)


def _spent(usages: Sequence[Usage]) -> tuple[Value, ...]:
    """The sums of some usages; nothing is said of FLOPs or money that a part of them has not."""
    total = sum(usages, Usage())
    new, flops, cost = total.prompt - total.cached, known("flops", usages), known("cost", usages)
    return (new, total.cached, total.generated, flops, total.seconds, cost)


def unanswered(studies: Sequence[Study]) -> Table:
    """Samples without an answer by reason, and how samples were graded and ended."""
    heads = (
        Column("strategy, budget"),
        Column("what"),
        Column("value"),
        Column("samples"),
        Column("share %", True),
    )
    rows: list[tuple[Value, ...]] = []
    for study in studies:
        digests = study.line.digests
        samples = sum(digest.samples for digest in digests)
        for what, name in (("unanswered", "reasons"), ("grade", "outcomes"), ("ended", "stops")):
            for value, (count,) in _over_seeds(study, name).items():
                rows.append((study.line.label, what, value, count, count / max(samples, 1)))
    return Table("unanswered", "Unanswered, graded, ended", heads, tuple(rows))


def undecided(studies: Sequence[Study]) -> Table:
    """Answers and candidates without a verdict, though their problems have a gold answer."""
    titles = ("strategy, budget", "outcome", "answers", "candidates", "accuracy over")
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (study.line.label, name, *counts, _graded(study))
        for study in studies
        for name, counts in _over_seeds(study, "undecided", "undecided_samples").items()
    )
    return Table(
        "undecided",
        "Without a verdict",
        tuple(Column(title) for title in titles),
        rows,
        "An answer without a verdict is neither right nor wrong: its problem is left out of "
        "accuracy, vote and coverage, which are over so many problems. A candidate without one "
        "does not count as right. Both are summed over seeds.",
    )


def failure_types(studies: Sequence[Study]) -> Table:
    """How many samples, scores and verdicts did not come, by type of failure."""
    titles = ("strategy, budget", "failure", "times", "problems")
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (study.line.label, name, *counts)
        for study in studies
        for name, counts in _over_seeds(study, "errors", "erring").items()
    )
    return Table(
        "failure_types",
        "Failures by type",
        tuple(Column(title) for title in titles),
        rows,
        "What did not come: ScoreError is a score, NoVerdict a judge's verdict, Quorum the vote of "
        "too few samples; the others are samples or calls. None is taken for an answer or an "
        "approval. Problems are summed over seeds.",
    )


def _over_seeds(study: Study, *tallies: str) -> dict[str, tuple[int, ...]]:
    """For each name that some of the digests' tallies have: its count in each of these."""
    sums = [
        sum((Counter(getattr(digest, tally)) for digest in study.line.digests), Counter[str]())
        for tally in tallies
    ]
    names = sorted(set().union(*sums))
    return {name: tuple(counts[name] for counts in sums) for name in names}


def failures(studies: Sequence[Study]) -> Table:
    """Problems with failures, and the first error recorded of each."""
    heads = (Column("strategy, budget"), Column("seed"), Column("problem"), Column("error"))
    rows: list[tuple[Value, ...]] = [
        (study.line.label, digest.seed, problem, error)
        for study in studies
        for digest in study.line.digests
        for problem, error in digest.failures
    ]
    note = "A sample that did not come counts as one without an answer."
    more = len(rows) - FAILURE_ROWS
    if more > 0:
        note += f" {more:,} more problems are not shown."
    title = "Problems with failures, and the first of each"
    return Table("failures", title, heads, tuple(rows[:FAILURE_ROWS]), note)


def headline(study: Study) -> list[str]:
    """What the numbers say, in sentences; only what the intervals bear out."""
    if not study.points:
        return []
    first, last = study.points[0], study.points[-1]
    vote, covered, single = (last.scores[k] for k in ("vote", "pass_n", "accuracy"))
    said = [
        f"A single sample is right on {single.percent()} % of {_graded(study):,} problems; "
        f"a vote of {last.n} on {vote.percent()} %; a right answer is among the {last.n} samples "
        f"for {covered.percent()} %."
    ]
    if last.n > first.n:
        gain, gap = last.gain, last.gap
        if gain.above_zero:
            said.append(f"Voting gains {gain.percent()} points over one sample.")
        elif gain.high < 0:
            loss = Interval(-gain.value, -gain.high, -gain.low, gain.n)
            said.append(f"Voting loses {loss.percent()} points against one sample.")
        else:
            said.append(f"Voting against one sample: {gain.percent()} points, no clear difference.")
        said.append(f"Selection leaves {gap.percent()} points on the table (coverage − vote).")
    return said


def _graded(study: Study) -> int:
    return int(study.line.graded.sum())


def _name(base: str, study: Study) -> str:
    return f"{base}{study.name}"


def _title(base: str, study: Study, titled: bool) -> str:
    return f"{base}: {study.line.label}" if titled else base
