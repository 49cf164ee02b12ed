"""Recording and replay: nothing is paid for twice, nothing changes by being recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.cache import Lost, RecordingEngine, missing
from mull.engines.openai import load_openai
from mull.engines.replay import ReplayEngine
from mull.engines.simulated import (
    Fault,
    Faults,
    Latency,
    SimulatedEngine,
    StepModel,
    run_virtual,
    simulated_problem,
)
from mull.engines.simulated.server import FaultServer
from mull.errors import ContextError, EngineConnectionError, EngineError, ReplayMissError
from mull.store import Reader, Store, request_key
from mull.types import (
    Completion,
    Delta,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
    Usage,
)
from mull.verifiers.texts import score_each

PROMPT = simulated_problem("p", 0.8, 4, 17).prompt
SLOW = Latency(token_ms=20.0)


def engine(latency: Latency | None = None, faults: Faults | None = None) -> SimulatedEngine:
    return SimulatedEngine(
        StepModel(), latency=latency, faults=faults, parameters=1000, layers=2, width=8
    )


def ask(n: int = 8, first: int = 0, **more: object) -> Request:
    return Request(PROMPT, Until(max_tokens=200), n=n, first=first, seed=5, **more)  # type: ignore[arg-type]


def gauge(inner: object) -> Meter:
    return Meter(Ledger(), Purpose.POLICY, inner.info)  # type: ignore[attr-defined]


async def collect(
    asked: Request, source: object, meter: Meter | None = None
) -> dict[int, Completion]:
    stream: AsyncIterator[Delta | Completion] = source.generate(asked, meter or gauge(source))  # type: ignore[attr-defined]
    made = [item async for item in stream if isinstance(item, Completion)]
    assert len({item.index for item in made}) == len(made)
    return {item.index: item for item in made}


def spent(meter: Meter) -> list[object]:
    return list(meter.ledger.rows())


async def test_recording_changes_nothing_and_a_second_time_costs_no_work(tmp_path: Path) -> None:
    plain = gauge(engine())
    expected = await collect(ask(), engine(), plain)
    with Store.open(tmp_path) as store:
        for _ in range(2):
            inner = engine()
            meter = gauge(inner)
            assert await collect(ask(), RecordingEngine(inner, store), meter) == expected
            assert spent(meter) == spent(plain)
        assert inner.stats.generated == 0


async def test_every_split_of_a_request_gives_the_same_samples_and_the_same_bill(
    tmp_path: Path,
) -> None:
    n, plain = 5, gauge(engine())
    expected = await collect(ask(n), engine(), plain)
    for mask in range(2**n):
        recorded = [index for index in range(n) if mask >> index & 1]
        lost: list[Lost] = []
        inner = engine()
        with Store.open(tmp_path / str(mask)) as store:
            recording = RecordingEngine(inner, store, lost.append)
            key = request_key(ask(n), inner.info)
            await asyncio.gather(*(store.add_sample(key, expected[i]) for i in recorded))
            meter = gauge(inner)
            assert await collect(ask(n), recording, meter) == expected
            assert spent(meter) == spent(plain)
        made = sum(len(expected[i].token_ids or ()) for i in range(n) if i not in recorded)
        assert inner.stats.generated == made
        assert all(item.repeated and item.usage.generated == 0 for item in lost)
        parts = missing(range(n), dict.fromkeys(recorded))
        assert len(lost) == sum(part.start != 0 for part in parts)


@pytest.mark.parametrize("seeds", [False, True])
async def test_a_resumed_request_to_an_endpoint_costs_what_an_unbroken_one_does(
    tmp_path: Path, seeds: bool
) -> None:
    async with FaultServer(engine()) as there:

        async def bill(name: str, n: int) -> Usage:
            inner = load_openai(there.url(), seeds=seeds)
            with Store.open(tmp_path / name) as store:
                meter = gauge(inner)
                await collect(ask(n), RecordingEngine(inner, store), meter)
            await inner.aclose()
            return replace(meter.total, seconds=0.0)

        unbroken = await bill("whole", 4)
        await bill("broken", 1)
        resumed = await bill("broken", 4)
        assert resumed.prompt == unbroken.prompt
        assert await bill("broken", 4) == resumed  # served from the records alone


async def test_a_completion_is_committed_before_it_is_yielded(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(engine(), store)
        count = 0
        async for _ in recording.generate(ask(), gauge(recording)):
            count += 1
            with Reader(tmp_path) as reader:
                assert len(list(reader.rows("samples"))) >= count


def test_a_closed_request_records_what_is_whole_and_reports_what_it_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        lost: list[Lost] = []
        inner = engine(SLOW)
        with Store.open(tmp_path, threaded=False) as store:
            recording = RecordingEngine(inner, store, lost.append)
            meter = gauge(recording)
            async with aclosing(recording.generate(ask(), meter)) as stream:  # type: ignore[type-var]
                first = await anext(stream)
            assert isinstance(first, Completion)
            assert inner.stats.in_flight == 0
            await store.drain()
            with Reader(tmp_path) as reader:
                kept = len(list(reader.rows("samples")))
            assert 1 <= kept < 8
            assert len(lost) == 8 - kept
            assert not any(item.repeated for item in lost)
            total = sum((item.usage for item in lost), Usage())
            assert 0 < total.generated < 8 * 200
            again = gauge(recording)
            assert len(await collect(ask(), recording, again)) == 8

    run_virtual(scenario())


async def test_an_error_comes_after_what_is_whole_and_is_not_recorded(tmp_path: Path) -> None:
    faults = Faults(chosen={3: Fault.CONNECTION})
    with Store.open(tmp_path) as store:
        for _ in range(2):  # a failure is never remembered as an answer
            recording = RecordingEngine(engine(faults=faults), store)
            got = []
            with pytest.raises(EngineConnectionError):
                async for item in recording.generate(ask(), gauge(recording)):
                    got.append(item.index)
            assert sorted(got) == [0, 1, 2, 4, 5, 6, 7]


async def test_many_requests_at_once_are_all_recorded(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(engine(), store)
        asked = [ask(n=4, first=4 * part) for part in range(16)]
        got = await asyncio.gather(*(collect(each, recording) for each in asked))
        with Reader(tmp_path) as reader:
            assert len(list(reader.rows("samples"))) == sum(map(len, got)) == 64


async def test_scores_are_recorded_and_charged_by_position(tmp_path: Path) -> None:
    texts = ["step 1: ok\n", "step 1: slip 1\n", "step 1: ok\n"]
    requests = [ScoreRequest(PROMPT, text, values=True) for text in texts]
    expected = await engine().score(requests, gauge(engine()))
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(engine(), store)
        assert await recording.score(requests[1:2], gauge(recording)) == expected[1:2]
        meter = gauge(recording)
        assert await recording.score(requests, meter) == expected
        assert [meter.usage(at) for at in range(3)] == [one.usage for one in expected]
    replay = ReplayEngine.open(tmp_path)
    meter = gauge(replay)
    assert await replay.score(requests, meter) == expected
    assert meter.total == sum((one.usage for one in expected), Usage())
    with pytest.raises(ReplayMissError):
        await replay.score([ScoreRequest(PROMPT, "other")], gauge(replay))
    await replay.aclose()


class _Short(SimulatedEngine):
    """A context of 100 bytes."""

    async def generate(self, request: Request, meter: Meter):  # type: ignore[no-untyped-def]
        if len(request.assistant) > 100:
            raise ContextError("a prompt of too many tokens")
        async for item in super().generate(request, meter):
            yield item

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        if any(len(each.assistant) > 100 for each in requests):
            raise ContextError("a text of too many tokens")
        return await super().score(requests, meter)


async def test_a_recorded_text_beside_one_that_is_too_long_is_charged_once(tmp_path: Path) -> None:
    short, long = ScoreRequest(PROMPT, "step 1: ok\n"), ScoreRequest(PROMPT, "x" * 200)
    bills: list[list[Usage]] = []
    with Store.open(tmp_path) as store:
        for source in (_Short(StepModel()), RecordingEngine(_Short(StepModel()), store)):
            for asked in ([short], [short, long, short]):
                meter = gauge(source)
                found = await score_each(source, asked, meter)
                assert [each is None for each in found] == [each is long for each in asked]
                bills.append([meter.usage(at) for at in range(len(asked))])
    assert bills[:2] == bills[2:]
    replay = ReplayEngine.open(tmp_path)
    meter = gauge(replay)
    assert await score_each(replay, [short, long, short], meter) == found
    assert [meter.usage(at) for at in range(3)] == bills[-1]
    await replay.aclose()


async def test_replay_refuses_a_prompt_that_was_too_long(tmp_path: Path) -> None:
    long = ask(n=2, assistant="x" * 200)
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(_Short(StepModel()), store)
        with pytest.raises(ContextError, match="too many"):
            await collect(long, recording)
        # It is not remembered as an answer: another engine may take it.
        able = RecordingEngine(engine(), store)
        assert able.info.identity == recording.info.identity
        replay = ReplayEngine.open(tmp_path)
        with pytest.raises(ContextError, match="a prompt of too many tokens"):
            await collect(long, replay)
        assert len(await collect(long, able)) == 2
        assert len(await collect(long, replay)) == 2
        await replay.aclose()


async def test_replay_serves_what_is_recorded_and_refuses_what_is_not(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(engine(), store)
        meter = gauge(recording)
        expected = await collect(ask(), recording, meter)
    replay = ReplayEngine.open(tmp_path)
    assert replay.info == recording.info
    again = gauge(replay)
    assert await collect(ask(), replay, again) == expected
    assert spent(again) == spent(meter)
    assert await collect(ask(n=2, first=3), replay) == {i: expected[i] for i in (3, 4)}
    with pytest.raises(ReplayMissError, match="no sample 8-9 "):
        await collect(ask(n=10), replay)
    with pytest.raises(ReplayMissError, match="no sample 0 "):
        await collect(ask(n=1, assistant="step"), replay)
    await replay.aclose()


async def test_recorded_samples_come_as_deltas_where_those_are_asked(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        recording = RecordingEngine(engine(Latency(token_ms=0.5)), store)
        for _ in range(2):
            text: dict[int, str] = {}
            made: dict[int, Completion] = {}
            async for item in recording.generate(ask(n=3, deltas=True), gauge(recording)):
                if isinstance(item, Delta):
                    text[item.index] = text.get(item.index, "") + item.text
                else:
                    made[item.index] = item
            assert text == {index: item.text for index, item in made.items()}
            assert len(made) == 3


class _Searches(SimulatedEngine):
    """Ranks of a search whose 60 tokens are spread over those asked for; counts what it made.

    ``found`` ranks are all there are; a search is stopped for good in front of rank ``stuck``.
    """

    def __init__(self, found: int = 99, stuck: int = 99) -> None:
        super().__init__(StepModel(), parameters=1000, layers=2, width=8)
        self.found, self.stuck = found, stuck
        self.asked: list[Request] = []
        self.made = Usage()
        self.at_rest = asyncio.Event()

    async def generate(self, request: Request, meter: Meter):  # type: ignore[no-untyped-def]
        self.asked.append(request)
        ranks = range(request.first, request.first + request.n)
        meter.charge(request.first, prompt=10)
        for rank in ranks:
            meter.charge(rank, generated=60 // request.n, context=10)
        self.made = self.made + sum(map(meter.usage, ranks), Usage())
        for rank in ranks:
            if rank >= self.stuck:
                self.at_rest.set()
                await asyncio.Event().wait()
            if rank >= self.found:
                raise EngineError(f"there is no rank {rank}")
            # Each search says so: ranks of two are never mixed unseen.
            text = f"rank {rank} of search {len(self.asked)}"
            yield Completion(rank, text, StopReason.END, meter.usage(rank))


SEARCHES = pytest.mark.parametrize("decoding", [TokenBeam(4), ThresholdDFS(0.1)])


@SEARCHES
async def test_what_ranks_cost_does_not_depend_on_what_was_asked_before(
    tmp_path: Path, decoding: TokenBeam | ThresholdDFS
) -> None:
    asked = [ask(n, first, decoding=decoding) for n, first in ((2, 0), (4, 0), (2, 2))]
    for number, order in enumerate(permutations(asked)):
        inner = _Searches()
        with Store.open(tmp_path / str(number)) as store:
            for each in (*order, *order):
                recording, alone = RecordingEngine(inner, store), gauge(inner)
                await collect(each, _Searches(), alone)
                meter = gauge(inner)
                await collect(each, recording, meter)
                assert spent(meter) == spent(alone)
        assert inner.asked == list(order)  # each search is made once, and then served
        replay = ReplayEngine.open(tmp_path / str(number))
        again = gauge(replay)
        await collect(asked[1], replay, again)
        assert again.total.generated == 60
        await replay.aclose()


@SEARCHES
async def test_a_search_is_recorded_whole_or_not_at_all_and_no_token_is_lost(
    tmp_path: Path, decoding: TokenBeam | ThresholdDFS
) -> None:
    wanted = ask(4, decoding=decoding)
    lost: list[Lost] = []
    with Store.open(tmp_path) as store:
        stuck = _Searches(stuck=3)  # killed with three of its ranks found
        work = asyncio.create_task(collect(wanted, RecordingEngine(stuck, store, lost.append)))
        await stuck.at_rest.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert store.samples(request_key(wanted, stuck.info), range(4)) == {}
        assert not any(each.repeated for each in lost)
        assert sum((each.usage for each in lost), Usage()) == stuck.made
        lost.clear()
        whole = _Searches()
        meter = gauge(whole)
        got = await collect(wanted, RecordingEngine(whole, store, lost.append), meter)
        assert meter.total == whole.made
        assert lost == []
        assert store.samples(request_key(wanted, whole.info), range(4)) == got


@SEARCHES
async def test_ranks_are_never_mixed_with_those_of_another_search(
    tmp_path: Path, decoding: TokenBeam | ThresholdDFS
) -> None:
    wanted = ask(4, decoding=decoding)
    lost: list[Lost] = []
    with Store.open(tmp_path) as store:
        inner = _Searches(found=2)
        recording = RecordingEngine(inner, store, lost.append)
        key = request_key(wanted, inner.info)
        failed = gauge(inner)
        with pytest.raises(EngineError, match="no rank 2"):
            await collect(wanted, recording, failed)
        kept = store.samples(key, range(4))
        assert sorted(kept) == [0, 1]  # they are paid for; alone they are never served
        known = sum((each.usage for each in kept.values()), Usage())
        assert sum((each.usage for each in lost), Usage()) + known == failed.total
        lost.clear()
        inner.found = 99
        meter = gauge(inner)
        got = await collect(wanted, recording, meter)
        assert {each.text.split(" of ")[1] for each in got.values()} == {"search 2"}
        assert store.samples(key, range(4)) == got
        assert all(each.repeated for each in lost)
        assert sum((each.usage for each in lost), Usage()) == known
        assert failed.total + meter.total == inner.made
