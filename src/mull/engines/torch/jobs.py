"""What passes between the event loop and the model's thread: jobs in, events out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mull.engines.torch.stop import Watch
from mull.types import Request, Sampling, ScoreRequest, StopReason

if TYPE_CHECKING:
    from mull.engines.torch.beam import Beam
    from mull.engines.torch.dfs import Dfs

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompted:
    """The prompt is computed: ``total`` tokens, of which ``cached`` were known already."""

    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class Made:
    """One token of sample ``index``, for deltas."""

    index: int
    token: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens that were made for a sample, on some lines of about equal length."""

    index: int
    made: int
    seconds: float
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """Sample ``index`` is complete. ``cut`` bytes at the end of its text are the stop string's.

    ``charged`` tokens were made for it; in a search on ``lines`` of about equal length, some of
    which were dropped.
    """

    index: int
    ids: Ids
    logprobs: tuple[float, ...]
    stop: StopReason
    seconds: float
    charged: int
    stop_string: str | None = None
    cut: int = 0
    lines: int = 1

    @property
    def part(self) -> Part:
        """What was made for it."""
        return Part(self.index, self.charged, self.seconds, self.lines)


@dataclass(frozen=True, slots=True)
class Closed:
    """A request was cancelled; ``parts`` are of the samples that were running."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A request ended with an error; ``parts`` are of what was running."""

    error: Exception
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A text was scored: log-probabilities [tokens], values [step ends], certainty [tokens], and
    the log-probability that the turn ends behind it.
    """

    logprobs: tuple[float, ...]
    values: tuple[float, ...]
    total: int
    cached: int
    seconds: float
    certainty: tuple[float, ...] | None = None
    end: float | None = None


Event = Prompted | Made | Done | Closed | Failed | ScoredText


@dataclass(eq=False, slots=True)
class Job:
    """One generate request on its way. The model's thread owns all but ``loop`` and ``deliver``."""

    number: int
    ids: Ids
    request: Request
    limit: int
    at_limit: StopReason
    watch: Watch | None
    table: int
    loop: asyncio.AbstractEventLoop
    deliver: Callable[[list[Event]], None]
    waiting: deque[int] = field(default_factory=deque)
    live: int = 0
    grant: int = 1
    where: NDArray[np.int64] | None = None
    """Places [len(ids) + 1, 3] after each number of the prompt's tokens, for a model that walks."""
    hidden: Tensor | None = None
    kept: tuple[Tensor, Tensor] | None = None
    search: Beam | Dfs | None = None
    over: bool = False

    @property
    def order(self) -> tuple[int, int]:
        return (self.request.priority, self.number)

    @property
    def searches(self) -> bool:
        """Whether its rows are the lines of one search, not samples of their own."""
        return not isinstance(self.request.decoding, Sampling)

    @property
    def need(self) -> int:
        """The longest that a row of this job can get, in tokens."""
        return len(self.ids) + self.limit


@dataclass(eq=False, slots=True)
class ScoreJob:
    """One text to score: ``ids`` of prompt and text, whose first ``prompt`` tokens are given."""

    ids: Ids
    prompt: int
    request: ScoreRequest
    ends: tuple[int, ...]
    loop: asyncio.AbstractEventLoop
    deliver: Callable[[list[Event]], None]
    over: bool = False
