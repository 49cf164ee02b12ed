"""Reliability test 9: every fault of the wire ends in the right result or the right typed error.

Each fault, plain and streamed, with one sample and with sixteen, within its deadline plus one
second; nothing hangs, nothing is silent, and the key appears in no message.
"""

import asyncio
import traceback
from dataclasses import dataclass, field

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.openai import OpenAIEngine, load_openai
from mull.engines.simulated import (
    SimulatedEngine,
    StepModel,
    read_solution,
    simulated_problem,
)
from mull.engines.simulated.server import FaultServer
from mull.engines.simulated.weather import WireFault
from mull.errors import (
    AuthError,
    ContextError,
    DeadlineError,
    EndpointError,
    EngineConnectionError,
    EngineError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
)
from mull.types import Completion, Message, Prompt, Request, StopReason, Until

KEY = "sk-canary-0123456789"
PROBLEM = simulated_problem("p", 0.9, 2, 100)
DEADLINE = 8.0
F = WireFault

ERRORS: dict[WireFault, type[EngineError]] = {
    F.REFUSE: EngineConnectionError,
    F.SILENCE: DeadlineError,
    F.HEADERS_SILENCE: DeadlineError,
    F.SLOW: DeadlineError,
    F.RST_BEFORE: EngineConnectionError,
    F.RST_MID: EngineConnectionError,
    F.TRUNCATED: ProtocolError,
    F.SSE_CUT: ProtocolError,
    F.NO_FINISH: ProtocolError,
    F.ERROR_BODY: EndpointError,
    F.HTML: ProtocolError,
    F.BAD_UTF8: ProtocolError,
    F.WRONG_LENGTH: EngineConnectionError,
    F.GZIP_BOMB: ProtocolError,
    F.BIG_BODY: ProtocolError,
    F.LIMITED: RateLimitError,
    F.LIMITED_SECONDS: RateLimitError,
    F.LIMITED_DATE: RateLimitError,
    F.LIMITED_ABSURD: RateLimitError,
    F.ERROR_500: EndpointError,
    F.ERROR_502: EndpointError,
    F.ERROR_503: EndpointError,
    F.UNAUTHORISED: AuthError,
    F.NO_MODEL: NotFoundError,
    F.CONTEXT: ContextError,
    F.FINISH_NULL: ProtocolError,
    F.NAN: ProtocolError,
    F.REDIRECT: EndpointError,
}
"""Faults that end in an error; the others end in the right result."""
DEADLINES = {
    **dict.fromkeys((F.SILENCE, F.HEADERS_SILENCE, F.SLOW), 1.2),
    **dict.fromkeys((F.LIMITED, F.LIMITED_SECONDS, F.LIMITED_DATE), 3.0),
}
"""Faults that only a deadline ends have a short one."""
HEAVY = (F.BIG_BODY, F.GZIP_BOMB)
"""Faults whose bytes take time to make: they run alone, so as not to eat another's deadline."""


def expected(fault: WireFault, stream: bool, n: int) -> type[EngineError] | None:
    if fault is F.NO_DONE:
        return ProtocolError if stream else None
    if fault is F.WRONG_LENGTH and stream:
        return None  # [DONE] has been read: what the length promised besides does not matter
    if fault is F.DUPLICATE and stream and n > 1:
        return ProtocolError  # two choices in one cannot be told apart
    return ERRORS.get(fault)


@dataclass
class Ending:
    """How a request ended."""

    fault: WireFault
    seconds: float
    done: list[Completion]
    error: EngineError | None
    engine: OpenAIEngine
    meter: Meter = field(repr=False)


def served() -> FaultServer:
    """Short texts: server and client share one event loop, and the clock is running."""
    return FaultServer(SimulatedEngine(StepModel(tokens=(14, 18))))


class Lag:
    """How long the event loop stood still: a busy machine's time, not the engine's."""

    def __init__(self) -> None:
        self.total = 0.0

    async def __aenter__(self) -> "Lag":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            self.total += max(0.0, loop.time() - before - 0.04)


async def meet(
    server: FaultServer,
    fault: WireFault,
    stream: bool,
    n: int,
    *,
    times: int = 0,
    chat: bool = False,
    **options,
) -> Ending:
    deadline = DEADLINE if times else DEADLINES.get(fault, DEADLINE)
    defaults = {"seeds": False, "deadline_s": deadline, "backoff_s": 0.02, "max_body": 2**24}
    address = server.url(fault, times)
    engine = load_openai(
        address, key_env="CANARY_KEY", dialect="vllm", stream=stream, **{**defaults, **options}
    )
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    loop, done, error = asyncio.get_running_loop(), [], None
    started = loop.time()
    async with Lag() as lag:
        try:
            prompt = Prompt.chat(Message("user", PROBLEM.prompt.text)) if chat else PROBLEM.prompt
            async for item in engine.generate(Request(prompt, Until(3000), n=n), meter):
                done.append(item)
        except EngineError as caught:
            error = caught
    seconds = loop.time() - started
    assert seconds < deadline + 1 + lag.total, (fault, seconds, lag.total)
    await engine.aclose()
    return Ending(fault, seconds, done, error, engine, meter)


def check_right(end: Ending, n: int) -> None:
    """Exactly the samples asked for, each whole, each charged."""
    assert sorted(c.index for c in end.done) == list(range(n)), end.fault
    for completion in end.done:
        if end.fault is F.FILTERED:
            assert (completion.text, completion.stop) == ("", StopReason.FILTERED)
        elif end.fault is F.REASONING:
            assert (completion.text, completion.stop) == ("", StopReason.END)
        else:
            reading = read_solution(completion.text, PROBLEM.meta["steps"])
            assert len(reading.events) == PROBLEM.meta["steps"]
            assert reading.answer is not None
            assert completion.logprobs is not None
        assert completion.usage.generated > 0
        assert completion.usage == end.meter.usage(completion.index)


def check_said(end: Ending, n: int, chat: bool) -> None:
    """What was odd about a right result stands in the stats or in the usage."""
    stats = end.engine.stats
    if end.fault is F.N_IGNORED and n > 1:
        assert stats.n_ignored == 1
    if end.fault is F.N_PLUS_ONE or (end.fault is F.DUPLICATE and n > 1):
        assert stats.extra >= 1
        assert end.meter.ledger.of(Purpose.RETRY).generated > 0
    if end.fault is F.REASONING and chat:
        assert stats.reasoned_only == n
    if end.fault is F.NO_USAGE:
        assert stats.no_usage == 1
        assert all(c.usage.estimated for c in end.done if c.usage.prompt)


def check_secret(end: Ending) -> None:
    said = [repr(end.engine), repr(end.engine.info), repr(end.engine.endpoint)]
    if end.error is not None:
        said.append(str(end.error))
        said += traceback.format_exception(end.error)
        assert "\n" not in str(end.error)
    assert KEY not in "".join(said), end.fault


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("CANARY_KEY", KEY)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
async def test_every_fault_ends_right_or_typed_within_its_deadline(chat, stream, n):
    async with served() as server:
        light = [fault for fault in WireFault if fault not in HEAVY]
        ends = await asyncio.gather(*(meet(server, fault, stream, n, chat=chat) for fault in light))
        ends += [await meet(server, fault, stream, n, chat=chat) for fault in HEAVY]
    assert len(ends) == len(WireFault) >= 34
    for end in ends:
        error = expected(end.fault, stream, n)
        check_secret(end)
        if error is None:
            assert end.error is None, (end.fault, end.error)
            check_right(end, n)
            check_said(end, n, chat)
        else:
            assert type(end.error) is error, (end.fault, end.error)
            assert not end.done


PASSING = (
    F.RST_BEFORE,
    F.RST_MID,
    F.TRUNCATED,
    F.SSE_CUT,
    F.ERROR_BODY,
    F.LIMITED,
    F.LIMITED_SECONDS,
    F.LIMITED_DATE,
    F.ERROR_500,
    F.ERROR_502,
    F.ERROR_503,
)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seeds", [False, True])
async def test_a_fault_that_passes_is_outlived_and_its_retries_are_counted(stream, seeds):
    async with served() as server:
        ends = await asyncio.gather(
            *(meet(server, fault, stream, 16, times=2, seeds=seeds) for fault in PASSING)
        )
    for end in ends:
        assert end.error is None, (end.fault, end.error)
        check_right(end, 16)
        check_secret(end)
        assert end.engine.stats.retries == (32 if seeds else 2)
        assert end.engine.stats.max_retries == 2
        policy = end.meter.ledger.of(Purpose.POLICY)
        assert policy.generated == sum(c.usage.generated for c in end.done)
        if end.fault in (F.LIMITED_SECONDS, F.LIMITED_DATE):
            # Two waits of a second: a date has no fractions, so the second one may be short.
            assert end.seconds >= (2.0 if end.fault is F.LIMITED_SECONDS else 0.5)


async def test_a_silent_attempt_is_given_up_and_tried_again():
    async with served() as server:
        end = await meet(server, F.SILENCE, False, 3, times=1, attempt_s=0.3)
    check_right(end, 3)
    assert 0.3 <= end.seconds < 3
    assert end.engine.stats.errors == {"DeadlineError": 1}


@pytest.mark.parametrize(("fault", "counted"), [(F.SSE_CUT, False), (F.NO_DONE, True)])
async def test_what_a_cut_stream_had_generated_is_charged_as_a_retry(fault, counted):
    """An estimate, unless the stream came as far as its usage."""
    async with served() as server:
        end = await meet(server, fault, True, 1, times=1)
    check_right(end, 1)
    wasted = end.meter.ledger.of(Purpose.RETRY)
    assert wasted.estimated != counted
    assert wasted.generated == end.engine.stats.wasted_tokens > (15 if counted else 0)
    assert wasted.prompt > 0


async def test_deltas_are_not_shown_twice():
    """A stream that broke off after its first deltas is not begun again: the caller saw them."""
    async with served() as server:
        engine = load_openai(server.url(F.SSE_CUT, 1), dialect="vllm", backoff_s=0.02)
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        request = Request(PROBLEM.prompt, Until(3000), deltas=True)
        with pytest.raises(ProtocolError, match="cut"):
            async for _ in engine.generate(request, meter):
                pass
        assert engine.stats.retries == 0
        await engine.aclose()


async def test_a_redirect_is_not_followed():
    """The address of cloud credentials is never contacted: only loopback sockets may open here."""
    async with served() as server:
        end = await meet(server, F.REDIRECT, False, 1)
        assert server.metered.requests == 1
    assert "redirects are not followed" in str(end.error)


async def test_an_endpoint_that_echoes_the_key_does_not_get_it_into_a_message():
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.Response(status=400, text=f"bad header {request.headers['Authorization']}")

    app = web.Application()
    app.router.add_post("/v1/completions", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    engine = load_openai(f"http://127.0.0.1:{port}/v1#m", key_env="CANARY_KEY")
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    with pytest.raises(EndpointError, match=r"Bearer \*\*\*") as caught:
        async for _ in engine.generate(Request(PROBLEM.prompt, Until(9)), meter):
            pass
    assert KEY not in "".join(traceback.format_exception(caught.value))
    await engine.aclose()
    await runner.cleanup()
