"""Augment, infer, revert, vote: a sample of each of many views of a problem, one answer from all.

A view shows the problem turned, recoloured, reordered (``ViewedTask``); answers come back to the
problem's own frame before they are counted. With temperature 0 all variety comes from the views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.selection import Majority, Selector
from mull.strategies.base import Search, Start
from mull.strategies.needs import Needs
from mull.strategies.sample import FAR, WINDOW, check_options, samples_of
from mull.strategies.scored import ByScore, FirstBest, ScoredSearch
from mull.tasks.base import SAME, View, ViewedTask
from mull.types import (
    Branch,
    Candidate,
    Completion,
    Decoding,
    Sampling,
    Step,
    StopReason,
    ThresholdDFS,
)

VERIFIER = "views"


@dataclass(frozen=True, slots=True)
class Airv:
    """``per_view`` samples of each view, a vote over the answers brought back.

    Sources: test-time augmentation with votes, as both ARC write-ups do it; ``rank="views"`` is
    the product of experts (Franzen et al. 2025, arXiv 2505.07859): each distinct answer is scored
    under all views by the verifier ``views``, and the likeliest answers. ``threshold`` takes all
    answers of at least that probability under a view instead of samples; a view then costs
    1 / ``threshold`` of them. ``temperature`` is the run's unless given; 0 is usual here. ``seed``
    draws the views, the same for every run, so that runs can be compared.
    """

    n: int | None = None
    per_view: int = 1
    threshold: float | None = None
    rank: Literal["vote", "views"] = "vote"
    temperature: float | None = None
    seed: int = 0
    window: int = WINDOW
    quorum: float = 0.0

    def __post_init__(self) -> None:
        check_options("airv", self.window, self.quorum)
        if self.rank not in ("vote", "views"):
            raise SpecError(f"airv(rank={self.rank!r}): rank is vote or views")
        if self.per_view < 1:
            raise SpecError(f"airv(per_view={self.per_view}): per_view must be at least 1")
        if self.threshold is not None:
            if not 1 / FAR < self.threshold <= 1.0:
                raise SpecError(f"airv(threshold={self.threshold}): a probability, as in 0.1")
            if self.per_view != 1 or self.temperature is not None:
                raise SpecError("airv: a threshold takes no samples; leave per_view, temperature")
        if self.temperature is not None and not 0.0 <= self.temperature < math.inf:
            raise SpecError(f"airv(temperature={self.temperature}): 0 or more, as in 0.7")

    @property
    def needs(self) -> Needs:
        """The verifier ``views`` to rank by it, a policy with threshold search to search so."""
        return Needs(
            verifiers=(VERIFIER,) if self.rank == "views" else (),
            capabilities=("threshold_dfs",) if self.threshold is not None else (),
        )

    @property
    def width(self) -> int:
        """Samples that a view costs."""
        return self.per_view if self.threshold is None else ThresholdDFS(self.threshold).width

    def start(self, start: Start) -> Search:
        if not isinstance(start.task, ViewedTask):
            raise UnsupportedError(
                f"airv needs a task that shows a problem in several ways (arc), not "
                f"{start.task.name}: use vote"
            )
        n = samples_of("airv", self.n, start.budget)
        if n != FAR and n % self.width:
            raise BudgetError(
                f"airv takes {self.width} samples of a view, of which {n} samples make no whole "
                "number of views"
            )
        decoding: Decoding = start.sampling
        if self.threshold is not None:
            decoding = ThresholdDFS(self.threshold)
        elif self.temperature is not None:
            known = start.sampling if isinstance(start.sampling, Sampling) else Sampling()
            decoding = replace(known, temperature=self.temperature)
        mark = VERIFIER if self.rank == "views" else ""
        select: Selector = ByScore(mark, FirstBest(mark)) if mark else Majority()
        # Samples that exist already were drawn under the plain prompt: they are no views.
        return AirvSearch(
            replace(start, candidates=()),
            n,
            select,
            decoding,
            window=max(self.window, self.width),
            quorum=self.quorum,
            unit=1 if self.threshold is None else self.width,
            mark=mark,
            task=start.task,
            width=self.width,
            seed=self.seed,
        )


@dataclass
class AirvSearch(ScoredSearch):
    """Sample ``i`` is child ``i % width`` of view ``i // width``.

    A candidate that has an answer carries the text that gives it in the problem's own frame: so
    equal answers of several views are one text, and are scored once.
    """

    task: ViewedTask = field(kw_only=True)
    width: int = 1
    seed: int = 0
    _views: list[View] = field(default_factory=list, init=False)
    _shown: dict[int, tuple[View, Branch]] = field(default_factory=dict, init=False)

    def _request(self, first: int, count: int) -> None:
        for number in range(first // self.width, -(-(first + count) // self.width)):
            begin = max(first, number * self.width)
            end = min(first + count, (number + 1) * self.width)
            view = self._view(number)
            problem, opening = self.start.problem, view.opening
            branch = Branch(problem, view.prompt, (number,), opening=opening)
            action = self.generate(
                branch,
                self.start.limit,
                end - begin,
                first=begin - number * self.width,
                decoding=self.decoding,
            )
            self._shown[action] = (view, branch)

    def _read(self, action: int, completion: Completion) -> tuple[Candidate, Branch]:
        view, shown = self._shown[action]
        problem, branch = self.start.problem, shown.child(completion)
        read = self.task.extract_from(problem, view, branch.text)
        candidate = self.start.candidate(branch, read)
        if candidate.answer is None:
            return candidate, branch
        own = View(SAME, problem.prompt)
        text = self.task.solution_in(problem, own, candidate.answer)
        canonical = Branch(problem, own.prompt, branch.key, steps=(Step(text, StopReason.END),))
        return replace(candidate, text=text), canonical

    def _add(self, candidate: Candidate, branch: Branch) -> None:
        if self.mark:
            super()._add(candidate, branch)
        else:
            self.candidates.append(candidate)

    def _view(self, number: int) -> View:
        if number >= len(self._views):
            count = self.n // self.width if self.n != FAR else max(8, 2 * number)
            self._views = list(self.task.views(self.start.problem, count, self.seed))
        return self._views[number]
