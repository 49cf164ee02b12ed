"""Public reward models with a head of two classes, wrong and right, that is read at step ends.

Two layouts, steps and what ends them tokenised apart as their authors do. ``trl-prm`` (the
``PRMTrainer`` of TRL, token classification): the prompt as plain text, and a separator behind every
step, the last one too. ``qwen-prm`` (Qwen2.5-Math-PRM; Zhang et al. 2025, arXiv 2501.07301): a chat
whose assistant's turn has a token of its own behind every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

from mull.engines.base import Engine
from mull.errors import SpecError
from mull.types import Branch, Message, Prompt, Scored, ScoreRequest
from mull.verifiers.reward import RewardVerifier
from mull.verifiers.steps import Aggregate, pieces

Layout = Literal["trl-prm", "qwen-prm"]
TAGS: Mapping[Layout, str] = {"trl-prm": "\n", "qwen-prm": "<extra_0>"}
"""What stands behind every step."""
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
"""The system's turn that Qwen2.5-Math-PRM was trained with."""


class ClassVerifier(RewardVerifier):
    """Scores a branch by softmax(wrong, right) of its steps, each 0..1.

    ``tag`` is what ends a step (default: by the layout), ``system`` the system's turn of a
    ``qwen-prm`` where the problem has none. A tag that a solution writes itself is taken out of a
    ``qwen-prm``'s steps: it would be a step end to the model. The rest as ``RewardVerifier``.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        format: Layout = "trl-prm",
        aggregate: Aggregate = "last",
        tag: str | None = None,
        system: str | None = None,
        separator: str = "\n",
        trained_for: tuple[str, ...] = (),
    ) -> None:
        if format not in TAGS:
            raise SpecError(f"format={format!r}: format is {' or '.join(get_args(Layout))}")
        super().__init__(engine, aggregate=aggregate, separator=separator, trained_for=trained_for)
        chat = format == "qwen-prm"
        if chat and not engine.info.capabilities.chat:
            raise SpecError(f"format={format}: {engine.info.model} has no chat template")
        if system is not None and not chat:
            raise SpecError(f"format={format} has no system's turn: leave system out")
        if tag == "":
            raise SpecError("tag='': a step must end in something")
        self.format, self.tag = format, TAGS[format] if tag is None else tag
        self.system = SYSTEM if system is None else system

    @property
    def how(self) -> str:
        """What decides the score besides the engine."""
        system = f"/{self.system}" if self.format == "qwen-prm" else ""
        return f"{super().how}/{self.format}/{self.tag}{system}"

    def _request(self, branch: Branch) -> ScoreRequest:
        steps = pieces(branch.text, self.separator)
        prompt = Prompt.of(branch.view.plain)
        if self.format == "qwen-prm":
            steps = [step.replace(self.tag, "") for step in steps]
            turns = branch.view.messages or (Message("user", branch.view.plain),)
            if all(turn.role != "system" for turn in turns):
                turns = (Message("system", self.system), *turns)
            prompt = Prompt.chat(*turns)
        ended = tuple(piece for step in steps if step.strip() for piece in (step, self.tag))
        return ScoreRequest(prompt, "", pieces=ended, values=True, logprobs=False)

    def _score(self, found: Scored | None) -> float:
        """Of the values at the ends of steps and of tags, those of the tags."""
        return super()._score(found and replace(found, values=found.values[1::2]))
