"""What a level will likely ask for once its missing scores are in: a few draws of them.

The scores that have not come are drawn from those of the level that have (at its beginning: from
the level before), the rule divides the children of each such level, and again for the level behind
it as far as guesses have come already. The share of the draws that make a request is its chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mull.rng import derive
from mull.strategies.levels_rule import Entry, Level, requests
from mull.strategies.levels_tree import Node

if TYPE_CHECKING:
    from mull.strategies.levels_lane import Lane

DRAWS = 16
HORIZON = 3
"""Levels looked at: the one that grows and those behind it."""
LIKELY = 0.5
"""A request is worth guessing from this chance on."""
ROOMY = 0.15
"""The same where a whole level more would find idle slots: a guess then displaces nothing."""
ENOUGH = 3
"""With fewer scores at a depth, those of the depth before are drawn from as well."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Children ``first .. first + count - 1`` of ``node`` are wanted with a ``chance`` of 0..1."""

    chance: float
    node: Node
    first: int
    count: int


@dataclass(slots=True)
class _Path:
    """A path of a drawn level; without a node where it is not there yet."""

    node: Node | None
    before: float
    weight: float = 0.0
    stays: bool = False
    reference: bool = False


def chances(lane: Lane) -> dict[tuple[Node, int, int], float]:
    """The chance of each request (node, first, count) that a lane may come to make.

    Only requests of nodes that have come; empty as long as nothing is known about scores.
    """
    scores = _scores(lane)
    if not scores[0]:
        return {}
    start = lane.search.start
    rng = random.Random(derive(0, start.problem.id, lane.depth, len(scores[0])))
    pools = [_pool(each) for each in scores]
    tally: dict[tuple[Node, int, int], int] = {}
    level = []
    for path in lane.level:
        if path.node.came and path.node.branch is None:
            continue
        node = (path.same or path.node) if path.node.came else None
        before = path.entry(None, False).before
        level.append(_Path(node, before, path.weight, path.stays, path.reference))
    for _ in range(DRAWS):
        drawn, banked = level, lane.banked
        for ahead in range(HORIZON):
            drawn, banked = _next(lane, drawn, ahead, banked, pools[ahead], rng, tally)
            if not any(path.node is not None and not path.stays for path in drawn):
                break
    return {request: count / DRAWS for request, count in tally.items()}


def _next(
    lane: Lane,
    level: Sequence[_Path],
    ahead: int,
    banked: int,
    pool: Sequence[float],
    rng: random.Random,
    tally: dict[tuple[Node, int, int], int],
) -> tuple[list[_Path], int]:
    """The level behind a drawn one; its requests are counted."""
    drawn: dict[Node, float] = {}
    entries = []
    for path in level:
        node = path.node
        if node is None:
            score, finished = _draw(pool, rng), False
        else:
            known, finished = node.score, node.finished
            score = drawn.setdefault(node, _draw(pool, rng)) if known is None else known
        entries.append(Entry(score, finished, path.before, path.weight, path.stays, path.reference))
    depth = lane.depth + ahead
    shares = lane.rule.allocate(
        Level(depth, tuple(entries), banked, lane.search.start.problem.id, lane.round)
    )
    following: list[_Path] = []
    counts: dict[Node, int] = {}
    for at, path in enumerate(level):
        node, before, weight = path.node, entries[at].score, shares.weight(at)
        for number in range(shares.children[at]):
            chosen = path.reference and number == 0
            if node is None:
                following.append(_Path(None, before, weight, reference=chosen))
            elif node.finished:
                following.append(_Path(node, before, weight, True, chosen))
            elif chosen:
                following.append(_Path(lane.reference[depth], before, weight, reference=True))
            else:
                index = node.taken + counts.get(node, 0)
                counts[node] = counts.get(node, 0) + 1
                child = node.children.get(index)
                there = child if child is not None and child.came else None
                if there is None or there.branch is not None:
                    following.append(_Path(there, before, weight))
    for node, count in counts.items():
        for offset, size in requests(count, lane.rule.unit):
            request = (node, node.taken + offset, size)
            tally[request] = tally.get(request, 0) + 1
    return following, banked + sum(shares.votes)


def _draw(pool: Sequence[float], rng: random.Random) -> float:
    """One more score like those of a pool: as likely to fall between any two neighbours."""
    at = int(rng.random() * (len(pool) - 1))
    low = pool[at]
    return low + (pool[at + 1] - low) * rng.random()


def _pool(scores: Sequence[float]) -> list[float]:
    """Sorted scores to draw between, with a step beyond either end.

    Were a score drawn from those that came, nothing would ever beat the best, and guesses would be
    too sure.

    >>> _pool([0.5, 0.75])
    [0.25, 0.5, 0.75, 1.0]
    """
    second, last_but_one = scores[min(1, len(scores) - 1)], scores[max(0, len(scores) - 2)]
    return [2 * scores[0] - second, *scores, 2 * scores[-1] - last_but_one]


def _scores(lane: Lane) -> list[list[float]]:
    """Scores to draw from: of the level that grows, then of each depth of its guesses."""
    found: list[list[float]] = [[] for _ in range(HORIZON)]
    for path in lane.level:
        if path.node.score is not None and not path.stays:
            found[0].append(path.node.score)
    if len(found[0]) < ENOUGH:
        parents = {path.node.parent for path in lane.level}
        found[0] += [node.score for node in parents if node and node.score is not None]
    for batch in lane.guesses.values():
        ahead = len(batch.parent.key) + 1 - lane.depth
        if ahead < HORIZON:
            found[ahead] += [node.score for node in batch.nodes if node.score is not None]
    for ahead in range(1, HORIZON):
        if len(found[ahead]) < ENOUGH:
            found[ahead] += found[ahead - 1]
    return [sorted(scores) for scores in found]
