"""The engine contract: a request in; deltas (if asked for) and completions out, as they finish.

An engine honours every parameter of a request or raises ``UnsupportedError``; it ignores none. It
charges the meter as tokens are made. Closing the iterator frees the request's slots, and what was
made until then stays charged. Nothing is configured on an engine between requests.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from mull.budget import Meter
from mull.errors import SpecError, UnsupportedError
from mull.types import (
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    ThresholdDFS,
    TokenBeam,
)


@runtime_checkable
class Engine(Protocol):
    """What runs a model. ``info.identity`` names it in caches and records."""

    @property
    def info(self) -> EngineInfo: ...

    def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Delta | Completion, None]:
        """Yield each of ``request.n`` completions as it finishes, in any order.

        Every sample index of ``first .. first + n - 1`` comes back exactly once, or the iterator
        raises an ``EngineError``; completions yielded before the error stay valid. The indices of
        a search (token beam, threshold) are its ranks.
        """
        ...

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """Log-probabilities (and values) of given texts, in order; sample index = position."""
        ...

    async def aclose(self) -> None:
        """Free sockets, threads and memory. A closed engine refuses requests."""
        ...


def notes_of(engine: object) -> tuple[str, ...]:
    """What an engine has to tell of its work so far that no completion says, one line each.

    Such as retries, or parameters that an endpoint did not honour; nothing for what has no
    ``notes``.
    """
    notes: Callable[[], tuple[str, ...]] | None = getattr(engine, "notes", None)
    return () if notes is None else notes()


def check_scorable(requests: Sequence[ScoreRequest], info: EngineInfo) -> None:
    """Raise ``UnsupportedError`` for a field of a text to score that the engine cannot honour."""
    can = info.capabilities
    every = "certainty (the probability of every token of the vocabulary)"
    wants = {
        "adapted weights": not can.adapts and any(each.weights is not None for each in requests),
        every: not can.certainty and any(each.certainty for each in requests),
        "end (how likely a turn is to end)": not can.ends and any(each.end for each in requests),
    }
    _refuse(wants, info)


def check_price(price: tuple[float, float, float]) -> None:
    """Raise ``SpecError`` for a price that is not three amounts of 0 or more."""
    if len(price) != 3 or not all(0.0 <= each < math.inf for each in price):
        raise SpecError(
            f"price = {list(price)} is not valid; expected money per million new prompt, cached "
            "prompt and generated tokens, as in [1.0, 0.1, 2.0]"
        )


def check_supported(request: Request, info: EngineInfo) -> None:
    """Raise ``UnsupportedError`` for a field of the request that the engine cannot honour."""
    can: Capabilities = info.capabilities
    wants = {
        "token-beam decoding": isinstance(request.decoding, TokenBeam) and not can.token_beam,
        "threshold decoding": isinstance(request.decoding, ThresholdDFS) and not can.threshold_dfs,
        "continuing an assistant turn": bool(request.assistant) and not can.continue_assistant,
        "deltas": request.deltas and not can.deltas,
        "adapted weights": request.weights is not None and not can.adapts,
        "token ids as prompt": request.prompt.token_ids is not None and not can.token_ids,
        "chat messages": len(request.prompt.messages) > 1 and not can.chat,
    }
    _refuse(wants, info)


def _refuse(wants: Mapping[str, bool], info: EngineInfo) -> None:
    missing = [name for name, refused in wants.items() if refused]
    if missing:
        raise UnsupportedError(
            f"engine {info.kind}:{info.model} cannot honour: {', '.join(missing)}; "
            "use an engine that can, or leave the parameter out"
        )
