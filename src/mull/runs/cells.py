"""The cells of a run: which strategy, budget, temperature and seed.

Knows configs and strategies; knows no store and no engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mull.budget import Budget
from mull.catalog import load_strategy
from mull.runs.config import Config
from mull.strategies.base import Strategy
from mull.strategies.single import Greedy
from mull.strategies.token_beam import TokenBeamSearch
from mull.strategies.token_dfs import TokenDfs


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of a run; ``temperature`` and ``budget`` are ``None`` where they say nothing.

    >>> Cell("vote", Budget(samples=8), 0.7, 0).id
    'vote, samples=8, T=0.7, seed=0'
    """

    strategy: str
    budget: Budget | None
    temperature: float | None
    seed: int

    @property
    def id(self) -> str:
        """The cell's name in records and reports: unique in its run."""
        parts = [self.strategy]
        if self.budget is not None:
            parts.append(self.budget_text)
        if self.temperature is not None:
            parts.append(f"T={exact(self.temperature)}")
        return ", ".join([*parts, f"seed={self.seed}"])

    @property
    def budget_text(self) -> str:
        """The budget's limits in full, as in ``samples=8, tokens=1000``; empty without one."""
        limits = {} if self.budget is None else self.budget.limits
        return ", ".join(f"{unit}={exact(value)}" for unit, value in limits.items())

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON values."""
        limits = None if self.budget is None else dict(self.budget.limits)
        return {
            "strategy": self.strategy,
            "budget": limits,
            "temperature": self.temperature,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The cell that ``to_json`` was given."""
        limits = data["budget"]
        temperature = data["temperature"]
        return cls(
            data["strategy"],
            None if limits is None else Budget(**limits),
            None if temperature is None else float(temperature),
            data["seed"],
        )


def cells_of(config: Config, strategies: Mapping[str, Strategy]) -> list[Cell]:
    """All cells of a config, in the order they are run.

    Greedy, beam and threshold decoding have a number of samples of their own and no temperature:
    they get one cell a seed, whatever is swept.
    """
    cells: dict[str, Cell] = {}
    for spec in config.strategies:
        own = isinstance(strategies[spec], Greedy | TokenBeamSearch | TokenDfs)
        for budget in config.budgets:
            for temperature in config.temperatures:
                for seed in config.seeds:
                    cell = Cell(
                        spec,
                        _without_samples(budget) if own else budget,
                        None if own else temperature,
                        seed,
                    )
                    cells.setdefault(cell.id, cell)
    return list(cells.values())


def load_strategies(specs: Sequence[str]) -> dict[str, Strategy]:
    """The strategies that a config names, by their specs."""
    return {spec: load_strategy(spec) for spec in specs}


def _without_samples(budget: Budget | None) -> Budget | None:
    if budget is None:
        return None
    rest = {unit: value for unit, value in budget.limits.items() if unit != "samples"}
    return Budget(**rest) if rest else None  # type: ignore[arg-type]


def exact(value: float) -> str:
    """A number as short as it can be told from every other one.

    >>> exact(8.0), exact(0.7), exact(1000001)
    ('8', '0.7', '1000001')
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e6 else repr(value)
