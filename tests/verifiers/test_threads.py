"""Scoring in a thread: what is cancelled goes on no further than the branch it is at."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tests.strategies.common import problem
from tests.verifiers.common import branch, meter, scores

from mull.types import Branch
from mull.verifiers.custom import FunctionVerifier
from mull.verifiers.threads import score_in_thread


def test_every_branch_is_scored_in_order() -> None:
    verifier = FunctionVerifier(lambda each: float(each.text), "number")
    assert scores(verifier, *(branch(problem(), str(at)) for at in range(5))) == [0, 1, 2, 3, 4]


def test_a_cancelled_call_begins_no_further_branch() -> None:
    begun: list[str] = []

    def slow(each: Branch) -> float:
        begun.append(each.text)
        time.sleep(0.2)
        return 1.0

    async def interrupted() -> None:
        verifier = FunctionVerifier(slow, "slow")
        async with asyncio.timeout(0.1):
            given = [branch(problem(), str(at)) for at in range(5)]
            await verifier.score(given, meter(verifier))

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())  # and waits for the thread
    assert begun == ["0"]


def test_what_runs_is_told_that_nobody_waits_for_it() -> None:
    told = threading.Event()

    def patient(each: Branch, unwanted: threading.Event) -> None:
        if unwanted.wait(4):
            told.set()

    async def interrupted() -> None:
        async with asyncio.timeout(0.1):
            await score_in_thread(patient, [branch(problem(), "x")])

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    assert told.is_set()
