"""What cells made of grid puzzles → tables with intervals: steps, votes, n-scaling, sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from mull.metrics import paired_difference
from mull.report.arc import SolvedCell, viewed, views_of
from mull.report.tables import Column, Table, Value
from mull.strategies.token_dfs import TokenDfs
from mull.strategies.ttft import Ttft
from mull.tasks.arc.grade import by_output_size, sets_table
from mull.tasks.arc.scaling import n_scaling
from mull.tasks.arc.submission import SubmissionScore, score

SINGLE = "single prediction"
CELLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mean_correct_pixels": "right cells %",
        "max_correct_pixels": "best right cells %",
        "mean_correct_size": "right size %",
        "any_correct_size": "any right size %",
    }
)
"""How near the grids are, as the later write-up counts it and the earlier one did."""
RANKED: Final[Mapping[str, str]] = MappingProxyType(
    {"vote": "", "views": ", product of experts", "verify": ", verified", "select": ", matched"}
)
"""How the answers of views were ranked, in a label."""


def tables(solved: Sequence[SolvedCell], tries: int = 10) -> list[Table]:
    """Every table that the cells are enough for; ``tries`` draws a vote of the n-scaling."""
    scored = [each for each in solved if each.scored]
    made = [failures(solved)] if solved else []
    if not scored:
        return made
    voted = _largest(scored)
    found = [steps(scored), votes(scored)]
    if voted is not None and len(voted.predictions) > len(voted.graded.pairs):
        found.append(scaling(voted, tries))
    found.append(sizes(scored[-1]))
    found += [sweep(group) for group in _sweeps(scored)]
    return [*found, *made]


def label(solved: SolvedCell, among: Sequence[SolvedCell] = ()) -> str:
    """A cell in a few words; temperature, seed and run only where they tell cells apart.

    >>> from mull.report.arc import SolvedCell
    >>> cell = SolvedCell("", "airv(n=8)", "", 0, 0.0, (), (), {}, {}, (), (8.0, 0.0))
    >>> label(cell)
    'vote of 8 views'
    """
    others = among or (solved,)
    words = _words(solved)
    # Words leave options out; where they name two strategies, the spec says which is which.
    specs = {each.strategy for each in others if _words(each) == words}
    parts = [words if len(specs) < 2 else f"{words} ({solved.strategy})"]
    if len({each.temperature for each in others}) > 1 and solved.temperature is not None:
        parts.append(f"T={solved.temperature:g}")
    if len({each.seed for each in others}) > 1:
        parts.append(f"seed {solved.seed}")
    if solved.run:
        parts.insert(0, solved.run)
    return ", ".join(parts)


def _words(solved: SolvedCell) -> str:
    made, n = viewed(solved.config), views_of(solved)
    if made is not None:
        views = f"{n} views" if n else "views"
        if made.threshold is not None:
            what = f"all answers of p ≥ {made.threshold:g} under {views}"
        elif made.beam is not None:
            what = f"vote of {views}, token beam of {made.beam}"
        else:
            what = f"vote of {views}"
        what += f" × {made.per_view}" if made.per_view > 1 else ""
        what += ", the likeliest of each" if made.keep == "likeliest" else ""
        what += RANKED[made.rank]
        return f"fine-tuned at test time, {what}" if isinstance(solved.config, Ttft) else what
    if isinstance(solved.config, TokenDfs):
        return f"all answers of p ≥ {solved.config.threshold:g}"
    if solved.strategy == "greedy":
        return SINGLE
    return solved.strategy + (f" of {solved.budget}" if solved.budget else "")


def steps(solved: Sequence[SolvedCell]) -> Table:
    """What each step adds: one prediction, the vote, and whatever else was run, in that order."""
    heads = (
        Column("step"),
        Column("score %", True),
        Column("gain, points", True),
        Column("whole puzzles %", True),
        Column("attempt 1 %", True),
        Column("samples"),
        Column("tokens"),
    )
    listed: list[tuple[str, SubmissionScore, float | None, tuple[float | None, float | None]]] = []
    ordered = sorted(solved, key=_rank)
    single = any(each.strategy == "greedy" for each in ordered)
    voted = _largest(solved)
    if voted is not None and not single:
        alone = score(voted.first, voted.scored)
        listed.append((f"{SINGLE} (the first)", alone, alone.fractional.value, (1.0, None)))
    for each in ordered:
        first = float(each.graded.table["attempt_1"].mean())
        listed.append((label(each, solved), each.score, first, each.spent))
    rows: list[tuple[Value, ...]] = []
    before: SubmissionScore | None = None
    for name, worth, first_alone, (samples, tokens) in listed:
        gain = None
        if before is not None and list(before.solved) == list(worth.solved):
            gain = paired_difference(list(worth.solved.values()), list(before.solved.values()))
        rows.append((name, worth.fractional, gain, worth.all_pairs, first_alone, samples, tokens))
        before = worth
    n = len(ordered[0].scored)
    return Table(
        "arc_steps",
        "Score",
        heads,
        tuple(rows),
        f"Score: the mean over {n:,} puzzles of solved test pairs, two attempts each, as the "
        "competition counts; gain: against the row above, paired over puzzles; whole puzzles: "
        "every test pair solved. What does not fit the model's context scores 0. Samples and "
        "computed tokens are a test pair's; 95 % intervals, bootstrap over puzzles.",
    )


def votes(solved: Sequence[SolvedCell]) -> Table:
    """How much of what the predictions hold the attempts find."""
    names = {
        "accuracy": "accuracy %",
        "pass_n": "pass_n %",
        "random_2": "random_2 %",
        "vote_2": "vote_2 %",
        "vote_1": "attempt 1 %",
        "voting_accuracy": "vote_2 / pass_n %",
        "unanswered": "unanswered %",
        **CELLS,
    }
    heads = (Column("cell"), *(Column(title, True) for title in names.values()))
    rows: list[tuple[Value, ...]] = []
    for each in solved:
        summary = each.graded.summary
        cells = [summary[name] for name in names]
        kept = [None if math.isnan(value.value) else value for value in cells]
        rows.append((label(each, solved), *kept))
    return Table(
        "arc_votes",
        "Votes",
        heads,
        tuple(rows),
        "accuracy: a prediction is right; pass_n: some prediction is; random_2: one of two drawn "
        "at random is; vote_2: one of the two attempts is, by the cell's own selection; vote_2 / "
        "pass_n: the voting accuracy; right cells and right size: means over predictions; best and "
        "any: of the best one. A puzzle without a prediction counts as failed everywhere.",
    )


def scaling(solved: SolvedCell, tries: int) -> Table:
    """What 1, 2, 4 … of the predictions give."""
    names = {
        "accuracy": "accuracy %",
        "pass_n": "pass_n %",
        "vote_1": "vote_1 %",
        "vote_2": "vote_2 %",
        "unanswered": "unanswered %",
        **CELLS,
    }
    rows: list[tuple[Value, ...]] = [
        (row.n, *(row.summary[name] for name in names))
        for row in n_scaling(solved.predictions, solved.scored, tries=tries)
    ]
    return Table(
        "arc_n_scaling",
        f"By number of predictions: {label(solved)}",
        (Column("n"), *(Column(title, True) for title in names.values())),
        tuple(rows),
        "pass_n: some of n predictions is right; vote_1 and vote_2: the first, one of the first "
        f"two of a vote of n, means over {tries} draws; all else is exact, a mean over "
        "subsets of n. Right cells count where the size is right. Failed predictions count.",
    )


def sizes(solved: SolvedCell) -> Table:
    """The metrics by the size of the true output."""
    names = ("accuracy", "pass_n", "vote_2", "mean_correct_size", "mean_correct_pixels")
    titles = ("accuracy %", "pass_n %", "vote_2 %", "right size %", "right cells %")
    rows: list[tuple[Value, ...]] = [
        (side(row.above, row.upto), row.n, *(row.summary[name] for name in names))
        for row in by_output_size(solved.graded)
    ]
    return Table(
        "arc_sizes",
        f"By size of the output: {label(solved)}",
        (Column("output"), Column("test pairs"), *(Column(title, True) for title in titles)),
        tuple(rows),
        "By number of cells: more than in the row above, up to a square of this side.",
    )


def sweep(solved: Sequence[SolvedCell]) -> Table:
    """One strategy at several temperatures."""
    names = ("accuracy", "pass_n", "vote_2", "unanswered")
    titles = ("accuracy %", "pass_n %", "vote_2 %", "unanswered %")
    made = sets_table({f"{each.temperature:g}": each.graded for each in solved})
    rows: list[tuple[Value, ...]] = [
        (
            float(row.name),
            *(row.summary[name] for name in names),
            row.difference.get("vote_2"),
        )
        for row in made
    ]
    return Table(
        "arc_temperatures",
        f"By temperature: {label(solved[0])}",
        (
            Column("temperature"),
            *(Column(title, True) for title in titles),
            Column("vote_2 against the first row, points", True),
        ),
        tuple(rows),
        "Differences are paired over puzzles.",
    )


def failures(solved: Sequence[SolvedCell]) -> Table:
    """Responses without an answer, by why."""
    rows: list[tuple[Value, ...]] = []
    for each in solved:
        found = Counter(p.failure for p in each.predictions if p.failure is not None)
        total = max(len(each.predictions), 1)
        rows += [(label(each, solved), why, n, n / total) for why, n in sorted(found.items())]
    return Table(
        "arc_failures",
        "Why there was no grid",
        (Column("cell"), Column("why"), Column("predictions"), Column("share %", True)),
        tuple(rows),
        "ragged: rows of different lengths; bad_symbol: a cell that is no colour; truncated: cut "
        "off at the most tokens; copy: the test input again; no_inverse: no output looks like this "
        "under its view; too_long: the puzzle does not fit the model's context; failed: the sample "
        "did not come.",
    )


LEFT_OUT: Final = "arc_left_out"
"""The name of the table of puzzles that could not be read, in a run's directory as well."""


def left_out(problems: Sequence[str]) -> Table:
    """Puzzles that could not be read, and why."""
    rows: tuple[tuple[Value, ...], ...] = tuple((line,) for line in problems)
    note = "Nobody was asked to solve them: they are in no number."
    return Table(LEFT_OUT, "Puzzles that cannot be read", (Column("why"),), rows, note)


def _largest(solved: Sequence[SolvedCell]) -> SolvedCell | None:
    """The first vote with the most predictions, under the policy's own weights if there is one."""
    voted = sorted((each for each in solved if each.votes), key=_rank)
    return max(voted, key=lambda each: len(each.predictions), default=None)


def _rank(solved: SolvedCell) -> tuple[bool, bool, bool, bool]:
    """Greedy, votes, votes ranked by experts, searches, and all that under other weights; else in
    the order they were run."""
    made = viewed(solved.config)
    searched = isinstance(solved.config, TokenDfs)
    searched |= made is not None and made.threshold is not None
    ranked = made is not None and made.rank != "vote"
    return solved.strategy != "greedy", isinstance(solved.config, Ttft), searched, ranked


def _sweeps(solved: Sequence[SolvedCell]) -> list[list[SolvedCell]]:
    groups: dict[tuple[str, str, str, int], list[SolvedCell]] = {}
    for each in solved:
        if each.temperature is not None:
            key = (each.run, each.strategy, each.budget, each.seed)
            groups.setdefault(key, []).append(each)
    swept = [group for group in groups.values() if len(group) > 1]
    # One file a table: the first strategy that was swept.
    return swept[:1]


def side(above: int, upto: int) -> str:
    """A bin of output sizes in words."""
    edge = math.isqrt(upto)
    return f"up to {edge}x{edge}" if edge * edge == upto else f"{above + 1} to {upto} cells"
