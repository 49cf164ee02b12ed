"""The one async loop that does the I/O of every search: actions out to engines, outcomes back in.

All problems in flight share the engines' slots. Work is started first come, first served by
problem, so that no step of one problem waits for another problem and no slot idles while anything
is left to do; a new problem is admitted when slots would idle otherwise. Scores of all problems
that wait for one verifier travel in one batch, beside generation.

It knows no strategy and no task; it decides nothing that could change a result.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush

from mull.budget import CostModel, Ledger, Meter, Purpose, check_countable
from mull.engines.adapt import adapting
from mull.engines.base import Engine
from mull.errors import AuthError, EngineError, NotFoundError, ProtocolError, UsageError
from mull.rng import derive
from mull.strategies.base import (
    Action,
    Adapt,
    Adapted,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Outcome,
    Result,
    Room,
    Score,
    Strategy,
)
from mull.strategies.live import Job, LiveJob
from mull.strategies.needs import POLICY, check_needs, needs_of, spec_of
from mull.types import Completion, Delta, EngineInfo, Request, StopReason, Usage
from mull.verifiers.base import Verifier, scores_of

OnDelta = Callable[[Job, Generate, Delta], None]
SHORT = Failure("ProtocolError", "the engine ended without all completions asked for")

__all__ = ["Job", "OnDelta", "Solved", "drive", "request_of"]


@dataclass(frozen=True, slots=True)
class Solved:
    """A job's result, its ledger, and the seconds (of the loop's clock) it took.

    ``samples`` were asked for, as budgets count them; ``came`` of them came.
    """

    job: Job
    result: Result
    ledger: Ledger
    samples: int
    seconds: float
    came: int


@dataclass(slots=True, eq=False)
class _Lane:
    """An engine's slots and the work that waits for them.

    Entries are (guess, job, turn, …): ordinary work goes before guesses, earlier problems before
    later ones. ``queued`` holds the live entry of each waiting action; others are stale.
    """

    engine: Engine
    info: EngineInfo
    free: int
    answered: bool = False
    waiting: list[tuple[bool, int, int, LiveJob, Generate]] = field(default_factory=list)
    queued: dict[tuple[int, int], int] = field(default_factory=dict)

    def push(self, guess: bool, turn: int, live: LiveJob, action: Generate) -> None:
        self.queued[live.order, action.id] = turn
        heappush(self.waiting, (guess, live.order, turn, live, action))

    def pop(self) -> tuple[bool, LiveJob, Generate] | None:
        """The next entry that is still wanted."""
        while self.waiting:
            guess, order, turn, live, action = heappop(self.waiting)
            if self.queued.get((order, action.id)) == turn:
                del self.queued[order, action.id]
                return guess, live, action
        return None

    def drop(self, live: LiveJob, ids: Iterable[int]) -> None:
        for id in ids:
            self.queued.pop((live.order, id), None)


@dataclass(slots=True, eq=False)
class _Bench:
    """A verifier and the scores that wait for its next batch."""

    verifier: Verifier
    waiting: deque[tuple[LiveJob, Score]] = field(default_factory=deque)
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
    likewise. At most ``max_active`` problems are open at a time (default: four for every slot).
    A search that may not speculate (``Start.speculate``) is offered no idle slots for guesses.
    ``on_delta`` gets the pieces of final work from engines that give them. Closing the iterator
    cancels everything in flight. An ``EngineError`` becomes a ``Failure`` in its search, as does
    what a verifier's own code raises; any other exception ends the drive with all work cancelled,
    as does an ``AuthError`` or ``NotFoundError`` of an engine that has not answered yet: its key,
    or its model's name, is wrong. So does a limit in FLOPs or money that cannot count what an
    engine does, or a verifier did (``BudgetError``).
    """
    if not engines:
        raise UsageError("drive needs an engine: give at least {'policy': engine}")
    if max_active is not None and max_active < 1:
        raise UsageError(f"max_active must be at least 1, not {max_active}")
    driver = _Driver(iter(jobs), engines, verifiers or {}, cost_model, max_active, on_delta)
    try:
        async with aclosing(driver.run()) as stream:
            async for solved in stream:
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
        self.max_active = max_active or 4 * sum(lane.free for lane in self.lanes.values())
        # New problems feed the policy: an idle judge is no reason to open more of them.
        policy = self.lanes.get(POLICY)
        self.entrance = [policy] if policy else list(self.lanes.values())
        self.active: dict[int, LiveJob] = {}
        self.held: dict[tuple[int, int], tuple[_Lane, LiveJob, Generate]] = {}
        self.solved: deque[Solved] = deque()
        self.ready = asyncio.Event()
        self.error: BaseException | None = None
        self.checked: Strategy | None = None
        self.adapting = 0
        self.opened = 0
        self.turn = 0
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
        self.error = self.error or asyncio.CancelledError()
        tasks = [task for live in self.active.values() for task in live.tasks]
        tasks += [bench.busy for bench in self.benches.values() if bench.busy]
        for live in self.active.values():
            if live.deadline:
                live.deadline.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for live in self.active.values():
            live.release()

    # Starting work ------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start whatever can start; not re-entered, so that one loop empties all queues."""
        if self.pumping or self.error is not None:
            return
        self.pumping = True
        try:
            while self._start_waiting() or self._admit() or self._offer():
                pass
            for bench in self.benches.values():
                if bench.waiting and bench.busy is None:
                    bench.busy = self.loop.create_task(self._score(bench))
        except Exception as error:  # a strategy's bug must end the drive, not hang it
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
            while lane.free > 0 and (entry := lane.pop()) is not None:
                guess, live, action = entry
                if guess and not live.affordable():
                    self.held[live.order, action.id] = lane, live, action
                    continue
                lane.free -= action.count
                coming = set(range(action.first, action.first + action.count))
                task = self.loop.create_task(self._generate(live, action, lane, coming))
                live.tasks[task] = action.id
                task.add_done_callback(partial(self._ended, live, lane, action, coming))
                started = True
        return started

    def _admit(self) -> bool:
        """Open the next problem if slots would idle without it: what trains will soon fill them."""
        idle = any(lane.free > 0 and not lane.queued for lane in self.entrance)
        if self.jobs is None or not idle or self.adapting or len(self.active) >= self.max_active:
            return False
        if len(self.solved) > self.max_active:  # a slow consumer holds the producers back
            return False
        job = next(self.jobs, None)
        if job is None:
            self.jobs = None
            self.ready.set()
            return False
        self._check(job)
        for name in needs_of(job.strategy).engines:
            check_countable(job.start.budget, self.lanes[name].info)
        search = job.strategy.start(job.start)
        ledger = Ledger(self.cost_model) if job.ledger is None else job.ledger
        live = LiveJob(job, search, ledger, self.opened, self.loop.time())
        self.opened += 1
        self.active[live.order] = live
        budget = job.start.budget
        if budget is not None and budget.seconds is not None:
            live.deadline = self.loop.call_later(budget.seconds, self._expire, live)
        self._ask(live)
        return True

    def _check(self, job: Job) -> None:
        """Check once a strategy, on its first job, that what it needs is here."""
        if self.checked is not job.strategy:
            infos = {name: lane.info for name, lane in self.lanes.items()}
            check_needs(job.strategy, infos, self.benches, job.start.problem.prompt)
            self.checked = job.strategy

    def _offer(self) -> bool:
        """Offer the policy's idle slots to the searches in flight, oldest first, for guesses."""
        lane = self.lanes.get(POLICY)
        if lane is None or lane.free <= 0 or lane.queued:
            return False
        guessing = [live for live in self.active.values() if live.job.start.speculate]
        return any(self._ask(live, lane.free) for live in guessing)

    # Asking and telling -------------------------------------------------------------------

    def _ask(self, live: LiveJob, slots: int = 0) -> bool:
        if live.finished:
            return False
        actions = live.search.ask(Room(slots))
        for action in actions:
            self._enqueue(live, action)
        if live.search.done:
            self._finish(live)
        elif not live.awaited:
            raise UsageError(
                f"the search of {spec_of(live.job.strategy)} is not done, asks for nothing and "
                "waits for nothing: it must ask for work or be done"
            )
        return bool(actions)

    def _enqueue(self, live: LiveJob, action: Action) -> None:
        if isinstance(action, Cancel):
            self._cancel(live, live.cancel(action.turns))
        elif isinstance(action, Commit):
            for id in action.ids:
                self._commit(live, id)
        elif isinstance(action, Score):
            live.open(action)
            self._bench(action.verifier).waiting.append((live, action))
        elif isinstance(action, Adapt):
            live.open(action)
            self.adapting += 1
            task = self.loop.create_task(self._adapt(live, action))
            live.tasks[task] = action.id
            task.add_done_callback(partial(self._adapted, live, action))
        else:
            live.open(action)
            lane = self._lane(action.engine)
            if live.over_samples(action):
                limit = live.job.start.budget
                self._refuse(live, action, f"the budget ({limit}) was asked for in full already")
            else:
                self.turn += 1
                lane.push(action.speculative, self.turn, live, action)

    def _refuse(self, live: LiveJob, action: Generate, why: str) -> None:
        failure = Failure("BudgetError", why)
        for index in range(action.first, action.first + action.count):
            self.loop.call_soon(self._told, live, Outcome(action.id, index, failure))

    def _commit(self, live: LiveJob, id: int) -> None:
        """What was a guess is ordinary work now: if it still waits, it waits in their queue."""
        live.commit(id)
        action = live.works[id]
        if not isinstance(action, Generate):
            return
        lane = self._lane(action.engine)
        if self.held.pop((live.order, id), None) or (live.order, id) in lane.queued:
            self.turn += 1
            lane.push(False, self.turn, live, action)

    def _cancel(self, live: LiveJob, ids: set[int]) -> None:
        """Stop actions of which nothing is awaited any more."""
        for lane in self.lanes.values():
            lane.drop(live, ids)
        for id in ids:
            self.held.pop((live.order, id), None)
        for task, id in live.tasks.items():
            if id in ids:
                task.cancel()

    def _told(self, live: LiveJob, outcome: Outcome) -> None:
        """One outcome in; whatever the search asks for next, out."""
        if self.error is None and live.come(outcome.action, outcome.index):
            try:
                live.search.tell(outcome)
                self._ask(live)
            except Exception as error:
                self._fail(error)
        self._pump()

    def _finish(self, live: LiveJob) -> None:
        """The search is done; the job is solved once nothing of it runs any more."""
        live.finished = True
        if live.deadline:
            live.deadline.cancel()
        self._cancel(live, live.cancel_all())
        self._close(live)

    def _close(self, live: LiveJob) -> None:
        if not live.finished or not live.idle or self.active.pop(live.order, None) is None:
            return
        live.release()
        try:
            result = live.search.result()
        except Exception as error:  # timers and callbacks come here: raise in the drive instead
            self._fail(error)
            return
        if live.expired:
            result = replace(result, ended=Ended.BUDGET)
        samples = max(live.samples.values(), default=0)
        seconds = self.loop.time() - live.started
        self.solved.append(Solved(live.job, result, live.ledger, samples, seconds, live.came))
        self.ready.set()

    def _expire(self, live: LiveJob) -> None:
        live.expired = True
        live.absent |= {(id, index) for id, left in live.missing.items() for index in left}
        self._finish(live)
        self._pump()

    # Doing it -----------------------------------------------------------------------------

    async def _generate(
        self, live: LiveJob, action: Generate, lane: _Lane, coming: set[int]
    ) -> Failure:
        """Run one request; what the turns still ``coming`` at its end failed of."""
        purpose = Purpose.SPECULATIVE if action.speculative else action.purpose
        meter = live.meter(action, Meter(live.ledger, purpose, lane.info))
        deltas = self.on_delta is not None and action.final and lane.info.capabilities.deltas
        request = replace(
            request_of(action, lane.info, live.job.seed), priority=live.order, deltas=deltas
        )
        for index in coming:
            if live.row(action.id, index) is not purpose:
                live.book(action.id, index)
        try:
            async with aclosing(lane.engine.generate(request, meter)) as items:
                async for item in items:
                    if isinstance(item, Completion):
                        if item.index not in coming:
                            raise ProtocolError(f"sample {item.index} came twice, or unasked")
                        coming.discard(item.index)
                        lane.free += 1
                        lane.answered = True
                        if item.stop is StopReason.EXHAUSTED:
                            live.absent.add((action.id, item.index))
                        self._told(live, Outcome(action.id, item.index, item, item.usage))
                    elif self.on_delta is not None:
                        self.on_delta(live.job, action, item)
        except EngineError as error:
            if isinstance(error, AuthError | NotFoundError) and not lane.answered:
                raise  # the key or the model's name is wrong: all others would be refused as well
            return Failure(type(error).__name__, str(error))
        return SHORT

    def _ended(
        self,
        live: LiveJob,
        lane: _Lane,
        action: Generate,
        coming: set[int],
        task: asyncio.Task[Failure],
    ) -> None:
        """A request ended, by itself or cancelled (perhaps before its first step)."""
        lane.free += len(coming)
        del live.tasks[task]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._fail(error)
            else:
                for index in sorted(coming):
                    live.fail(action.id, index)
                    usage = live.meters[action.id].usage(index)
                    self._told(live, Outcome(action.id, index, task.result(), usage))
        self._close(live)
        self._pump()

    async def _adapt(self, live: LiveJob, action: Adapt) -> Adapted | Failure:
        """Train the policy's weights on; hold them until the job ends."""
        lane = self._lane(POLICY)
        meter = live.meter(action, Meter(live.ledger, action.purpose, lane.info))
        try:
            engine = adapting(lane.engine)
            name = await engine.adapt(action.examples, action.recipe, meter)
        except EngineError as error:
            return Failure(type(error).__name__, str(error))
        live.weights = engine, name
        return Adapted(name)

    def _adapted(self, live: LiveJob, action: Adapt, task: asyncio.Task[Adapted | Failure]) -> None:
        """A training ended, by itself or cancelled."""
        self.adapting -= 1
        del live.tasks[task]
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._fail(error)
            else:
                value = task.result()
                if isinstance(value, Failure):
                    live.fail(action.id, 0)
                usage = live.meters[action.id].usage(0)
                self._told(live, Outcome(action.id, 0, value, usage))
        self._close(live)
        self._pump()

    async def _score(self, bench: _Bench) -> None:
        """Score everything that waits, of all problems, in one batch; then what came meanwhile."""
        try:
            while bench.waiting:
                batch = [(live, a) for live, a in bench.waiting if live.missing[a.id]]
                bench.waiting.clear()
                for live, _ in batch:
                    live.scoring += 1
                if batch:
                    await self._score_batch(bench.verifier, batch)
        except Exception as error:
            self._fail(error)
        finally:
            bench.busy = None

    async def _score_batch(
        self, verifier: Verifier, batch: list[tuple[LiveJob, Score]], lost: Usage = Usage()
    ) -> None:
        """Score one batch. Where it fails, each action has its own try: none spoils the others.

        ``lost`` is what an action alone has cost in the batch that failed: charged already, and
        told with the outcome.
        """
        branches = [branch for _, action in batch for branch in action.branches]
        scratch = Meter(Ledger(self.cost_model), Purpose.VERIFIER, verifier.info)
        scores: list[float] = []
        failure: Failure | None = None
        try:
            for weights in dict.fromkeys(branch.weights for branch in branches):
                if weights is not None:  # a resumed search may not have needed its weights yet
                    await adapting(self._lane(POLICY).engine).ready(weights)
            scores = await scores_of(verifier, branches, scratch)
        except EngineError as error:
            failure = Failure(type(error).__name__, str(error))
        if failure is None and len(scores) != len(branches):
            said = f"verifier {verifier.info.model!r} gave {len(scores)} scores for {len(branches)}"
            failure = Failure("ProtocolError", f"{said} branches; expected one a branch")
        at, alone = 0, failure is not None and len(batch) > 1
        for live, action in batch:
            end = at + len(action.branches)
            if alone:
                cost = sum((scratch.usage(index) for index in range(at, end)), Usage())
                live.ledger.charge(Purpose.FAILED, verifier.info.model, cost)
                await self._score_batch(verifier, [(live, action)], cost)
                at = end
                continue
            row = Purpose.SPECULATIVE if action.speculative else action.purpose
            meter = live.meter(action, Meter(live.ledger, row, verifier.info))
            for index in range(at, end):
                meter.restore(index - at, scratch.usage(index))
            if failure is not None:
                live.failed.add((action.id, 0))
            live.book(action.id, 0)
            live.scoring -= 1
            usage = lost + meter.total
            check_countable(live.job.start.budget, verifier.info, usage)
            self._told(live, Outcome(action.id, 0, failure or tuple(scores[at:end]), usage))
            self._close(live)
            at = end

    # Ends ---------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
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


def request_of(action: Generate, info: EngineInfo, seed: int) -> Request:
    """The request that a drive with this run's seed makes of an action; what records are found by.

    An exact continuation goes by token ids where the policy itself made them.
    """
    branch, can = action.branch, info.capabilities
    exact = can.token_ids and action.engine == POLICY
    return Request(
        branch.prompt,
        action.until,
        branch.text,
        branch.token_ids if exact and branch.steps else None,
        action.count,
        action.first,
        action.decoding,
        derive(seed, branch.problem.id, branch.key, action.engine),
        branch.weights if action.engine == POLICY else None,
        logprobs=can.logprobs,
    )
