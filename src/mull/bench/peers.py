"""The driver beside a peer: its_hub on the same simulated endpoint, which meters both.

The endpoint is a process of its own that speaks HTTP and takes real time: 5 ms a token, 20 to 60
tokens a step, 64 slots. It draws every request anew, whatever seed was sent, so that nobody gains
from knowing it; and it counts the tokens that it made, cancelled ones included. Every repeat runs
every contender on the same problems, one after the other; ratios are taken within a repeat.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from rich.table import Table

from mull.bench.driver import Spread
from mull.bench.peers_child import CHILD, reward
from mull.bench.peers_endpoint import BREAK, CLOSING, metering_endpoint
from mull.budget import Budget, Meter, Purpose
from mull.catalog import load_strategy, load_task
from mull.engines.openai.engine import OpenAIEngine
from mull.engines.openai.load import load_openai
from mull.engines.simulated import levels
from mull.errors import EngineError, UsageError
from mull.strategies.base import Start
from mull.strategies.drive import Job, Solved, drive
from mull.types import Branch, EngineInfo, Problem, Until

ITS_HUB_PYTHON = "MULL_ITS_HUB_PYTHON"
"""Names an interpreter that has its_hub, so that it may live in its own environment."""

SLOTS, PATHS, KEEP, DEPTH = 64, 16, 4, 8
TOKEN_MS, SCORE_MS = 5.0, 20.0
HUNG_S = 600.0
"""After so many seconds the peer has hung."""
SEARCHES: Mapping[str, str] = {
    "beam": f"beam(keep={KEEP}, branch={PATHS // KEEP})",
    "particles": "particles(mode='odds')",
    "vote": "vote",
}
"""Searches that both have; the peer's particles have the weights of ``odds``."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who runs: ours or the peer, problems together or one by one.

    Ours guesses or does not, and has up to ``slots`` requests in flight, ``start`` at first. The
    peer knows no limit: it sends all it has at once, and what finds no slot waits in the endpoint.
    """

    name: str
    ours: bool
    together: bool
    guesses: bool = True
    start: int = SLOTS
    slots: int = SLOTS


ALL = 16 * PATHS
CONTENDERS = (
    Contender("mull", True, True),
    Contender("mull, no guesses", True, True, guesses=False),
    Contender("mull, all in flight", True, True, guesses=False, start=ALL, slots=ALL),
    Contender("mull, 20 at first", True, True, start=20),
    Contender("mull, one by one", True, False),
    Contender("its_hub, gathered", False, True),
    Contender("its_hub, its loop", False, False),
)


@dataclass(frozen=True, slots=True)
class Leg:
    """One contender's run over all problems.

    ``busy`` is the endpoint's share of slot time in use, ``calls`` the generations that it
    started and ``cancelled`` those of them that were given up. ``metered`` and ``prompt`` are the
    tokens that it generated and read; ``reported`` and ``reported_prompt`` what the contender says
    of them (``None``: nothing), of which ``estimated`` were generated in cancelled requests, where
    no endpoint tells. ``right`` counts the right answers.
    """

    contender: str
    search: str
    seconds: float
    busy: float
    calls: int
    cancelled: int
    metered: int
    prompt: int
    reported: int | None
    reported_prompt: int | None
    estimated: int
    right: int

    @property
    def exact(self) -> bool:
        """Whether the contender's account is the endpoint's, to the token."""
        return (self.reported, self.reported_prompt) == (self.metered, self.prompt)


@dataclass(frozen=True, slots=True)
class Race:
    """A contender's legs, and its seconds over those of the first one within a repeat."""

    contender: str
    search: str
    seconds: Spread
    busy: Spread
    ratio: Spread
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """What a contender says of a run."""

    seconds: float
    reported: int | None
    prompt: int | None
    estimated: int
    answers: list[str | None]


def beside(
    problems: int = 16,
    repeats: int = 3,
    searches: Sequence[str] = tuple(SEARCHES),
    contenders: Sequence[Contender] = CONTENDERS,
    token_ms: float = TOKEN_MS,
) -> list[Race]:
    """Run every contender on every search; the peer only where it is installed.

    Ratios are taken to the first of ``contenders``. Raises ``EngineError`` where the peer or the
    endpoint ends without an answer, ``UsageError`` for a search that is not in ``SEARCHES``.
    """
    if unknown := sorted(set(searches) - set(SEARCHES)):
        raise UsageError(f"no search is called {', '.join(unknown)}; there are {list(SEARCHES)}")
    legs: dict[tuple[str, str], list[Leg]] = {}
    with ExitStack() as stack:
        endpoint = stack.enter_context(metering_endpoint(token_ms, SLOTS))
        peer = stack.enter_context(_its_hub()) if its_hub_python() is not None else None
        running = [one for one in contenders if one.ours or peer is not None]
        for one in running:  # first use loads code on both sides: that is not the subject
            _leg(endpoint, peer, one, "vote", list(levels(1, steps=1)), 0)
        for search in searches:
            for repeat in range(repeats):
                posed = list(levels(problems, steps=DEPTH, seed=repeat))
                for one in running:
                    if search == "vote" and (one.slots, one.guesses) == (SLOTS, False):
                        continue  # a vote never guesses
                    leg = _leg(endpoint, peer, one, search, posed, repeat)
                    legs.setdefault((search, one.name), []).append(leg)
    first: dict[str, list[Leg]] = {}
    for (search, _), own in legs.items():
        first.setdefault(search, own)
    return [_race(own, first[search]) for (search, _), own in legs.items()]


def _race(legs: Sequence[Leg], first: Sequence[Leg]) -> Race:
    ratios = [leg.seconds / base.seconds for leg, base in zip(legs, first, strict=True)]
    return Race(
        legs[0].contender,
        legs[0].search,
        Spread.of([leg.seconds for leg in legs]),
        Spread.of([leg.busy for leg in legs]),
        Spread.of(ratios),
        tuple(legs),
    )


def peers_table(races: Sequence[Race]) -> Table:
    """The figures for a reader; tokens are sums over the repeats."""
    columns = ("search", "contender", "seconds", "over ours", "busy", "calls", "right")
    table = Table(*columns, "metered", "reported", box=None)
    for race in races:
        legs = race.legs
        table.add_row(
            race.search,
            race.contender,
            str(race.seconds),
            str(race.ratio),
            str(race.busy),
            f"{sum(leg.calls for leg in legs):,}",
            str(sum(leg.right for leg in legs)),
            f"{sum(leg.metered for leg in legs):,}",
            _said(legs),
        )
    return table


def _said(legs: Sequence[Leg]) -> str:
    if any(leg.reported is None for leg in legs):
        return "nothing"
    said = f"{sum(leg.reported or 0 for leg in legs):,}"
    estimated = sum(leg.estimated for leg in legs)
    if estimated:
        return f"{said}, {estimated:,} estimated"
    return f"{said}, exact" if all(leg.exact for leg in legs) else said


def _leg(
    endpoint: Connection,
    peer: Callable[[dict[str, Any]], dict[str, Any]] | None,
    one: Contender,
    search: str,
    problems: Sequence[Problem],
    seed: int,
) -> Leg:
    endpoint.send(seed)
    url: str = endpoint.recv()
    if one.ours:
        account = asyncio.run(_mull(url, one, search, problems))
    elif peer is not None:
        account = _ask_peer(peer, url, one, search, problems)
    else:
        raise EngineError("its_hub is not installed")
    endpoint.send("done")
    found: dict[str, Any] = endpoint.recv()
    right = sum(a == p.answer for a, p in zip(account.answers, problems, strict=True))
    return Leg(
        contender=one.name,
        search=search,
        seconds=account.seconds,
        reported=account.reported,
        reported_prompt=account.prompt,
        estimated=account.estimated,
        right=right,
        **found,
    )


# --- contenders ----------------------------------------------------------------------------------


async def _mull(url: str, one: Contender, search: str, problems: Sequence[Problem]) -> Account:
    """Our driver over our client; usage as its ledgers have it."""
    options: dict[str, Any] = {"api": "chat", "dialect": "vllm", "logprobs": False}
    engine = load_openai(url, slots=one.slots, start=one.start, **options)
    if not isinstance(engine, OpenAIEngine):
        raise EngineError(f"{url} is one address, and one engine")
    begun = time.perf_counter()
    jobs, active = _jobs(one, search, problems), None if one.together else 1
    stream = drive(jobs, {"policy": engine}, {"prm": _Reward()}, max_active=active)
    solved = [each async for each in stream]
    seconds = time.perf_counter() - begun
    await engine.aclose()
    solved.sort(key=lambda each: int(each.job.tag))
    totals = [_tokens(each) for each in solved]
    return Account(
        seconds,
        sum(generated for generated, _ in totals),
        sum(prompt for _, prompt in totals),
        engine.stats.wasted_tokens,
        [each.result.answer for each in solved],
    )


def _jobs(one: Contender, search: str, problems: Sequence[Problem]) -> Iterator[Job]:
    task = load_task("text")
    strategy = load_strategy(SEARCHES[search])
    if search != "vote":
        strategy = replace(strategy, speculate=one.guesses)  # type: ignore[type-var]
    until = Until(max_tokens=100 * DEPTH, separator=BREAK)
    for number, problem in enumerate(problems):
        yield Job(strategy, Start(problem, task, Budget(samples=PATHS), until=until), 0, number)


def _tokens(solved: Solved) -> tuple[int, int]:
    """(generated, prompt) tokens of a problem's policy, guesses and cancelled work included."""
    ledger = solved.ledger
    usage = ledger.of(*(purpose for purpose in Purpose if purpose is not Purpose.VERIFIER))
    return usage.generated, usage.prompt


class _Reward:
    """``reward`` as a verifier that takes 20 ms a batch; the driver sends one batch at a time."""

    info = EngineInfo("custom", "reward")
    policy: tuple[str, ...] = ()

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        await asyncio.sleep(SCORE_MS / 1e3)
        return [reward(branch.text) for branch in branches]


def its_hub_python() -> str | None:
    """An interpreter that has its_hub: the one that was named, or this one; ``None`` if neither."""
    named = os.environ.get(ITS_HUB_PYTHON)
    if named:
        return named
    return sys.executable if importlib.util.find_spec("its_hub") else None


def _ask_peer(
    peer: Callable[[dict[str, Any]], dict[str, Any]],
    url: str,
    one: Contender,
    search: str,
    problems: Sequence[Problem],
) -> Account:
    address, _, model = url.partition("#")
    job = {
        "endpoint": address,
        "model": model,
        "search": search,
        "together": one.together,
        "prompts": [problem.prompt.plain for problem in problems],
        "paths": PATHS,
        "keep": KEEP,
        "slots": SLOTS,
        "separator": BREAK,
        "closing": CLOSING,
        "score_s": SCORE_MS / 1e3,
    }
    found = peer(job)
    answers = [re.findall(r"answer: (\d+)", text) for text in found["texts"]]
    last = [each[-1] if each else None for each in answers]
    return Account(found["seconds"], found["reported"], found["prompt"], 0, last)


@contextmanager
def _its_hub() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """its_hub in a process of its own, kept warm, with the very source of our reward."""
    source = f"import hashlib\n{inspect.getsource(reward)}\n{CHILD}"
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(  # noqa: S603 (the interpreter that the user named)
            [its_hub_python() or sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as child,
    ):

        def run(job: dict[str, Any]) -> dict[str, Any]:
            if child.stdin is None or child.stdout is None:  # both are pipes
                raise EngineError("its_hub has no pipes")
            hung = threading.Timer(HUNG_S, child.kill)
            hung.start()
            with suppress(BrokenPipeError):  # it has died: its last words follow
                child.stdin.write(json.dumps(job) + "\n")
                child.stdin.flush()
            line = child.stdout.readline()
            hung.cancel()
            if not line:
                log.seek(0)
                last = log.read().strip().splitlines()[-1:]
                raise EngineError(f"its_hub ended without an answer: {' '.join(last)}")
            found: dict[str, Any] = json.loads(line)
            return found

        try:
            yield run
        finally:
            child.kill()
            with suppress(BrokenPipeError):
                if child.stdin is not None:
                    child.stdin.close()
