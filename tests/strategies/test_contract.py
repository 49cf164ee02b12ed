"""The ask/tell contract, as laws over six toy strategies and a small synchronous driver.

The driver keeps every promise that ``mull.strategies.base`` makes to a search, and is free in all
else: it finishes work in any order, tells outcomes late and permuted, asks at any moment, with any
number of slots. Whatever it does, the result and the ledger of committed purposes stay the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.toys import JudgedVote, Lanes, Mcts, Revisions, SpeculativeBeam, StoppedVote

from mull.budget import Ledger, Meter, Purpose
from mull.grades import Extraction, Grade, GradeOutcome, Unanswered
from mull.rng import derive
from mull.strategies.base import (
    Action,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Outcome,
    Result,
    Room,
    Score,
    Search,
    Start,
    Work,
)
from mull.types import (
    Branch,
    Candidate,
    Completion,
    EngineInfo,
    Problem,
    Prompt,
    StopReason,
    Until,
    Usage,
)

ENGINES = ("policy", "judge", "verifier")
UNCOMMITTED = (Purpose.SPECULATIVE, Purpose.CANCELLED)


class ToyTask:
    """Reads "answer N"; gold answers are none of this file's business."""

    name = "toy"
    until = Until(max_tokens=64)

    def problem(self, text: str, id: str = "0") -> Problem:
        return Problem(id, Prompt.of(text))

    def extract(self, problem: Problem, text: str) -> Extraction:
        found = re.search(r"answer (\d+)", text)
        return Extraction(found[1]) if found else Extraction(None, Unanswered.NO_ANSWER)

    def same(self, problem: Problem, a: str, b: str) -> bool:
        return a == b

    def grade(self, problem: Problem, answer: str | None) -> Grade:
        return Grade(GradeOutcome.UNGRADED)


@dataclass(frozen=True)
class World:
    """What models say: a pure function of seed, engine, branch and child index."""

    seed: int

    def draw(self, branch: Branch, index: int, name: str) -> random.Random:
        return random.Random(derive(self.seed, branch.problem.id, branch.key, index, name))

    def complete(self, work: Generate, index: int) -> Completion | Failure:
        """About one in twelve samples fails; one in eight verdicts cannot be read."""
        draw = self.draw(work.branch, index, work.engine)
        tokens = draw.randint(2, 9)
        if draw.random() < 1 / 12:
            return Failure("EngineConnectionError", f"reset at {work.branch.key}, {index}")
        stop = StopReason.END
        if work.engine == "judge":
            text = draw.choice(["[[correct]]"] * 3 + ["[[wrong]]"] * 4 + ["who knows"])
        elif work.until.steps and work.branch.depth < 3:
            text, stop = f"step {draw.randint(0, 99)}\n", StopReason.STEP
        else:
            text = f"answer {draw.choice('77777355')}"
        logprobs = tuple(-draw.random() for _ in range(tokens))
        return Completion(index, text, stop, Usage(), tuple(range(tokens)), logprobs)

    def score(self, branch: Branch) -> float:
        return self.draw(branch, 0, "verifier").random()


@dataclass(eq=False)
class Job:
    """One part of one action, from asked to told; its meter says on which row its cost stands."""

    work: Work
    index: int
    meter: Meter
    outcome: Outcome | None = None

    @property
    def engine(self) -> str:
        return self.work.engine if isinstance(self.work, Generate) else "verifier"

    @property
    def guess(self) -> bool:
        return self.meter.purpose is Purpose.SPECULATIVE

    def move(self, purpose: Purpose) -> None:
        """Book what the job has cost, and will cost, under another purpose."""
        meter = self.meter
        meter.ledger.move(
            meter.purpose,
            purpose,
            meter.info.model,
            meter.usage(self.index),
            int(self.index in meter._spent),
        )
        meter.purpose = purpose

    def settle(self) -> None:
        """Book a job whose outcome counts: under its own purpose, or as failed."""
        failed = self.outcome is not None and isinstance(self.outcome.value, Failure)
        self.move(Purpose.FAILED if failed else self.work.purpose)


class Driver:
    """Runs one search in an order of the schedule's choosing; checks what a search promises.

    ``made`` sums the tokens of all engines apart from the ledger. A driver that is ``busy`` with
    other problems never has an idle slot for speculation.
    """

    def __init__(self, world: World, slots: dict[str, int], schedule: random.Random) -> None:
        self.world, self.slots, self.schedule = world, slots, schedule
        self.busy = schedule.random() < 0.3
        self.haste = [schedule.choice((1, 4, 16)) for _ in range(4)]
        self.ledger = Ledger()
        self.jobs: dict[int, list[Job]] = {}
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.landed: list[Job] = []
        self.asked: set[tuple[object, ...]] = set()
        self.made = self.peak = self.commits = 0

    def run(self, search: Search) -> Result:
        for _ in range(4000):
            if search.done:
                break
            self._move(search)
            check(search)
        assert search.done, "the search did not end"
        assert search.ask(Room(8)) == []
        for job in self.waiting + self.running + self.landed:
            self._drop(job)
        return search.result()

    def committed(self) -> dict[tuple[Purpose, str], Usage]:
        """The ledger without its timing-dependent rows."""
        rows = self.ledger.rows()
        loose = (Purpose.SPECULATIVE, Purpose.CANCELLED)
        return {(p, m): (u, n) for p, m, u, n in rows if p not in loose and (u != Usage() or n)}

    def _move(self, search: Search) -> None:
        """One thing happens: an ask, a start, an end or a telling."""
        kinds: list[tuple[Sequence[Job], Callable[[Job], None], int]] = [
            (self._ready(), self._start, self.haste[1]),
            (self.running, self._finish, self.haste[2]),
            (self.landed, lambda job: search.tell(self._pick_up(job)), self.haste[3]),
        ]
        possible = [kind for kind in kinds if kind[0]]
        weights = [self.haste[0], *(weight for _, _, weight in possible)]
        choice = self.schedule.choices(range(len(weights)), weights)[0]
        if choice:
            jobs, move, _ = possible[choice - 1]
            move(self.schedule.choice(jobs))
        else:
            asked = self._ask(search)
            assert asked or possible or search.done, "waits for nothing and asks for nothing"

    def _ask(self, search: Search) -> int:
        actions = search.ask(Room(self._idle("policy")))
        for action in actions:
            if isinstance(action, Cancel):
                for id, index in action.turns:
                    job = next(job for job in self.jobs[id] if job.index == index)
                    self._drop(job)
            elif isinstance(action, Commit):
                self._commit(action.ids)
            else:
                assert action.id not in self.jobs, "an id names one action"
                self.jobs[action.id] = self._parts(action)
                self.waiting += self.jobs[action.id]
        return len(actions)

    def _parts(self, work: Work) -> list[Job]:
        name = work.engine if isinstance(work, Generate) else work.verifier
        purpose = Purpose.SPECULATIVE if work.speculative else work.purpose
        indices = range(work.first, work.first + work.count) if isinstance(work, Generate) else [0]
        for index in indices:
            keys = (
                [work.branch.key] if isinstance(work, Generate) else [b.key for b in work.branches]
            )
            for key in keys:
                assert (name, key, index) not in self.asked, "the same work is asked for twice"
                self.asked.add((name, key, index))
        info = EngineInfo("simulated", name)
        return [Job(work, index, Meter(self.ledger, purpose, info)) for index in indices]

    def _idle(self, engine: str) -> int:
        return self.slots[engine] - sum(job.engine == engine for job in self.running)

    def _ready(self) -> list[Job]:
        """Jobs that may start now: a guess only where no ordinary job waits for the slot."""
        ready = []
        for engine in ENGINES:
            if self._idle(engine):
                jobs = [job for job in self.waiting if job.engine == engine]
                ordinary = [job for job in jobs if not job.guess]
                ready += ordinary or ([] if self.busy else jobs)
        return ready

    def _start(self, job: Job) -> None:
        self.waiting.remove(job)
        self.running.append(job)
        self.peak = max(self.peak, len(self.running))
        self._charge(job, prompt=3)

    def _finish(self, job: Job) -> None:
        work = job.work
        self.running.remove(job)
        value: Completion | Failure | tuple[float, ...]
        if isinstance(work, Generate):
            value = self.world.complete(work, job.index)
            if isinstance(value, Completion):
                self._charge(job, generated=len(value.token_ids or ()))
        else:
            value = tuple(self.world.score(branch) for branch in work.branches)
        job.outcome = Outcome(work.id, job.index, value, job.meter.usage(job.index))
        if not job.guess:
            job.settle()
        self.landed.append(job)

    def _pick_up(self, job: Job) -> Outcome:
        self.landed.remove(job)
        assert job.outcome is not None
        return job.outcome

    def _charge(self, job: Job, prompt: int = 0, generated: int = 0) -> None:
        job.meter.charge(job.index, prompt=prompt, generated=generated)
        self.made += prompt + generated

    def _commit(self, ids: Sequence[int]) -> None:
        """From here on this is ordinary work, whether it waits, runs or is done."""
        for id in ids:
            assert self.jobs[id][0].work.speculative, "only speculative work is committed"
            self.commits += 1
            for job in self.jobs[id]:
                job.settle()

    def _drop(self, job: Job) -> None:
        for queue in (self.waiting, self.running, self.landed):
            if job in queue:
                queue.remove(job)
        if not job.guess:
            job.move(Purpose.CANCELLED)


def check(search: Search) -> None:
    """A result is valid at any moment."""
    result = search.result()
    keys = [candidate.key for candidate in result.candidates]
    assert len(result.parts) == 1
    assert keys == sorted(set(keys))
    assert result.answer in {None, *(candidate.answer for candidate in result.candidates)}
    assert (result.ended is Ended.UNFINISHED) == (not search.done)


TOYS = (StoppedVote, SpeculativeBeam, Mcts, JudgedVote, Revisions, Lanes)
SLOTS = st.fixed_dictionaries({engine: st.integers(1, 8) for engine in ENGINES})
SEEDS = st.integers(0, 2**32)
ONE_SLOT = dict.fromkeys(ENGINES, 1)
MANY_SLOTS = dict.fromkeys(ENGINES, 8)


def begin(toy: Callable[[Start], Search], candidates: Sequence[Candidate] = ()) -> Search:
    task = ToyTask()
    return toy(Start(task.problem("how many?"), task, candidates=tuple(candidates)))


def drive(
    toy: Callable[[Start], Search], world: int, slots: dict[str, int], schedule: int
) -> tuple[Result, Driver]:
    driver = Driver(World(world), slots, random.Random(schedule))
    return driver.run(begin(toy)), driver


@pytest.mark.parametrize("toy", TOYS)
@settings(max_examples=50, deadline=None)
@given(world=st.integers(0, 50), slots=SLOTS, schedule=SEEDS)
def test_timing_and_slots_change_neither_result_nor_ledger(
    toy: Callable[[Start], Search], world: int, slots: dict[str, int], schedule: int
) -> None:
    expected, alone = drive(toy, world, ONE_SLOT, 0)
    result, driver = drive(toy, world, slots, schedule)
    assert result == expected
    assert driver.committed() == alone.committed()
    for run in (driver, alone):
        assert run.ledger.total.tokens == run.made


@pytest.mark.parametrize("toy", TOYS)
def test_most_worlds_have_an_answer(toy: Callable[[Start], Search]) -> None:
    """The laws above would hold for a search that gives up at once; these do not."""
    results = [drive(toy, world, MANY_SLOTS, world)[0] for world in range(20)]
    assert sum(result.answer is not None for result in results) >= 16
    assert any(result.failures for result in results)


class ArrivalVote(StoppedVote):
    """What the inbox is for: this vote lets outcomes take effect as they arrive."""

    def tell(self, outcome: Outcome) -> None:
        if not self._stopped:
            self._inbox.drop((outcome.action,))
            self.take(outcome)


def test_the_law_catches_a_search_that_depends_on_arrival() -> None:
    runs = [drive(ArrivalVote, 1, MANY_SLOTS, schedule)[0] for schedule in range(20)]
    assert any(run != runs[0] for run in runs)


def test_a_sure_vote_stops_and_its_work_in_flight_is_booked_as_cancelled() -> None:
    cancelled = 0
    for world in range(20):
        result, driver = drive(StoppedVote, world, MANY_SLOTS, world)
        if result.ended is Ended.CONFIDENT:
            taken = len(result.candidates) + len(result.failures)
            assert taken < StoppedVote.n
            assert driver.ledger.of(Purpose.POLICY, Purpose.FAILED).prompt == 3 * taken
            cancelled += driver.ledger.of(Purpose.CANCELLED).tokens
    assert cancelled > 0


def test_samples_that_exist_already_are_not_paid_again() -> None:
    """A vote started with its own first samples ends as it would have without, for less."""
    for world in range(10):
        whole, alone = drive(StoppedVote, world, ONE_SLOT, 0)
        known = [c for at, c in enumerate(whole.candidates[:3]) if c.key == (at,)]
        driver = Driver(World(world), ONE_SLOT, random.Random(0))
        assert driver.run(begin(StoppedVote, known)) == whole
        paid = driver.ledger.of(Purpose.POLICY).prompt + 3 * len(known)
        assert paid == alone.ledger.of(Purpose.POLICY).prompt


def test_a_beam_takes_what_it_guessed_right_and_pays_wrong_guesses_apart() -> None:
    runs = [drive(SpeculativeBeam, world, MANY_SLOTS, world)[1] for world in range(30)]
    assert sum(run.commits for run in runs) > 0
    assert sum(run.ledger.of(Purpose.SPECULATIVE).tokens for run in runs) > 0


def test_a_commit_makes_waiting_work_ordinary() -> None:
    """Where idle slots never come, a guess that is committed must run all the same."""
    commits = 0
    for world in range(20):
        driver = Driver(World(world), MANY_SLOTS, random.Random(world))
        driver.busy = True
        result = driver.run(begin(SpeculativeBeam))
        assert result == drive(SpeculativeBeam, world, ONE_SLOT, 0)[0]
        assert driver.ledger.of(Purpose.SPECULATIVE) == Usage()
        commits += driver.commits
    assert commits > 0


def test_mcts_keeps_four_simulations_in_flight_and_never_more() -> None:
    peaks = {drive(Mcts, world, MANY_SLOTS, world)[1].peak for world in range(20)}
    assert max(peaks) == 4


def test_a_lane_does_not_wait_for_the_other() -> None:
    """With every outcome of the first lane held back, the second still runs to its end."""
    world, search = World(0), begin(Lanes)
    while actions := [action for action in search.ask(Room(1)) if own_lane(action) == 1]:
        for action in actions:
            if isinstance(action, Score):
                scores = tuple(world.score(branch) for branch in action.branches)
                search.tell(Outcome(action.id, 0, scores))
            elif isinstance(action, Generate):
                for index in range(action.first, action.first + action.count):
                    search.tell(Outcome(action.id, index, world.complete(action, index)))
    assert not search.done
    assert search.result().answer is not None


def own_lane(action: Action) -> int:
    assert isinstance(action, Generate | Score)
    if isinstance(action, Score):
        return action.branches[0].key[0] // 2
    return (*action.branch.key, action.first)[0] // 2
