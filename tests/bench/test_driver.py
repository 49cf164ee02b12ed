"""The driver's figures reach their targets, and measure what they say."""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
from dataclasses import asdict

import pytest

from mull.bench.driver import (
    TEXT,
    Spread,
    _drive,
    _jobs,
    driver_overhead,
    flat_memory,
    list_schedule,
    list_scheduling_ratio,
)
from mull.engines.simulated import Echo, SimulatedEngine


def test_overhead_of_a_completion_is_what_is_above_the_engine() -> None:
    """The figure itself is for ``make bench``: no test hangs on how busy a machine is."""
    figure = driver_overhead(problems=5, samples=64, repeats=2)
    assert figure.completions == 320
    assert figure.target_us == 50
    assert figure.ours_us.repeats == 2
    assert figure.engine_us.least > 0
    json.dumps(asdict(figure))


def test_a_completion_takes_few_calls_of_ours() -> None:
    """Counted, not timed: this catches what grows with completions, on any machine.

    168 calls today, 39 of them the engine's; one look at a runtime protocol is 100 more.
    """
    engine, problems, samples = SimulatedEngine(Echo(TEXT)), 10, 64
    jobs = list(_jobs(problems, samples, seed=0))
    calls = cProfile.Profile()
    calls.runcall(asyncio.run, _drive(engine, iter(jobs)))
    assert pstats.Stats(calls).total_calls / (problems * samples) < 200


def test_the_driver_schedules_as_well_as_a_list() -> None:
    figure = list_scheduling_ratio()
    assert figure.ratio.most <= figure.target == 1.1
    assert figure.ratio.least >= 1.0 - 1e-9
    assert 0.5 < figure.occupancy.median <= 1.0


@pytest.mark.parametrize(
    ("lengths", "slots", "makespan"),
    [([], 3, 0.0), ([5.0], 3, 5.0), ([2.0, 2.0, 2.0], 2, 4.0), ([1.0, 9.0, 1.0, 1.0], 2, 9.0)],
)
def test_list_scheduling_serves_in_order(lengths: list[float], slots: int, makespan: float) -> None:
    assert list_schedule(lengths, slots) == makespan


def test_a_spread_is_a_median_and_a_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2 (1 to 3, n=3)"


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_four_times_the_problems_take_no_more_memory() -> None:
    few, many = flat_memory(150, 64), flat_memory(600, 64)
    assert many.completions == 4 * few.completions
    assert few.start_mb < few.peak_mb < few.target_mb
    assert many.peak_mb < few.peak_mb + 5
