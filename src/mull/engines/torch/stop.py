"""Where a text ends: stop strings and step separators across token borders, matched on bytes.

UTF-8 is self-synchronising, so a byte match is a text match. Nothing is kept between tokens but
the place of the last separator: most tokens cannot complete a pattern, a table says which, and
only those are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mull.engines.torch.text import Text, Tokens

WATCHES_KEPT = 256
"""Sets of patterns whose tables are kept, those asked for last."""


@dataclass(frozen=True, slots=True)
class Place:
    """Progress of one text: separators met, and where the last one ended.

    ``token`` is the index of the token it ended in and ``rest`` the bytes of that token behind it;
    bytes of a separator never count twice.
    """

    steps: int = 0
    token: int = -1
    rest: int = 0


START = Place()


@dataclass(frozen=True, slots=True)
class Look:
    """What the newest token brought: a stop string with the bytes to cut off, or a new place."""

    place: Place
    stop: str | None = None
    cut: int = 0


class Watch:
    """Patterns that may end a text: ``stops`` cut it, ``separator`` counts steps."""

    def __init__(self, text: Text, stops: Sequence[str], separator: str | None) -> None:
        self.text = text
        self.stops = [(stop, stop.encode()) for stop in dict.fromkeys(stops)]
        self.separator = separator.encode() if separator else None
        patterns = [raw for _, raw in self.stops] + ([self.separator] if self.separator else [])
        self.reach = max((len(raw) for raw in patterns), default=1) - 1
        self._pieces = text.pieces()
        self.table = self._table(patterns)

    def _table(self, patterns: list[bytes]) -> NDArray[np.bool_]:
        """[vocab] whether a token can be the one that completes a pattern."""
        if self._pieces is None:
            return np.ones(self.text.vocab, dtype=np.bool_)
        ends = tuple({raw[start:] for raw in patterns for start in range(len(raw))})
        return np.fromiter(
            (
                piece.startswith(ends) or any(raw in piece for raw in patterns)
                for piece in self._pieces
            ),
            dtype=np.bool_,
            count=len(self._pieces),
        )

    def look(self, ids: Tokens, place: Place, before: Sequence[int] = ()) -> Look:
        """Judge the newest of ``ids``, the tokens of one text so far.

        The stop string that is complete first wins; of those complete at the same byte, the
        longest. A stop string wins over a separator in the same token.
        """
        tail, piece = self._window(ids, place, before)
        window, known = tail + piece, len(tail)
        best: tuple[int, int, str] | None = None
        for stop, raw in self.stops:
            start = window.find(raw, max(0, known - len(raw) + 1))
            if start >= 0:
                best = min(best or (len(window) + 1, 0, ""), (start + len(raw), start, stop))
        if best is not None:
            return Look(place, best[2], len(window) - best[1])
        return Look(self._count(ids, window, known, place))

    def _count(self, ids: Tokens, window: bytes, known: int, place: Place) -> Place:
        raw = self.separator
        if raw is None:
            return place
        fresh = self._fresh(ids, place, known)
        at = window.find(raw, max(fresh, known - len(raw) + 1))
        steps, rest = place.steps, -1
        while at >= 0:
            steps, rest = steps + 1, len(window) - at - len(raw)
            at = window.find(raw, at + len(raw))
        return place if rest < 0 else Place(steps, len(ids) - 1, rest)

    def _fresh(self, ids: Tokens, place: Place, known: int) -> int:
        """First byte of the tail that lies behind the last separator."""
        if place.token < 0:
            return 0
        if self._pieces is None:
            return known - place.rest if place.token == len(ids) - 2 else 0
        behind = place.rest
        for token in ids[place.token + 1 : len(ids) - 1]:
            behind += len(self._pieces[int(token)])
            if behind >= known:
                break
        return max(0, known - behind)

    def _window(self, ids: Tokens, place: Place, before: Sequence[int]) -> tuple[bytes, bytes]:
        """(the bytes before the newest token that a pattern may reach into, its own bytes)."""
        if self._pieces is None:
            old = self.text.decode(ids[:-1], before).rstrip("\ufffd").encode()
            new = self.text.decode(ids, before).rstrip("\ufffd").encode()
            return (old, new[len(old) :]) if new.startswith(old) else (b"", new)
        piece, tail = self._pieces[int(ids[-1])], b""
        for token in reversed(ids[:-1]):
            if len(tail) >= self.reach:
                break
            tail = self._pieces[int(token)] + tail
        return tail[len(tail) - self.reach :] if len(tail) > self.reach else tail, piece

    def step_ends(self, ids: Sequence[int], before: Sequence[int] = ()) -> list[int]:
        """Indices of the tokens that end a step: those completing a separator, and the last one
        if text follows the last separator.
        """
        place, ends = Place(), []
        for count in range(1, len(ids) + 1):
            if self.table[ids[count - 1]]:
                after = self.look(ids[:count], place, before).place
                if after.steps > place.steps:
                    ends.append(count - 1)
                place = after
        if ids and (not ends or ends[-1] != len(ids) - 1):
            ends.append(len(ids) - 1)
        return ends

    def held(self, data: bytes) -> int:
        """Bytes at the end of ``data`` that may be the beginning of a stop string."""
        for size in range(min(self.reach, len(data)), 0, -1):
            if any(len(raw) > size and raw.startswith(data[-size:]) for _, raw in self.stops):
                return size
        return 0
