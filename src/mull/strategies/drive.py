"""The one async loop that does the I/O of every search: actions out to engines, outcomes back in.

All problems in flight share the engines' slots. Work is started first come, first served by
problem, one slot at a time, so that no step of one problem waits for another problem and no slot
idles while anything is left to do; a new problem is admitted when slots would idle otherwise.
Scores of all problems waiting for one verifier travel in one batch, beside generation.

It knows no strategy and no task; it decides nothing that could change a result.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from typing import Any

from mull.budget import CostModel, Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.errors import EngineError, UsageError
from mull.rng import derive
from mull.strategies.base import (
    Action,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Inbox,
    Outcome,
    Result,
    Room,
    Score,
    Search,
    Start,
    Strategy,
    prompt_of,
)
from mull.types import Completion, Delta, EngineInfo, Request, Usage
from mull.verifiers.base import Verifier

OnDelta = Callable[["Job", Generate, Delta], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One problem to solve: a strategy, what it starts with, the run's seed, the caller's tag."""

    strategy: Strategy
    start: Start
    seed: int = 0
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Solved:
    """A job's result, its ledger, and the samples and seconds (of the loop's clock) it took."""

    job: Job
    result: Result
    ledger: Ledger
    samples: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Live:
    """A job in flight."""

    job: Job
    search: Search
    ledger: Ledger
    order: int
    started: float
    gate: Inbox | None
    settled: Usage = field(default_factory=Usage)
    samples: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    works: dict[int, Generate | Score] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    speculated: dict[int, Usage] = field(default_factory=dict)
    committed: set[int] = field(default_factory=set)
    tasks: dict[asyncio.Task[None], int] = field(default_factory=dict)
    deadline: asyncio.TimerHandle | None = None
    expired: bool = False
    finished: bool = False


@dataclass(slots=True, eq=False)
class _Lane:
    """An engine's slots and the work that waits for them."""

    engine: Engine
    info: EngineInfo
    free: int
    waiting: list[tuple[bool, int, int, _Live, Generate]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Bench:
    """A verifier and the scores that wait for its next batch."""

    verifier: Verifier
    waiting: deque[tuple[_Live, Score]] = field(default_factory=deque)
    busy: asyncio.Task[None] | None = None


async def drive(
    jobs: Iterable[Job],
    engines: Mapping[str, Engine],
    verifiers: Mapping[str, Verifier] | None = None,
    *,
    cost_model: CostModel | None = None,
    max_active: int | None = None,
    on_delta: OnDelta | None = None,
) -> AsyncGenerator[Solved, None]:
    """Solve jobs; yield each as it finishes. ``jobs`` is read lazily: memory stays flat.

    ``engines`` maps the names that strategies use (``policy``, ``judge``) to engines, ``verifiers``
    likewise. At most ``max_active`` problems are open at a time (default: four for every slot of
    the policy). Closing the iterator cancels everything in flight. An ``EngineError`` becomes a
    ``Failure`` in its search; any other exception ends the drive, with all work cancelled.
    """
    driver = _Driver(iter(jobs), engines, verifiers or {}, cost_model, max_active, on_delta)
    try:
        async for solved in driver.run():
            yield solved
    finally:
        await driver.aclose()


class _Driver:
    def __init__(
        self,
        jobs: Iterator[Job],
        engines: Mapping[str, Engine],
        verifiers: Mapping[str, Verifier],
        cost_model: CostModel | None,
        max_active: int | None,
        on_delta: OnDelta | None,
    ) -> None:
        self.jobs: Iterator[Job] | None = jobs
        self.lanes = {
            name: _Lane(engine, engine.info, max(1, engine.info.slots))
            for name, engine in engines.items()
        }
        self.benches = {name: _Bench(verifier) for name, verifier in verifiers.items()}
        self.cost_model = cost_model
        self.on_delta = on_delta
        slots = sum(lane.free for lane in self.lanes.values())
        self.max_active = max_active or 4 * max(1, slots)
        self.active: dict[int, _Live] = {}
        self.solved: deque[Solved] = deque()
        self.ready = asyncio.Event()
        self.error: BaseException | None = None
        self.count = 0
        self.sequence = 0
        self.loop = asyncio.get_running_loop()
        self.pumping = False

    async def run(self) -> AsyncGenerator[Solved, None]:
        self._pump()
        while True:
            while self.solved:
                yield self.solved.popleft()
                self._pump()
            if self.error is not None:
                raise self.error
            if not self.active and self.jobs is None:
                return
            self.ready.clear()
            await self.ready.wait()

    async def aclose(self) -> None:
        self.jobs = None
        tasks = [task for live in self.active.values() for task in live.tasks]
        tasks += [bench.busy for bench in self.benches.values() if bench.busy]
        for live in self.active.values():
            if live.deadline:
                live.deadline.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Starting work ------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start whatever can start; not re-entered, so that one loop empties all queues."""
        if self.pumping or self.error is not None:
            return
        self.pumping = True
        try:
            while self._start_waiting() or self._admit() or self._speculate():
                pass
            for bench in self.benches.values():
                if bench.waiting and bench.busy is None:
                    bench.busy = self.loop.create_task(self._score(bench))
        except BaseException as error:  # a strategy's bug must end the drive, not hang it
            self._fail(error)
        finally:
            self.pumping = False

    def _start_waiting(self) -> bool:
        """Hand waiting work to lanes that have a free slot.

        An action is one request, never cut to the slots that happen to be free: its prompt is paid
        once, whatever the timing. What exceeds the slots waits in the engine, first come first
        served; ``free`` is then negative.
        """
        started = False
        for lane in self.lanes.values():
            while lane.free > 0 and lane.waiting:
                live, action = heappop(lane.waiting)[3:]
                if live.finished or action.id not in live.works:
                    continue
                if action.speculative and not self._affordable(live, action):
                    continue
                lane.free -= action.count
                task = self.loop.create_task(self._generate(live, action, lane))
                live.tasks[task] = action.id
                task.add_done_callback(partial(self._ended, live))
                started = True
        return started

    def _admit(self) -> bool:
        """Open the next problem if slots would idle without it."""
        idle = any(lane.free > 0 and not lane.waiting for lane in self.lanes.values())
        if self.jobs is None or not idle or len(self.active) >= self.max_active:
            return False
        if len(self.solved) > self.max_active:  # a slow consumer holds the producers back
            return False
        job = next(self.jobs, None)
        if job is None:
            self.jobs = None
            self.ready.set()
            return False
        budget = job.start.budget
        counted = budget is not None and bool(set(budget.limits) - {"samples", "seconds"})
        live = _Live(
            job,
            job.strategy.start(job.start),
            Ledger(self.cost_model),
            self.count,
            self.loop.time(),
            Inbox() if counted else None,
        )
        self.count += 1
        self.active[live.order] = live
        if budget is not None and budget.seconds is not None:
            live.deadline = self.loop.call_later(budget.seconds, self._expire, live)
        self._ask(live)
        return True

    def _speculate(self) -> bool:
        """Offer idle slots to the searches in flight, oldest first."""
        lane = self.lanes.get("policy")
        if lane is None or lane.free <= 0 or lane.waiting:
            return False
        for live in list(self.active.values()):
            if not live.finished and not live.expired and self._ask(live, lane.free):
                return True
        return False

    def _affordable(self, live: _Live, action: Generate) -> bool:
        """Whether the hard limit covers this speculation behind all that is committed."""
        budget = live.job.start.budget
        if budget is None:
            return True
        worst = sum(
            missing * work.until.max_tokens
            for id, missing in live.missing.items()
            if isinstance(work := live.works[id], Generate)
        )
        total = live.ledger.total
        return not budget.exhausted(replace(total, generated=total.generated + worst))

    # Asking and telling -------------------------------------------------------------------

    def _ask(self, live: _Live, slots: int = 0) -> bool:
        actions = live.search.ask(Room(slots))
        for action in actions:
            self._enqueue(live, action)
        if live.search.done:
            self._finish(live)
        return bool(actions)

    def _enqueue(self, live: _Live, action: Action) -> None:
        if isinstance(action, Cancel):
            self._cancel(live, action.ids)
        elif isinstance(action, Commit):
            self._commit(live, action.ids)
        elif action.id in live.works:
            raise UsageError(f"a search asked twice for action {action.id}: ids must be fresh")
        elif isinstance(action, Score):
            live.works[action.id] = action
            self._bench(action.verifier).waiting.append((live, action))
        else:
            lane = self._lane(action.engine)
            live.works[action.id] = action
            live.missing[action.id] = action.count
            if live.gate is not None:
                live.gate.expect(action.id, range(action.first, action.first + action.count))
            refusal = self._refusal(live, action)
            if refusal is not None:
                self._refuse(live, action, refusal)
                return
            self.sequence += 1
            entry = (action.speculative, live.order, self.sequence, live, action)
            heappush(lane.waiting, entry)

    def _refusal(self, live: _Live, action: Generate) -> str | None:
        """The net under strategies that do not keep their own budget; see ``Budget.exhausted``.

        What counts is what had taken effect in action order, so that a well-behaved search is
        never refused and timing changes nothing.
        """
        budget = live.job.start.budget
        if action.engine == "policy" and not action.speculative:
            live.samples[action.branch.depth] += action.count
        if budget is None:
            return None
        if budget.samples is not None and max(live.samples.values(), default=0) > budget.samples:
            live.samples[action.branch.depth] -= action.count
            return f"the budget of {budget.samples} samples was asked for in full already"
        if live.gate is not None and budget.exhausted(live.settled):
            return f"the budget ({budget}) is spent"
        return None

    def _refuse(self, live: _Live, action: Generate, why: str) -> None:
        failure = Failure("BudgetError", why)
        for index in range(action.first, action.first + action.count):
            outcome = Outcome(action.id, index, failure)
            self.loop.call_soon(self._told, live, outcome)

    def _told(self, live: _Live, outcome: Outcome) -> None:
        """One outcome in; whatever the search asks for next, out."""
        if live.finished or self.error is not None or outcome.action not in live.works:
            return
        if outcome.action in live.missing:
            live.missing[outcome.action] -= 1
            if not live.missing[outcome.action]:
                del live.missing[outcome.action]
        try:
            settled = live.settled
            if live.gate is not None:
                for due in live.gate.put(outcome):
                    settled = settled + due.usage
            live.search.tell(outcome)
            self._ask(live)
            live.settled = settled
        except BaseException as error:
            self._fail(error)
        self._pump()

    def _finish(self, live: _Live) -> None:
        """The search is done; the job is solved once nothing of it runs any more."""
        live.finished = True
        if live.deadline:
            live.deadline.cancel()
        if live.tasks:
            for task in live.tasks:
                task.cancel()
        else:
            self._close(live)

    def _close(self, live: _Live) -> None:
        if self.active.pop(live.order, None) is None:
            return
        result = live.search.result()
        if live.expired:
            result = replace(result, ended=Ended.BUDGET)
        samples = max(live.samples.values(), default=0)
        seconds = self.loop.time() - live.started
        self.solved.append(Solved(live.job, result, live.ledger, samples, seconds))
        self.ready.set()

    def _expire(self, live: _Live) -> None:
        live.expired = True
        self._finish(live)
        self._pump()

    def _cancel(self, live: _Live, ids: Iterable[int]) -> None:
        for id in ids:
            live.works.pop(id, None)
            live.missing.pop(id, None)
        if live.gate is not None:
            for due in live.gate.drop(list(ids)):
                live.settled = live.settled + due.usage
        for task, id in live.tasks.items():
            if id in ids:
                task.cancel()

    def _commit(self, live: _Live, ids: Iterable[int]) -> None:
        for id in ids:
            work = live.works[id]
            live.committed.add(id)
            if isinstance(work, Generate):
                live.samples[work.branch.depth] += work.count
                model = self._lane(work.engine).info.model
            else:
                model = self._bench(work.verifier).verifier.info.model
            spent = live.speculated.pop(id, Usage())
            live.ledger.move(Purpose.SPECULATIVE, work.purpose, model, spent)

    # Doing it -----------------------------------------------------------------------------

    async def _generate(self, live: _Live, action: Generate, lane: _Lane) -> None:
        purpose = Purpose.SPECULATIVE if action.speculative else action.purpose
        meter = Meter(live.ledger, purpose, lane.info)
        waiting = set(range(action.first, action.first + action.count))
        became = Purpose.FAILED
        failure = Failure("ProtocolError", "the engine ended without all completions asked for")
        request = self._request(live, action, lane)
        try:
            async with aclosing(lane.engine.generate(request, meter)) as stream:
                async for item in stream:
                    if isinstance(item, Completion):
                        waiting.discard(item.index)
                        lane.free += 1
                        self._settle(live, action, lane.info.model, item.usage)
                        self._told(live, Outcome(action.id, item.index, item, item.usage))
                    elif self.on_delta is not None:
                        self.on_delta(live.job, action, item)
        except EngineError as error:
            failure = Failure(type(error).__name__, str(error))
        except asyncio.CancelledError:
            became = Purpose.CANCELLED
            raise
        finally:
            lane.free += len(waiting)
            for index in sorted(waiting):
                meter.move(index, became)
        for index in sorted(waiting):
            self._told(live, Outcome(action.id, index, failure, meter.usage(index)))

    def _request(self, live: _Live, action: Generate, lane: _Lane) -> Request:
        branch = action.branch
        exact = lane.info.capabilities.token_ids and action.engine == "policy"
        return Request(
            prompt_of(branch),
            action.until,
            branch.text,
            branch.token_ids if exact and branch.steps else None,
            action.count,
            action.first,
            action.decoding,
            derive(live.job.seed, live.job.start.problem.id, branch.key, action.engine),
            priority=live.order,
            deltas=action.final and self.on_delta is not None,
            logprobs=lane.info.capabilities.logprobs,
        )

    def _settle(self, live: _Live, action: Generate | Score, model: str, usage: Usage) -> None:
        """Book finished speculation: under its own purpose once it is committed."""
        if action.speculative:
            if action.id in live.committed:
                live.ledger.move(Purpose.SPECULATIVE, action.purpose, model, usage)
            else:
                before = live.speculated.get(action.id, Usage())
                live.speculated[action.id] = before + usage

    async def _score(self, bench: _Bench) -> None:
        """Score everything that waits, of all problems, in one batch; then what came meanwhile."""
        try:
            while bench.waiting:
                batch = [entry for entry in bench.waiting if entry[1].id in entry[0].works]
                bench.waiting.clear()
                branches = [branch for _, action in batch for branch in action.branches]
                info = bench.verifier.info
                meter = Meter(Ledger(self.cost_model), Purpose.VERIFIER, info)
                scores = await bench.verifier.score(branches, meter) if branches else []
                at = 0
                for live, action in batch:
                    end = at + len(action.branches)
                    usage = sum((meter.usage(i) for i in range(at, end)), Usage())
                    purpose = Purpose.SPECULATIVE if action.speculative else action.purpose
                    live.ledger.charge(purpose, info.model, usage, len(action.branches))
                    self._settle(live, action, info.model, usage)
                    self._told(live, Outcome(action.id, 0, tuple(scores[at:end]), usage))
                    at = end
        except Exception as error:
            self._fail(error)
        finally:
            bench.busy = None

    # Ends ---------------------------------------------------------------------------------

    def _ended(self, live: _Live, task: asyncio.Task[None]) -> None:
        del live.tasks[task]
        if live.finished and not live.tasks:
            self._close(live)
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())
        self._pump()

    def _fail(self, error: BaseException | None) -> None:
        self.error = self.error or error
        self.ready.set()

    def _lane(self, name: str) -> _Lane:
        if name not in self.lanes:
            raise UsageError(
                f"the strategy asks engine {name!r}, and only {sorted(self.lanes)} are given"
            )
        return self.lanes[name]

    def _bench(self, name: str) -> _Bench:
        if name not in self.benches:
            raise UsageError(
                f"the strategy asks verifier {name!r}, and only {sorted(self.benches)} are given"
            )
        return self.benches[name]
