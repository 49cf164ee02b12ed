"""An interrupt, and what it says: as many results kept as the disk holds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import Steps, engine, small

from mull.catalog import Equipment
from mull.engines.simulated import Fault, Faults
from mull.runs import Progress, Records, Summary, run


def stored(directory: Path) -> int:
    with Records(directory) as records:
        return sum(1 for cell in records.cells for _ in records.results(cell))


def cut_after(results: int, directory: Path, grace: float = 0.0, **engine_options: Any) -> Summary:
    """A run that is told to stop when ``results`` results were told of."""

    def on_progress(state: Progress) -> None:
        if state.done >= results and not raised:
            raised.append(state.done)
            signal.raise_signal(signal.SIGINT)

    raised: list[int] = []
    return run(
        small(problems=40),
        directory,
        engine=engine(**engine_options),
        task=Steps(),
        on_progress=on_progress,
        signals=True,
        virtual=True,
        grace=grace,
    )


@pytest.mark.parametrize("results", [1, 2, 7, 30, 45])
def test_an_interrupted_run_says_how_many_results_are_stored(results: int, tmp_path: Path) -> None:
    summary = cut_after(results, tmp_path)
    assert summary.interrupted
    assert results <= summary.stored < summary.total
    assert summary.stored == summary.done == stored(tmp_path)


def test_results_with_failures_are_kept_and_are_not_done(tmp_path: Path) -> None:
    faults = Faults(rates={Fault.CONNECTION: 0.3})
    first = cut_after(30, tmp_path, faults=faults)
    assert first.failed > 0
    again = cut_after(first.done - first.failed + 1, tmp_path, faults=faults)
    assert again.stored == stored(tmp_path) >= first.stored
    assert again.done < again.stored


def test_what_ended_within_the_grace_is_not_cut_while_it_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def slow(_: Equipment) -> None:
        await asyncio.sleep(120.0)
        closed.append(True)

    monkeypatch.setattr(Equipment, "aclose", slow)
    summary = cut_after(1, tmp_path, grace=60.0)
    assert closed and summary.exit_code == 130
    with Records(tmp_path) as records:
        assert records.sessions()[-1].reason == "interrupted"
        assert records.waste() == [], "what was in flight came in time"
