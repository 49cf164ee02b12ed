"""A streamed answer, put together: complete only with every finish reason and ``[DONE]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mull.engines.openai.sse import DONE, EventReader
from mull.engines.openai.transport import Attempt, Transport
from mull.engines.openai.wire import (
    Choice,
    Tokens,
    finish_of,
    ids_of,
    index_of,
    logprobs_of,
    make_choice,
    read_usage,
    whole,
)
from mull.errors import ProtocolError


class _Part:
    """One choice while it grows."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.logprobs: list[float] = []
        self.ids: list[int] = []
        self.scored = False
        self.finish: str | None = None
        self.row: Mapping[str, Any] = {}
        self.reasoned = False


class Assembly:
    """Feed it chunks; it yields text as it comes, and has the choices when it is done.

    ``generated`` counts tokens as they come (a piece without log-probabilities or ids counts as
    one): the best that is known when a stream breaks off, unless the endpoint counts along
    (``counted``), which it does for each choice apart.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._reader = EventReader()
        self._parts: dict[int, _Part] = {}
        self._whole: Tokens | None = None
        self._counts: dict[int, Tokens] = {}
        self.generated = 0

    @property
    def done(self) -> bool:
        """Whether ``[DONE]`` was read."""
        return self._reader.done

    @property
    def usage(self) -> Tokens | None:
        """What a whole answer cost: the endpoint's last word on it."""
        return self._whole or self.counted

    @property
    def counted(self) -> Tokens | None:
        """What the endpoint has counted so far, of all choices that have come."""
        if self._whole is not None or not self._counts:
            return self._whole
        first, *others = self._counts.values()
        return replace(first, generated=first.generated + sum(each.generated for each in others))

    def _count(self, usage: Tokens | None, choices: list[Any]) -> None:
        """Usage without a choice is of the whole answer; beside one it is of that choice so far."""
        if usage is not None and len(choices) == 1 and isinstance(choices[0], dict):
            self._counts[index_of(choices[0])] = usage
        elif usage is not None:
            self._whole = usage

    def feed(self, chunk: bytes) -> Iterator[tuple[int, str, tuple[float, ...], tuple[int, ...]]]:
        """(choice index, text, log-probabilities, token ids) of every piece in a chunk."""
        for data in self._reader.feed(chunk):
            if data == DONE:
                return
            payload = self._transport.parse(data.encode("utf-8", "replace"))
            if not isinstance(payload, dict):
                raise ProtocolError("an event of the stream is no JSON object")
            if payload.get("error") is not None:
                raise self._transport.in_band(payload["error"])
            choices = payload.get("choices", [])
            if not isinstance(choices, list):
                raise ProtocolError("an event of the stream has no list of choices")
            self._count(read_usage(payload), choices)
            for row in choices:
                yield from self._choice(row)

    def finish(self) -> list[Choice]:
        """The choices, by first piece; ``Attempt`` where something is missing."""
        if not self._reader.done:
            raise Attempt(ProtocolError("the stream was cut: it ended without [DONE]"), again=True)
        out = []
        for index, part in self._parts.items():
            if part.finish is None:
                raise Attempt(
                    ProtocolError(f"the stream ended and choice {index} has no finish_reason"),
                    again=False,
                )
            scores = tuple(part.logprobs) if part.scored else None
            ids = tuple(part.ids) or None
            text = "".join(part.text)
            out.append(make_choice(index, text, part.finish, part.row, scores, ids, part.reasoned))
        return out

    def _choice(self, row: Any) -> Iterator[tuple[int, str, tuple[float, ...], tuple[int, ...]]]:
        if not isinstance(row, dict):
            raise ProtocolError("a choice of the stream is no JSON object")
        index = index_of(row)
        part = self._parts.setdefault(index, _Part())
        delta = row.get("delta")
        piece = delta.get("content") if isinstance(delta, dict) else row.get("text")
        if piece is not None and not isinstance(piece, str):
            raise ProtocolError("a piece of the stream is no text")
        if isinstance(delta, dict) and (delta.get("reasoning") or delta.get("reasoning_content")):
            part.reasoned = True
            self.generated += 1
        if part.finish is not None and (piece or row.get("finish_reason") is not None):
            raise ProtocolError(f"choice {index} goes on after its finish_reason")
        scores = logprobs_of(row.get("logprobs"))
        ids = ids_of(row.get("token_ids")) or ()
        if scores is not None:
            part.scored = True
            part.logprobs.extend(scores)
        part.ids.extend(ids)
        if row.get("finish_reason") is not None:
            part.finish = finish_of(row["finish_reason"])
            part.row = {key: row[key] for key in ("stop_reason",) if key in row}
        if piece:
            part.text.append(piece)
        if piece or scores or ids:
            self.generated += max(1, len(scores or ()), len(ids))
        if piece or scores or ids:
            yield index, whole(piece or ""), scores or (), ids
