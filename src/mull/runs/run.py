"""A config → records: every cell over every problem, stored as it comes, resumable at any kill.

A run is resumed by running it again: its strategies are driven again from the start, samples that
are committed cost no engine work (``mull.engines.cache``), results that are committed are not
driven at all. Problems with failures are tried again. Knows everything below it on the road.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mull.budget import COST_MODELS
from mull.catalog import Equipment, load_policy
from mull.engines.base import Engine
from mull.engines.cache import RecordingEngine
from mull.engines.simulated import VirtualLoop
from mull.errors import ConfigChangedError, CorruptRecordError, MullError
from mull.fileio import safe_name
from mull.runs.accounts import Accounts
from mull.runs.cells import Cell
from mull.runs.config import Config
from mull.runs.prepare import Plan, check_new, differences, prepare, problem_to_json
from mull.runs.result import ResultRecord, Spent, record_of
from mull.store import Store, canonical, digest
from mull.store.schema import LOCK
from mull.store.store import GROUP, insert
from mull.strategies.base import Strategy
from mull.strategies.drive import Job, Solved, drive
from mull.strategies.needs import POLICY
from mull.tasks.base import Task
from mull.types import EMPTY, Usage
from mull.verifiers.base import Verifier, forget_prefixes

GRACE = 5.0
"""Seconds that problems in flight have to finish after the first Ctrl-C."""

IDENTITIES = ("engine_identities", "verifier_identities")
"""Fields of a resolved config that are known once everything is loaded."""

HARD_EXIT = 1.5
"""Seconds after the second Ctrl-C until the process ends, whatever an engine does."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: counted over all cells; ``spent`` in this session and before it."""

    cell: Cell
    done: int
    total: int
    failed: int
    spent: Usage


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. ``failed`` counts problems (by cell) with failures.

    ``failures`` has, by type, how many failures there were and the message of one. ``broke`` has,
    by outcome, on how many problems' answers a grader broke and what it said once, earlier sessions
    included. ``dropped`` counts damaged rows that were found and made again. ``stored`` counts the
    results on the disk, those with failures from an earlier session included: they are ``done``
    once retried. ``notes`` are what the engines did besides answering, a line each.
    """

    directory: Path
    done: int
    total: int
    failed: int
    dropped: int
    interrupted: bool
    stored: int
    failures: Mapping[str, tuple[int, str]] = field(default_factory=lambda: EMPTY)
    broke: Mapping[str, tuple[int, str]] = field(default_factory=lambda: EMPTY)
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 done, 3 finished with recorded failures or broken graders, 130 interrupted."""
        return 130 if self.interrupted else 3 if self.failed or self.broke else 0


OnProgress = Callable[[Progress], None]


def default_directory(config: Config) -> Path:
    """Where a run is kept if nobody says: ``runs/<name>``."""
    return Path("runs") / safe_name(config.name)


def run(
    config: Config,
    directory: str | Path | None = None,
    *,
    engine: Engine | None = None,
    task: Task | None = None,
    strategies: Mapping[str, Strategy] | None = None,
    engines: Mapping[str, Engine] | None = None,
    verifiers: Mapping[str, Verifier] | None = None,
    on_progress: OnProgress | None = None,
    signals: bool = False,
    virtual: bool = False,
    grace: float = GRACE,
) -> Summary:
    """Run or resume a config in a directory; give how it ended.

    ``engine``, ``task``, ``strategies`` (by spec), ``engines`` and ``verifiers`` (by the names that
    strategies use) stand in for what the config names; what is given stays open. With ``signals``
    Ctrl-C stops starting problems, gives those in flight ``grace`` seconds, and keeps everything;
    a second one ends at once. ``virtual`` runs on a virtual clock (simulated engines).

    Raises ``UsageError`` before anything is written, ``RunLockedError`` if another process writes
    the run, ``ConfigChangedError`` (naming the fields) if the directory holds another run, and
    what ends a run: ``StoreError``, ``AuthError`` or ``NotFoundError`` of an endpoint that never
    answered, or an error of the task's or strategy's own. What was committed until then is kept;
    where that is nothing, no directory is left.
    """
    plan = prepare(config, task=task, strategies=strategies)
    out = Path(directory) if directory is not None else default_directory(config)
    held = Store.open(out, threaded=not virtual) if (out / LOCK).exists() else None
    try:
        if held is None:
            check_new(plan)
        policy = engine or load_policy(config.model, **config.engine)
        try:
            equipment = plan.equip(policy, engines, verifiers)
        except MullError:
            if held is not None:  # another config is what is wrong first
                _begun(held, plan.resolved(Equipment({POLICY: policy}, {})), IDENTITIES)
            raise
        if engine is None:
            equipment = replace(equipment, opened=(policy, *equipment.opened))
        if held is None:
            held = Store.open(out, threaded=not virtual)
        runner = _Runner(plan, held, equipment, on_progress, grace)
        with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as loop:
            return loop.run(runner.run(signals))
    except (MullError, OSError):
        if held is not None:
            held.close(forget=True)
        raise
    finally:
        if held is not None:
            held.close()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        store: Store,
        equipment: Equipment,
        on_progress: OnProgress | None,
        grace: float,
    ) -> None:
        self.plan = plan
        self.store = store
        self.equipment = equipment
        self.on_progress = on_progress
        self.grace = grace
        self.accounts = Accounts({v.info.model for v in equipment.verifiers.values()})
        self.stopping = False
        self.cut = False
        self.done = 0
        self.failed = 0
        self.failures: dict[str, tuple[int, str]] = {}
        self.broke: dict[str, tuple[int, str]] = {}
        self.spent = Usage()
        self.written: deque[tuple[asyncio.Future[None], Cell, ResultRecord]] = deque()
        self.task: asyncio.Task[object] | None = None
        self.patience: asyncio.TimerHandle | None = None

    async def run(self, signals: bool) -> Summary:
        self.task = asyncio.current_task()
        try:
            self._begin()
            recording = {name: self._recording(name) for name in self.equipment.engines}
            session = self._session()
            try:
                with self._listening(signals):
                    reason = await self._work(recording)
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                reason = "interrupted" if cancelled else f"error: {type(error).__name__}"
                with suppress(MullError):  # this error is told; the store may be what broke
                    await self._end(session, reason)
                raise
            await self._end(session, reason)
            return self._summary()
        finally:
            await self.equipment.aclose()

    async def _work(self, recording: Mapping[str, RecordingEngine]) -> str:
        """Run the cells; how that ended where no error ended it."""
        try:
            await self._cells(recording)
        except asyncio.CancelledError:
            if not self.cut:
                raise
            if self.task is not None:
                self.task.uncancel()
        if self.stopping:
            return "interrupted"
        return "failures" if self.failed else "complete"

    def _recording(self, name: str) -> RecordingEngine:
        # The bill of a plain sample is the policy's: a reviser asked the same is another's.
        served = self.accounts.served if name == POLICY else None
        return RecordingEngine(self.equipment.engines[name], self.store, self.accounts.lost, served)

    def _begin(self) -> None:
        """Look at every row; compare the run with what was written, and write what is not there."""
        resolved = self.plan.resolved(self.equipment)
        mark = _begun(self.store, resolved)
        cells = [{**cell.to_json(), "id": cell.id} for cell in self.plan.cells]
        values = {"config": resolved, "config_hash": mark, "cells": cells}
        rows = [insert("meta", (name.encode(), canonical(v))) for name, v in values.items()]
        for at, problem in enumerate(self.plan.problems):
            columns = (at, problem.id.encode(), canonical(problem_to_json(problem)))
            rows.append(insert("problems", columns))
        self.store.write(rows)

    def _session(self) -> int:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return self.store.begin_session(started, version("mull"))

    async def _end(self, session: int, reason: str) -> None:
        """Write down what is on its way to the disk, and how the session ended."""
        await self.store.drain()
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        waste = self.accounts.waste()
        self.store.end_session(session, ended, reason, waste)

    async def _cells(self, recording: Mapping[str, RecordingEngine]) -> None:
        open_by_cell = {cell.id: self._open_problems(cell) for cell in self.plan.cells}
        with ThreadPoolExecutor(1, "mull-grade") as grader:
            for cell in self.plan.cells:
                if self.stopping:
                    return
                if open_by_cell[cell.id]:
                    await self._cell(cell, open_by_cell[cell.id], recording, grader)

    def _open_problems(self, cell: Cell) -> dict[int, Sequence[Spent]]:
        """The problems of a cell that have no result yet, or one with failures: by position, the
        bill of that result.
        """
        left: dict[int, Sequence[Spent]] = dict.fromkeys(range(len(self.plan.problems)), ())
        for _, position, raw in self.store.rows("results", "WHERE cell = ?", (cell.id.encode(),)):
            record = ResultRecord.unpack(raw)
            if record.failures:
                left[position] = record.spent
            else:
                del left[position]
                self.done += 1
                self._count_broken(record)
                self.spent = self.spent + record.total
        return left

    async def _cell(
        self,
        cell: Cell,
        left: Mapping[int, Sequence[Spent]],
        recording: Mapping[str, RecordingEngine],
        grader: ThreadPoolExecutor,
    ) -> None:
        # Each cell pays for what it reads, whatever the cells before it have left in a cache.
        for each in (*self.equipment.engines.values(), *self.equipment.verifiers.values()):
            forget_prefixes(each)
        solving = drive(
            self._jobs(cell, left),
            recording,
            self.equipment.verifiers,
            cost_model=COST_MODELS[self.plan.config.cost_model],
        )
        loop = asyncio.get_running_loop()
        async with aclosing(solving) as stream:
            async for solved in stream:
                record = await loop.run_in_executor(grader, self._record, solved)
                columns = (cell.id.encode(), record.position, record.pack())
                committed = self.store.add(insert("results", columns, replace=True))
                self.written.append((committed, cell, record))
                self.accounts.settle(solved.ledger)
                self.accounts.again(left[record.position])
                while self.written and (self.written[0][0].done() or len(self.written) > GROUP):
                    await self._tell_next()
        while self.written:
            await self._tell_next()

    def _jobs(self, cell: Cell, positions: Collection[int]) -> Iterator[Job]:
        strategy = self.plan.strategies[cell.strategy]
        for position in sorted(positions):
            if self.stopping:
                return
            start = self.plan.start_of(cell, self.plan.problems[position])
            yield Job(strategy, start, cell.seed, position)

    def _record(self, solved: Solved) -> ResultRecord:
        problem = solved.job.start.problem
        usage = self.accounts.usage_of(solved.ledger, problem.prompt)
        return record_of(
            solved.job.tag,
            problem,
            self.plan.task,
            solved.result,
            solved.ledger,
            solved.samples,
            usage,
        )

    async def _tell_next(self) -> None:
        """Tell of the oldest result on its way to the disk, once it is there."""
        committed, cell, record = self.written[0]
        await asyncio.shield(committed)
        self.written.popleft()
        self._tell(cell, record)

    def _stored(self) -> int:
        """Results on the disk. What an interrupt kept from being told of counts as done as well."""
        found = set()
        for cell in self.plan.cells:
            rows = self.store.rows("results", "WHERE cell = ?", (cell.id.encode(),))
            found |= {(cell.id, position) for _, position, _ in rows}
        while self.written:
            _, cell, record = self.written.popleft()
            if (cell.id, record.position) in found:
                self._tell(cell, record)
        return len(found)

    def _tell(self, cell: Cell, record: ResultRecord) -> None:
        self.done += 1
        self.failed += bool(record.failures)
        self._count_broken(record)
        for failure in record.failures:
            name, _, message = failure.partition(": ")
            times, first = self.failures.get(name, (0, message))
            self.failures[name] = (times + 1, first)
        self.spent = self.spent + record.total
        if self.on_progress is not None:
            total = len(self.plan.cells) * len(self.plan.problems)
            self.on_progress(Progress(cell, self.done, total, self.failed, self.spent))

    def _count_broken(self, record: ResultRecord) -> None:
        for outcome in record.broke:
            times, said = self.broke.get(outcome, (0, ""))
            said = said or (record.detail if record.outcome == outcome else "")
            self.broke[outcome] = (times + 1, said)

    def _summary(self) -> Summary:
        total = len(self.plan.cells) * len(self.plan.problems)
        # A session that ran to its end has told of every result: none needs to be counted.
        stored = self._stored() if self.stopping else self.done
        return Summary(
            self.store.directory,
            self.done,
            total,
            self.failed,
            self.store.dropped,
            self.stopping and self.done < total,
            stored,
            self.failures,
            self.broke,
            self.equipment.notes,
        )

    # Ctrl-C -------------------------------------------------------------------------------

    @contextmanager
    def _listening(self, signals: bool) -> Iterator[None]:
        """Hear of signals while there is work to stop; what follows it is not cut."""
        loop = asyncio.get_running_loop()
        heard: tuple[signal.Signals, ...] = ()
        if signals and threading.current_thread() is threading.main_thread():
            heard = (signal.SIGINT, signal.SIGTERM)
        for number in heard:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)
            if self.patience is not None:
                self.patience.cancel()

    def _interrupt(self) -> None:
        """Once: start nothing, let what is in flight finish for a while. Twice: end now."""
        if self.stopping:
            # An engine that does not let go must not keep the process: the store is safe anyway.
            watchdog = threading.Timer(HARD_EXIT, os._exit, (130,))
            watchdog.daemon = True
            watchdog.start()
            self._cut()
            return
        self.stopping = True
        self.patience = asyncio.get_running_loop().call_later(self.grace, self._cut)

    def _cut(self) -> None:
        if not self.cut and self.task is not None:
            self.cut = True
            self.task.cancel()


def _begun(store: Store, resolved: Mapping[str, Any], unknown: Collection[str] = ()) -> str:
    """Look at every row, then compare with what the directory was begun with; the config's hash.

    Fields that are ``unknown`` yet are not compared. Raises ``ConfigChangedError`` that names the
    fields, ``CorruptRecordError`` where results are there and what they are results of is not.
    """
    mark = digest(resolved).hex()
    store.check()
    meta = {bytes(name): json.loads(value) for name, value in store.rows("meta")}
    before, known = meta.get(b"config"), meta.get(b"config_hash")
    past = {name: value for name, value in (before or {}).items() if name not in unknown}
    changed = differences(past, json.loads(canonical(resolved))) if before else []
    if changed or (known not in (mark, None) and not unknown):
        raise ConfigChangedError(
            f"{store.directory} holds a run with another config "
            f"({'; '.join(changed) or 'its fields are damaged, their hash differs'}); "
            "run it with the old config, or in a new directory"
        )
    if before is None and known is None and next(store.rows("results"), None):
        raise CorruptRecordError(
            f"{store.directory} holds results, and what they are results of is damaged; "
            "start the run in a new directory"
        )
    return mark
