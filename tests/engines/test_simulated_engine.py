"""Laws of the simulated engine: content knows no time, slots are kept, charges are exact."""

import asyncio
import heapq
import random
from dataclasses import replace

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.engines.simulated import (
    Echo,
    Fault,
    Faults,
    Latency,
    Script,
    SimulatedEngine,
    StepModel,
    levels,
    load_simulated,
    run_virtual,
)
from mull.errors import (
    ContextError,
    EngineError,
    RateLimitError,
    SpecError,
    UnsupportedError,
)
from mull.types import (
    Completion,
    Delta,
    Message,
    Prompt,
    Request,
    Sampling,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
)

HELLO = Prompt.of("hello")


def meter_of(engine: SimulatedEngine) -> Meter:
    return Meter(Ledger(), Purpose.POLICY, engine.info)


async def collect(engine: SimulatedEngine, request: Request, meter: Meter | None = None) -> list:
    return [item async for item in engine.generate(request, meter or meter_of(engine))]


def ask(engine: SimulatedEngine, request: Request, meter: Meter | None = None) -> list:
    return run_virtual(collect(engine, request, meter))


def test_it_is_an_engine():
    assert isinstance(SimulatedEngine(Echo()), Engine)


def test_the_same_request_says_the_same_at_every_slot_count_latency_and_split():
    problems = list(levels(5))
    until = Until(max_tokens=2000)

    def said(slots: int, latency: Latency, split: bool) -> dict:
        engine = SimulatedEngine(StepModel(), slots=slots, latency=latency)

        async def main() -> dict:
            requests = [Request(p.prompt, until, n=8, seed=i) for i, p in enumerate(problems)]
            if split:
                requests = [replace(r, n=1, first=i) for r in requests for i in range(8)]
                random.Random(slots).shuffle(requests)
            lists = await asyncio.gather(*(collect(engine, r) for r in requests))
            return {
                (r.seed, c.index): (c.text, c.token_ids, c.logprobs, c.stop)
                for r, cs in zip(requests, lists, strict=True)
                for c in cs
            }

        return run_virtual(main())

    reference = said(64, Latency(), False)
    assert len(reference) == 40
    assert len({value[0] for value in reference.values()}) > 30
    for slots in (1, 8, 64):
        assert said(slots, Latency(token_ms=5, prefill_ms=1), False) == reference
        assert said(slots, Latency(token_ms=5), True) == reference


def test_usage_is_what_was_charged_and_what_was_generated():
    engine = SimulatedEngine(
        Echo("answer 1", tokens=(20, 60)),
        latency=Latency(token_ms=5),
        parameters=7,
        layers=2,
        width=3,
    )
    meter = meter_of(engine)
    done = ask(engine, Request(HELLO, Until(100), n=16, seed=3), meter)
    assert sorted(c.index for c in done) == list(range(16))
    assert all(20 <= c.usage.generated <= 60 for c in done)
    assert all(c.usage.generated == len(c.token_ids) == len(c.logprobs) for c in done)
    total = meter.ledger.total
    assert total.generated == sum(c.usage.generated for c in done) == engine.stats.generated
    assert total.prompt == len("hello")
    assert total.seconds == pytest.approx(total.generated * 0.005)
    assert total.flops == pytest.approx(sum(c.usage.flops for c in done))


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_slots_schedule_as_a_first_in_first_out_list_does(slots):
    engine = SimulatedEngine(Echo(tokens=(20, 60)), latency=Latency(token_ms=5), slots=slots)

    async def main() -> tuple[float, list]:
        requests = [Request(HELLO, Until(100), n=8, seed=s) for s in range(16)]
        lists = await asyncio.gather(*(collect(engine, r) for r in requests))
        return asyncio.get_running_loop().time(), [
            next(c for c in cs if c.index == i).usage.generated for cs in lists for i in range(8)
        ]

    wall, lengths = run_virtual(main())
    free = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(free, free[0] + length * 0.005)
    assert wall == pytest.approx(max(free))
    assert engine.stats.max_in_flight == min(slots, 128)
    assert engine.stats.busy == pytest.approx(sum(lengths) * 0.005)
    assert engine.stats.occupancy == pytest.approx(sum(lengths) * 0.005 / (slots * wall))
    assert engine.stats.in_flight == engine.stats.waiting == 0


def test_a_lower_priority_number_is_served_first():
    engine = SimulatedEngine(Echo("x" * 9), latency=Latency(token_ms=100), slots=1)

    async def main() -> list[int]:
        order: list[int] = []

        async def one(priority: int) -> None:
            await collect(engine, Request(HELLO, Until(10), priority=priority))
            order.append(priority)

        await asyncio.gather(*(one(p) for p in (0, 5, 3, 1)))
        return order

    assert run_virtual(main()) == [0, 1, 3, 5]


def test_closing_the_iterator_frees_the_slots_and_charges_what_was_made():
    engine = SimulatedEngine(Echo("x" * 99), latency=Latency(token_ms=10), slots=2)
    meter = meter_of(engine)

    async def main() -> None:
        stream = engine.generate(Request(HELLO, Until(1000), n=4), meter)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.255)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        assert engine.stats.in_flight == engine.stats.waiting == 0
        assert [meter.usage(i).generated for i in range(4)] == [25, 25, 0, 0]
        assert meter.usage(0).seconds == pytest.approx(0.255)
        await asyncio.sleep(10)
        assert meter.total.generated == engine.stats.generated == 50
        assert engine.stats.cancelled == 4
        assert len(await collect(engine, Request(HELLO, Until(1000)))) == 1

    run_virtual(main())


def test_closing_after_some_completions_keeps_them():
    engine = SimulatedEngine(Echo(tokens=(20, 60)), latency=Latency(token_ms=10))

    async def main() -> None:
        meter = meter_of(engine)
        stream = engine.generate(Request(HELLO, Until(100), n=8, seed=1), meter)
        first = await anext(stream)
        await stream.aclose()
        assert meter.usage(first.index) == first.usage
        assert all(meter.usage(i).generated <= first.usage.generated for i in range(8))
        assert meter.total.generated == engine.stats.generated

    run_virtual(main())


@pytest.mark.parametrize("latency", [Latency(), Latency(token_ms=2)])
@pytest.mark.parametrize("text", ["step 1: ok\nanswer 9", "naïve – 日本 🙂 end", ""])
def test_deltas_join_to_the_completion(latency, text):
    engine = SimulatedEngine(Script([text]), latency=replace(latency, delta_tokens=3))
    items = ask(engine, Request(HELLO, Until(100, stop=(" end",)), deltas=True))
    deltas = [item for item in items if isinstance(item, Delta)]
    (done,) = [item for item in items if isinstance(item, Completion)]
    assert items[-1] is done
    assert "".join(d.text for d in deltas) == done.text == text.removesuffix(" end")
    assert sum((d.token_ids for d in deltas), ()) == done.token_ids
    assert sum((d.logprobs for d in deltas), ()) == done.logprobs


@pytest.mark.parametrize(
    ("until", "text", "stop", "tokens"),
    [
        (Until(100), "one\ntwo\nthree", StopReason.END, 14),
        (Until(100, steps=1), "one\n", StopReason.STEP, 4),
        (Until(100, steps=2), "one\ntwo\n", StopReason.STEP, 8),
        (Until(100, steps=9), "one\ntwo\nthree", StopReason.END, 14),
        (Until(100, stop=("wo",)), "one\nt", StopReason.STOP, 7),
        (Until(100, stop=("three", "o\nth")), "one\ntw", StopReason.STOP, 10),
        (Until(100, steps=1, stop=("\n",)), "one", StopReason.STOP, 4),
        (Until(5), "one\nt", StopReason.LENGTH, 5),
        (Until(13), "one\ntwo\nthree", StopReason.LENGTH, 13),
        (Until(100, tokens=5), "one\nt", StopReason.TOKENS, 5),
        (Until(5, tokens=5), "one\nt", StopReason.TOKENS, 5),
        (Until(4, steps=1), "one\n", StopReason.STEP, 4),
        (Until(3, steps=1), "one", StopReason.LENGTH, 3),
    ],
)
def test_every_end_of_a_generation(until, text, stop, tokens):
    engine = SimulatedEngine(Script(["one\ntwo\nthree"]))
    (done,) = ask(engine, Request(HELLO, until))
    assert (done.text, done.stop, done.usage.generated) == (text, stop, tokens)
    assert len(done.token_ids) == len(done.logprobs) == tokens


def test_the_context_is_a_limit_of_its_own():
    engine = SimulatedEngine(Script(["one two three"]), context=12)
    (done,) = ask(engine, Request(HELLO, Until(100)))
    assert (done.text, done.stop) == ("one two", StopReason.CONTEXT)
    with pytest.raises(ContextError, match="12"):
        ask(engine, Request(Prompt.of("x" * 12), Until(100)))


def test_a_turn_that_is_continued_costs_no_new_prompt():
    engine = SimulatedEngine(Script(["ab cd"]))
    meter = meter_of(engine)
    (done,) = ask(engine, Request(HELLO, Until(9), assistant="ab "), meter)
    assert done.text == "cd"
    assert (done.usage.prompt, done.usage.cached) == (8, 8)
    plain = SimulatedEngine(Script(["ab cd"]), prefix_cache=False)
    (done,) = ask(plain, Request(HELLO, Until(9), assistant="ab "))
    assert (done.usage.prompt, done.usage.cached) == (8, 0)


def test_all_three_forms_of_a_prompt_are_read():
    engine = SimulatedEngine(Script({"hello": ["yes"]}))
    forms = (HELLO, Prompt.chat(Message("user", "hello")), Prompt(token_ids=tuple(b"hello")))
    assert [ask(engine, Request(form, Until(9)))[0].text for form in forms] == ["yes"] * 3


def test_what_it_cannot_honour_is_refused():
    engine = SimulatedEngine(Echo())
    for bad in (
        Request(HELLO, Until(9), decoding=TokenBeam(2)),
        Request(HELLO, Until(9), decoding=ThresholdDFS(0.1)),
        Request(HELLO, Until(9), weights="a"),
        Request(Prompt(token_ids=(300,)), Until(9)),
    ):
        with pytest.raises(UnsupportedError):
            ask(SimulatedEngine(Script(["x"])), bad)
    with pytest.raises(EngineError, match="no list of texts"):
        ask(SimulatedEngine(Script({"other": ["x"]})), Request(HELLO, Until(9)))
    with pytest.raises(EngineError, match="continues"):
        ask(SimulatedEngine(Script(["x"])), Request(HELLO, Until(9), assistant="y"))
    with pytest.raises(SpecError, match="simulated:steps"):
        load_simulated("simulated:nope")
    run_virtual(engine.aclose())
    with pytest.raises(EngineError, match="closed"):
        ask(engine, Request(HELLO, Until(9)))


@pytest.mark.parametrize("latency", [Latency(), Latency(token_ms=5)])
def test_a_failed_sample_raises_after_the_others_came_back(latency):
    faults = Faults(chosen={2: Fault.RATE, 5: Fault.CONNECTION})
    engine = SimulatedEngine(Echo(tokens=(20, 60)), latency=latency, faults=faults)

    async def main() -> None:
        meter, done = meter_of(engine), []
        with pytest.raises(RateLimitError, match="sample 2"):
            async for completion in engine.generate(Request(HELLO, Until(100), n=8), meter):
                done.append(completion.index)
        assert sorted(done) == [0, 1, 3, 4, 6, 7]
        assert meter.usage(2).generated >= 10
        assert meter.total.generated == engine.stats.generated

    run_virtual(main())


@pytest.mark.parametrize("latency", [Latency(), Latency(token_ms=5)])
def test_every_fault_of_a_sample_does_what_it_says(latency):
    kinds = (Fault.EMPTY, Fault.TRUNCATED, Fault.FILTERED, Fault.MISSING, Fault.SLOW)
    faults = Faults(chosen=dict(enumerate(kinds)))
    engine = SimulatedEngine(Script(["12345678"]), latency=latency, faults=faults)
    done = {c.index: (c.text, c.stop) for c in ask(engine, Request(HELLO, Until(100), n=6))}
    assert done == {
        0: ("", StopReason.END),
        1: ("1234", StopReason.LENGTH),
        2: ("", StopReason.FILTERED),
        4: ("12345678", StopReason.END),
        5: ("12345678", StopReason.END),
    }


def test_faults_by_rate_hit_the_same_samples_in_every_order_and_at_their_rate():
    faults = Faults(rates={Fault.EMPTY: 0.1, Fault.SLOW: 0.2})
    hits = [faults.of(seed, index) for seed in range(100) for index in range(40)]
    again = [faults.of(seed, index) for index in range(40) for seed in range(100)]
    assert sorted(map(str, hits)) == sorted(map(str, again))
    assert abs(hits.count(Fault.EMPTY) / 4000 - 0.1) < 0.02
    assert abs(hits.count(Fault.SLOW) / 4000 - 0.2) < 0.03
    with pytest.raises(ValueError, match="sum"):
        Faults(rates={Fault.EMPTY: 0.7, Fault.SLOW: 0.7})


def test_identity_changes_with_content_and_faults_and_not_with_slots():
    base = SimulatedEngine(Echo()).info.identity
    assert SimulatedEngine(Echo(), slots=3).info.identity == base
    assert SimulatedEngine(Echo("b")).info.identity != base
    faulty = SimulatedEngine(Echo(), faults=Faults(chosen={1: Fault.EMPTY}))
    assert faulty.info.identity != base


def test_greedy_says_the_same_in_every_sample():
    (problem,) = levels(1)
    engine = SimulatedEngine(StepModel())
    done = ask(engine, Request(problem.prompt, Until(900), n=8, decoding=Sampling(temperature=0)))
    assert len({c.text for c in done}) == 1
    assert done[0].text.endswith(f"answer {problem.answer}")
