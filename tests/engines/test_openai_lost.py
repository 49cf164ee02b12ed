"""What an answer has cost that came to nothing: cancelled, refused in its middle, or unusable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.limit import AdaptiveLimit
from mull.engines.openai.calls import Calls
from mull.engines.openai.endpoint import Endpoint
from mull.engines.openai.engine import OpenAIEngine, information
from mull.engines.openai.transport import Transport
from mull.engines.openai.wire import Ask, Tokens
from mull.errors import EndpointError, ProtocolError
from mull.types import Message, Prompt, Request, Until, Usage

ENDPOINT = Endpoint("http://127.0.0.1:9/v1", "m", dialect="vllm", retries=0)
REQUEST = Request(Prompt.chat(Message("user", "?")), Until(500))
ASK = Ask(REQUEST, "", None, 1, 500, (), None, stream=True)


class Played(Transport):
    """Plays events as a stream, then hangs if it is told to; or gives one plain answer."""

    def __init__(self, *events: dict[str, Any], hangs: bool = False) -> None:
        super().__init__(ENDPOINT, None)
        self.events, self.hangs = events, hangs

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        for event in self.events:
            yield f"data: {json.dumps(event)}\n\n".encode()
        if self.hangs:
            await asyncio.Event().wait()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.events[0]


def pieces(kind: str, count: int, counted: bool) -> list[dict[str, Any]]:
    """Events of a token each, with the usage so far beside them if the endpoint counts along."""
    found: list[dict[str, Any]] = []
    for made in range(1, count + 1):
        event: dict[str, Any] = {"choices": [{"index": 0, "delta": {kind: "hm"}}]}
        if counted:
            event["usage"] = {"prompt_tokens": 9, "completion_tokens": made}
        found.append(event)
    return found


async def lost(transport: Played, seconds: float = 1.0) -> list[tuple[Tokens | int, bool]]:
    """What is told of a request that comes to nothing, or is cancelled after some seconds."""
    told: list[tuple[Tokens | int, bool]] = []
    calls = Calls(ENDPOINT, transport, AdaptiveLimit())
    with pytest.raises((EndpointError, TimeoutError)):
        async with asyncio.timeout(seconds):
            await calls.send(ASK, None, lambda cost, cancelled: told.append((cost, cancelled)))
    return told


@pytest.mark.parametrize("kind", ["content", "reasoning", "reasoning_content"])
async def test_a_cancelled_stream_costs_what_has_come_of_it(kind: str) -> None:
    for counted, cost in ((True, Tokens(9, 0, 20)), (False, 20)):
        transport = Played(*pieces(kind, 20, counted), hangs=True)
        assert await lost(transport, seconds=0.1) == [(cost, True)]


@pytest.mark.parametrize("code", [400, 404, 429, 500])
async def test_an_error_in_the_middle_of_a_stream_costs_what_came_before_it(code: int) -> None:
    error = {"error": {"message": "insufficient_quota", "code": code}}
    for counted, cost in ((True, Tokens(9, 0, 20)), (False, 20)):
        assert await lost(Played(*pieces("content", 20, counted), error)) == [(cost, False)]
    if code < 500:
        assert await lost(Played(error)) == []  # refused before any work


@pytest.mark.parametrize("choices", [0, 1])
@pytest.mark.parametrize("counted", [False, True])
async def test_an_answer_without_a_usable_choice_is_paid_for(choices: int, counted: bool) -> None:
    row = {"index": 7, "message": {"content": "four"}, "finish_reason": "stop"}
    answer: dict[str, Any] = {"choices": [row, row][: 2 * choices]}
    if counted:
        answer["usage"] = {"prompt_tokens": 9, "completion_tokens": 5}
    sizes = {"revision": "", "parameters": 0, "layers": 0, "width": 0, "context": 0, "slots": 4}
    info = information(ENDPOINT, price=(0.0, 0.0, 0.0), **sizes)  # type: ignore[arg-type]
    engine = OpenAIEngine(ENDPOINT, info)
    engine._calls.transport = Played(answer)
    meter = Meter(Ledger(), Purpose.POLICY, info)
    with pytest.raises(ProtocolError, match="without a usable choice"):
        async for _ in engine.generate(REQUEST, meter):
            pass
    spent = meter.ledger.of(Purpose.RETRY)
    assert spent == meter.ledger.total
    if counted:
        assert spent == Usage(prompt=9, generated=5)
    else:
        assert spent.estimated and spent.prompt > 0 and (spent.generated > 0) == (choices > 0)
