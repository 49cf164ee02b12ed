"""The fault server: an OpenAI-compatible endpoint on loopback that breaks in every known way.

It serves a simulated engine under ``/v1``; under ``/<fault>/v1`` every answer breaks that way,
under ``/<fault>/<times>/v1`` only the first so many attempts at a request do, and under
``/weather/v1`` faults come at random rates, the same for the same attempt at the same request. The
server meters the tokens that it produced, cancelled ones included, so that a client's account can
be checked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from mull.budget import Ledger, Meter, Purpose
from mull.engines.simulated.breaking import (
    STATUS,
    break_payload,
    broken_body,
    refusal,
    serve_events,
)
from mull.engines.simulated.engine import SimulatedEngine
from mull.engines.simulated.protocol import answer_of, events_of, piece_event, read_request
from mull.engines.simulated.weather import Weather, WireFault
from mull.errors import EngineError
from mull.types import Completion, Request

if TYPE_CHECKING:
    from aiohttp import web

_FOREVER = 3600.0


@dataclass(slots=True)
class Metered:
    """What the server produced and saw. ``in_flight`` requests are being answered now."""

    requests: int = 0
    faults: Counter[str] | None = None
    prompt: int = 0
    generated: int = 0
    in_flight: int = 0
    max_in_flight: int = 0


class FaultServer:
    """Serves a simulated engine on 127.0.0.1, at a port of its own choosing.

    ``vllm`` adds ``stop_reason`` to every choice; ``capacity`` refuses with 429 what is more than
    so many requests at once; ``key`` is asked of every request if given.

    >>> import asyncio
    >>> from mull.engines.simulated import Echo
    >>> async def address():
    ...     async with FaultServer(SimulatedEngine(Echo())) as server:
    ...         return server.url()
    >>> asyncio.run(address())[:17]
    'http://127.0.0.1:'
    """

    def __init__(
        self,
        engine: SimulatedEngine,
        *,
        model: str = "sim",
        vllm: bool = True,
        weather: Weather | None = None,
        capacity: int = 0,
        key: str = "",
    ) -> None:
        self.engine = engine
        self.model = model
        self.vllm = vllm
        self.weather = weather or Weather()
        self.capacity = capacity
        self.key = key
        self.metered = Metered(faults=Counter())
        self._attempts: Counter[str] = Counter()
        self._ledger = Ledger()
        self._runner: web.AppRunner | None = None
        self._port = 0

    def url(self, fault: str = "", times: int = 0) -> str:
        """``http://127.0.0.1:port/<fault>/<times>/v1#model``; for ``refuse`` a dead port."""
        if fault == WireFault.REFUSE:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                return f"http://127.0.0.1:{probe.getsockname()[1]}/v1#{self.model}"
        path = f"/{fault}" if fault else ""
        path += f"/{times}" if times else ""
        return f"http://127.0.0.1:{self._port}{path}/v1#{self.model}"

    async def __aenter__(self) -> Self:
        from aiohttp import web

        app = web.Application(client_max_size=64 * 2**20)
        for prefix in ("", "/{fault}", "/{fault}/{times}"):
            app.router.add_get(f"{prefix}/v1/models", self._models)
            app.router.add_post(f"{prefix}/v1/chat/completions", self._complete)
            app.router.add_post(f"{prefix}/v1/completions", self._complete)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        from aiohttp import web

        row = {"id": self.model, "object": "model", "max_model_len": self.engine.info.context}
        return web.json_response({"object": "list", "data": [row]})

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        from aiohttp import web

        metered = self.metered
        metered.requests += 1
        metered.in_flight += 1
        metered.max_in_flight = max(metered.max_in_flight, metered.in_flight)
        try:
            if self.key and http.headers.get("Authorization") != f"Bearer {self.key}":
                return refusal(WireFault.UNAUTHORISED)
            if self.capacity and metered.in_flight > self.capacity:
                return refusal(WireFault.LIMITED)
            raw = await http.read()
            try:
                body = json.loads(raw)
                chat = http.path.endswith("/chat/completions")
                request = read_request(body, chat)
            except (ValueError, KeyError, TypeError) as problem:
                error = {"message": f"bad request: {problem}", "code": 400}
                return web.json_response({"error": error}, status=400)
            if body.get("model") != self.model:
                return refusal(WireFault.NO_MODEL)
            return await self._answer(http, request, body, chat, self._fault(http, raw))
        finally:
            metered.in_flight -= 1
            metered.generated = self.engine.stats.generated
            metered.prompt = self._ledger.total.prompt

    def _fault(self, http: web.Request, raw: bytes) -> WireFault | None:
        name = http.match_info.get("fault", "")
        known = hashlib.blake2b(name.encode() + raw, digest_size=12).hexdigest()
        attempt = self._attempts[known]
        self._attempts[known] += 1
        if not name:
            return None
        if name == "weather":
            fault = self.weather.of(known, attempt)
        else:
            times = int(http.match_info.get("times", 0))
            fault = WireFault(name) if not times or attempt < times else None
        if fault is not None and self.metered.faults is not None:
            self.metered.faults[fault] += 1
        return fault

    async def _answer(
        self,
        http: web.Request,
        request: Request,
        body: dict[str, Any],
        chat: bool,
        fault: WireFault | None,
    ) -> web.StreamResponse:
        from aiohttp import web

        if fault in STATUS:
            return refusal(fault)
        if fault is WireFault.SILENCE:
            await asyncio.sleep(_FOREVER)
        if body.get("stream") and fault is None:
            return await self._stream(http, request, body, chat)
        done = [c async for c in self._generate(request) if isinstance(c, Completion)]
        payload = answer_of(request, done, self.model, chat, self.vllm)
        payload = break_payload(payload, fault)
        if body.get("stream"):
            usage = bool(body.get("stream_options", {}).get("include_usage"))
            return await self._play(
                http, serve_events(events_of(payload, chat, usage), fault), fault, True
            )
        if fault is None:
            return web.json_response(payload)
        return await self._play(http, broken_body(payload, fault), fault, False)

    async def _generate(self, request: Request, meter: Meter | None = None) -> Any:
        meter = meter or Meter(self._ledger, Purpose.POLICY, self.engine.info)
        async with aclosing(self.engine.generate(request, meter)) as items:
            async for item in items:
                yield item

    async def _stream(
        self, http: web.Request, request: Request, body: dict[str, Any], chat: bool
    ) -> web.StreamResponse:
        """A stream that is sent as it is made, each piece with the usage so far if it is wanted."""
        from aiohttp import web

        options = body.get("stream_options", {})
        meter = Meter(self._ledger, Purpose.POLICY, self.engine.info)
        gauge = meter if self.vllm and options.get("continuous_usage_stats") else None

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        done: list[Completion] = []
        try:
            async with aclosing(self._generate(request, meter)) as items:
                async for item in items:
                    if isinstance(item, Completion):
                        done.append(item)
                    event = piece_event(item, request, self.model, chat, self.vllm, gauge)
                    await response.write(event)
        except EngineError as error:
            broken = {"error": {"message": str(error), "code": 500}}
            await response.write(f"data: {json.dumps(broken)}\n\n".encode())
            return response
        if options.get("include_usage"):
            payload = answer_of(request, done, self.model, chat, self.vllm)
            last = {**payload, "choices": []}
            await response.write(f"data: {json.dumps(last)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _play(
        self, http: web.Request, body: bytes, fault: WireFault | None, stream: bool
    ) -> web.StreamResponse:
        """Send a body the way the fault says."""
        from aiohttp import web

        kind = "text/event-stream" if stream else "application/json"
        headers = {"Content-Type": "text/html" if fault is WireFault.HTML else kind}
        if fault is WireFault.GZIP_BOMB:
            headers["Content-Encoding"] = "gzip"
        response = web.StreamResponse(headers=headers)
        long = 1000 if fault is WireFault.WRONG_LENGTH else 0
        response.content_length = len(body) + long
        await response.prepare(http)
        if fault is WireFault.HEADERS_SILENCE:
            await asyncio.sleep(_FOREVER)
        if fault is WireFault.SLOW:
            for byte in body:
                await response.write(bytes([byte]))
                await asyncio.sleep(1.0)
        with suppress(ConnectionError):
            half = {WireFault.RST_BEFORE: 0, WireFault.RST_MID: len(body) // 2}.get(
                fault or WireFault.REFUSE, len(body)
            )
            await response.write(body[:half])
            if half < len(body):
                await asyncio.sleep(0.01)
                _reset(http)
            elif long and http.transport is not None:
                http.transport.close()
            else:
                await response.write_eof()
        return response


def _reset(http: web.Request) -> None:
    """Close the connection with a RST instead of a FIN."""
    transport = http.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
