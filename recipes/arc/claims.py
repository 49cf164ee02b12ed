"""The claims of the ARC write-ups, D1 to D10: rows → what was found, with a verdict each.

Intervals are over test pairs, paired. Where trainings are compared, the seeds of one cell are
averaged first, and a second interval says how far seeds differ from one another (Student's t
over seeds): a difference counts as reproduced where both exclude zero. Claims without rows say
"not run".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from rows import Floats, Row

from mull.metrics import Interval, mean_interval, paired_difference, powers_of_two, ratio_interval
from mull.report.verdicts import CONTRADICTED, NOT_DETECTED, REPRODUCED, verdict

SESOI = 0.015
"""The smallest difference in accuracy that is worth a word: 1.5 points."""
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, for 1, 2 … degrees of freedom."""
NOT_RUN = "not run"
BY_TESTS = "holds (tests)"


class Finding(NamedTuple):
    """One line of the table of claims."""

    claim: str
    says: str
    where: str
    shown: str
    verdict: str


@dataclass(frozen=True)
class Difference:
    """Of two cells: over test pairs, seeds averaged, and over seeds (NaN bounds for one seed)."""

    pairs: Interval
    seeds: Interval

    def __str__(self) -> str:
        if math.isnan(self.seeds.low):
            return self.pairs.percent()
        low, high = 100 * self.seeds.low, 100 * self.seeds.high
        return f"{self.pairs.percent()}; seeds [{low:.1f}, {high:.1f}]"

    def verdict(self, smallest: float = SESOI) -> str:
        """By both intervals where there are two: the more careful of their verdicts."""
        said = verdict(self.pairs, smallest)
        if math.isnan(self.seeds.low):
            return said
        return said if said == verdict(self.seeds, smallest) else NOT_DETECTED


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of a few seeds with Student's interval; NaN bounds for fewer than two.

    >>> [round(x, 2) for x in (lambda i: (i.value, i.low, i.high))(over_seeds([0.1, 0.2, 0.3]))]
    [0.2, -0.05, 0.45]
    """
    n, mean = len(values), float(np.mean(values))
    if not 2 <= n <= len(T95) + 1:
        return Interval(mean, math.nan, math.nan, n, "t")
    half = T95[n - 2] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, "t")


def compared(these: Sequence[Row], those: Sequence[Row], metric: str) -> Difference | None:
    """A metric of one cell against another's, seed by seed, on the same puzzles.

    ``None`` where no seed is in both; ``ValueError`` for other puzzles.
    """
    other = {row.seed: row for row in those}
    pairs = [(row, other[row.seed]) for row in these if row.seed in other]
    if not pairs:
        return None
    if len({row.puzzles for pair in pairs for row in pair}) > 1:
        raise ValueError("rows of other puzzles cannot be paired")
    sides = [
        np.mean([row.values[metric] for row in side], axis=0) for side in zip(*pairs, strict=True)
    ]
    return Difference(
        paired_difference(*sides), over_seeds([a.mean(metric) - b.mean(metric) for a, b in pairs])
    )


def of(rows: Sequence[Row], study: str, cell: str = "") -> list[Row]:
    """The rows of a study, or of one of its cells, by seed."""
    found = [row for row in rows if row.study == study and cell in ("", row.cell)]
    return sorted(found, key=lambda row: (row.cell, row.seed))


def by_cell(rows: Sequence[Row], study: str) -> list[tuple[str, list[Row]]]:
    """The cells of a study by name, each with the rows of its seeds."""
    return [(cell, list(own)) for cell, own in groupby(of(rows, study), key=lambda row: row.cell)]


def averaged(rows: Sequence[Row], metric: str) -> Floats:
    """A metric of each test pair, the mean over seeds."""
    return np.mean([row.values[metric] for row in rows], axis=0, dtype=np.float64)


def slope(values: Sequence[Floats], places: Sequence[float]) -> Interval:
    """The mean over test pairs of the least-squares slope of ``values`` [places][pairs]."""
    at = np.array(places) - np.mean(places)
    return mean_interval(at @ np.array(values) / float(at @ at))


def bend(values: Sequence[Floats], places: Sequence[float]) -> Interval:
    """The same of the square's coefficient: above zero where the rise gets steeper."""
    inverse = np.linalg.pinv(np.vander(places, 3))
    return mean_interval(inverse[0] @ np.array(values))


def d1(rows: Sequence[Row]) -> list[Finding]:
    """pass_n grows with the logarithm of n."""
    found = []
    for cell, own in by_cell(rows, "temperature"):
        counts = powers_of_two(own[0].n)
        logs = [math.log2(n) for n in counts]
        values = [np.mean([row.passes(n) for row in own], axis=0) for n in counts]
        rise, curve = slope(values, logs), bend(values, logs)
        accuracy = mean_interval(averaged(own, "accuracy")).percent()
        shown = f"{rise.percent()} a doubling; bend {curve.percent(2)}; accuracy {accuracy}"
        found.append(Finding("D1", "pass_n grows with log n", cell, shown, verdict(rise)))
    return found


def d2(rows: Sequence[Row]) -> list[Finding]:
    """Votes find a third to a half of what is there, and beat two at random."""
    found = []
    for cell, own in by_cell(rows, "temperature"):
        vote, there = averaged(own, "vote_2"), averaged(own, "pass_n")
        share = ratio_interval(vote, there)
        gain = paired_difference(vote, averaged(own, "random_2"))
        said = REPRODUCED if share.low <= 0.5 and share.high >= 0.3 else CONTRADICTED
        said += ", more" if share.low > 0.5 else ", less" if share.high < 0.3 else ""
        found.append(Finding("D2", "the vote finds 30–50 % of pass_n", cell, share.percent(), said))
        found.append(
            Finding(
                "D2", "the vote beats two at random", cell, gain.percent(), verdict(gain, SESOI)
            )
        )
    return found


def d3(rows: Sequence[Row]) -> list[Finding]:
    """With the temperature pass_n rises, accuracy falls, more stays unanswered."""
    swept = {float(name.removeprefix("T=")): own for name, own in by_cell(rows, "temperature")}
    if len(swept) < 2:
        return []
    places = sorted(swept)
    found = []
    for metric, sign in (("pass_n", 1), ("accuracy", -1), ("unanswered", 1)):
        values = [averaged(swept[place], metric) for place in places]
        rise = slope([sign * each for each in values], places)
        means = " → ".join(f"{100 * each.mean():.1f}" for each in values)
        says = f"temperature: {metric} {'rises' if sign > 0 else 'falls'}"
        where = f"T {places[0]:g} … {places[-1]:g}, by 1"
        found.append(Finding("D3", says, where, f"{rise.percent()} ({means})", verdict(rise)))
    return found


def d4(rows: Sequence[Row]) -> list[Finding]:
    """Batching: tokens a second against one prompt at a time."""
    found = []
    for row in of(rows, "batching"):
        alone = row.facts["one prompt at a time"]
        for mode, times in (("all together", 30), ("per puzzle", 8)):
            ratio = row.facts[mode] / alone
            # No interval: what is measured is this machine. Half of what is claimed will do.
            said = (
                REPRODUCED
                if ratio >= times / 2
                else "direction only"
                if ratio > 1
                else CONTRADICTED
            )
            found.append(
                Finding("D4", f"{mode} is {times} times as fast", "", f"{ratio:.1f}×", said)
            )
    return found


def d5(rows: Sequence[Row]) -> list[Finding]:
    """Beams find likelier answers than greedy decoding, and cost more."""
    greedy, found = of(rows, "beam", "greedy"), list[Finding]()
    for row in of(rows, "beam") if greedy else ():
        base = greedy[0]
        if row.cell == base.cell or not row.logprob or not base.logprob:
            continue
        gain = paired_difference(row.logprob, base.logprob)
        nats = f"{np.mean(base.logprob):.3f} → {np.mean(row.logprob):.3f}"
        shown = f"{gain.value:.3f} [{gain.low:.3f}, {gain.high:.3f}] nats ({nats})"
        found.append(Finding("D5", "a beam finds likelier answers", row.cell, shown, verdict(gain)))
        right = paired_difference(row.values["vote_1"], base.values["vote_1"])
        found.append(
            Finding(
                "D5",
                "and they are right more often",
                row.cell,
                right.percent(),
                verdict(right, SESOI),
            )
        )
        if "seconds" in row.facts and "seconds" in base.facts:
            times = row.facts["seconds"] / base.facts["seconds"]
            said = REPRODUCED if times >= 2 else NOT_DETECTED
            found.append(
                Finding("D5", "at more than twice the CPU time", row.cell, f"{times:.1f}×", said)
            )
    return found


def d6(rows: Sequence[Row]) -> list[Finding]:
    """Row numbers and the shape are no worse than the plain encoder; symbols change nothing."""
    found = []
    base = of(rows, "encoders", "minimal")
    for cell in ("+ shape", "+ row numbers", "+ both"):
        for metric, what in (
            ("accuracy", "accuracy"),
            ("size", "right size"),
            ("cells", "right cells"),
        ):
            gap = compared(of(rows, "encoders", cell), base, metric)
            if gap is not None:
                says = f"{cell.removeprefix('+ ')} gains {what}"
                found.append(Finding("D6", says, f"{gap.seeds.n} seeds", str(gap), gap.verdict()))
    law = "from scratch symbols rename embeddings; `tests/tasks/arc/test_symbols.py`"
    found.append(Finding("D6", "other symbols have no effect", "", law, BY_TESTS))
    return found


def d7(rows: Sequence[Row]) -> list[Finding]:
    """Beyond the least validation loss accuracy goes on rising."""
    ends, signs, rises = list[tuple[Row, Row]](), list[float](), list[float]()
    for seed in sorted({row.seed for row in of(rows, "along")}):
        line = [row for row in of(rows, "along") if row.seed == seed]
        line.sort(key=lambda row: row.facts["share"])
        losses = [row.facts["validation"] for row in line]
        least = int(np.argmin(losses))
        if len(line) - least < 3:
            continue
        ends.append((line[-1], line[least]))
        rises.append(losses[-1] - losses[least])
        accuracy = [row.mean("accuracy") for row in line[least:]]
        if np.std(accuracy) > 0:
            signs.append(float(np.corrcoef(losses[least:], accuracy)[0, 1]))
    if not ends:
        return []
    last, best = (list(side) for side in zip(*ends, strict=True))
    gap = compared(last, best, "accuracy")
    if gap is None:
        return []
    correlation = ", ".join(f"{sign:+.2f}" for sign in signs)
    shown = f"{gap}; loss {np.mean(rises):+.3f} nats; correlation {correlation}"
    says = "accuracy rises past the least validation loss"
    return [Finding("D7", says, f"{len(ends)} trainings", shown, gap.verdict())]


def d8(rows: Sequence[Row]) -> list[Finding]:
    """Test-time fine-tuning: accuracy rises with steps while the validation loss rises."""
    start, tuned = of(rows, "ttft", "0 steps"), of(rows, "ttft")
    steps = sorted({row.facts["steps"] for row in tuned if row.facts["steps"]})
    if not start or not steps:
        return []
    seeds = sorted({row.seed for row in tuned})
    by_seed = [replace(start[0], seed=seed) for seed in seeds]
    found = []
    for a, b in zip([0.0, *steps], steps, strict=False):
        first = by_seed if a == 0 else of(rows, "ttft", f"{a:g} steps")
        gap = compared(of(rows, "ttft", f"{b:g} steps"), first, "accuracy")
        if gap is not None:
            found.append(
                Finding(
                    "D8", "accuracy rises with steps", f"{a:g} → {b:g}", str(gap), gap.verdict()
                )
            )
    loss = {
        s: float(np.mean([row.facts["validation"] for row in tuned if row.facts["steps"] == s]))
        for s in (0.0, *steps)
    }
    shown = " → ".join(f"{value:.3f}" for value in loss.values())
    ends = list(loss.values())
    said = REPRODUCED if ends[-1] > ends[0] else CONTRADICTED
    found.append(
        Finding("D8", "while the validation loss rises", f"0 … {steps[-1]:g}", shown, said)
    )
    return found


def d9(rows: Sequence[Row]) -> list[Finding]:
    """A larger LoRA rank is no worse than a smaller one, each at its own best rate."""
    ranks = sorted({row.facts["rank"] for row in of(rows, "lora")})
    found = []
    for small, large in pairwise(ranks):
        less, more = (at_best_rate(rows, rank) for rank in (small, large))
        gap = compared(more, less, "accuracy")
        if gap is not None:
            rates = ", ".join(f"{own[0].facts['rate']:g}" for own in (less, more))
            where = f"{small:g} → {large:g}, rates {rates}"
            found.append(Finding("D9", "a larger rank is better", where, str(gap), gap.verdict()))
    return found


def at_best_rate(rows: Sequence[Row], rank: float) -> list[Row]:
    """A rank's rows at the rate of the least validation loss, over all its seeds."""
    by_rate: dict[float, list[Row]] = {}
    for row in of(rows, "lora"):
        if row.facts["rank"] == rank:
            by_rate.setdefault(row.facts["rate"], []).append(row)

    def loss(own: Sequence[Row]) -> float:
        return float(np.mean([row.facts["validation"] for row in own]))

    return min(by_rate.values(), key=loss)


def d10(rows: Sequence[Row]) -> list[Finding]:
    """The larger model gains accuracy, and less in two voted attempts."""
    large, small = of(rows, "sizes", "m"), of(rows, "sizes", "s")
    gaps = [compared(large, small, metric) for metric in ("accuracy", "vote_2")]
    accuracy, voted = gaps
    if accuracy is None or voted is None:
        return []
    seeds = {row.seed for row in large} & {row.seed for row in small}
    less = [
        np.mean(
            [row.values["accuracy"] - row.values["vote_2"] for row in side if row.seed in seeds],
            axis=0,
        )
        for side in (large, small)
    ]
    between = paired_difference(*less)
    where = "0.2M → 0.8M"
    gained = (
        ("a larger model has higher accuracy", accuracy),
        ("and higher vote_2", voted),
    )
    return [
        *(Finding("D10", says, where, str(gap), gap.verdict()) for says, gap in gained),
        Finding("D10", "by less than accuracy", where, between.percent(), verdict(between)),
    ]


CLAIMS: dict[str, tuple[str, Callable[[Sequence[Row]], list[Finding]]]] = {
    "D1": ("pass_n grows with log n", d1),
    "D2": ("the vote finds 30–50 % of pass_n and beats two at random", d2),
    "D3": ("temperature: pass_n rises, accuracy falls, unanswered rises", d3),
    "D4": ("batching: 30 times as fast all together, 8 times per puzzle", d4),
    "D5": ("a beam finds likelier answers at much higher cost", d5),
    "D6": ("row numbers and shape are no worse than the plain encoder", d6),
    "D7": ("accuracy rises past the least validation loss", d7),
    "D8": ("test-time fine-tuning: accuracy rises with steps, and validation loss too", d8),
    "D9": ("a larger LoRA rank is no worse", d9),
    "D10": ("a larger model: a gap in accuracy, a smaller one in vote_2", d10),
}


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Every claim's findings, or one that says that it was not run."""
    made: list[Finding] = []
    for name, (says, rule) in CLAIMS.items():
        made += rule(rows) or [Finding(name, says, "", "", NOT_RUN)]
    return made
