"""Things that go wrong inside the simulator: chosen samples fail, stall, fall silent or are cut.

These are for tests in process. What goes wrong on a wire is the fault server's business
(``mull.engines.simulated.server``).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mull.errors import (
    DeadlineError,
    EndpointError,
    EngineConnectionError,
    EngineError,
    ProtocolError,
    RateLimitError,
)
from mull.rng import derive


class Fault(StrEnum):
    """What happens to a sample. Closed."""

    CONNECTION = "connection"
    """Fails half way with ``EngineConnectionError``."""
    DEADLINE = "deadline"
    """Fails half way with ``DeadlineError``."""
    ENDPOINT = "endpoint"
    """Fails half way with ``EndpointError``."""
    PROTOCOL = "protocol"
    """Fails half way with ``ProtocolError``."""
    RATE = "rate"
    """Fails half way with ``RateLimitError``."""
    TRUNCATED = "truncated"
    """Ends half way with stop reason ``length``."""
    FILTERED = "filtered"
    """Comes back empty with stop reason ``filtered``; its tokens are charged."""
    EMPTY = "empty"
    """Says nothing and ends."""
    SLOW = "slow"
    """Takes ``Faults.slowdown`` times as long."""
    MISSING = "missing"
    """Never comes back although the request ends well: the engine ignored part of ``n``."""


ERRORS: Mapping[Fault, type[EngineError]] = MappingProxyType(
    {
        Fault.CONNECTION: EngineConnectionError,
        Fault.DEADLINE: DeadlineError,
        Fault.ENDPOINT: EndpointError,
        Fault.PROTOCOL: ProtocolError,
        Fault.RATE: RateLimitError,
    }
)


@dataclass(frozen=True)
class Faults:
    """Which samples go wrong: by sample index, or at random by rate.

    ``chosen`` maps sample indices to faults; ``rates`` maps faults to probabilities (their sum at
    most 1), drawn from the sample's own seed, so that the same samples fail in every order and
    at every concurrency.

    >>> Faults(chosen={3: Fault.EMPTY}).of(seed=0, index=3)
    <Fault.EMPTY: 'empty'>
    """

    chosen: Mapping[int, Fault] = field(default_factory=dict)
    rates: Mapping[Fault, float] = field(default_factory=dict)
    slowdown: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        rates = self.rates.values()
        if not all(rate >= 0 for rate in rates) or sum(rates) > 1 + 1e-9:
            raise ValueError(f"fault rates must be probabilities with a sum <= 1, not {self.rates}")
        if not self.slowdown >= 1:
            raise ValueError(f"faults.slowdown must be at least 1, not {self.slowdown}")

    def of(self, seed: int, index: int) -> Fault | None:
        """The fault of sample ``index`` of a request with this seed."""
        if index in self.chosen:
            return self.chosen[index]
        if not self.rates:
            return None
        drawn = random.Random(derive(self.seed, "fault", seed, index)).random()
        for fault, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return fault
        return None
