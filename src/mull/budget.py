"""What may be spent, and what was: budgets, cost models, and the ledger's single debit.

Every token passes ``Ledger.charge``. An engine charges through a ``Meter`` as tokens are made, so
work that is cancelled later is counted too, and a completion's usage is read back from the same
meter: what was reported is what was charged, by construction.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral, Real
from typing import Literal, Protocol, runtime_checkable

from mull.errors import BudgetError
from mull.types import EngineInfo, Usage


class Purpose(StrEnum):
    """What a token was spent on: the rows of the ledger. Closed."""

    POLICY = "policy"
    VERIFIER = "verifier"
    JUDGE = "judge"
    LOOKAHEAD = "lookahead"
    REVISION = "revision"
    ADAPTATION = "adaptation"
    SPECULATIVE = "speculative"
    RETRY = "retry"
    CANCELLED = "cancelled"
    FAILED = "failed"


Unit = Literal["flops", "cost"]
"""What work amounts to by facts that may be unknown: a model's size, its price."""
UNITS = ("samples", "tokens", "total_tokens", "flops", "seconds", "cost")


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on one problem; at least one limit, all of them hold.

    ``samples`` sibling paths at the same depth; ``tokens`` generated tokens; ``total_tokens``
    generated and new prompt tokens; ``flops`` by the ledger's cost model; ``seconds`` of wall
    clock; ``cost`` in the engine's price unit. A limit is checked before work starts, in the order
    of the search's own actions: overrun is at most what was in flight.

    >>> Budget(samples=16).samples
    16
    """

    samples: int | None = None
    tokens: int | None = None
    total_tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            raise BudgetError(f"a budget needs at least one of {', '.join(UNITS)}")
        for name, value in self.limits.items():
            if not _is_number(value):
                raise BudgetError(f"budget.{name} must be a number, not {value!r}")
            if not is_amount(value):
                said = math.inf if value > 0 else value  # a whole number of any length may come
                raise BudgetError(f"budget.{name} must be a positive finite number, not {said}")
            if name in UNITS[:3]:
                if not _is_whole(value):
                    raise BudgetError(f"budget.{name} must be a whole number, not {value}")
                object.__setattr__(self, name, int(value))  # numpy's, say: here all are Python's

    @property
    def limits(self) -> Mapping[str, float]:
        """The limits that are set, by unit."""
        return {unit: value for unit in UNITS if (value := getattr(self, unit)) is not None}

    @property
    def metered(self) -> bool:
        """Whether a limit is set that only finished work can tell: tokens, FLOPs or money."""
        return any(unit in self.limits for unit in _amounts(Usage()))

    def share(self, parts: int) -> Budget | None:
        """One of ``parts`` equal shares of what only finished work can tell, ``None`` without that.

        A share of tokens is rounded down, and at least 1.

        >>> Budget(samples=8, tokens=100, cost=1.0).share(8).limits
        {'tokens': 12, 'cost': 0.125}
        """
        if not self.metered:
            return None
        return Budget(
            tokens=None if self.tokens is None else max(1, self.tokens // parts),
            total_tokens=None if self.total_tokens is None else max(1, self.total_tokens // parts),
            flops=None if self.flops is None else self.flops / parts,
            cost=None if self.cost is None else self.cost / parts,
        )

    def exhausted(self, spent: Usage) -> bool:
        """Whether a limit in tokens, FLOPs or money has been reached."""
        return any(spare <= 0 for spare in self._spare(spent).values())

    def over(self, spent: Usage) -> Mapping[str, float]:
        """By how much each limit in tokens, FLOPs or money was passed, those that were.

        >>> Budget(samples=4, tokens=100).over(Usage(generated=130))
        {'tokens': 30}
        """
        return {unit: -spare for unit, spare in self._spare(spent).items() if spare < 0}

    def _spare(self, spent: Usage) -> Mapping[str, float]:
        """What is left of each limit in tokens, FLOPs or money."""
        limits = self.limits
        return {
            unit: limits[unit] - amount
            for unit, amount in _amounts(spent).items()
            if unit in limits
        }

    def __str__(self) -> str:
        return ", ".join(f"{name}={value:g}" for name, value in self.limits.items())


def _amounts(spent: Usage) -> Mapping[str, float]:
    """A usage in the units that only finished work can tell."""
    return {
        "tokens": spent.generated,
        "total_tokens": spent.tokens,
        "flops": spent.flops,
        "cost": spent.cost,
    }


def is_amount(value: float) -> bool:
    """Whether a number is above 0 and no larger than a float can be.

    >>> is_amount(0.5), is_amount(0), is_amount(10**400)
    (True, False, False)
    """
    return 0 < value <= sys.float_info.max


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral)


def check_countable(budget: Budget | None, info: EngineInfo, used: Usage | None = None) -> None:
    """Raise ``BudgetError`` for a limit in a unit in which this model's work costs nothing known.

    Such a limit would never be reached. With ``used``, work that the model has done, only where
    that stands in the unit at nothing: a verifier that computes no tokens costs none.
    """
    if budget is None:
        return
    unknown: dict[Unit, tuple[str, str, str]] = {}
    if not info.parameters:
        unknown["flops"] = "FLOPs", "parameters", "…"
    if not any(info.price):
        unknown["cost"] = "cost", "price", "'1,0.1,2'"
    for unit, (name, fact, value) in unknown.items():
        limited = getattr(budget, unit) is not None
        if limited and (used is None or known(unit, [used]) is None):
            raise BudgetError(
                f"a budget in {name} needs the {fact} of {info.kind}:{info.model}, unknown so far: "
                f"say it by the model's option {fact}={value}, or give a budget in samples or "
                "tokens"
            )


def known(unit: Unit, usages: Iterable[Usage]) -> float | None:
    """FLOPs or money of some usages; ``None`` where one has computed tokens and nobody knows them.

    An engine that does not know its size reports no FLOPs, one without a price no money.

    >>> known("flops", [Usage(generated=7, flops=2.5), Usage()])
    2.5
    >>> known("flops", [Usage(generated=7, flops=2.5), Usage(generated=7)]) is None
    True
    """
    total = 0.0
    for usage in usages:
        amount = getattr(usage, unit)
        if usage.tokens and not amount:
            return None
        total += amount
    return total


@runtime_checkable
class CostModel(Protocol):
    """FLOPs of ``tokens`` forward steps that start behind ``context`` earlier tokens."""

    @property
    def name(self) -> str: ...

    def flops(self, info: EngineInfo, tokens: int, context: int) -> float: ...


@dataclass(frozen=True, slots=True)
class DenseAttention:
    """2·parameters + 4·layers·width·context a token: the default.

    The token at position c attends to c + 1 keys, itself included: 2·width FLOPs each for its score
    and as many for its share of the values, in every layer. For tiny models this term is most of
    the cost. Kaplan et al. 2020, table 1, have half of it, 2·layers·width·context.
    """

    name: str = "2P+4LWc"

    def flops(self, info: EngineInfo, tokens: int, context: int) -> float:
        attended = tokens * context + tokens * (tokens + 1) // 2
        return 2.0 * info.parameters * tokens + 4.0 * info.layers * info.width * attended


@dataclass(frozen=True, slots=True)
class Dense:
    """2·parameters a token: the convention of the inference-scaling papers (2·N·D)."""

    name: str = "2P"

    def flops(self, info: EngineInfo, tokens: int, context: int) -> float:
        return 2.0 * info.parameters * tokens


COST_MODELS: Mapping[str, CostModel] = {model.name: model for model in (DenseAttention(), Dense())}


class Entry:
    """One row of the ledger: sums for one purpose on one model. Written by ``Ledger`` alone."""

    __slots__ = (
        "cached",
        "completions",
        "cost",
        "estimated",
        "flops",
        "generated",
        "prompt",
        "seconds",
    )

    def __init__(self) -> None:
        self.prompt = 0
        self.cached = 0
        self.generated = 0
        self.flops = 0.0
        self.seconds = 0.0
        self.cost = 0.0
        self.completions = 0
        self.estimated = False

    @property
    def usage(self) -> Usage:
        return Usage(
            self.prompt,
            self.cached,
            self.generated,
            self.flops,
            self.seconds,
            self.cost,
            self.estimated,
        )

    def add(self, usage: Usage, completions: int = 0, sign: int = 1) -> None:
        """Add a usage, or take it away to stand on another row."""
        self.prompt += sign * usage.prompt
        self.cached += sign * usage.cached
        self.generated += sign * usage.generated
        self.flops += sign * usage.flops
        self.seconds += sign * usage.seconds
        self.cost += sign * usage.cost
        self.completions += sign * completions
        self.estimated = self.estimated or usage.estimated


class Ledger:
    """What was spent, by purpose and model. ``charge`` is the only debit.

    >>> ledger = Ledger()
    >>> ledger.charge(Purpose.POLICY, "m", Usage(prompt=5, generated=7))
    >>> ledger.total.generated
    7
    """

    def __init__(self, cost_model: CostModel | None = None) -> None:
        self.cost_model: CostModel = cost_model or DenseAttention()
        self._entries: dict[tuple[Purpose, str], Entry] = {}

    def charge(self, purpose: Purpose, model: str, usage: Usage, completions: int = 0) -> None:
        """Add a usage. Never negative: what was spent cannot be taken back."""
        # `not (x >= 0)` rather than `x < 0`: NaN must fail too.
        if not (
            usage.prompt >= usage.cached >= 0
            and usage.generated >= 0
            and usage.flops >= 0
            and usage.seconds >= 0
            and usage.cost >= 0
        ):
            raise ValueError(
                f"a charge has no negative part and no more cached than prompt tokens: {usage}"
            )
        self._entry(purpose, model).add(usage, completions)

    def move(
        self, source: Purpose, target: Purpose, model: str, usage: Usage, completions: int = 0
    ) -> None:
        """Reclassify what was charged already (cancelled, failed); the total does not change."""
        if source is not target:
            self._entry(source, model).add(usage, completions, -1)
            self._entry(target, model).add(usage, completions)

    def rows(self) -> Iterator[tuple[Purpose, str, Usage, int]]:
        """(purpose, model, usage, completions), sorted, so that two equal ledgers print alike.

        A row from which everything was moved away is left out.
        """
        for (purpose, model), entry in sorted(self._entries.items()):
            if entry.completions or entry.prompt or entry.generated:
                yield purpose, model, entry.usage, entry.completions

    @property
    def total(self) -> Usage:
        """Everything, over purposes and models."""
        return sum((entry.usage for entry in self._entries.values()), Usage())

    def of(self, *purposes: Purpose) -> Usage:
        """The sum over some purposes."""
        return sum((e.usage for (p, _), e in self._entries.items() if p in purposes), Usage())

    def _entry(self, purpose: Purpose, model: str) -> Entry:
        key = (purpose, model)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry()
        return entry


class Meter:
    """One request's gauge: an engine charges it as tokens are made, per sample index.

    Each sample's cost stands on the row of ``purpose`` until ``move`` puts it on another one.

    >>> meter = Meter(Ledger(), Purpose.POLICY, EngineInfo("simulated", "m", parameters=10))
    >>> meter.charge(0, prompt=4)
    >>> meter.charge(0, generated=2, context=4)
    >>> meter.usage(0).flops
    120.0
    """

    __slots__ = ("_rows", "_spent", "info", "ledger", "purpose")

    def __init__(self, ledger: Ledger, purpose: Purpose, info: EngineInfo) -> None:
        self.ledger = ledger
        self.purpose = purpose
        self.info = info
        self._spent: dict[int, Entry] = {}
        self._rows: dict[int, Purpose] = {}

    def charge(
        self,
        index: int,
        *,
        prompt: int = 0,
        cached: int = 0,
        generated: int = 0,
        context: int = 0,
        texts: int = 1,
        seconds: float = 0.0,
        estimated: bool = False,
    ) -> None:
        """Charge sample ``index``: ``prompt`` tokens of which ``cached`` were not computed again,
        then ``generated`` tokens behind ``context`` tokens (prompt included), in ``texts`` of about
        equal length.
        """
        info, flops = self.info, 0.0
        if info.parameters:
            model = self.ledger.cost_model
            if prompt > cached:
                flops += model.flops(info, prompt - cached, cached)
            if generated:
                flops += _flops_of(model, info, generated, texts, context)
        price = info.price
        money = (
            ((prompt - cached) * price[0] + cached * price[1] + generated * price[2]) / 1e6
            if price != (0.0, 0.0, 0.0)
            else 0.0
        )
        self._add(index, Usage(prompt, cached, generated, flops, seconds, money, estimated))

    def train(self, index: int, *, tokens: int, texts: int = 1, seconds: float = 0.0) -> None:
        """Charge ``tokens`` that weights were trained on, in ``texts`` of about equal length.

        They count as prompt tokens that were computed three times, forward and twice backward: in
        FLOPs 6·parameters a token under ``2P`` (Kaplan et al. 2020), in money likewise.
        """
        info, flops = self.info, 0.0
        if info.parameters:
            flops = 3.0 * _flops_of(self.ledger.cost_model, info, tokens, texts, 0)
        cost = 3.0 * tokens * info.price[0] / 1e6
        self._add(index, Usage(tokens, 0, 0, flops, seconds, cost))

    def restore(self, index: int, usage: Usage) -> None:
        """Charge a recorded completion as it was charged when it was made (resume, replay)."""
        self._add(index, usage)

    def aside(self) -> Meter:
        """A meter like this one, on a ledger of its own: what it counts is charged to nobody yet.

        >>> meter = Meter(Ledger(), Purpose.POLICY, EngineInfo("simulated", "m"))
        >>> aside = meter.aside()
        >>> aside.charge(0, generated=5)
        >>> meter.restore(3, aside.usage(0))
        >>> meter.usage(3).generated
        5
        """
        return Meter(Ledger(self.ledger.cost_model), self.purpose, self.info)

    def _add(self, index: int, usage: Usage) -> None:
        entry = self._spent.get(index)
        new = entry is None
        purpose = self._rows.get(index, self.purpose)
        self.ledger.charge(purpose, self.info.model, usage, completions=new)
        if entry is None:
            entry = self._spent[index] = Entry()
        entry.add(usage)

    def usage(self, index: int) -> Usage:
        """What sample ``index`` has cost so far."""
        entry = self._spent.get(index)
        return Usage() if entry is None else entry.usage

    @property
    def samples(self) -> tuple[int, ...]:
        """The sample indices that were charged so far, in order of their first charge."""
        return tuple(self._spent)

    @property
    def total(self) -> Usage:
        """What the request has cost so far, over its samples."""
        return sum((entry.usage for entry in self._spent.values()), Usage())

    def move(self, index: int, target: Purpose) -> None:
        """Put what sample ``index`` cost, and will cost, under another purpose."""
        source = self._rows.get(index, self.purpose)
        self._rows[index] = target
        if index in self._spent:
            self.ledger.move(source, target, self.info.model, self.usage(index), completions=1)


def _flops_of(model: CostModel, info: EngineInfo, tokens: int, texts: int, context: int) -> float:
    """FLOPs of ``tokens`` in ``texts`` of about equal length, each behind ``context`` tokens."""
    texts = max(1, texts)
    each, longer = divmod(tokens, texts)
    shorter = (texts - longer) * model.flops(info, each, context)
    return shorter + longer * model.flops(info, each + 1, context)
