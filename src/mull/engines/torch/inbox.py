"""One request's events on its event loop: tokens become text, and the meter is charged."""

from __future__ import annotations

import asyncio

from mull.budget import Meter
from mull.engines.torch.jobs import Closed, Done, Event, Failed, Ids, Made, Part, Prompted
from mull.engines.torch.stop import Watch
from mull.engines.torch.text import Text, TextStream
from mull.types import Completion, Delta, Request, StopReason


class Inbox:
    """One request's events on its loop: charges the meter, turns tokens into text."""

    def __init__(
        self,
        text: Text,
        request: Request,
        ids: Ids,
        meter: Meter,
        watch: Watch | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.text, self.request, self.ids, self.meter = text, request, ids, meter
        self.watch = watch
        self.loop = loop
        self.ended = False
        self.closed: asyncio.Future[None] = loop.create_future()
        self._left = request.n
        self._items: list[Delta | Completion] = []
        self._error: Exception | None = None
        self._wake: asyncio.Future[None] | None = None
        self._streams: dict[int, Stream] = {}

    async def get(self) -> list[Delta | Completion]:
        """What has come since the last call, at least one item."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._wake = self.loop.create_future()
            await self._wake
        items, self._items = self._items, []
        return items

    def deliver(self, events: list[Event]) -> None:
        """Called on the loop's thread with what one step brought."""
        for event in events:
            if isinstance(event, Prompted):
                self.meter.charge(self.request.first, prompt=event.total, cached=event.cached)
            elif isinstance(event, Made):
                self._delta(event)
            elif isinstance(event, Done):
                self._done(event)
                if not self._left:  # a cancellation that comes now has nothing to answer it
                    self._end()
            elif isinstance(event, Closed | Failed):
                self._charge_parts(event.parts)
                if isinstance(event, Failed):
                    self._error = event.error
                self._end()
        if self._wake is not None and not self._wake.done() and (self._items or self._error):
            self._wake.set_result(None)

    def _end(self) -> None:
        self.ended = True
        if not self.closed.done():
            self.closed.set_result(None)

    def _charge_parts(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            self.meter.charge(
                part.index,
                generated=part.made,
                context=len(self.ids),
                texts=part.lines,
                seconds=part.seconds,
            )

    def _done(self, event: Done) -> None:
        self._left -= 1
        self._charge_parts((event.part,))
        nothing = event.stop is StopReason.EXHAUSTED
        ids = event.ids[:-1] if event.stop is StopReason.END else event.ids
        text = self.text.decode(ids, self.ids[-4:])
        if event.stop_string is not None:
            raw = text.encode()
            text = raw[: len(raw) - event.cut].decode("utf-8", "replace")
        stream = self._streams.pop(event.index, None)
        if self.request.deltas:
            sent, given = (stream.sent, stream.given) if stream else (0, 0)
            if len(event.ids) > given:
                logprobs = event.logprobs[given:] if self.request.logprobs else ()
                self._items.append(Delta(event.index, text[sent:], event.ids[given:], logprobs))
        self._items.append(
            Completion(
                event.index,
                text,
                event.stop,
                self.meter.usage(event.index),
                event.ids,
                # The empty sum would be the log-probability of a certainty.
                event.logprobs if self.request.logprobs and not nothing else None,
                event.stop_string,
            )
        )

    def _delta(self, event: Made) -> None:
        stream = self._streams.get(event.index)
        if stream is None:
            stream = self._streams[event.index] = Stream(self.text, self.ids[-4:], self.watch)
        text = stream.push(event.token, event.logprob)
        if text:
            tokens, logprobs = stream.take()
            self._items.append(
                Delta(event.index, text, tokens, logprobs if self.request.logprobs else ())
            )


class Stream:
    """The text of one sample as it grows; what may still become a stop string is held back."""

    def __init__(self, text: Text, before: Ids, watch: Watch | None) -> None:
        self._text, self._before, self._watch = text, before, watch
        self._pieces = text.pieces()
        self._bytes = TextStream()
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self.given = 0
        self.sent = 0
        self._tail = b""

    def push(self, token: int, logprob: float) -> str:
        """Text that has become certain, often empty."""
        self._ids.append(token)
        self._logprobs.append(logprob)
        if self._pieces is None:
            whole = self._text.decode(self._ids, self._before).rstrip("\ufffd")
            keep = self._watch.held(whole.encode()) if self._watch else 0
            sure = whole.encode()[: len(whole.encode()) - keep].decode("utf-8", "ignore")
            out = sure[self.sent :]
        else:
            piece = self._pieces[token]
            reach = self._watch.reach if self._watch else 0
            self._tail = (self._tail + piece)[-reach:] if reach else b""
            keep = self._watch.held(self._tail) if self._watch else 0
            out = self._bytes.push(piece, keep)
        self.sent += len(out)
        return out

    def take(self) -> tuple[Ids, tuple[float, ...]]:
        """Tokens and log-probabilities since the last delta."""
        start, self.given = self.given, len(self._ids)
        return tuple(self._ids[start:]), tuple(self._logprobs[start:])
