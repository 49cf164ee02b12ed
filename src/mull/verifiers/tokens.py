"""Public reward models that answer with a token: the probability of "+" against "-" a step.

Two layouts, each as its authors compute it. ``step-tag`` (Math-Shepherd, arXiv 2312.08935): every
step ends in a tag, and the token behind the tag is the verdict. ``chat-turns`` (RLHFlow, arXiv
2405.07863): every step is a user's turn, the first with the problem before it, and the assistant's
turn is the verdict; earlier verdicts stand as good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError
from mull.types import Branch, Message, Prompt, Scored, ScoreRequest
from mull.verifiers.base import EngineVerifier
from mull.verifiers.steps import AGGREGATES, Aggregate, pieces, preference
from mull.verifiers.texts import score_each

Format = Literal["step-tag", "chat-turns"]
TAG = " ки"


class TokenVerifier(EngineVerifier):
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
    def how(self) -> str:
        """What decides the score besides the engine."""
        return f"{self.format}/{self.aggregate}/{self.tag}/{self.good}/{self.bad}"

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches in one batch of the engine."""
        asked = [self._requests(branch) for branch in branches]
        places = [at for at, each in enumerate(asked) for _ in each]
        for at in range(len(branches)):
            meter.charge(at)
        requests = [request for each in asked for request in each]
        found = iter(await score_each(self.engine, requests, meter, places))
        return [self._score(list(islice(found, len(each)))) for each in asked]

    def _score(self, found: Sequence[Scored | None]) -> float:
        """The score of a branch by its verdicts, a good and a bad one a step."""
        known = [scored for scored in found if scored is not None]
        if not known or len(known) < len(found):
            return math.nan
        values = [preference(*pair) for pair in zip(known[::2], known[1::2], strict=True)]
        return AGGREGATES[self.aggregate](values)

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
