"""What a search makes of its slots: level searches on the simulated engine, on the virtual clock.

5 ms a token, 20 to 60 tokens a step, 8 steps, 20 ms a verifier batch, 64 slots. Problems of 16
paths, so many open at a time, and one alone; each with guesses and with step barriers. Committed
tokens (those on the ledger's ordinary rows) over slot time are the figure: a slot that works on
what is thrown away is as good as idle. Beside it stands what guesses could reach that are always
right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from rich.table import Table

from mull.bench.driver import Spread
from mull.budget import Budget, Purpose
from mull.catalog import load_strategy, load_task
from mull.engines.simulated import Latency, SimulatedEngine, StepModel, levels, run_virtual
from mull.errors import UsageError
from mull.strategies.base import Result, Search, Start, Strategy
from mull.strategies.drive import Job, Solved, drive
from mull.strategies.levels import LevelSearch
from mull.strategies.levels_rule import requests
from mull.strategies.levels_tree import Key
from mull.types import Until
from mull.verifiers.simulated import SimulatedVerifier

SEARCHES = ("beam(branch=4)", "rebase", "particles", "dvts(branch=4)")
SLOTS = 64
PATHS = 16
TOKEN_MS = 5.0
BATCH_MS = 20.0
DEPTH = 8
BREAK = "\n\n"
"""Closes a step; the final answer then belongs to the last one, and all paths have 8."""

Wanted = Mapping[str, Mapping[Key, int]]
"""By problem and node: how many children a search wants of it."""


@dataclass(frozen=True, slots=True)
class Flight:
    """What some searches did on the virtual clock.

    ``active`` problems were open at a time; ``how`` they filled idle slots: not (``barriers``), by
    ``guesses``, or as if they had known (``clairvoyant``). ``seconds`` is the time from the first
    start to the last end; ``busy`` the share of slot time in use, ``committed`` the share that made
    committed tokens; ``wasted`` the share of all tokens made that were not.
    """

    strategy: str
    problems: int
    active: int
    how: Literal["barriers", "guesses", "clairvoyant"]
    seconds: float
    busy: float
    committed: float
    wasted: float


@dataclass(frozen=True, slots=True)
class Alone:
    """One problem at a time: seconds with step barriers over seconds with guesses."""

    strategy: str
    speedup: Spread
    wasted: float
    identical: bool
    target: float = 1.2


def fly(
    spec: str,
    problems: int,
    active: int,
    speculate: bool = True,
    seed: int = 0,
    wanted: Wanted | None = None,
) -> tuple[Flight, list[Result]]:
    """Run ``problems`` searches of 16 paths, ``active`` of them open at a time; and their results.

    ``wanted`` tells the searches of each problem which children they will want (``most``).
    """
    engine = SimulatedEngine(
        StepModel(separator=BREAK, closing="answer: "),
        latency=Latency(token_ms=TOKEN_MS),
        slots=SLOTS,
    )
    verifier = SimulatedVerifier(batch_ms=BATCH_MS, separator=BREAK, seed=seed)
    jobs = _jobs(spec, problems, speculate, seed)
    if wanted is not None:
        jobs = (replace(job, strategy=_Told(job.strategy, wanted)) for job in jobs)
    solved = run_virtual(_drive(engine, verifier, jobs, active))
    solved.sort(key=lambda one: str(one.job.start.problem.id))
    made = sum(one.ledger.of(*_POLICY).generated for one in solved)
    loose = sum(one.ledger.of(Purpose.SPECULATIVE, Purpose.CANCELLED).generated for one in solved)
    stats = engine.stats
    flight = Flight(
        spec,
        problems,
        active,
        "clairvoyant" if wanted is not None else "guesses" if speculate else "barriers",
        stats.span,
        stats.occupancy,
        (made - loose) * TOKEN_MS / 1e3 / (SLOTS * stats.span),
        loose / made,
    )
    return flight, [one.result for one in solved]


def alone(spec: str, repeats: int = 5) -> Alone:
    """One problem at a time, with step barriers and with guesses; ``repeats`` times 4 problems."""
    ratios, wasted, identical = [], [], True
    for seed in range(repeats):
        barriers, expected = fly(spec, 4, 1, speculate=False, seed=seed)
        guessed, results = fly(spec, 4, 1, seed=seed)
        ratios.append(barriers.seconds / guessed.seconds)
        wasted.append(guessed.wasted)
        identical = identical and results == expected
    return Alone(spec, Spread.of(ratios), sum(wasted) / repeats, identical)


def flights(problems: int = 64, searches: Sequence[str] = SEARCHES) -> Iterator[Flight]:
    """Every search with few and with many problems open, with step barriers and with guesses."""
    for spec in searches:
        for active in (4, 5, 16):
            yield fly(spec, problems, active, speculate=False)[0]
            yield fly(spec, problems, active)[0]
            if active == 4:
                yield most(spec, problems, active)


def search_table(flown: Iterable[Flight], lone: Iterable[Alone]) -> Table:
    """The figures, one line a search and setting."""
    table = Table("search, simulated engine", "open", "", "busy", "committed", "wasted", box=None)
    for one in flown:
        table.add_row(
            one.strategy,
            f"{one.active} x {PATHS}",
            one.how,
            f"{one.busy:.3f}",
            f"{one.committed:.3f}",
            f"{one.wasted:.1%}",
        )
    for figure in lone:
        same = "same results" if figure.identical else "OTHER RESULTS"
        table.add_row(
            figure.strategy,
            f"1 x {PATHS}",
            f"guesses: {figure.speedup} x as fast, {same}",
            "",
            "",
            f"{figure.wasted:.1%}",
        )
    return table


# What could be reached at most -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """A strategy whose searches know beforehand which children they will want."""

    strategy: Strategy
    wanted: Wanted

    def start(self, start: Start) -> Search:
        search = self.strategy.start(start)
        if not isinstance(search, LevelSearch):
            raise UsageError(f"{self.strategy} is no level search")
        options = {f.name: getattr(search, f.name) for f in fields(search) if f.init}
        return _Clairvoyant(**options, wanted=self.wanted[start.problem.id])


@dataclass(eq=False)
class _Clairvoyant(LevelSearch):
    """Guesses exactly what is wanted, as soon as the parent has come, scored or not."""

    wanted: Mapping[Key, int] = field(default_factory=dict)

    def _guess(self, slots: int) -> None:
        for lane in self.lanes:
            nodes = [path.node for path in lane.level]
            for node in nodes:
                nodes.extend(node.children.values())
                if node.branch is None or node.finished or slots <= 0:
                    continue
                for first, count in requests(self.wanted.get(node.key, 0), lane.rule.unit):
                    if first not in node.batches:
                        lane.guess(node, first, count)
                        slots -= count


def most(spec: str, problems: int = 64, active: int = 4, seed: int = 0) -> Flight:
    """What guesses could reach that are always right: no search with the same results does better.

    Up to the order of work, that is: slots still go to the oldest problem first. Paths are not
    merged, neither here nor in the run that says what is wanted.
    """
    plain = _with(spec, "merge=false")
    _, results = fly(plain, problems, active, speculate=False, seed=seed)
    jobs = list(_jobs(plain, problems, True, seed))
    jobs.sort(key=lambda job: job.start.problem.id)
    wanted = {}
    for job, result in zip(jobs, results, strict=True):
        children: dict[Key, int] = {}
        for node in result.tree:
            parent, index = node.key[:-1], node.key[-1]
            children[parent] = max(children.get(parent, 0), index + 1)
        wanted[job.start.problem.id] = children
    return replace(fly(plain, problems, active, seed=seed, wanted=wanted)[0], strategy=spec)


_POLICY = tuple(purpose for purpose in Purpose if purpose is not Purpose.VERIFIER)


def _jobs(spec: str, problems: int, speculate: bool, seed: int) -> Iterator[Job]:
    task = load_task("text")
    strategy = load_strategy(_with(spec, f"speculate={str(speculate).lower()}"))
    until = Until(max_tokens=100 * DEPTH, separator=BREAK)
    for problem in levels(problems, steps=DEPTH, seed=seed):
        start = Start(problem, task, Budget(samples=PATHS), until=until)
        yield Job(strategy, start, seed)


def _with(spec: str, option: str) -> str:
    """A spec string with one more parameter."""
    name, _, rest = spec.partition("(")
    given = [part for part in (rest.rstrip(")"), option) if part]
    return f"{name}({', '.join(given)})"


async def _drive(
    engine: SimulatedEngine, verifier: SimulatedVerifier, jobs: Iterator[Job], active: int
) -> list[Solved]:
    stream = drive(jobs, {"policy": engine}, {"prm": verifier}, max_active=active)
    return [solved async for solved in stream]
