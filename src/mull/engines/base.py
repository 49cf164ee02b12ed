"""The engine contract: a request in; deltas (if asked for) and completions out, as they finish.

An engine honours every parameter of a request or raises ``UnsupportedError``; it ignores none. It
charges the meter as tokens are made. Closing the iterator frees the request's slots, and what was
made until then stays charged. Nothing is configured on an engine between requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

from mull.budget import Meter
from mull.errors import UnsupportedError
from mull.types import (
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
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
        raises an ``EngineError``; completions yielded before the error stay valid.
        """
        ...

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """Log-probabilities (and values) of given texts, in order; sample index = position."""
        ...

    async def aclose(self) -> None:
        """Free sockets, threads and memory. A closed engine refuses requests."""
        ...


def check_supported(request: Request, info: EngineInfo) -> None:
    """Raise ``UnsupportedError`` for a field of the request that the engine cannot honour."""
    can: Capabilities = info.capabilities
    wants = {
        "token-beam decoding": isinstance(request.decoding, TokenBeam) and not can.token_beam,
        "continuing an assistant turn": bool(request.assistant) and not can.continue_assistant,
        "deltas": request.deltas and not can.deltas,
        "an adapter": request.adapter is not None and not can.adapters,
        "token ids as prompt": request.prompt.token_ids is not None and not can.token_ids,
        "chat messages": len(request.prompt.messages) > 1 and not can.chat,
    }
    missing = [name for name, refused in wants.items() if refused]
    if missing:
        raise UnsupportedError(
            f"engine {info.kind}:{info.model} cannot honour: {', '.join(missing)}; "
            "use an engine that can, or leave the parameter out"
        )
