"""Laws of a spread: the least loaded engine is asked, a dead one is left alone."""

import asyncio
from pathlib import Path

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.catalog import Equipment
from mull.engines.base import Engine, notes_of
from mull.engines.cache import RecordingEngine
from mull.engines.openai import load_openai
from mull.engines.simulated import Echo, Fault, Faults, Latency, SimulatedEngine, run_virtual
from mull.engines.simulated.server import FaultServer
from mull.engines.spread import SpreadEngine
from mull.errors import EngineConnectionError, SpecError
from mull.store import Store
from mull.types import Prompt, Request, Until
from mull.verifiers.generative import GenerativeVerifier

HELLO = Prompt.of("hello")


async def collect(engine, request):
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    return [item async for item in engine.generate(request, meter)]


def engine_of(slots: int = 8) -> SimulatedEngine:
    return SimulatedEngine(Echo(tokens=(20, 60)), latency=Latency(token_ms=5), slots=slots)


def test_requests_are_spread_by_load_and_slots():
    small, large = engine_of(4), engine_of(12)
    spread = SpreadEngine([small, large])
    assert isinstance(spread, Engine)
    assert spread.info.slots == 16

    async def main() -> None:
        requests = [Request(HELLO, Until(90), seed=seed) for seed in range(400)]
        done = await asyncio.gather(*(collect(spread, request) for request in requests))
        assert all(len(items) == 1 for items in done)

    run_virtual(main())
    assert small.stats.finished + large.stats.finished == 400
    assert abs(small.stats.finished - 100) <= 15
    assert spread.loads == [0, 0]


def test_what_is_said_does_not_depend_on_who_says_it():
    request = Request(HELLO, Until(90), n=6, seed=3)
    alone = run_virtual(collect(engine_of(), request))
    spread = run_virtual(collect(SpreadEngine([engine_of(), engine_of()]), request))
    assert {c.index: c.text for c in alone} == {c.index: c.text for c in spread}


async def test_a_dead_endpoint_is_passed_over():
    async with FaultServer(SimulatedEngine(Echo())) as there:
        dead, alive = there.url("refuse").partition("#")[0], there.url()
        spread = load_openai(f"{dead},{alive}", backoff_s=0.01)
        for _ in range(3):
            assert len(await collect(spread, Request(HELLO, Until(20), n=3))) == 3
        assert spread.engines[0].stats.requests == 3 * 4  # once, with its retries
        assert spread.engines[1].stats.requests == 9
        await spread.aclose()


async def test_what_endpoints_did_besides_answering_is_told(tmp_path: Path) -> None:
    async with FaultServer(SimulatedEngine(Echo())) as there:
        places = [there.url(fault).partition("#")[0] for fault in ("n-ignored", "no-usage")]
        spread = load_openai(f"{places[0]},{places[1]}#sim", seeds=False)
        assert notes_of(spread) == ()
        with Store.open(tmp_path) as store:
            recording = RecordingEngine(spread, store)
            for seed in range(2):  # the second while the first has fewer in flight
                await collect(recording, Request(HELLO, Until(20), n=2, seed=seed))
                spread.loads[0] += 1
            verifier = GenerativeVerifier(spread)
            told = Equipment({"policy": recording}, {"judge": verifier}).notes
        assert told == (
            f"{places[0]}#sim: answers with fewer choices than asked for, topped up one by one: 1",
            f"{places[1]}#sim: answers without usage, whose tokens are estimates: 1",
        )
        await spread.aclose()
    assert notes_of(engine_of()) == ()


def test_where_all_are_dead_the_error_is_the_last_ones():
    faults = Faults(chosen={0: Fault.CONNECTION})
    engines = [SimulatedEngine(Echo(), faults=faults) for _ in range(2)]
    spread = SpreadEngine(engines)
    with pytest.raises(EngineConnectionError):
        run_virtual(collect(spread, Request(HELLO, Until(20))))
    assert spread.loads == [0, 0]


def test_engines_of_different_models_are_refused():
    with pytest.raises(SpecError, match="model"):
        SpreadEngine([engine_of(), SimulatedEngine(Echo(tokens=(20, 60)), model="other")])
    with pytest.raises(SpecError, match="at least one"):
        SpreadEngine([])
