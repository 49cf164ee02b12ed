"""A verifier for the simulator's solutions: noisy, unbiased where it can see, deceived by lures.

score = sigmoid(.8·logit V + .8·z), z standard normal, V = p^(L-t) while the solution is right so
far, else .02: the verifier behind the simulated curves of search against verifier quality. A lure
counts as right and gets one logit more; a trap gets V = .98.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

from mull.budget import Meter
from mull.engines.simulated.problems import Facts, read_facts
from mull.engines.simulated.steps import read_solution
from mull.engines.simulated.text import encode, prompt_text
from mull.rng import derive
from mull.types import Branch, EngineInfo

FLOOR, CEILING = 0.02, 0.98
"""V of what is wrong, and the most that V can be: a logit must stay finite."""


class SimulatedVerifier:
    """Scores branches of ``StepModel`` solutions; the noise belongs to (seed, problem, key).

    ``sharpness`` multiplies logit V, ``noise`` multiplies z; ``batch_ms`` is the time of a batch,
    one at a time (0: none). A branch whose earlier steps were scored costs its last step only.
    """

    policy = ()  # fits any engine that runs a step model

    def __init__(
        self,
        *,
        seed: int = 0,
        sharpness: float = 0.8,
        noise: float = 0.8,
        batch_ms: float = 0.0,
        parameters: int = 0,
        separator: str = "\n",
    ) -> None:
        numbers = {"sharpness": sharpness, "noise": noise, "batch_ms": batch_ms}
        for name, value in {**numbers, "parameters": parameters}.items():
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"simulated verifier: {name} must be 0 or more, not {value}")
        self.seed, self.sharpness, self.noise = seed, sharpness, noise
        self.batch_ms, self.parameters, self.separator = batch_ms, parameters, separator
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free_at = 0.0

    @property
    def info(self) -> EngineInfo:
        """Who scores; its tokens are bytes."""
        return EngineInfo(
            kind="simulated",
            model="simulated-verifier",
            revision=f"{self.sharpness}/{self.noise}/{self.seed}",
            tokenizer="bytes",
            parameters=self.parameters,
        )

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score 0..1 a branch; ``EngineError`` for a problem that is not simulated."""
        scores = []
        for position, branch in enumerate(branches):
            prompt = prompt_text(branch.view)
            facts = read_facts(prompt)
            logit = self.logit(facts, branch.text)
            z = random.Random(derive(self.seed, branch.problem.id, branch.key)).gauss(0.0, 1.0)
            scores.append(1 / (1 + math.exp(-self.sharpness * logit - self.noise * z)))
            last = len(encode(branch.steps[-1].text)) if branch.steps else 0
            before = len(encode(prompt)) + len(encode(branch.text)) - last
            cached = before if branch.depth > 1 else 0
            meter.charge(position, prompt=before + last, cached=cached)
        await self._take_time()
        return scores

    async def _take_time(self) -> None:
        """One batch after the other, first come, first served."""
        if not self.batch_ms:
            return
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._free_at = loop, 0.0
        self._free_at = max(self._free_at, loop.time()) + self.batch_ms / 1e3
        await asyncio.sleep(self._free_at - loop.time())

    def logit(self, facts: Facts, text: str) -> float:
        """Logit of V of a (partial) solution, before the noise."""
        reading = read_solution(text, facts.steps, self.separator)
        error = reading.error
        if error is not None and error[0] == "trap":
            return _logit(CEILING)
        if error is not None and error[0] != "lure":
            return _logit(FLOOR)
        left = max(0, facts.steps - len(reading.events))
        return _logit(facts.success**left) + (1.0 if error is not None else 0.0)


def _logit(value: float) -> float:
    value = min(max(value, FLOOR), CEILING)
    return math.log(value / (1 - value))
