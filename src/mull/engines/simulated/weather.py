"""What goes wrong on a wire: the faults that the fault server plays, and a seeded mix of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mull.rng import derive


class WireFault(StrEnum):
    """One way in which an endpoint breaks. Closed; each is a path of the fault server."""

    REFUSE = "refuse"
    """Nobody listens."""
    SILENCE = "silence"
    """The connection is accepted; nothing follows."""
    HEADERS_SILENCE = "headers-silence"
    """Status and headers; nothing follows."""
    SLOW = "one-byte-a-second"
    RST_BEFORE = "rst-before-body"
    """Headers, then a reset."""
    RST_MID = "rst-mid-body"
    """Half of the body, then a reset."""
    TRUNCATED = "truncated-json"
    """A whole HTTP answer with half of its JSON (in a stream: an event cut in two)."""
    SSE_CUT = "sse-cut"
    """The stream ends half way, properly closed."""
    NO_FINISH = "no-finish-reason"
    NO_DONE = "no-done"
    """The stream has everything but its last line."""
    ERROR_BODY = "error-body"
    """Status 200, and an error object."""
    HTML = "html"
    """Status 200, and a page for people."""
    BAD_UTF8 = "bad-utf8"
    WRONG_LENGTH = "wrong-content-length"
    """Content-Length promises more than there is."""
    GZIP_BOMB = "gzip-bomb"
    """64 MiB of blanks in 64 KiB."""
    BIG_BODY = "big-body"
    """50 MB of text."""
    LIMITED = "429"
    """No Retry-After."""
    LIMITED_SECONDS = "429-seconds"
    """Retry-After: 1."""
    LIMITED_DATE = "429-date"
    """Retry-After: a date one second from now."""
    LIMITED_ABSURD = "429-absurd"
    """Retry-After: 1000000000."""
    ERROR_500 = "500"
    ERROR_502 = "502"
    ERROR_503 = "503"
    UNAUTHORISED = "401"
    NO_MODEL = "404"
    CONTEXT = "400-context"
    N_IGNORED = "n-ignored"
    """One choice, whatever n."""
    N_PLUS_ONE = "n-plus-one"
    """One choice too many."""
    DUPLICATE = "duplicate-indices"
    """Choices k and k+1 share an index."""
    SHUFFLED = "shuffled-indices"
    """Choices in reverse order, each with its right index."""
    REASONING = "reasoning-only"
    """Empty content behind reasoning."""
    FINISH_NULL = "finish-null"
    FILTERED = "content-filter"
    NO_USAGE = "no-usage"
    NAN = "logprobs-nan"
    REDIRECT = "redirect"
    """To the address where clouds keep credentials."""


@dataclass(frozen=True)
class Weather:
    """Faults with probabilities; the same attempt at the same request always meets the same one.

    >>> fair = Weather({})
    >>> fair.of("body", 0) is None
    True
    """

    rates: Mapping[WireFault, float] = field(
        default_factory=lambda: {
            WireFault.LIMITED: 0.10,
            WireFault.ERROR_500: 0.03,
            WireFault.ERROR_503: 0.02,
            WireFault.SILENCE: 0.02,
            WireFault.RST_MID: 0.01,
        }
    )
    seed: int = 0

    def __post_init__(self) -> None:
        rates = self.rates.values()
        if not all(rate >= 0 for rate in rates) or sum(rates) > 1 + 1e-9:
            raise ValueError(f"weather rates must be probabilities with a sum <= 1: {self.rates}")

    def of(self, request: str, attempt: int) -> WireFault | None:
        """The fault of attempt 0, 1, … at a request."""
        drawn = random.Random(derive(self.seed, "weather", request, attempt)).random()
        for fault, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return fault
        return None
