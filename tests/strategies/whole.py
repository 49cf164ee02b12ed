"""What tests of strategies over whole answers share: judges, verifiers, engines out of order."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.strategies.common import PRICE, Priced, job, one, rows

from mull.budget import Budget, Meter, Purpose
from mull.engines.base import Engine
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.engines.simulated.content import Piece
from mull.engines.simulated.problems import read_facts
from mull.engines.simulated.text import prompt_text
from mull.errors import EngineConnectionError
from mull.strategies.base import Action, Ended, Outcome, Result, Room, Search, Start, Strategy
from mull.strategies.drive import Solved
from mull.strategies.needs import Needs, needs_of
from mull.types import Branch, Completion, Delta, EngineInfo, Request, Scored, ScoreRequest
from mull.verifiers.base import Verifier

LOOSE = (Purpose.SPECULATIVE, Purpose.CANCELLED)


def answers(text: str) -> list[str]:
    """The answers that stand in a text, in order."""
    return re.findall(r"answer:? (\d+)", text)


@dataclass(frozen=True)
class Judge:
    """Knows the gold answer and says what ``says`` makes of (right?, prompt, index)."""

    says: Callable[[bool, str, int], str]

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        prompt = prompt_text(request.prompt)
        gold = str(read_facts(prompt).gold)
        yield self.says(answers(prompt)[-1:] == [gold], prompt, index), None


@dataclass(frozen=True)
class Either:
    """One model that solves and judges: it judges where a verdict is asked for."""

    judge: Judge
    solver: StepModel = field(default_factory=StepModel)

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        asked = "[[" in prompt_text(request.prompt)
        return (self.judge if asked else self.solver).write(request, index)


def honest(right: bool, prompt: str, index: int) -> str:
    """A verdict of the kind that the prompt asks for."""
    if "[[tie]]" in prompt:
        gold = str(read_facts(prompt).gold)
        first, second = (answer == gold for answer in answers(prompt)[-2:])
        verdict = "tie" if first == second else "A" if first else "B"
        return f"Let me see.\n[[{verdict}]]"
    if "[[correct]]" in prompt:
        return "Let me see.\n" + ("[[correct]]" if right else "[[wrong]]")
    return "Let me see.\n" + ("[[9]]" if right else "[[2]]")


def silent(right: bool, prompt: str, index: int) -> str:
    """A judge that never gives a verdict."""
    return "It is hard to say."


HONEST, SILENT = Judge(honest), Judge(silent)


class Scorer:
    """A verifier made of a function of the branch; it charges one token a branch.

    A batch that fails costs nothing: which scores travel together depends on timing, so what one
    has cost would too.
    """

    policy = ()

    def __init__(self, score: Callable[[Branch], float], model: str = "scorer") -> None:
        self.function, self.seen = score, list[Branch]()
        self.info = EngineInfo("test", model, parameters=3, price=PRICE)

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        self.seen += branches
        scores = [self.function(branch) for branch in branches]
        for index in range(len(branches)):
            meter.charge(index, prompt=1)
        return scores


def constant(branch: Branch) -> float:
    return 0.5


def nan(branch: Branch) -> float:
    return math.nan


def broken(branch: Branch) -> float:
    raise EngineConnectionError("the verifier is away")


def luck(branch: Branch) -> float:
    """Any score in 0..1, from the branch alone; one in five is no score, one in five an error."""
    draw = random.Random(f"{branch.key}{branch.text}").random()
    if draw < 0.2:
        raise EngineConnectionError("the verifier is away")
    return math.nan if draw < 0.4 else draw


class Shuffled:
    """Gives what another engine says in any order, at any time."""

    def __init__(self, engine: Engine, clock: random.Random) -> None:
        self.engine, self.clock = engine, clock

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        said: list[Delta | Completion] = []
        error: EngineConnectionError | None = None
        try:
            async for item in self.engine.generate(request, meter):
                said.append(item)
        except EngineConnectionError as failed:
            error = failed
        self.clock.shuffle(said)
        for item in said:
            await asyncio.sleep(self.clock.random())
            yield item
        await asyncio.sleep(self.clock.random())
        if error is not None:
            raise error

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        return await self.engine.score(requests, meter)

    async def aclose(self) -> None:
        await self.engine.aclose()


class Late:
    """Gives what a verifier says after any time."""

    def __init__(self, verifier: Verifier, clock: random.Random) -> None:
        self.verifier, self.clock = verifier, clock
        self.info, self.policy = verifier.info, verifier.policy

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        await asyncio.sleep(2 * self.clock.random())
        return await self.verifier.score(branches, meter)


@dataclass
class Watched:
    """A search whose result is looked at after every outcome: it must be valid at any moment."""

    search: Search
    told: int = field(default=0)

    def ask(self, room: Room) -> list[Action]:
        if not self.told:
            self.look()
        return self.search.ask(room)

    def tell(self, outcome: Outcome) -> None:
        self.told += 1
        self.search.tell(outcome)
        self.look()

    @property
    def done(self) -> bool:
        return self.search.done

    def result(self) -> Result:
        return self.look()

    def look(self) -> Result:
        result = self.search.result()
        keys = [candidate.key for candidate in result.candidates]
        assert keys == sorted(set(keys))
        assert result.answer in {None, *(c.answer for c in result.candidates)}
        assert 0.0 <= result.confidence <= 1.0 + 1e-9
        assert (result.ended is Ended.UNFINISHED) == (not self.search.done)
        return result


@dataclass(frozen=True)
class Watch:
    """A strategy whose searches are watched."""

    strategy: Strategy

    @property
    def needs(self) -> Needs:
        return needs_of(self.strategy)

    def start(self, start: Start) -> Search:
        return Watched(self.strategy.start(start))


def engines_of(judge: Judge = HONEST, solver: Any = None, **options: Any) -> dict[str, Engine]:
    """A policy that may judge itself, a judge, a reviser: with sizes and prices."""
    options = {"parameters": 10, "price": (1.0, 0.5, 2.0), **options}
    either = Either(judge) if solver is None else solver
    return {
        "policy": SimulatedEngine(either, model="policy", **options),
        "judge": SimulatedEngine(judge, model="judge", **options),
        "reviser": SimulatedEngine(StepModel(), model="reviser", **options),
    }


def verifiers_of(score: Callable[[Branch], float] | None = None) -> dict[str, Verifier]:
    """The simulated verifier, or a function, under the names of the shipped ones."""
    given: Verifier = Priced() if score is None else Scorer(score)
    return {"prm": given, "orm": given}


def solve(
    strategy: Strategy,
    budget: Budget | None = None,
    *,
    engines: Mapping[str, Engine] | None = None,
    verifiers: Mapping[str, Verifier] | None = None,
    schedule: int | None = None,
    **options: Any,
) -> Solved:
    """One problem, watched; with a ``schedule`` everything comes back in another order."""
    engines = engines_of() if engines is None else engines
    verifiers = verifiers_of() if verifiers is None else verifiers
    if schedule is not None:
        clock = random.Random(schedule)
        engines = {name: Shuffled(engine, clock) for name, engine in engines.items()}
        verifiers = {name: Late(verifier, clock) for name, verifier in verifiers.items()}
    return one(job(Watch(strategy), budget, **options), engines, verifiers=verifiers)  # type: ignore[arg-type]


def committed(solved: Solved) -> dict[tuple[Purpose, str], tuple[int, int, int, int, float]]:
    """The ledger's rows but for work that depends on timing by its nature: guesses, cancelled."""
    return {
        (purpose, model): row
        for (purpose, model), row in rows(solved).items()
        if purpose not in LOOSE
    }
