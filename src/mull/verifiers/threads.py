"""Branches scored in a thread, so that the event loop does not wait for what takes its time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from mull.types import Branch

T = TypeVar("T")


async def score_in_thread(
    score: Callable[[Branch, threading.Event], T], branches: Sequence[Branch]
) -> list[T]:
    """``score`` of each branch, one after the other.

    A thread cannot be cancelled, and the program does not end before it: where this call is
    cancelled, the event that ``score`` is given is set, and no further branch is begun.
    """
    unwanted = threading.Event()

    def run() -> list[T]:
        return [score(branch, unwanted) for branch in branches if not unwanted.is_set()]

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        unwanted.set()
        raise
