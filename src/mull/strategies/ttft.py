"""Test-time fine-tuning: learn from what the problem itself shows, then answer under those weights.

The task says what there is to learn (``AdaptableTask``); the engine trains a copy of the policy's
weights, charged as training; every generation and every score of the search that follows is made
under them. They are gone when the problem is done.

Sources: Akyürek et al. 2024, arXiv 2411.07279; for ARC both write-ups train on each puzzle's own
demonstrations, one left out at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mull.budget import Budget
from mull.engines.adapt import AdaptRecipe, Parts
from mull.errors import SpecError, UnsupportedError
from mull.strategies.airv import Airv, Rank
from mull.strategies.base import (
    Action,
    Adapt,
    Adapted,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Outcome,
    Result,
    Room,
    Score,
    Search,
    Start,
    Strategy,
)
from mull.strategies.checks import check_positive
from mull.strategies.needs import POLICY, Needs, needs_of
from mull.strategies.vote import Vote
from mull.tasks.base import AdaptableTask
from mull.types import Usage

OFF = ("per_view", "threshold", "keep", "beam", "rank", "judge", "questions", "temperature")
"""What belongs to ``airv`` alone, all passed on to it."""


@dataclass(frozen=True, slots=True)
class Ttft:
    """``steps`` of ``batch_tokens`` tokens on ``examples`` texts out of the problem, then a search.

    ``then`` is ``airv``, with ``n``, ``per_view``, ``threshold``, ``keep``, ``beam``, ``rank``,
    ``judge``, ``questions``, ``temperature`` as there, or ``vote`` with ``n``. ``matrix_rate`` and
    ``rate`` are peak rates (``AdaptRecipe``); ``seed`` draws texts, their order and views, the same
    for every run. A problem that shows nothing to learn from is answered under the policy's own
    weights. A budget in samples or generated tokens is all the search's; one in FLOPs, total
    tokens, cost or seconds covers the training too.
    """

    steps: int = 32
    examples: int = 64
    batch_tokens: int = 2048
    matrix_rate: float = 1e-3
    rate: float = 5e-4
    then: Literal["airv", "vote"] = "airv"
    n: int | None = None
    per_view: int = 1
    threshold: float | None = None
    keep: Literal["all", "likeliest"] = "all"
    beam: int | None = None
    rank: Rank = "vote"
    judge: str | None = None
    questions: int | None = None
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("ttft", examples=self.examples)
        if self.then not in ("airv", "vote"):
            raise SpecError(f"ttft(then={self.then!r}): then is airv or vote")
        plain = Airv()
        wrong = [name for name in OFF if getattr(self, name) != getattr(plain, name)]
        if self.then == "vote" and wrong:
            raise SpecError(f"ttft(then=vote) takes no {wrong[0]}: leave it out, or then=airv")
        _ = self.recipe, self.inner

    @property
    def recipe(self) -> AdaptRecipe:
        """How the weights are trained."""
        return AdaptRecipe(
            self.steps, self.batch_tokens, self.matrix_rate, self.rate, seed=self.seed
        )

    @property
    def inner(self) -> Strategy:
        """What is done under the adapted weights."""
        if self.then == "vote":
            return Vote(n=self.n)
        options = {name: getattr(self, name) for name in OFF}
        return Airv(n=self.n, seed=self.seed, **options)

    @property
    def needs(self) -> Needs:
        """A policy that can be trained on, and what the search that follows needs."""
        needs = needs_of(self.inner)
        return replace(needs, capabilities=(*needs.capabilities, "adapts"))

    def start(self, start: Start) -> Search:
        if not isinstance(start.task, AdaptableTask):
            raise UnsupportedError(
                f"ttft needs a task whose problems hold examples to learn from (arc), not "
                f"{start.task.name}"
            )
        # Samples that exist already were drawn under other weights.
        fresh = replace(start, candidates=())
        search = self.inner.start(fresh)
        examples = start.task.adaptation(start.problem, self.examples, self.seed)
        if not examples:
            return search
        return AdaptedSearch(fresh, self.inner, tuple(examples), self.recipe, search)


@dataclass
class AdaptedSearch:
    """Action 0 adapts; action ``i + 1`` is action ``i`` of ``search``, under the adapted weights.

    Where the training fails, that is a failure among the result's, and the search goes on under the
    policy's own weights.
    """

    start: Start
    strategy: Strategy
    examples: Sequence[Parts]
    recipe: AdaptRecipe
    search: Search
    weights: str | None = field(default=None, init=False)
    failures: tuple[Failure, ...] = field(default=(), init=False)
    _asked: bool = field(default=False, init=False)
    _begun: bool = field(default=False, init=False)
    _spent: bool = field(default=False, init=False)

    def ask(self, room: Room) -> list[Action]:
        if not self._asked:
            self._asked = True
            return [Adapt(0, tuple(self.examples), self.recipe)]
        if not self._begun or self._spent:
            return []
        return [self._under(action) for action in self.search.ask(room)]

    def tell(self, outcome: Outcome) -> None:
        if outcome.action:
            self.search.tell(replace(outcome, action=outcome.action - 1))
            return
        self._begun = True
        if isinstance(outcome.value, Adapted):
            self.weights = outcome.value.name
        elif isinstance(outcome.value, Failure):
            self.failures = (outcome.value,)
        budget = self.start.budget
        if budget is not None and budget.metered:
            self._spent = budget.exhausted(outcome.usage)
            if not self._spent:
                left = less(budget, outcome.usage)
                self.search = self.strategy.start(replace(self.start, budget=left))

    @property
    def done(self) -> bool:
        return self._spent or (self._begun and self.search.done)

    def result(self) -> Result:
        result = self.search.result()
        ended = Ended.BUDGET if self._spent else result.ended
        return replace(result, failures=(*self.failures, *result.failures), ended=ended)

    def _under(self, action: Action) -> Action:
        """An action of the search as it is asked: with its own number, under the weights."""
        if isinstance(action, Commit):
            return Commit(tuple(id + 1 for id in action.ids))
        if isinstance(action, Cancel):
            return Cancel(tuple((id + 1, index) for id, index in action.turns))
        if isinstance(action, Score):
            branches = tuple(replace(each, weights=self.weights) for each in action.branches)
            return replace(action, id=action.id + 1, branches=branches)
        if isinstance(action, Generate):
            own = action.engine == POLICY
            branch = replace(action.branch, weights=self.weights) if own else action.branch
            return replace(action, id=action.id + 1, branch=branch)
        return replace(action, id=action.id + 1)


def less(budget: Budget, spent: Usage) -> Budget:
    """What a budget leaves after ``spent``; seconds and samples stay, which others count.

    >>> less(Budget(flops=10.0, samples=4), Usage(flops=4.0))
    Budget(samples=4, tokens=None, total_tokens=None, flops=6.0, seconds=None, cost=None)
    """

    def rest(limit: float | None, used: float) -> float | None:
        return None if limit is None else limit - used

    def whole(limit: int | None, used: int) -> int | None:
        return None if limit is None else limit - used

    return replace(
        budget,
        tokens=whole(budget.tokens, spent.generated),
        total_tokens=whole(budget.total_tokens, spent.tokens),
        flops=rest(budget.flops, spent.flops),
        cost=rest(budget.cost, spent.cost),
    )
