"""Laws of the openai engine against a sound endpoint: what is asked is what comes back."""

import asyncio
from dataclasses import replace

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.engines.openai import load_openai
from mull.engines.simulated import Latency, Script, SimulatedEngine, StepModel, levels
from mull.engines.simulated.server import FaultServer
from mull.errors import ContextError, EngineError, SpecError, UnsupportedError
from mull.rng import derive
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
CHAT = Prompt.chat(Message("user", "hello"))
TEXT = "one\ntwo\nnaïve – 日本 🙂\nthree"


async def collect(engine, request, meter=None):
    meter = meter or Meter(Ledger(), Purpose.POLICY, engine.info)
    return [item async for item in engine.generate(request, meter)]


async def served(script, request, *, server=None, meter=None, **options):
    """What an engine yields for a request to a server that says the script."""
    inner = script if isinstance(script, SimulatedEngine) else SimulatedEngine(Script(script))
    async with FaultServer(inner, **(server or {})) as there:
        engine = load_openai(there.url(), **{"dialect": "vllm", "deadline_s": 4.0, **options})
        try:
            return await collect(engine, request, meter)
        finally:
            await engine.aclose()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
async def test_samples_are_those_of_their_own_derived_seeds(stream, chat):
    problem = next(levels(1))
    prompt = problem.prompt
    if chat:
        prompt = Prompt.chat(Message("system", "Be brief."), Message("user", prompt.text))
    request = Request(prompt, Until(3000), n=5, first=3, seed=11)
    there = SimulatedEngine(StepModel())
    done = await served(there, request, stream=stream)
    assert sorted(c.index for c in done) == [3, 4, 5, 6, 7]
    for completion in done:
        alone = replace(request, n=1, first=0, seed=derive(11, completion.index, 0) % 2**31)
        (local,) = await collect(SimulatedEngine(StepModel()), alone)
        assert completion.text == local.text
        assert completion.logprobs == pytest.approx(local.logprobs)
        assert completion.usage.generated == local.usage.generated
        assert completion.usage.prompt == local.usage.prompt
        assert not completion.usage.estimated


async def test_a_split_request_says_the_same():
    request = Request(next(levels(1)).prompt, Until(3000), n=6, seed=5)
    whole = await served(SimulatedEngine(StepModel()), request)
    parts = []
    for first, n in ((4, 2), (0, 4)):
        part = replace(request, first=first, n=n)
        parts += await served(SimulatedEngine(StepModel()), part)
    said = {c.index: c.text for c in whole}
    assert {c.index: c.text for c in parts} == said
    assert len(set(said.values())) == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_without_seeds_one_request_gives_all_samples(stream):
    request = Request(HELLO, Until(100), n=7)
    async with FaultServer(SimulatedEngine(Script(list("abcdefg")))) as there:
        engine = load_openai(there.url(), seeds=False, stream=stream, max_n=4)
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        done = await collect(engine, request, meter)
        assert sorted(c.index for c in done) == list(range(7))
        assert there.metered.requests == engine.stats.requests == 2
        assert meter.total.generated == there.metered.generated == 14
        assert meter.total.prompt == there.metered.prompt == 10
        await engine.aclose()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("until", "text", "stop", "string"),
    [
        (Until(100), TEXT, StopReason.END, None),
        (Until(100, stop=("two",)), "one\n", StopReason.STOP, "two"),
        (Until(100, steps=1), "one\n", StopReason.STEP, None),
        (Until(100, steps=3), "one\ntwo\nnaïve – 日本 🙂\n", StopReason.STEP, None),
        (Until(100, steps=9), TEXT, StopReason.END, None),
        (Until(100, steps=2, stop=("wo",)), "one\nt", StopReason.STOP, "wo"),
        (Until(100, steps=1, stop=("\n",)), "one", StopReason.STOP, "\n"),
        (Until(6), "one\ntw", StopReason.LENGTH, None),
        (Until(100, tokens=6), "one\ntw", StopReason.TOKENS, None),
        (Until(6, steps=5), "one\ntw", StopReason.LENGTH, None),
    ],
)
async def test_every_end_of_a_generation(until, text, stop, string, stream):
    # By chat, so that the script sees what the turn holds already when a further step is asked for.
    (done,) = await served([TEXT], Request(CHAT, until), stream=stream)
    assert (done.text, done.stop, done.stop_string) == (text, stop, string)
    assert done.usage.generated >= len(done.text.encode())


async def test_an_endpoint_that_does_not_tell_its_stops():
    plain = {"dialect": "openai", "server": {"vllm": False}}
    (step,) = await served([TEXT], Request(HELLO, Until(100, steps=1)), **plain)
    assert (step.text, step.stop) == ("one\n", StopReason.STEP)
    (end,) = await served([""], Request(HELLO, Until(100, steps=1)), **plain)
    assert (end.text, end.stop) == ("", StopReason.END)
    with pytest.raises(UnsupportedError, match="dialect='vllm'"):
        await served([TEXT], Request(HELLO, Until(100, steps=1, stop=("x",))), **plain)


async def test_a_full_context_is_told_from_a_length():
    inner = SimulatedEngine(Script([TEXT]), context=12)
    (done,) = await served(inner, Request(HELLO, Until(100)))
    assert (done.text, done.stop) == ("one\ntwo", StopReason.CONTEXT)
    with pytest.raises(EngineError):
        inner = SimulatedEngine(Script([TEXT]), context=4)
        await served(inner, Request(HELLO, Until(100)), retries=0)


@pytest.mark.parametrize("until", [Until(100, stop=("ree",)), Until(100, steps=3), Until(9)])
async def test_deltas_join_to_the_completion(until):
    request = Request(CHAT, until, n=3, deltas=True)
    inner = SimulatedEngine(Script([TEXT]), latency=Latency(delta_tokens=2))
    items = await served(inner, request)
    done = {item.index: item for item in items if isinstance(item, Completion)}
    assert sorted(done) == [0, 1, 2]
    for index, completion in done.items():
        deltas = [d for d in items if isinstance(d, Delta) and d.index == index]
        assert "".join(d.text for d in deltas) == completion.text
        assert sum((d.logprobs for d in deltas), ()) == pytest.approx(completion.logprobs)


async def test_a_turn_that_was_begun_is_continued():
    for prompt, options in (
        (HELLO, {"dialect": "openai"}),
        (CHAT, {"dialect": "vllm"}),
        (CHAT, {"dialect": "openai", "continuation": "prefix"}),
    ):
        script = {"hello": [TEXT], "helloone\n": [TEXT.removeprefix("one\n")]}
        (done,) = await served(script, Request(prompt, Until(100), assistant="one\n"), **options)
        assert done.text == TEXT.removeprefix("one\n"), options
    with pytest.raises(UnsupportedError, match="continuation"):
        await served([TEXT], Request(CHAT, Until(100), assistant="one\n"), dialect="openai")


async def test_sampling_is_sent_and_what_the_dialect_lacks_is_refused():
    problem = next(levels(1))
    cold = Request(problem.prompt, Until(3000), n=3, decoding=Sampling(temperature=0.0))
    texts = {c.text for c in await served(SimulatedEngine(StepModel()), cold)}
    assert len(texts) == 1
    top = replace(cold, decoding=Sampling(top_k=1))
    assert {c.text for c in await served(SimulatedEngine(StepModel()), top)} == texts
    for decoding in (Sampling(top_k=1), Sampling(min_p=0.1), TokenBeam(2), ThresholdDFS(0.1)):
        with pytest.raises(UnsupportedError):
            await served(["x"], replace(cold, decoding=decoding), dialect="openai")


async def test_what_it_cannot_honour_is_refused():
    two = Prompt.chat(Message("system", "a"), Message("user", "b"))
    with pytest.raises(UnsupportedError, match="chat"):
        await served(["x"], Request(two, Until(9)), api="completions")
    with pytest.raises(UnsupportedError):
        await served(["x"], Request(Prompt(token_ids=(1,)), Until(9)))
    with pytest.raises(UnsupportedError):
        await served(["x"], Request(HELLO, Until(9), weights="a"))
    engine = load_openai("http://127.0.0.1:1/v1#m")
    assert isinstance(engine, Engine)
    with pytest.raises(UnsupportedError, match="score"):
        await engine.score([], Meter(Ledger(), Purpose.VERIFIER, engine.info))
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await collect(engine, Request(HELLO, Until(9)))


async def test_a_text_prompt_goes_to_chat_where_that_is_all_there_is():
    (done,) = await served({"hello": ["hi"]}, Request(HELLO, Until(9)), api="chat")
    assert done.text == "hi"


@pytest.mark.parametrize("deltas", [False, True])
async def test_closing_the_iterator_stops_the_endpoint_and_charges_what_is_known(deltas):
    """With deltas the endpoint counts along, as vLLM does; a plain answer is estimated."""
    inner = SimulatedEngine(Script(["x" * 500]), latency=Latency(token_ms=2, delta_tokens=5))
    async with FaultServer(inner) as there:
        engine = load_openai(there.url(), dialect="vllm")
        warm = Meter(Ledger(), Purpose.POLICY, engine.info)
        await collect(engine, Request(HELLO, Until(100)), warm)
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        before = there.metered.generated
        stream = engine.generate(Request(HELLO, Until(1000), n=4, deltas=deltas), meter)
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
        charged = meter.total
        for _ in range(100):
            if there.metered.in_flight == 0:
                break
            await asyncio.sleep(0.01)
        assert there.metered.in_flight == 0
        made = there.metered.generated - before
        assert charged.estimated == (not deltas)
        assert 0 < made < 4 * 500
        assert abs(charged.generated - made) <= (4 * 10 if deltas else 0.5 * made)
        await asyncio.sleep(0.05)
        assert there.metered.generated - before == made
        assert engine.limit.in_flight == 0
        await engine.aclose()


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
async def test_a_cancelled_stream_costs_what_the_endpoint_counted_last(dialect):
    """Two samples in one request; an endpoint that does not count along leaves an estimate."""
    inner = SimulatedEngine(Script(["é" * 250]), latency=Latency(token_ms=2, delta_tokens=8))
    async with FaultServer(inner, vllm=dialect == "vllm") as there:
        engine = load_openai(there.url(), dialect=dialect, seeds=False)
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        stream = engine.generate(Request(HELLO, Until(1000), n=2, deltas=True), meter)
        seen = {0: 0, 1: 0}
        async for item in stream:
            assert isinstance(item, Delta)
            seen[item.index] += len(item.text.encode())
            if min(seen.values()) >= 40:
                break
        await stream.aclose()
        charged = meter.total
        assert charged.estimated == (dialect == "openai")
        if dialect == "vllm":
            assert charged.prompt == len("hello")
            assert 0 <= charged.generated - sum(seen.values()) <= 2 * 8 * 2
        await engine.aclose()


async def test_probing_finds_the_context_and_a_model_that_is_not_served():
    async with FaultServer(SimulatedEngine(Script(["x"]), context=77)) as there:
        engine = load_openai(there.url())
        assert (await engine.probe()).context == 77
        await engine.aclose()
        other = load_openai(there.url().replace("#sim", "#other"))
        with pytest.raises(SpecError, match="it serves: sim"):
            await other.probe()
        await other.aclose()


def test_one_engine_serves_several_event_loops_and_leaves_no_session_behind():
    engine = load_openai("http://127.0.0.1:1/v1#m")
    for _ in range(2):

        async def main() -> str:
            async with FaultServer(SimulatedEngine(Script(["hi"]))) as there:
                again = replace(engine.endpoint, url=there.url().partition("#")[0], model="sim")
                engine._calls.endpoint = engine._transport._endpoint = again
                engine.endpoint = again
                return (await collect(engine, Request(HELLO, Until(9))))[0].text

        assert asyncio.run(main()) == "hi"


async def test_logprobs_are_left_out_where_nobody_wants_them():
    (done,) = await served(["abc"], Request(HELLO, Until(9), logprobs=False))
    assert done.logprobs is None
    (done,) = await served(["abc"], Request(HELLO, Until(9)), logprobs=False)
    assert done.logprobs is None


async def test_the_first_error_that_all_samples_share_ends_the_request():
    inner = SimulatedEngine(Script(["x"]))
    async with FaultServer(inner) as there:
        engine = load_openai(there.url("400-context"), dialect="vllm")
        with pytest.raises(ContextError):
            await collect(engine, Request(HELLO, Until(9), n=50))
        assert engine.limit.in_flight == 0
        await engine.aclose()
