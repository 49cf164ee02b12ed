"""Server-sent events, strictly: bytes in, data payloads out, and a cut stream is an error."""

from __future__ import annotations

from collections.abc import Iterator

from mull.errors import ProtocolError

DONE = "[DONE]"
MAX_EVENT = 8 * 2**20
"""Bytes of one event, at most."""


class EventReader:
    """Collects chunks of a stream; ``feed`` yields the data of every event that is complete.

    >>> reader = EventReader()
    >>> list(reader.feed(b'data: {"a"'))
    []
    >>> list(reader.feed(b": 1}\\n\\n: a comment\\n\\ndata: [DONE]\\n\\n"))
    ['{"a": 1}', '[DONE]']
    >>> reader.done
    True
    """

    def __init__(self) -> None:
        self.done = False
        self._buffer = b""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Data of the events that this chunk completes, up to and including ``[DONE]``."""
        self._buffer += chunk
        if len(self._buffer) > MAX_EVENT:
            raise ProtocolError(f"a line of the event stream is longer than {MAX_EVENT} bytes")
        *lines, self._buffer = self._buffer.replace(b"\r\n", b"\n").split(b"\n")
        for raw in lines:
            if self.done:
                return
            try:
                line = raw.rstrip(b"\r").decode("utf-8")
            except UnicodeDecodeError:
                raise ProtocolError("the event stream is not UTF-8") from None
            yield from self._line(line)

    def _line(self, line: str) -> Iterator[str]:
        if not line:
            if self._data:
                data, self._data = "\n".join(self._data), []
                self.done = data == DONE
                yield data
        elif line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
            if self._data == [DONE]:
                # Some servers close the connection right behind the last line.
                self._data, self.done = [], True
                yield DONE
        elif not line.startswith((":", "event:", "id:", "retry:")):
            raise ProtocolError(f"not a line of an event stream: {line[:80]!r}")
