"""The rules by which the study decides claims: cells in, an interval and a verdict out.

Each maker of a rule takes names of strategies and numbers of samples and gives a pure function of
the rows. Rows that are missing give no finding. The smallest effects that count were fixed before
the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.catalog.models import model_card, model_folder
from mull.errors import MullError
from mull.metrics import Interval
from mull.report.cells import CellRow
from mull.report.compare import (
    Column,
    at_flops,
    column,
    contrast,
    difference,
    over_policies,
    per_problem,
    slope,
)
from mull.report.verdicts import (
    CONTRADICTED,
    NOT_DETECTED,
    REPRODUCED,
    cost_ratios,
    crossing,
    no_more_than,
    on_shared,
    p_value,
    verdict,
)

CARDS = Path(__file__).parent / "cards"
"""Cards of verifiers that do not ship."""
SESOI = 0.015
"""The smallest difference of interest, as a share of the problems."""
SESOI_BIN = 0.03
"""The same inside one bin of difficulty."""

Rows = Sequence[CellRow]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """What was found at one place: the interval, how it reads, the verdict, and p for Holm's rule.

    ``p`` is ``None`` where the verdict does not rest on a distance from zero.
    """

    where: str
    shown: str
    verdict: str
    p: float | None = None


Rule = Callable[[Mapping[str, Rows]], list[Finding]]
"""The rows of one family of policies by its name (the study's own first) → what they show."""


def cells(rows: Rows, strategy: str, n: int) -> list[CellRow]:
    """The rows of a strategy at one number of samples."""
    return [row for row in rows if (row.strategy, row.n) == (strategy, n)]


def own(families: Mapping[str, Rows]) -> Rows:
    """The rows of the policies that the study is about."""
    return next(iter(families.values()))


def points(where: str, found: Interval | None, smallest: float = SESOI) -> list[Finding]:
    """A difference in points with its verdict."""
    if found is None:
        return []
    return [Finding(where, found.percent(), verdict(found, smallest), p_value(found))]


def pooled(
    where: str, rows: Rows, decide: Callable[[Rows], Interval | None], smallest: float = SESOI
) -> list[Finding]:
    """A difference over all policies; where there are several, how many have its sign alone.

    The interval is over problems; what another training would give shows in the signs.
    """
    found = decide(rows)
    policies = sorted({row.policy for row in rows})
    if found is None or len(policies) < 2:
        return points(where, found, smallest)
    alone = [decide([row for row in rows if row.policy == each]) for each in policies]
    known = [each.value for each in alone if each is not None]
    signs = f"; {sum(x * found.value > 0 for x in known)} of {len(known)} policies"
    return [replace(each, shown=each.shown + signs) for each in points(where, found, smallest)]


# --- rules ---------------------------------------------------------------------------------------


def beats(left: str, right: str, *sizes: int) -> Rule:
    """left - right at equal samples."""

    def gap(rows: Rows, n: int) -> Interval | None:
        return difference(cells(rows, left, n), cells(rows, right, n))

    return lambda families: [
        each for n in sizes for each in pooled(f"{n}", own(families), partial(gap, n=n))
    ]


def beats_at_cost(left: str, right: str, *sizes: int) -> Rule:
    """left - right at the FLOPs of right, the verifier's included."""

    def gap(rows: Rows, n: int) -> Interval | None:
        anchors = cells(rows, right, n)
        side = at_flops([row for row in rows if row.strategy == left], anchors)
        return contrast([(1.0, side), (-1.0, column(anchors))])

    return lambda families: [
        each for n in sizes for each in pooled(f"FLOPs of {n}", own(families), partial(gap, n=n))
    ]


def sums(where: str, *terms: tuple[float, str, int], bins: Sequence[int] = ()) -> Rule:
    """A weighted sum of cells (strategy at n): interactions, gaps of gaps, changes with n."""

    def total(rows: Rows) -> Interval | None:
        columns = [(weight, column(cells(rows, s, n))) for weight, s, n in terms]
        return contrast(columns, bins or None)

    return lambda families: pooled(where, own(families), total, SESOI_BIN if bins else SESOI)


def rises(strategy: str, sizes: Sequence[int], bins: Sequence[int], sign: float = 1.0) -> Rule:
    """The slope over the doublings of n in some bins, times ``sign``."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        columns = {n: column(cells(own(families), strategy, n)) for n in sizes}
        known = {n: each for n, each in columns.items() if each}
        found = slope(known, bins)
        if found is None:
            return []
        if sign < 0:
            found = Interval(-found.value, -found.high, -found.low, found.n)
        return points(f"{min(known)} → {max(known)}, a doubling", found, 0.0)

    return rule


def nothing_helps(strategies: Sequence[str], n: int, bins: Sequence[int]) -> Rule:
    """No strategy is worth the smallest effect of interest against one sample in some bins."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        single = cells(own(families), "sample", n)
        gains = [difference(cells(own(families), s, n), single, bins) for s in strategies]
        found = [(each.value, each) for each in gains if each is not None]
        if not found:
            return []
        _, best = max(found, key=lambda pair: pair[0])
        return [Finding(f"best at {n}", best.percent(), no_more_than(best, SESOI_BIN))]

    return rule


def crosses(left: str, right: str, sizes: Sequence[int]) -> Rule:
    """left falls behind right inside the grid, in 97.5 % of the resamples."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        pairs: dict[int, tuple[Column, Column]] = {
            n: (column(cells(own(families), left, n)), column(cells(own(families), right, n)))
            for n in sizes
        }
        found = crossing({n: pair for n, pair in pairs.items() if all(pair)})
        if found is None:
            return []
        at = "none" if math.isnan(found.at.value) else f"N = {found.at.value:.0f}"
        said = REPRODUCED if found.share >= 0.975 else NOT_DETECTED
        return [
            Finding(f"{sizes[0]} … {sizes[-1]}", f"{at}; in {found.share:.0%} of resamples", said)
        ]

    return rule


def cheaper(strategy: str) -> Rule:
    """The study's own policies need fewer FLOPs than larger ones for equal error.

    Where one policy at its least is above the other at its most, no error is equal: that is said,
    and the FLOPs decide if the better one needs fewer.
    """

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        names, found = list(families), []
        for name in names[1:]:
            sides = [
                {n: cells(families[f], strategy, n) for n in {r.n for r in families[f]}}
                for f in (names[0], name)
            ]
            ratios = cost_ratios(*sides)
            if not ratios:
                found += _apart(name, *sides)
            for target, log in ratios:
                low, high = (2.0**x for x in (log.low, log.high))
                shown = f"{2.0**log.value:.2g}× [{low:.2g}, {high:.2g}]"
                where = f"{name} at {100 * (1 - target):.0f} % error"
                found.append(Finding(where, shown, verdict(log), p_value(log)))
        return found

    return rule


def _apart(name: str, small: Mapping[int, Rows], large: Mapping[int, Rows]) -> list[Finding]:
    """Two policies whose accuracies do not meet: the end where they are nearest."""
    known = on_shared(small, large)
    if not all(known):
        return []
    sides = ((known[1], known[0], CONTRADICTED), (known[0], known[1], REPRODUCED))
    for better, worse, said in sides:
        ends = min(better), max(worse)
        rows = better[ends[0]], worse[ends[1]]
        above, below = (over_policies(each) for each in rows)
        gap = contrast([(1.0, above), (-1.0, below)])
        if gap is None or gap.value <= 0:
            continue
        costs = [per_problem(each, lambda row: row.flops) for each in rows]
        shown = (
            f"{gap.percent()} points better, for {costs[0] / 1e6:.0f}M FLOPs against "
            f"{costs[1] / 1e6:.0f}M"
        )
        at = ends if better is known[1] else ends[::-1]
        where = f"{name}, N = {at[0]} against {at[1]}"
        if costs[0] >= costs[1]:
            return [Finding(where, shown, NOT_DETECTED)]
        return [Finding(where, shown, said if gap.low > 0 else NOT_DETECTED, p_value(gap))]
    return []


def over_optimised(strategy: str, low: int, high: int) -> Rule:
    """Between two sizes accuracy falls while the verifier likes the winners better."""

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        ends = [cells(own(families), strategy, n) for n in (low, high)]
        fall = difference(*ends)
        known = [[r for r in rows if r.winner_score is not None] for rows in ends]
        if fall is None or not all(known):
            return []
        read = [
            [sum(getattr(r, name) or 0.0 for r in rows) / len(rows) for rows in known]
            for name in ("winner_score", "winner_steps", "short_winners")
        ]
        score, steps, short = read
        shown = (
            f"{fall.percent()}; score {score[0]:.2f} → {score[1]:.2f}, steps {steps[0]:.1f} → "
            f"{steps[1]:.1f}, short {short[0]:.0%} → {short[1]:.0%}"
        )
        said = verdict(fall, SESOI) if score[1] > score[0] else NOT_DETECTED
        return [Finding(f"{low} → {high}: accuracy lost", shown, said, p_value(fall))]

    return rule


def ranks_inside(families: Mapping[str, Rows]) -> list[Finding]:
    """AUC within problems, against .8, of the verifiers that the rows used, by their cards, and of
    their like that do not ship.

    One that learned from exact labels shows what rollouts have to reach, and decides nothing.
    """
    found = []
    for card in _judges(families):
        auc = card["measured"]["auc_within"]
        gap = Interval(*(x - 0.8 for x in auc), n=0)
        shown = f"{auc[0]:.3f} [{auc[1]:.3f}, {auc[2]:.3f}]"
        exact = card["labels"] == "exact"
        said, chance = ("exact labels", None) if exact else (verdict(gap), p_value(gap))
        found.append(Finding(f"`{card['name']}`, its card", shown, said, chance))
    return found


def best_by_rollouts(families: Mapping[str, Rows]) -> list[Finding]:
    """Best of n minus the vote of the same samples by verifiers of rollouts, by their cards."""
    found = []
    for card in _judges(families):
        if card["labels"] == "soft":
            m = card["measured"]
            gain = Interval(*m["best_of_n_minus_vote"], n=m["problems"])
            found += points(f"{m['samples']}, `{card['name']}`, its card", gain)
    return found


def _judges(families: Mapping[str, Rows]) -> list[Mapping[str, Any]]:
    """Cards, with what the labels were, of the process models that the rows used, and of those in
    ``CARDS`` for the same policies whose heads read the same.
    """
    used = {row.models["prm"] for row in own(families) if "prm" in row.models}
    known = [card for who in used if (card := card_of(who)).get("measured")]
    cards = [{**card, "labels": _labels(card["name"])} for card in known]
    others = [json.loads(path.read_text()) for path in CARDS.glob("*.json")]
    kinds = {(card["policy"]["model"], _reads(card)) for card in cards}
    cards += [each for each in others if (each["policy"]["model"], _reads(each)) in kinds]
    return sorted(cards, key=lambda card: str(card["name"]))


def _reads(card: Mapping[str, Any]) -> bool:
    """Whether a reward model reads likelihoods."""
    return card["recipe"].get("logprobs") is not False


def _labels(name: str) -> str:
    """What a shipped verifier's labels were."""
    return str(json.loads((model_folder(name) / "trained.json").read_text())["labels"])


def card_of(who: str) -> Mapping[str, Any]:
    """The card of ``kind:model@revision``, empty where the model here has other weights by now."""
    from mull.engines.torch.load import revision

    name, _, weights = who.partition(":")[2].rpartition("@")
    try:
        same = revision(model_folder(name)) == weights.partition("/")[0]
    except MullError:
        return {}
    return (model_card(name) or {}) if same else {}
