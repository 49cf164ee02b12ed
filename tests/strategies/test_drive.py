"""The drive keeps slots full, ends on time, frees what it took, and hides no failure."""

from __future__ import annotations

import asyncio
import gc
import heapq
import tracemalloc
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from tests.strategies.common import Starts, idle, job, one, problem, rows, run

from mull import errors
from mull.budget import Budget, Meter, Purpose
from mull.engines.base import check_supported
from mull.engines.simulated import (
    Echo,
    Latency,
    SimulatedEngine,
    run_virtual,
)
from mull.errors import AuthError, BudgetError, EngineError, NotFoundError, UsageError
from mull.strategies.base import (
    Ended,
    Failure,
    OrderedSearch,
    Outcome,
    Result,
)
from mull.strategies.drive import Job, drive
from mull.strategies.single import Greedy
from mull.strategies.vote import Vote
from mull.types import Branch, Completion, EngineInfo, Request, Until


def vote_engine(**options: object) -> SimulatedEngine:
    """5 ms a token, 20 to 60 tokens, 64 slots."""
    options = {"latency": Latency(token_ms=5), "slots": 64, **options}
    return SimulatedEngine(Echo(tokens=(20, 60)), **options)  # type: ignore[arg-type]


def list_schedule(seconds: Sequence[float], slots: int) -> float:
    """Makespan of jobs served first in, first out by identical slots."""
    free = [0.0] * slots
    for length in seconds:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


# Speed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problems", "samples", "slots"), [(16, 8, 64), (50, 8, 64), (7, 30, 16), (40, 3, 8)]
)
def test_the_makespan_is_that_of_list_scheduling(problems: int, samples: int, slots: int) -> None:
    """Within 1.1 times first-in-first-out list scheduling of the same lengths."""
    engine = vote_engine(slots=slots)
    seconds: dict[str, float] = {}

    async def measure() -> float:
        jobs = (job(Vote(n=samples), number=i) for i in range(problems))
        lengths: dict[tuple[int, tuple[int, ...]], float] = {}
        async for solved in drive(jobs, {"policy": engine}):
            number = int(solved.job.start.problem.id[1:])
            for candidate in solved.result.candidates:
                lengths[number, candidate.key] = candidate.tokens * 0.005
            seconds[solved.job.start.problem.id] = solved.ledger.total.seconds
        order = [lengths[key] for key in sorted(lengths)]
        assert sum(order) == pytest.approx(sum(seconds.values()))
        return list_schedule(order, slots)

    async def both() -> tuple[float, float]:
        ideal = await measure()
        return asyncio.get_running_loop().time(), ideal

    makespan, ideal = run_virtual(both())
    assert makespan <= 1.1 * ideal
    assert engine.stats.max_in_flight == min(slots, problems * samples)
    assert idle(engine)


def test_a_small_flight_fills_the_slots_with_other_problems() -> None:
    engine = vote_engine(slots=32)
    jobs = [job(Vote(flight=2), Budget(tokens=400), i) for i in range(100)]
    run(jobs, engine)
    assert engine.stats.occupancy > 0.9


def test_equal_prompts_of_an_action_are_paid_once() -> None:
    engine = vote_engine(slots=4)
    solved = one(job(Vote(n=12)), engine)
    assert solved.ledger.total.prompt == len(problem().prompt.plain)


def test_an_idle_judge_opens_no_problems() -> None:
    """Only the policy's idle slots are a reason to open the next problem."""
    opened = 0

    def jobs() -> Iterator[Job]:
        nonlocal opened
        for number in range(50):
            opened += 1
            yield job(Vote(n=8), number=number)

    async def first() -> None:
        engines = {"policy": vote_engine(slots=8), "judge": vote_engine(slots=64)}
        async with aclosing(drive(jobs(), engines)) as stream:
            await anext(stream)

    run_virtual(first())
    assert opened <= 4


# Time, failure and closing -----------------------------------------------------------------


def test_time_is_up_in_mid_flight() -> None:
    """Half of the samples are there: they vote; the others stand in the row of the cancelled."""
    engine = vote_engine(slots=8)
    solved = one(job(Vote(n=24), Budget(seconds=0.5)), engine)
    assert solved.result.ended is Ended.BUDGET
    assert solved.result.answer == "1"
    assert 0 < len(solved.result.candidates) < 24
    assert solved.seconds == pytest.approx(0.5)
    spent = {purpose: row for (purpose, _), row in rows(solved).items()}
    assert spent[Purpose.CANCELLED][2] > 0
    kept = sum(c.tokens for c in solved.result.candidates)
    assert spent[Purpose.POLICY][2] == kept
    assert solved.ledger.total.generated == engine.stats.generated
    assert idle(engine)


def test_time_is_up_for_one_and_not_for_the_others() -> None:
    engine = vote_engine(slots=4)
    jobs = [job(Vote(n=8), Budget(seconds=0.15) if i == 1 else None, i) for i in range(4)]
    ended = [s.result.ended for s in run(jobs, engine)]
    assert ended == [Ended.COMPLETE, Ended.BUDGET, Ended.COMPLETE, Ended.COMPLETE]
    assert idle(engine)


ENGINE_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EngineError)
]


@dataclass
class Raising:
    """Yields sample 0, then raises."""

    error: BaseException
    info: EngineInfo = field(default_factory=lambda: EngineInfo("test", "raising", slots=4))

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        meter.charge(0, prompt=4, generated=8)
        yield Completion(0, "answer 1", "end", meter.usage(0))  # type: ignore[arg-type]
        meter.charge(1, generated=3)
        raise self.error


@pytest.mark.parametrize("kind", ENGINE_ERRORS)
def test_an_engine_error_is_data(kind: type[EngineError]) -> None:
    solved = one(job(Vote(n=3, quorum=0.0)), Raising(kind("why")))  # type: ignore[arg-type]
    assert solved.result.failures == (Failure(kind.__name__, "why"),) * 2
    assert solved.result.answer == "1"
    found = {purpose: (row[2], row[3]) for (purpose, _), row in rows(solved).items()}
    assert found == {Purpose.POLICY: (8, 1), Purpose.FAILED: (3, 1)}


@pytest.mark.parametrize("error", [ValueError("bug"), KeyError("bug"), OSError("disk full")])
def test_any_other_error_of_an_engine_ends_the_drive(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        one(job(Vote(n=3)), Raising(error))  # type: ignore[arg-type]
    assert caught.value is error


@pytest.mark.parametrize("kind", [AuthError, NotFoundError])
def test_a_key_or_a_name_that_was_never_good_ends_the_drive_at_once(
    kind: type[EngineError],
) -> None:
    """Otherwise every sample of every problem would ask, and fail, on its own."""
    asked = 0

    class Locked(Raising):
        async def generate(
            self, request: Request, meter: Meter
        ) -> AsyncGenerator[Completion, None]:
            nonlocal asked
            asked += 1
            raise self.error
            yield

    with pytest.raises(kind, match="no"):
        run([job(Vote(n=1), number=i) for i in range(100)], Locked(kind("no")))
    assert asked <= 4


@dataclass
class Says:
    """Yields completions with the given indices."""

    indices: Sequence[int]
    info: EngineInfo = field(default_factory=lambda: EngineInfo("test", "says", slots=2))

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        check_supported(request, self.info)
        for index in self.indices:
            meter.charge(index, generated=2)
            yield Completion(index, "answer 1", "end", meter.usage(index))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indices", "came"), [([0, 1], 2), ([0, 0, 1, 2], 1), ([0, 7], 1), ([], 0), ([2, 1, 0], 3)]
)
def test_every_index_comes_once_or_has_failed(indices: list[int], came: int) -> None:
    """Indices that are doubled, unasked or missing are the engine's failure, not a lost slot."""
    jobs = [job(Vote(n=3), number=i) for i in range(5)]
    for solved in run(jobs, Says(indices)):  # type: ignore[arg-type]
        assert len(solved.result.candidates) == came
        quorum = ["Quorum"] * (came == 1)  # too few for a vote, and not for want of any
        errors = [f.error for f in solved.result.failures]
        assert errors == ["ProtocolError"] * (3 - came) + quorum


def test_an_engine_without_deltas_is_not_asked_for_them() -> None:
    solved = one(job(Greedy()), Says([0]), on_delta=lambda *_: None)  # type: ignore[arg-type]
    assert solved.result.answer == "1"


@dataclass
class Scripted(OrderedSearch):
    """Asks for ``count`` samples, then does what the subclass does wrong."""

    count: int = 4

    def begin(self) -> None:
        self.generate(Branch.root(self.start.problem), Until(99), self.count)

    def take(self, outcome: Outcome) -> None:
        raise RuntimeError("a bug in a strategy")

    def result(self) -> Result:
        return Result((), ())


class BrokenStart(Scripted):
    def begin(self) -> None:
        raise RuntimeError("a bug in a strategy")


class BrokenResult(Scripted):
    def take(self, outcome: Outcome) -> None:
        pass

    def result(self) -> Result:
        raise RuntimeError("a bug in a strategy")


@pytest.mark.parametrize("search", [Scripted, BrokenStart, BrokenResult])
def test_a_bug_in_a_strategy_ends_the_drive_and_frees_everything(
    search: type[OrderedSearch],
) -> None:
    engine = vote_engine(slots=4)
    jobs = [job(Vote(n=6), number=i) for i in range(5)]
    jobs.insert(2, job(Starts(search)))

    async def check() -> None:
        with pytest.raises(RuntimeError, match="a bug in a strategy"):
            async for _ in drive(jobs, {"policy": engine}):
                pass
        assert len(asyncio.all_tasks()) == 1

    run_virtual(check())
    assert idle(engine)


def test_a_result_that_breaks_at_the_deadline_ends_the_drive() -> None:
    """Nobody awaits a timer: what goes wrong in it must still reach the caller."""
    with pytest.raises(RuntimeError, match="a bug in a strategy"):
        one(job(Starts(BrokenResult), Budget(seconds=0.01)), vote_engine())


class Idler(Scripted):
    """Asks for ``count`` samples and then for nothing more, and is never done."""

    def begin(self) -> None:
        if self.count:
            super().begin()

    def take(self, outcome: Outcome) -> None:
        pass

    @property
    def done(self) -> bool:
        return False


@dataclass
class LazyIdler(Idler):
    count: int = 0


@pytest.mark.parametrize("search", [Idler, LazyIdler])
def test_a_search_that_waits_for_nothing_is_told_so(search: type[OrderedSearch]) -> None:
    with pytest.raises(UsageError, match="asks for nothing and waits for nothing"):
        one(job(Starts(search)), vote_engine())


class Spender(Scripted):
    """Never looks at its budget."""

    def take(self, outcome: Outcome) -> None:
        if len(self.failures) < 3:
            self.generate(Branch.root(self.start.problem), Until(99), 2, first=self._next * 4)

    def result(self) -> Result:
        return Result((), (), tuple(self.failures))


@pytest.mark.parametrize("budget", [Budget(samples=8), Budget(tokens=200)])
def test_a_search_that_forgets_its_budget_meets_the_net(budget: Budget) -> None:
    solved = one(job(Starts(Spender), budget), vote_engine())
    assert {f.error for f in solved.result.failures} == {"BudgetError"}
    if budget.samples:
        assert solved.samples <= budget.samples
    else:
        assert solved.ledger.total.generated < 200 + 8 * 60


def test_refusals_name_what_is_wrong() -> None:
    engine = vote_engine()
    with pytest.raises(UsageError, match="needs an engine"):
        run([job(Vote(n=1))], {})
    with pytest.raises(UsageError, match="max_active must be at least 1, not 0"):
        run([job(Vote(n=1))], engine, max_active=0)
    with pytest.raises(UsageError, match="needs engine 'policy'; given: judge"):
        run([job(Vote(n=1))], {"judge": engine})
    with pytest.raises(BudgetError, match="contradicts"):
        run([job(Vote(n=1), Budget(samples=2))], engine)
    assert run([], engine) == []


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("budget", [Budget(samples=7), Budget(tokens=300)])
def test_closing_early_frees_all_slots(after: int, budget: Budget) -> None:
    """What waits is not started by what is cancelled, and nothing is left behind."""
    engine = vote_engine(slots=4)

    async def close() -> None:
        jobs = (job(Vote(), budget, i) for i in range(100))
        stream = drive(jobs, {"policy": engine})
        for _ in range(after):
            await anext(stream)
        if not after:
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await stream.aclose()
        started, generated = engine.stats.started, engine.stats.generated
        assert len(asyncio.all_tasks()) == 1
        await asyncio.sleep(100)
        assert (engine.stats.started, engine.stats.generated) == (started, generated)

    run_virtual(close())
    assert idle(engine)


def test_a_broken_iterator_of_jobs_ends_the_drive() -> None:
    def jobs() -> Iterator[Job]:
        yield job(Vote(n=2))
        raise OSError("the file went away")

    with pytest.raises(OSError, match="the file went away"):
        run(jobs(), vote_engine())


# Memory and back-pressure --------------------------------------------------------------------


def test_jobs_are_read_lazily_and_forgotten() -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0

    class Tag:
        pass

    def jobs() -> Iterator[Job]:
        for number in range(200):
            tag = Tag()
            alive.add(tag)
            yield job(Vote(n=4), number=number, tag=tag)

    async def count() -> int:
        nonlocal most
        seen = 0
        async for _ in drive(jobs(), {"policy": vote_engine(slots=8)}, max_active=10):
            seen += 1
            most = max(most, len(alive))
        return seen

    assert run_virtual(count()) == 200
    gc.collect()
    assert most <= 25
    assert len(alive) <= 1


def test_a_slow_consumer_holds_the_producer_back() -> None:
    read = 0

    def jobs() -> Iterator[Job]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield job(Vote(n=2), number=number)

    async def consume() -> None:
        async with aclosing(
            drive(jobs(), {"policy": vote_engine(slots=4)}, max_active=5)
        ) as stream:
            for taken in range(1, 20):
                await anext(stream)
                await asyncio.sleep(1000)
                assert read <= taken + 2 * 5 + 2

    run_virtual(consume())


def test_memory_does_not_grow_with_the_number_of_problems() -> None:
    """What is alive after 100 problems and after 500 differs by less than 20 bytes a problem."""
    engine = SimulatedEngine(Echo(), slots=16)
    alive: dict[int, int] = {}

    async def consume() -> None:
        jobs = (job(Vote(n=4), number=i % 50) for i in range(520))
        done = 0
        async for _ in drive(jobs, {"policy": engine}):
            done += 1
            if done in (100, 500):
                gc.collect()
                alive[done] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    run_virtual(consume())
    tracemalloc.stop()
    assert alive[500] - alive[100] < 20 * 400
