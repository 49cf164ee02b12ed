"""Product of experts: how likely a candidate is under several views of its problem.

A view shows the problem, and the same candidate, in another way: turned, with other names, in
another order. A right answer stays likely from every side, a lucky one does not. The product of
the probabilities, the sum of their logarithms, ranks the candidates (Hinton 2002; for ARC Franzen
et al. 2025, arXiv 2505.07859, where it beat the best, the worst and the mean probability).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import SpecError, UnsupportedError
from mull.tasks.base import Task, ViewedTask, settled
from mull.types import Branch, Scored, ScoreRequest, StopReason
from mull.verifiers.base import EngineVerifier
from mull.verifiers.texts import score_each

Render = Callable[[Branch], Sequence[ScoreRequest]]
"""A branch's views: the problem as each shows it, and the candidate as it looks there. None at all
where there is nothing to judge (an unanswered candidate)."""

Combine = Literal["sum", "mean", "min", "max"]
COMBINE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": fmean,
    "min": min,
    "max": max,
}


class ViewsVerifier(EngineVerifier):
    """Scores a branch by log P(candidate | problem) in all its views: natural logarithms, no 0..1.

    ``combine`` makes one score of the views': ``sum`` (the product of experts), ``mean``, ``min``
    (the least convinced) or ``max``. ``base_log_prob`` is added to each view's log-probability, so
    that among candidates with unequally many views a further one pays where the candidate is
    likelier there than exp(-``base_log_prob``); with equally many it changes no order.

    All views of all branches go to the engine as one batch, equal ones once. A text's probability
    is that of its tokens, and of the turn's end behind them where ``render`` asks for it
    (``ScoreRequest.end``), which it should wherever a candidate may be the beginning of another: a
    text without a closing mark is at least as likely as any that goes on from it. A branch without
    a view, with a view whose text has no token, or with one that is longer than the context, has no
    score (NaN): it could not be compared. ``trained_for`` is (model, revision) of the policy it
    belongs to, () for any; ``owned`` says that closing the verifier closes the engine.
    """

    def __init__(
        self,
        engine: Engine,
        render: Render,
        *,
        combine: Combine = "sum",
        base_log_prob: float = 0.0,
        trained_for: tuple[str, ...] = (),
        owned: bool = True,
    ) -> None:
        if combine not in COMBINE:
            raise SpecError(f"combine={combine!r}: combine is {' or '.join(COMBINE)}")
        if not math.isfinite(base_log_prob):
            raise SpecError(f"base_log_prob={base_log_prob}: expected a finite number, as in 3.0")
        if not engine.info.capabilities.score:
            raise UnsupportedError(
                f"{engine.info.kind}:{engine.info.model} does not score given texts, which views "
                "are judged by: use an engine that does, such as a model in this process"
            )
        self.engine, self.render, self.combine = engine, render, combine
        self.base_log_prob, self.policy, self.owned = base_log_prob, trained_for, owned

    @property
    def how(self) -> str:
        """What decides the score besides the engine."""
        base = f"/{self.base_log_prob:g}" if self.base_log_prob else ""
        return f"views/{self.combine}{base}"

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, all branches and views in one batch of the engine."""
        views = [self._views(branch) for branch in branches]
        owner: dict[ScoreRequest, int] = {}
        for at, seen in enumerate(views):
            meter.charge(at)
            for view in seen:
                owner.setdefault(view, at)
        found = await score_each(self.engine, list(owner), meter, list(owner.values()))
        known = dict(zip(owner, map(_logprob, found), strict=True))
        return [self._score([known[view] for view in seen]) for seen in views]

    def _views(self, branch: Branch) -> list[ScoreRequest]:
        views = [replace(view, values=False, logprobs=True) for view in self.render(branch)]
        return [] if any(_empty(view) for view in views) else views

    def _score(self, logprobs: Sequence[float]) -> float:
        if not logprobs or any(map(math.isnan, logprobs)):
            return math.nan
        return COMBINE[self.combine]([self.base_log_prob + each for each in logprobs])


def own_views(
    task: Task,
    policy_engine: Engine,
    views: int = 8,
    combine: Combine = "sum",
    base_log_prob: float = 0.0,
    seed: int = 0,
) -> ViewsVerifier:
    """The policy's own verdict on an answer, under ``views`` views of its problem by the task.

    Every candidate is judged under the same views. An unanswered one has no score. Where the task's
    texts do not close themselves, the end of the turn counts as a token does. ``SpecError`` for a
    task that cannot show a problem in several ways; ``UnsupportedError`` where the end must count
    and the engine does not tell it.
    """
    if not isinstance(task, ViewedTask):
        raise SpecError(f"views needs a task that shows a problem in several ways, not {task.name}")
    if views < 1:
        raise SpecError(f"views(views={views}): expected at least 1")
    if not (task.closes or policy_engine.info.capabilities.ends):
        info = policy_engine.info
        raise UnsupportedError(
            f"views: an answer in the form that task {task.name} has here shows no end of its own, "
            f"and {info.kind}:{info.model} does not tell how likely a turn is to end: use a model "
            'in this process, or a form with a closing mark, as arc(format="marked") has'
        )
    viewed = task

    def render(branch: Branch) -> list[ScoreRequest]:
        stop = branch.steps[-1].stop if branch.steps else StopReason.END
        answer = settled(viewed, viewed.extract(branch.problem, branch.text), stop).answer
        if answer is None:
            return []
        seen = viewed.views(branch.problem, views, seed)
        said = [view.opening + viewed.solution_in(branch.problem, view, answer) for view in seen]
        return [
            ScoreRequest(view.prompt, text, weights=branch.weights, end=not viewed.closes)
            for view, text in zip(seen, said, strict=True)
        ]

    return ViewsVerifier(
        policy_engine, render, combine=combine, base_log_prob=base_log_prob, owned=False
    )


def _logprob(scored: Scored | None) -> float:
    """Of the tokens, and of the end where it was asked; NaN for a text that was not scored."""
    if scored is None or not scored.logprobs:
        return math.nan
    return math.fsum((*scored.logprobs, 0.0 if scored.end is None else scored.end))


def _empty(view: ScoreRequest) -> bool:
    """Whether there is nothing to score: its probability would be 1."""
    return not (view.assistant if view.assistant_ids is None else view.assistant_ids)
