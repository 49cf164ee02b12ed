"""One attempt over HTTP: bytes out, capped bytes in, every failure a typed error without secrets.

Redirects are off (a redirect of an engine call leads nowhere good), proxies of the environment are
not used, cookies are not kept, and answers are unpacked here so that a small body cannot become a
large one.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mull.engines.openai.endpoint import Endpoint, Secret
from mull.errors import (
    AuthError,
    ContextError,
    EndpointError,
    EngineConnectionError,
    EngineError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
)

if TYPE_CHECKING:
    import aiohttp

_CONTEXT = re.compile(
    r"context[_ ](length|window)|maximum context|max_model_len|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
ERROR_BODY = 64 * 1024
"""Bytes of an error body that are read."""


class Attempt(Exception):
    """How an attempt failed: the error for the caller, and whether to try again."""

    def __init__(
        self,
        error: EngineError,
        *,
        again: bool,
        after: float | None = None,
        worked: bool = True,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.again = again
        self.after = after
        """Seconds that the endpoint asked us to wait."""
        self.worked = worked
        """Whether the endpoint may have generated tokens for it."""

    @property
    def refused(self) -> bool:
        """Whether the endpoint refused by rate."""
        return isinstance(self.error, RateLimitError)


class Transport:
    """Connections to one endpoint; one pooled session an event loop, made when first used."""

    def __init__(self, endpoint: Endpoint, key: Secret | None) -> None:
        self._endpoint = endpoint
        self._key = key or Secret("")
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: AsyncGenerator[None, None] | None = None

    async def get(self, path: str) -> Any:
        """The JSON of a GET, for probing."""
        async with self._answer("GET", path, None) as response:
            return self.parse(await self._read(response))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of a plain answer with status 200; raises ``Attempt``."""
        async with self._answer("POST", path, body) as response:
            return self.parse(await self._read(response))

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """Chunks of an event stream with status 200; raises ``Attempt``."""
        async with self._answer("POST", path, body) as response:
            kind = response.content_type
            if kind != "text/event-stream":
                start = (await self._read(response))[:200]
                raise Attempt(
                    ProtocolError(f"asked for an event stream, got {kind}: {self.show(start)}"),
                    again=False,
                )
            async for chunk in self._chunks(response, self._endpoint.max_body):
                yield chunk

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        keeper, self._keeper, self._session = self._keeper, None, None
        if keeper is not None and self._loop is asyncio.get_running_loop():
            await keeper.aclose()

    def parse(self, raw: bytes) -> Any:
        """Strict JSON: UTF-8, no NaN, no infinity; ``Attempt`` otherwise."""
        try:
            return parse_json(raw.decode("utf-8"))
        except UnicodeDecodeError:
            problem, again = "is not UTF-8", False
        except RecursionError:
            problem, again = "is nested too deeply", False
        except ValueError as error:
            # JSON that just ends was cut on its way and may come whole the next time.
            cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc) - 16
            cut = cut or "Unterminated string" in str(error)
            # A page of HTML was none from its first character on, however short it is.
            cut = cut and raw.lstrip()[:1] in (b"", b"{", b"[")
            problem, again = ("ends early" if cut else f"is no JSON ({error})"), cut
        raise Attempt(
            ProtocolError(f"the endpoint's answer {problem}: {self.show(raw[:200])}"), again=again
        )

    def show(self, raw: bytes | str) -> str:
        """A piece of what the endpoint sent, for an error message: short, printable, redacted."""
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        return repr(self._key.redact(text)[:300])

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        session = await self._open()
        data = None if body is None else json.dumps(body, ensure_ascii=True).encode()
        headers = {"Accept-Encoding": "gzip, deflate"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._key.reveal():
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        try:
            async with session.request(
                method,
                self._endpoint.url + path,
                data=data,
                headers=headers,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    await self._refuse(response)
                yield response
        except (aiohttp.ClientConnectorError, ConnectionRefusedError) as error:
            # `from None` throughout: aiohttp's errors carry the headers, and so the key.
            raise Attempt(self._broken("no connection", error), again=True, worked=False) from None
        except aiohttp.ClientPayloadError as error:
            raise Attempt(self._broken("the answer broke off", error), again=True) from None
        except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError) as error:
            problem = f"not an HTTP answer ({type(error).__name__})"
            raise Attempt(
                ProtocolError(f"{problem} from {self._endpoint.url}"), again=False
            ) from None
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            raise Attempt(self._broken("connection lost", error), again=True) from None

    def _broken(self, what: str, error: Exception) -> EngineConnectionError:
        return EngineConnectionError(f"{what} ({type(error).__name__}): {self._endpoint.url}")

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Raise the ``Attempt`` for a status that is not 200."""
        status = response.status
        raw = b""
        if not 300 <= status < 400:
            async for chunk in self._chunks(response, None):
                raw += chunk
                if len(raw) > ERROR_BODY:
                    break
        raise self.refusal(
            status, raw, response.headers.get("Retry-After"), response.headers.get("Date")
        )

    def refusal(
        self, status: int, raw: bytes, retry_after: str | None = None, date: str | None = None
    ) -> Attempt:
        """The error for an HTTP status (or for the code of an error in a stream)."""
        text = raw.decode("utf-8", "replace")
        said = f"HTTP {status} from {self._endpoint.url}: {self.show(raw)}"
        if status in (401, 403):
            return Attempt(AuthError(f"{said}; check the key"), again=False, worked=False)
        if status == 404:
            hint = "check the model's name and the address"
            return Attempt(NotFoundError(f"{said}; {hint}"), again=False, worked=False)
        if 300 <= status < 400:
            moved = f"HTTP {status} from {self._endpoint.url}: redirects are not followed"
            error = EndpointError(f"{moved}; give the endpoint's final address")
            return Attempt(error, again=False, worked=False)
        if status == 429:
            spent = "insufficient_quota" in text
            after = wait_asked(retry_after, date)
            return Attempt(RateLimitError(said), again=not spent, after=after, worked=False)
        if status in (400, 413, 422) and _CONTEXT.search(text):
            return Attempt(ContextError(said), again=False, worked=False)
        if status in _TRANSIENT:
            after = wait_asked(retry_after, date)
            return Attempt(EndpointError(said), again=True, after=after, worked=status >= 500)
        return Attempt(EndpointError(said), again=False, worked=False)

    def in_band(self, error: Any) -> Attempt:
        """The error for an error object behind status 200: its code decides, as a status would."""
        code = error.get("code") if isinstance(error, dict) else None
        status = code if type(code) is int and 400 <= code < 600 else 500
        return self.refusal(status, json.dumps(error, default=str)[:2000].encode())

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts = [chunk async for chunk in self._chunks(response, self._endpoint.max_body)]
        return b"".join(parts)

    async def _chunks(
        self, response: aiohttp.ClientResponse, cap: int | None
    ) -> AsyncIterator[bytes]:
        """Unpacked chunks of a body; more than ``cap`` bytes in all are an error."""
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Attempt(ProtocolError(f"unknown content encoding {coding[:40]!r}"), again=False)
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if coding not in ("identity", "") else None
        size = 0
        async for chunk in response.content.iter_any():
            rest = chunk
            while rest:
                if unpack is None:
                    data, rest = rest, b""
                else:
                    try:
                        data = unpack.decompress(rest, 2**18)
                    except zlib.error:
                        raise Attempt(
                            ProtocolError("the answer's compression is broken"), again=False
                        ) from None
                    rest = unpack.unconsumed_tail
                size += len(data)
                if cap is not None and size > cap:
                    raise Attempt(
                        ProtocolError(f"the answer is larger than {cap} bytes (endpoint.max_body)"),
                        again=False,
                    )
                if data:
                    yield data

    async def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop or self._session.closed:
            self._session = session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
            self._loop = loop
            self._keeper = _keep(session)
            await anext(self._keeper)
        return self._session


async def _keep(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Closes the session when the loop shuts its generators down, if nobody closed it before."""
    try:
        yield
    finally:
        await session.close()


def parse_json(text: str) -> Any:
    """JSON as the standard has it: ``ValueError`` for NaN and infinities."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    return json.loads(text, parse_constant=refuse)


def wait_asked(retry_after: str | None, date: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; ``None`` where it cannot be read.

    A date is measured from the answer's own Date, so that no two clocks are compared.

    >>> wait_asked("7", None)
    7.0
    >>> wait_asked("Wed, 21 Oct 2015 07:28:05 GMT", "Wed, 21 Oct 2015 07:28:00 GMT")
    5.0
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if re.fullmatch(r"\d{1,20}(\.\d{1,9})?", text):
        return float(text)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(date or "")
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return None
