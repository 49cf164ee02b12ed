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
    balanced,
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
    Crossing,
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

MIXED_SIGNS = "mixed over policies"

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
    """A difference over all policies; where there are several, how many have its sign alone, and
    what the first shows, whose verifiers were trained for it, on all its problems.

    The interval is over problems; what another training would give shows in the signs. Policies
    that differ in sign decide nothing together.
    """
    found = decide(rows)
    policies = sorted({row.policy for row in rows})
    if found is None or len(policies) < 2:
        return points(where, found, smallest)
    alone = {each: decide([row for row in rows if row.policy == each]) for each in policies}
    known = {each: gap for each, gap in alone.items() if gap is not None}
    alike = sum(gap.value * found.value > 0 for gap in known.values())
    said, signs = verdict(found, smallest), f"{alike} of {len(known)} policies"
    if said != NOT_DETECTED and alike < len(known):
        said = MIXED_SIGNS
    first = policies[0]
    if first in known and len(known) > 1:
        signs += f"; {first} {known[first].percent()}"
        if said not in (MIXED_SIGNS, NOT_DETECTED) and verdict(known[first]) == NOT_DETECTED:
            said += f", not for {first} alone"
    return [Finding(where, f"{found.percent()}; {signs}", said, p_value(found))]


# --- rules ---------------------------------------------------------------------------------------


def beats(left: str, right: str, *sizes: int) -> Rule:
    """left - right at equal samples."""

    def gap(rows: Rows, n: int) -> Interval | None:
        return difference(cells(rows, left, n), cells(rows, right, n))

    return lambda families: [
        each for n in sizes for each in pooled(f"{n}", own(families), partial(gap, n=n))
    ]


def at_its_cost(rows: Rows, left: str, right: str, n: int) -> Interval | None:
    """left at n samples - right at the FLOPs of that, the verifier's included."""
    anchors = cells(rows, left, n)
    side = at_flops([row for row in rows if row.strategy == right], anchors)
    return contrast([(1.0, column(anchors)), (-1.0, side)])


def beats_at_cost(left: str, right: str, *sizes: int) -> Rule:
    """left - right at the FLOPs of left; where right was never so cheap, at those of right."""

    def at_others(rows: Rows, n: int) -> Interval | None:
        found = at_its_cost(rows, right, left, n)
        return found and Interval(-found.value, -found.high, -found.low, found.n)

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        found: list[Finding] = []
        for n in sizes:
            mine = partial(at_its_cost, left=left, right=right, n=n)
            found += pooled(f"{n}, at its FLOPs", own(families), mine) or pooled(
                f"at the other's FLOPs of {n}", own(families), partial(at_others, n=n)
            )
        return found

    return rule


def sums(where: str, *terms: tuple[float, str, int], bins: Sequence[int] = ()) -> Rule:
    """A weighted sum of cells (strategy at n): interactions, gaps of gaps, changes with n."""

    def total(rows: Rows) -> Interval | None:
        columns = [(weight, column(cells(rows, s, n))) for weight, s, n in terms]
        return contrast(columns, bins or None)

    return lambda families: pooled(where, own(families), total, SESOI_BIN if bins else SESOI)


def rises(strategy: str, sizes: Sequence[int], bins: Sequence[int], sign: float = 1.0) -> Rule:
    """The slope over the doublings of n in some bins, times ``sign``.

    Over the whole range it must come to the smallest effect of interest in a bin.
    """

    def decide(rows: Rows) -> Interval | None:
        columns = {n: column(cells(rows, strategy, n)) for n in sizes}
        found = slope({n: each for n, each in columns.items() if each}, bins)
        if found is None or sign > 0:
            return found
        return Interval(-found.value, -found.high, -found.low, found.n)

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        known = [n for n in sizes if cells(own(families), strategy, n)]
        if len(known) < 2:
            return []
        where = f"{min(known)} → {max(known)}, a doubling"
        return pooled(where, own(families), decide, SESOI_BIN / math.log2(max(known) / min(known)))

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

    def decide(rows: Rows) -> Crossing | None:
        pairs: dict[int, tuple[Column, Column]] = {
            n: (column(cells(rows, left, n)), column(cells(rows, right, n))) for n in sizes
        }
        return crossing({n: pair for n, pair in pairs.items() if all(pair)})

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        found, policies = decide(own(families)), sorted({row.policy for row in own(families)})
        if found is None:
            return []
        at = "none" if math.isnan(found.at.value) else f"N = {found.at.value:.0f}"
        shown = f"{at}; in {found.share:.0%} of resamples"
        said = REPRODUCED if found.share >= 0.975 else NOT_DETECTED
        alone = decide([row for row in own(families) if row.policy == policies[0]])
        if len(policies) > 1 and alone is not None:
            shown += f"; {policies[0]} in {alone.share:.0%}"
            if said == REPRODUCED and alone.share < 0.975:
                said += f", not for {policies[0]} alone"
        return [Finding(f"{sizes[0]} … {sizes[-1]}", shown, said)]

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
                value, low, high = (f"{2.0**x:.2g}" for x in (log.value, log.low, log.high))
                shown = f"{value}× [{low}, {high}]".replace("inf", "∞")
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

    def lost(rows: Rows) -> Interval | None:
        return difference(cells(rows, strategy, low), cells(rows, strategy, high))

    def rule(families: Mapping[str, Rows]) -> list[Finding]:
        ends = [cells(own(families), strategy, n) for n in (low, high)]
        even = balanced({row.unit for row in ends[0]} & {row.unit for row in ends[1]})
        known = [
            [r for r in rows if r.winner_score is not None and r.unit in even] for rows in ends
        ]
        found = pooled(f"{low} → {high}: accuracy lost", own(families), lost)
        if not found or not all(known):
            return []
        read = [
            [sum(getattr(r, name) or 0.0 for r in rows) / len(rows) for rows in known]
            for name in ("winner_score", "winner_steps", "short_winners")
        ]
        score, steps, short = read
        liked = (
            f"; score {score[0]:.2f} → {score[1]:.2f}, steps {steps[0]:.1f} → "
            f"{steps[1]:.1f}, short {short[0]:.0%} → {short[1]:.0%}"
        )
        return [
            replace(
                each,
                shown=each.shown + liked,
                verdict=each.verdict if score[1] > score[0] else NOT_DETECTED,
            )
            for each in found
        ]

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
