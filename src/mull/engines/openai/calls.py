"""One request to its good end: attempts under one deadline, backoff, what was wasted counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from mull.engines.limit import AdaptiveLimit
from mull.engines.openai.endpoint import Endpoint
from mull.engines.openai.stream import Assembly
from mull.engines.openai.transport import Attempt, Transport
from mull.engines.openai.wire import Ask, Choice, Tokens, body_of, read_answer
from mull.errors import DeadlineError, EngineError

MAX_BACKOFF = 30.0
OnPiece = Callable[[int, str, tuple[float, ...], tuple[int, ...]], None]
OnLost = Callable[[Tokens | int, bool], None]


@dataclass(slots=True)
class Stats:
    """What an endpoint did that a caller should know of; ``notes`` says it in words.

    ``n_ignored`` answers with fewer choices than asked for, ``extra`` choices dropped (beyond
    ``n``, or with an index seen before), ``reasoned_only`` answers without content behind
    reasoning, ``stop_ignored`` texts that had to be cut at a stop string here, ``no_usage``
    answers whose tokens are estimated, ``max_retries`` the most that one request needed.
    """

    requests: int = 0
    retries: int = 0
    max_retries: int = 0
    refused: int = 0
    n_ignored: int = 0
    extra: int = 0
    reasoned_only: int = 0
    stop_ignored: int = 0
    no_usage: int = 0
    wasted_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def notes(self) -> tuple[str, ...]:
        """A line for each thing that was counted at all.

        >>> Stats(requests=9, no_usage=9).notes()
        ('answers without usage, whose tokens are estimates: 9',)
        """
        failed = ", ".join(f"{name} {count}" for name, count in sorted(self.errors.items()))
        counts = {
            "answers with fewer choices than asked for, topped up one by one": self.n_ignored,
            "choices that were not asked for, dropped and charged as retries": self.extra,
            "answers of reasoning alone (is max_tokens too small?)": self.reasoned_only,
            "texts that went on behind a stop string, cut here": self.stop_ignored,
            "answers without usage, whose tokens are estimates": self.no_usage,
            f"attempts that failed ({failed})": sum(self.errors.values()),
            f"attempts made again, at most {self.max_retries} a request": self.retries,
            "tokens of attempts that came to nothing": self.wasted_tokens,
        }
        return tuple(f"{what}: {count}" for what, count in counts.items() if count)


@dataclass(slots=True)
class _Progress:
    """How far the current attempt has come, for the account of what is lost with it."""

    started: float
    stream: Assembly | None = None
    emitted: bool = False

    @property
    def worked(self) -> bool:
        """Whether tokens have come, or were counted."""
        return self.stream is not None and bool(self.stream.generated or self.stream.counted)


class Calls:
    """Sends requests to one endpoint, as many at once as it takes."""

    def __init__(self, endpoint: Endpoint, transport: Transport, limit: AdaptiveLimit) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.limit = limit
        self.stats = Stats()
        self._jitter = random.Random()
        self._rate = 0.0

    async def send(
        self, ask: Ask, on_piece: OnPiece | None, on_lost: OnLost
    ) -> tuple[list[Choice], Tokens | None]:
        """Choices and usage of a request, tried until it succeeds or may not be tried again.

        The deadline starts with the first permit: waiting for others is not the request's fault,
        and each of those has a deadline of its own. ``on_lost(tokens, cancelled)`` is told what
        a failed or cancelled attempt has cost as far as the endpoint counted along, else how many
        tokens it has probably generated.
        """
        path, body = body_of(ask, self.endpoint)
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        failed: Attempt | None = None
        failures = tries = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    permit = await self.limit.acquire(ask.request.priority, again=tries > 0)
            except TimeoutError:
                if failed is None:
                    raise
                raise self._too_late(failed, 0.0, 0.0) from None
            deadline = deadline or permit.started + self.endpoint.deadline_s
            progress = _Progress(loop.time())
            self.stats.requests += 1
            try:
                answer = await self._attempt(path, body, ask, on_piece, progress, deadline)
                permit.succeeded = True
                self._learn_rate(answer[1], loop.time() - progress.started)
                return answer
            except asyncio.CancelledError:
                on_lost(self._lost(ask, progress), True)
                raise
            except Attempt as attempt:
                late = isinstance(attempt.error, DeadlineError) and not attempt.again
                if late and failed is not None:
                    # What went wrong before says more than that there was no time left for more.
                    attempt.error = self._too_late(failed, 0.0, 0.0)
                failed = attempt
                permit.refused = failed.refused and not late
            finally:
                self.limit.release(permit)
            self._count(failed)
            if failed.worked or progress.worked:
                on_lost(self._lost(ask, progress), False)
            tries += 1
            failures += not failed.refused
            if not failed.again or progress.emitted or failures > self.endpoint.retries:
                raise failed.error
            await self._wait(failed, tries, deadline)

    async def _wait(self, failed: Attempt, tries: int, deadline: float) -> None:
        """Wait before the next attempt, as long as asked; raise where the deadline forbids it."""
        wait = self._backoff(tries)
        if failed.after is not None:
            wait = max(failed.after, 0.1 * wait)
        left = deadline - asyncio.get_running_loop().time()
        if wait >= left:
            raise self._too_late(failed, wait, left)
        self.stats.retries += 1
        self.stats.max_retries = max(self.stats.max_retries, tries)
        await asyncio.sleep(wait)

    async def _attempt(
        self,
        path: str,
        body: dict[str, object],
        ask: Ask,
        on_piece: OnPiece | None,
        progress: _Progress,
        deadline: float,
    ) -> tuple[list[Choice], Tokens | None]:
        """One attempt; every failure comes out as an ``Attempt``."""
        own = self.endpoint.attempt_s
        until = deadline if own is None else min(deadline, progress.started + own)
        try:
            async with asyncio.timeout_at(until):
                if ask.stream:
                    return await self._streamed(path, body, on_piece, progress)
                payload = await self.transport.post(path, body)
                if isinstance(payload, dict) and payload.get("error") is not None:
                    raise self.transport.in_band(payload["error"])
                return read_answer(payload)
        except TimeoutError:
            seconds = self.endpoint.deadline_s
            error = DeadlineError(f"no answer from {self.endpoint.url} within {seconds:g} s")
            raise Attempt(error, again=until < deadline) from None
        except EngineError as error:
            raise Attempt(error, again=False) from None

    async def _streamed(
        self, path: str, body: dict[str, object], on_piece: OnPiece | None, progress: _Progress
    ) -> tuple[list[Choice], Tokens | None]:
        assembly = progress.stream = Assembly(self.transport)
        async with aclosing(self.transport.stream(path, body)) as chunks:
            async for chunk in chunks:
                for index, text, logprobs, ids in assembly.feed(chunk):
                    if on_piece is not None:
                        progress.emitted = True
                        on_piece(index, text, logprobs, ids)
                if assembly.done:
                    break
            # Read on to the end of the body, so that the connection can be used again; the
            # answer is whole already, and what goes wrong now does not matter.
            with suppress(Attempt, TimeoutError):
                async with asyncio.timeout(0.1):
                    async for _ in chunks:
                        pass
        return assembly.finish(), assembly.usage

    def _count(self, failed: Attempt) -> None:
        self.stats.refused += failed.refused
        name = type(failed.error).__name__
        self.stats.errors[name] = self.stats.errors.get(name, 0) + 1

    def _backoff(self, tries: int) -> float:
        """Exponential with jitter, so that refused requests do not come back together."""
        ceiling = min(MAX_BACKOFF, self.endpoint.backoff_s * 2.0 ** (tries - 1))
        return ceiling * (0.5 + 0.5 * self._jitter.random())

    def _too_late(self, failed: Attempt, wait: float, left: float) -> EngineError:
        """No time is left to try again: the last error says more than a bare timeout."""
        asked = f"; it asks to wait {wait:.4g} s" if failed.after is not None else ""
        late = f" (deadline of {self.endpoint.deadline_s:g} s: {max(left, 0):.2g} s left{asked})"
        kind = type(failed.error)
        return kind(f"{failed.error}{late}")

    def _learn_rate(self, tokens: Tokens | None, seconds: float) -> None:
        """Tokens a second of plain answers: what an unanswered request is judged by."""
        if tokens is not None and seconds > 0:
            rate = tokens.generated / seconds
            self._rate = rate if not self._rate else 0.9 * self._rate + 0.1 * rate

    def _lost(self, ask: Ask, progress: _Progress) -> Tokens | int:
        """What an attempt that did not end has cost: counted, or how much it probably generated."""
        stream = progress.stream
        if stream is not None and stream.counted is not None:
            self.stats.wasted_tokens += stream.counted.generated
            return stream.counted
        if ask.stream:
            tokens = 0 if stream is None else stream.generated
        else:
            elapsed = asyncio.get_running_loop().time() - progress.started
            tokens = int(elapsed * self._rate)
        tokens = min(tokens, ask.n * ask.tokens)
        self.stats.wasted_tokens += tokens
        return tokens
