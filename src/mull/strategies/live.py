"""One job in flight: where each of its turns stands, and on which row of the ledger its cost.

A turn is one part (index) of one action. Its row follows from four facts alone, so that it cannot
depend on when they became known: was the action a guess, was it committed, did the turn fail, was
it cancelled. This file starts no work; ``drive.py`` does.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mull.budget import Ledger, Meter, Purpose
from mull.engines.adapt import AdaptingEngine
from mull.errors import UsageError
from mull.strategies.base import Adapt, Generate, Score, Search, Start, Strategy, Work
from mull.strategies.needs import POLICY, spec_of
from mull.strategies.owed import projected
from mull.types import ThresholdDFS, TokenBeam

Turn = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Job:
    """One problem to solve: a strategy, what it starts with, the run's seed, the caller's tag.

    ``ledger`` is the caller's own, to be read at any moment; default: one that the driver makes.
    """

    strategy: Strategy
    start: Start
    seed: int = 0
    tag: Any = None
    ledger: Ledger | None = None


def counts_as_sample(action: Generate) -> bool:
    """Whether an action makes paths of the solution: the policy's own, or a reviser's."""
    if action.purpose is Purpose.JUDGE:
        return False
    return action.engine == POLICY or action.purpose is Purpose.REVISION


def cost_in_samples(action: Generate) -> tuple[int, int]:
    """(depth, samples) at which an action counts.

    A rollout of k steps costs k samples more, beside the path whose step it is made to judge. A
    search over tokens costs its width, however few of what it finds are asked for.
    """
    if action.purpose is Purpose.LOOKAHEAD:
        return action.branch.depth - 1, action.count * (action.until.steps or 1)
    if isinstance(action.decoding, TokenBeam | ThresholdDFS):
        return action.branch.depth, max(action.count, action.decoding.width)
    return action.branch.depth, action.count


@dataclass(slots=True, eq=False)
class LiveJob:
    """A job's search, its ledger, and its turns."""

    job: Job
    search: Search
    ledger: Ledger
    order: int
    started: float
    works: dict[int, Work] = field(default_factory=dict)
    missing: dict[int, set[int]] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)
    cancelled: set[Turn] = field(default_factory=set)
    failed: set[Turn] = field(default_factory=set)
    samples: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    counted: set[int] = field(default_factory=set)
    absent: set[Turn] = field(default_factory=set)
    tasks: dict[asyncio.Task[Any], int] = field(default_factory=dict)
    awaited: int = 0
    scoring: int = 0
    deadline: asyncio.TimerHandle | None = None
    expired: bool = False
    finished: bool = False
    weights: tuple[AdaptingEngine, str] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing of this job runs any more."""
        return not self.tasks and not self.scoring

    def open(self, action: Work) -> None:
        """Note a new action; all its turns are missing."""
        if action.id in self.works:
            raise UsageError(f"a search asked twice for action {action.id}: ids must be fresh")
        if isinstance(action, Adapt) and any(isinstance(w, Adapt) for w in self.works.values()):
            raise UsageError("a search asked for a second adaptation: it may have one")
        self.works[action.id] = action
        if isinstance(action, Score | Adapt):
            self.missing[action.id] = {0}
        else:
            self.missing[action.id] = set(range(action.first, action.first + action.count))
            if not action.speculative:
                self.count(action)
        self.awaited += len(self.missing[action.id])

    def count(self, action: Generate) -> None:
        """Count an action's samples: sibling paths at the same depth, revisions among them.

        A verdict is no sample, whichever engine gives it.
        """
        if counts_as_sample(action):
            depth, count = cost_in_samples(action)
            self.samples[depth] += count
            self.counted.add(action.id)

    def over_samples(self, action: Generate) -> bool:
        """Whether an action just opened exceeds the budget's samples; it is not counted then."""
        over = not action.speculative and self._too_many()
        if over and counts_as_sample(action):
            depth, count = cost_in_samples(action)
            self.samples[depth] -= count
            self.counted.discard(action.id)
        return over

    @property
    def came(self) -> int:
        """The samples that came, of those asked for: what failed, what there was none of and what
        the deadline cut off is left out; what the search itself gave up is not.
        """
        samples = dict(self.samples)
        missing = Counter(id for id, _ in self.failed | self.absent)
        for id, turns in missing.items():
            action = self.works[id]
            if id in self.counted and isinstance(action, Generate):
                depth, count = cost_in_samples(action)
                samples[depth] -= count * turns // action.count
        return max(samples.values(), default=0)

    def affordable(self) -> bool:
        """Whether the hard limits cover one more guess behind all work that may still be made.

        What is not made yet is taken to cost, with its prompts and scores, as a token of this job
        has until now (``owed.projected``).
        """
        budget = self.job.start.budget
        if budget is None or not budget.metered:
            return True
        worst = sum(
            len(indices) * action.until.max_tokens
            for id, indices in self.missing.items()
            if isinstance(action := self.works[id], Generate)
        )
        total = self.ledger.total
        return total.generated > 0 and not budget.exhausted(projected(total, worst))

    def row(self, id: int, index: int) -> Purpose:
        """The ledger row on which a turn's cost stands."""
        action = self.works[id]
        if action.speculative and id not in self.committed:
            return Purpose.SPECULATIVE
        if (id, index) in self.cancelled:
            return Purpose.CANCELLED
        return Purpose.FAILED if (id, index) in self.failed else action.purpose

    def meter(self, action: Work, meter: Meter) -> Meter:
        """Keep an action's meter, so that its turns can be booked elsewhere later."""
        self.meters[action.id] = meter
        return meter

    def book(self, id: int, index: int) -> None:
        """Put a turn's cost, past and future, on its row."""
        meter = self.meters.get(id)
        if meter is None:
            return
        if isinstance(self.works[id], Score):
            for branch in meter.samples:
                meter.move(branch, self.row(id, index))
        else:
            meter.move(index, self.row(id, index))

    def fail(self, id: int, index: int) -> None:
        """A turn failed."""
        self.failed.add((id, index))
        self.book(id, index)

    def commit(self, id: int) -> None:
        """A guess became ordinary work.

        ``UsageError`` where it exceeds the budget's samples: what has been told cannot be refused
        any more, and a refusal of the rest alone would depend on timing.
        """
        action = self.works[id]
        self.committed.add(id)
        if isinstance(action, Generate):
            self.count(action)
            if self._too_many():
                raise UsageError(
                    f"the search of {spec_of(self.job.strategy)} committed a guess beyond its "
                    f"budget ({self.job.start.budget}): a search that guesses must keep to the "
                    "samples by itself"
                )
            for index in range(action.first, action.first + action.count):
                self.book(id, index)
        else:
            self.book(id, 0)

    def cancel(self, turns: Iterable[Turn]) -> set[int]:
        """Give turns up; the actions of which nothing is awaited any more."""
        emptied = set()
        for id, index in turns:
            self.cancelled.add((id, index))
            self.book(id, index)
            self._awaits_no_more(id, index)
            if not self.missing[id]:
                emptied.add(id)
        return emptied

    def cancel_all(self) -> set[int]:
        """Give up everything that has not come; the actions that this stops."""
        return self.cancel(
            [(id, index) for id, left in self.missing.items() for index in sorted(left)]
        )

    def come(self, id: int, index: int) -> bool:
        """Note that a turn came; whether anybody still waits for it."""
        if self.finished or index not in self.missing[id]:
            return False
        self._awaits_no_more(id, index)
        return True

    def release(self) -> None:
        """Free the adapted weights, if there are any: nothing of this job will use them."""
        if self.weights is not None:
            engine, name = self.weights
            self.weights = None
            engine.release(name)

    def _too_many(self) -> bool:
        """Whether some depth has more samples than the budget."""
        budget = self.job.start.budget
        if budget is None or budget.samples is None:
            return False
        return max(self.samples.values(), default=0) > budget.samples

    def _awaits_no_more(self, id: int, index: int) -> None:
        if index in self.missing[id]:
            self.missing[id].discard(index)
            self.awaited -= 1
