"""Worlds in which tree searches must keep their laws: noisy, failing and blind verifiers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from hypothesis import strategies as st
from tests.strategies.common import Priced
from tests.strategies.test_contract import Driver, ToyTask, World

from mull.budget import Budget, Meter
from mull.engines.simulated import Fault, Faults, Latency, SimulatedEngine, StepModel
from mull.errors import EngineConnectionError
from mull.rng import derive
from mull.strategies.base import Result, Start, Strategy
from mull.types import Branch

BUDGETS = st.one_of(
    st.builds(Budget, samples=st.integers(1, 12)),
    st.builds(Budget, tokens=st.integers(1, 600)),
    st.builds(Budget, total_tokens=st.integers(1, 3000)),
    st.builds(Budget, flops=st.floats(1.0, 3e4)),
    st.builds(Budget, cost=st.floats(1e-6, 3e-3)),
)


class Unsure(Priced):
    """The simulated verifier, of which a share of scores is NaN and a share of batches fails.

    Which ones follows from the branch alone, so that slots and timing cannot change it. A batch
    that fails costs nothing: what it had cost would follow from what travelled with it.
    """

    def __init__(self, nan: float = 0.0, fails: float = 0.0, batch_ms: float = 0.0) -> None:
        super().__init__(batch_ms=batch_ms)
        self.nan, self.fails = nan, fails

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        draws = [random.Random(derive(5, branch.key)).random() for branch in branches]
        if any(draw < self.fails for draw in draws):
            raise EngineConnectionError("the verifier broke down")
        scores = await super().score(branches, meter)
        return [
            math.nan if draw < self.fails + self.nan else score
            for draw, score in zip(draws, scores, strict=True)
        ]


def engine(rate: float = 0.0, slots: int = 4, latency: Latency | None = None) -> SimulatedEngine:
    """The step model with sizes and prices; a share ``rate`` of its samples fails in each way."""
    faults = Faults(rates={Fault.CONNECTION: rate, Fault.EMPTY: rate, Fault.FILTERED: rate})
    return SimulatedEngine(
        StepModel(),
        parameters=10,
        price=(1.0, 0.5, 2.0),
        faults=faults,
        slots=slots,
        latency=latency or Latency(),
    )


def in_any_order(
    strategy: Strategy, world: int, slots: dict[str, int], schedule: int, budget: Budget | None
) -> tuple[Result, Driver]:
    """One search under the contract's own driver, which tells in any order and asks at any time."""
    task = ToyTask()
    driver = Driver(World(world), slots, random.Random(schedule))
    return driver.run(strategy.start(Start(task.problem("how many?"), task, budget))), driver


def sampled(result: Result) -> dict[int, int]:
    """Nodes of the recorded tree by depth."""
    counts: dict[int, int] = {}
    for node in result.tree:
        counts[len(node.key)] = counts.get(len(node.key), 0) + 1
    return counts
