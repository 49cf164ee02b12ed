"""A simulated engine that can be trained on, and a task that has something to teach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from tests.engines.held import Holds
from tests.strategies.common import Plain

from mull.budget import Meter
from mull.engines.adapt import AdaptRecipe, Parts, weights_name
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.errors import EngineError
from mull.types import Completion, Delta, EngineInfo, Problem, Request, Scored, ScoreRequest

TOKENS = 50
"""Tokens a step of the pretended training."""


@dataclass(frozen=True)
class Teaching(Plain):
    """Every problem teaches ``texts`` texts; those of one ``group`` teach the same."""

    texts: int = 3
    group: int = 1

    def adaptation(self, problem: Problem, count: int, seed: int = 0) -> Sequence[Parts]:
        number = int(problem.id[1:]) // self.group
        made = min(count, self.texts)
        return [Parts(((f"{number}.{text}.{seed}", True),)) for text in range(made)]


class Adaptive(Holds, SimulatedEngine):
    """Holds adapted weights, which change nothing of what it says unless ``taught`` says it."""

    def __init__(
        self,
        *,
        taught: SimulatedEngine | None = None,
        step_s: float = 0.01,
        fails: bool = False,
        **options: object,
    ) -> None:
        options = {"parameters": 10, "price": (1.0, 0.5, 2.0), **options}
        Holds.__init__(self)
        SimulatedEngine.__init__(self, StepModel(), **options)  # type: ignore[arg-type]
        self.taught, self.step_s, self.fails = taught, step_s, fails
        self.trained: list[str] = []
        self.training = self.most = 0
        self.asked: list[str | None] = []

    @property
    def info(self) -> EngineInfo:
        info = super().info
        return replace(info, capabilities=replace(info.capabilities, adapts=True))

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        name = weights_name(examples, recipe)
        self.trained.append(name)
        self.training += 1
        self.most = max(self.most, self.training)
        try:
            for _ in range(recipe.steps):
                await asyncio.sleep(self.step_s)
                meter.train(0, tokens=TOKENS, texts=1)
                if self.fails:
                    raise EngineError("the training broke")
        finally:
            self.training -= 1
        return self.hold(name)

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        self.asked.append(request.weights)
        own = replace(request, weights=None)
        made = super().generate(own, meter)
        if request.weights is not None:
            assert request.weights in self.held
            if self.taught is not None:
                made = self.taught.generate(own, meter)
        async with aclosing(made) as items:
            async for item in items:
                yield item

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        assert all(each.weights is None or each.weights in self.held for each in requests)
        return await super().score([replace(each, weights=None) for each in requests], meter)
