"""The task's own checker as a verifier: exact, or degraded to a chosen rate of each error.

The exact one is the upper end of the ladder of verifier quality, and the control of every claim
about search; the degraded ones are its rungs. They cost no tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from mull.budget import Meter
from mull.errors import UnsupportedError
from mull.rng import derive
from mull.tasks.base import ProcessTask, Task, settled
from mull.types import Branch, EngineInfo
from mull.verifiers.threads import score_in_thread

ADMIRED = 0.9
"""The score of a branch that is held to be right where exploits (scored 1) stand above it."""


class CheckerVerifier:
    """1 while a branch is right so far, else 0; NaN where the task cannot say (no gold answer).

    A finished branch is right if the task grades its answer as correct; an unfinished one if the
    task's process checker finds no wrong step.

    The degraded checker errs by text, so that equal texts get equal verdicts: a wrong branch is
    held to be right with probability ``false_positive``, a right one to be wrong with probability
    ``false_negative``. A share ``exploit`` of the wrong branches scores 1 and all that is held to
    be right scores .9: they stand above every right branch, and the more is searched, the surer
    one of them is found.
    """

    policy = ()

    def __init__(
        self,
        task: Task,
        *,
        false_positive: float = 0.0,
        false_negative: float = 0.0,
        exploit: float = 0.0,
        seed: int = 0,
    ) -> None:
        rates = {
            "false_positive": false_positive,
            "false_negative": false_negative,
            "exploit": exploit,
            "false_positive + exploit": false_positive + exploit,
        }
        for name, value in rates.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, not {value}")
        self.task, self.seed = task, seed
        self.false_positive, self.false_negative = false_positive, false_negative
        self.exploit = exploit

    @property
    def info(self) -> EngineInfo:
        """Who scores: the task and the rates of error."""
        rates = f"{self.false_positive}/{self.false_negative}/{self.exploit}/{self.seed}"
        return EngineInfo("checker", f"checker:{self.task.name}", rates)

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch. ``UnsupportedError`` for an unfinished branch of a task that has no
        process checker.
        """
        for position in range(len(branches)):
            meter.charge(position)
        return await score_in_thread(lambda branch, _: self.verdict(branch), branches)

    def verdict(self, branch: Branch) -> float:
        """The score of one branch."""
        right = self._right(branch)
        if right is None:
            return math.nan
        admired = ADMIRED if self.exploit else 1.0
        draw = random.Random(derive(self.seed, branch.problem.id, branch.text)).random()
        if right:
            return 0.0 if draw < self.false_negative else admired
        if draw < self.exploit:
            return 1.0
        return admired if draw < self.exploit + self.false_positive else 0.0

    def _right(self, branch: Branch) -> bool | None:
        problem, text = branch.problem, branch.text
        if branch.finished:
            read = settled(self.task, self.task.extract(problem, text), branch.steps[-1].stop)
            return self.task.grade(problem, read.answer).correct
        if not isinstance(self.task, ProcessTask):
            raise UnsupportedError(
                f"task {self.task.name} has no process checker: the checker scores its finished "
                "solutions alone; use a strategy that scores whole solutions, or another verifier"
            )
        return self.task.first_error(problem, text) is None
