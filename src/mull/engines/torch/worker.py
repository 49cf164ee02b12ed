"""The model's own thread: takes jobs from any event loop, steps the batch, hands events back.

The event loop stays live because nothing of a step runs on it; several loops, one after another or
at once, may share one engine, since every job carries its own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

import torch

from mull.engines.torch.batch import Batch
from mull.engines.torch.jobs import Event, Failed, Job, ScoreJob
from mull.engines.torch.score import Scorer
from mull.errors import EngineError, MullError

Command = Callable[[], None]


class Worker:
    """Owns the batch. ``submit``, ``cancel`` and ``score`` may be called from any thread."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._scorer = Scorer(batch)
        self._texts: list[ScoreJob] = []
        self._jobs: set[Job] = set()
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a finalizer may close while this thread puts
        self._thread: threading.Thread | None = None
        self.closed = False

    def submit(self, job: Job) -> None:
        """Queue a generate request."""
        self._put(lambda: self._take(job))

    def cancel(self, job: Job) -> None:
        """Free a request's rows before the next step."""
        self._put(lambda: self._batch.cancel(job))

    def score(self, jobs: list[ScoreJob]) -> None:
        """Queue texts to be scored."""
        self._put(lambda: self._texts.extend(jobs))

    def forget(self) -> None:
        """Empty the prefix tree."""
        self._put(self._batch.forget)

    def withdraw(self, jobs: list[ScoreJob]) -> None:
        """Drop texts whose caller has gone."""

        def drop() -> None:
            gone = set(jobs)
            self._texts = [job for job in self._texts if job not in gone]

        self._put(drop)

    def close(self, wait: bool = True) -> None:
        """Refuse further work, end what runs with an error, and ``wait`` for the thread."""
        with self._lock:
            self.closed = True
            thread = self._thread
            self._commands.put(None)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _put(self, command: Command) -> None:
        with self._lock:
            if self.closed:
                raise EngineError("the engine is closed: load it again")
            self._commands.put(command)
            if self._thread is None:
                # A daemon: an engine that nobody closed must not keep the process alive.
                self._thread = threading.Thread(
                    target=self._run, name="mull-torch-engine", daemon=True
                )
                self._thread.start()

    def _take(self, job: Job) -> None:
        self._jobs.add(job)
        self._batch.submit(job)

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            try:
                if not self._obey():
                    break
                if self._texts:
                    self._score()
                self._batch.step()
            except Exception as error:
                self._fail_all(EngineError(f"the model's step failed: {error}"))
            self._flush()
        self._fail_all(EngineError("the engine was closed while the request ran"))
        self._flush()

    def _obey(self) -> bool:
        """Run the commands that wait; sleep only when there is nothing else to do."""
        idle = not (self._batch.busy or self._texts)
        while True:
            try:
                command = self._commands.get(block=idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            idle = False

    def _score(self) -> None:
        count = 1  # what fits is asked of the first text: where it never will, it fails alone
        try:
            count = self._scorer.fit(self._texts)
            jobs = self._texts[:count]
            results = self._scorer.run(jobs) if jobs else []
        except MullError as error:
            # What ran together cannot be told apart: each member learns of it.
            jobs, self._texts = self._texts[:count], self._texts[count:]
            for job in jobs:
                _hand(job.loop, [(job.deliver, [Failed(error)])])
            return
        self._texts = self._texts[count:]
        for job, result in zip(jobs, results, strict=True):
            job.over = True
            _hand(job.loop, [(job.deliver, [result])])

    def _fail_all(self, error: Exception) -> None:
        self._batch.abort(error)
        for text in self._texts:
            _hand(text.loop, [(text.deliver, [Failed(error)])])
        self._texts = []

    def _flush(self) -> None:
        """Hand the step's events to their loops, one call a loop."""
        events, self._batch.events = self._batch.events, {}
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Deliver, list[Event]]]] = {}
        for job, news in events.items():
            by_loop.setdefault(job.loop, []).append((job.deliver, news))
            if job.over:
                self._jobs.discard(job)
        for loop, batch in by_loop.items():
            if not _hand(loop, batch):
                for job in [job for job in self._jobs if job.loop is loop]:
                    self._batch.cancel(job)
                    self._jobs.discard(job)
        # What a vanished loop's cancellation said has no reader.
        for job in [job for job in self._batch.events if job not in self._jobs]:
            del self._batch.events[job]


Deliver = Callable[[list[Event]], None]


def _hand(loop: asyncio.AbstractEventLoop, batch: list[tuple[Deliver, list[Event]]]) -> bool:
    """Deliver on the loop's own thread; False if the loop is closed."""

    def run() -> None:
        for deliver, events in batch:
            deliver(events)

    try:
        loop.call_soon_threadsafe(run)
    except RuntimeError:
        return False
    return True
