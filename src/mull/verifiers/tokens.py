"""Public reward models that answer with a token: the probability of "+" against "-" a step.

Two layouts, each as its authors compute it. ``step-tag`` (Math-Shepherd, arXiv 2312.08935): every
step ends in a tag, and the token behind the tag is the verdict. ``chat-turns`` (RLHFlow, arXiv
2405.07863): every step is a user's turn, the first with the problem before it, and the assistant's
turn is the verdict; earlier verdicts stand as good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import ContextError, SpecError
from mull.types import Branch, EngineInfo, Message, Prompt, ScoreRequest, Usage
from mull.verifiers.base import forget_prefixes
from mull.verifiers.steps import AGGREGATES, Aggregate, pieces, preference

Format = Literal["step-tag", "chat-turns"]
TAG = " ки"


class TokenVerifier:
    """Scores a branch by P(good) / (P(good) + P(bad)) behind each of its steps, over any engine
    that scores text.

    ``good`` and ``bad`` are the verdicts' texts (default: ``+`` and ``-``, behind a blank in
    ``step-tag``), ``tag`` what ends a step there. With ``aggregate="last"`` the last step alone is
    asked for. A branch without a step, or longer than the context, has no score (NaN).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        format: Format = "step-tag",
        aggregate: Aggregate = "last",
        tag: str = TAG,
        good: str | None = None,
        bad: str | None = None,
        separator: str = "\n",
        trained_for: tuple[str, ...] = (),
    ) -> None:
        if format not in ("step-tag", "chat-turns"):
            raise SpecError(f"format={format!r}: format is step-tag or chat-turns")
        if aggregate not in AGGREGATES:
            raise SpecError(f"aggregate={aggregate!r}: aggregate is {' or '.join(AGGREGATES)}")
        can = engine.info.capabilities
        if not can.score or (format == "chat-turns" and not can.chat):
            lacking = "chat template" if can.score else "way to score text"
            raise SpecError(f"format={format}: {engine.info.model} has no {lacking}")
        blank = " " if format == "step-tag" else ""
        self.engine, self.format, self.aggregate = engine, format, aggregate
        self.tag, self.separator, self.policy = tag, separator, trained_for
        self.good = f"{blank}+" if good is None else good
        self.bad = f"{blank}-" if bad is None else bad

    @property
    def info(self) -> EngineInfo:
        """The engine's, with what decides the score in its revision."""
        given = self.engine.info
        how = f"{self.format}/{self.aggregate}/{self.tag}/{self.good}/{self.bad}"
        return replace(given, revision=f"{given.revision}/{how}")

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches in one batch of the engine."""
        asked = [self._requests(branch) for branch in branches]
        try:
            return await self._scores(range(len(asked)), asked, meter)
        except ContextError:  # nothing was encoded yet: which one it is shows one by one
            return [await self._alone(at, each, meter) for at, each in enumerate(asked)]

    def forget(self) -> None:
        """Empty the engine's prefix cache, if it has one."""
        forget_prefixes(self.engine)

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    async def _alone(self, at: int, asked: list[ScoreRequest], meter: Meter) -> float:
        try:
            return (await self._scores([at], [asked], meter))[0]
        except ContextError:
            meter.charge(at)
            return math.nan

    async def _scores(
        self, places: Sequence[int], asked: Sequence[list[ScoreRequest]], meter: Meter
    ) -> list[float]:
        """Scores of some branches; what their requests cost is charged at their places."""
        gauge = meter.aside()
        found = await self.engine.score([one for each in asked for one in each], gauge)
        scores, at = [], 0
        for place, each in zip(places, asked, strict=True):
            mine = range(at, at + len(each))
            meter.restore(place, sum((gauge.usage(index) for index in mine), Usage()))
            values = [preference(found[index], found[index + 1]) for index in mine[::2]]
            scores.append(AGGREGATES[self.aggregate](values) if values else math.nan)
            at = mine.stop
        return scores

    def _requests(self, branch: Branch) -> list[ScoreRequest]:
        """A good and a bad verdict behind each step that counts."""
        steps = pieces(branch.text, self.separator)
        ends = range(1, len(steps) + 1)
        if self.aggregate == "last":
            ends = ends[-1:]
        return [
            ScoreRequest(prompt, before + verdict)
            for end in ends
            for prompt, before in [self._behind(branch, steps[:end])]
            for verdict in (self.good, self.bad)
        ]

    def _behind(self, branch: Branch, steps: Sequence[str]) -> tuple[Prompt, str]:
        """The prompt and the text that stand before a verdict on the last of some steps."""
        if self.format == "step-tag":
            return branch.view, self.separator.join(f"{step}{self.tag}" for step in steps)
        turns: list[Message] = []
        for number, step in enumerate(steps):
            said = step.strip() if number else f"{branch.view.plain.strip()} {step.strip()}"
            turns += [Message("user", said), Message("assistant", self.good)]
        return Prompt.chat(*turns[:-1]), ""
