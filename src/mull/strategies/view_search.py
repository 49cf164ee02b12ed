"""Samples of the views of a problem, brought back to its own frame: the search behind airv."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mull.strategies.base import Failure, Outcome
from mull.strategies.number import FAR
from mull.strategies.scored import ScoredSearch
from mull.tasks.base import SAME, View, ViewedTask
from mull.types import Branch, Candidate, Completion, Step, StopReason, TokenBeam


@dataclass
class ViewSearch(ScoredSearch):
    """Sample ``i`` is child ``i % width`` of view ``i // width``.

    A candidate that has an answer carries the text that gives it in the problem's own frame: so
    equal answers of several views are one text, and are scored once. With ``likeliest`` one sample
    of each view is kept, once all of them came; of a token beam it is the first hypothesis.
    """

    task: ViewedTask = field(kw_only=True)
    width: int = 1
    seed: int = 0
    likeliest: bool = False
    _views: list[View] = field(default_factory=list, init=False)
    _shown: dict[int, tuple[View, Branch]] = field(default_factory=dict, init=False)
    _came_of: dict[int, int] = field(default_factory=dict, init=False)
    _best: dict[int, tuple[Candidate, Branch]] = field(default_factory=dict, init=False)

    def take(self, outcome: Outcome) -> None:
        shown = self._shown.get(outcome.action)
        if shown is not None and self.likeliest:
            number = shown[1].key[0]
            self._came_of[number] = self._came_of.get(number, 0) + 1
            self._empty += self._came_of[number] > 1  # a view is missed or is not, as one sample
            if isinstance(outcome.value, Failure):
                self._keep(number)
        super().take(outcome)

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
        own = View(SAME, problem.prompt, problem.opening)
        text = self.task.solution_in(problem, own, candidate.answer)
        canonical = replace(
            Branch.root(problem), key=branch.key, steps=(Step(text, StopReason.END),)
        )
        return replace(candidate, text=text), canonical

    def _void(self, outcome: Outcome) -> bool:
        behind = isinstance(self.decoding, TokenBeam) and outcome.index > 0
        return super()._void(outcome) or (behind and isinstance(outcome.value, Completion))

    def _add(self, candidate: Candidate, branch: Branch) -> None:
        if not self.likeliest:
            self._enter(candidate, branch)
            return
        number = branch.key[0]
        best = self._best.get(number)
        if best is None or _likelihood(candidate) > _likelihood(best[0]):
            self._best[number] = candidate, branch
        self._keep(number)

    def _keep(self, number: int) -> None:
        """The likeliest sample of a view counts once its last one came."""
        if self._came_of[number] == self.width and number in self._best:
            self._enter(*self._best[number])

    def _enter(self, candidate: Candidate, branch: Branch) -> None:
        if self.mark:
            super()._add(candidate, branch)
        else:
            self.candidates.append(candidate)

    def _marked(self, candidates: list[Candidate]) -> list[Candidate]:
        return super()._marked(self._kept(candidates))

    def _kept(self, candidates: list[Candidate]) -> list[Candidate]:
        """What counts of candidates that may have come before their view was whole."""
        if not self.likeliest:
            return candidates
        partial = [c for n, (c, _) in self._best.items() if self._came_of[n] < self.width]
        return _likeliest(sorted([*candidates, *partial], key=lambda each: each.key))

    def _view(self, number: int) -> View:
        if number >= len(self._views):
            count = self.n // self.width if self.n != FAR else max(8, 2 * number)
            self._views = list(self.task.views(self.start.problem, count, self.seed))
        return self._views[number]


def _likelihood(candidate: Candidate) -> float:
    return candidate.scores.get("logprob", -math.inf)


def _likeliest(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The likeliest of each view, the first of equal ones."""
    kept: dict[int, Candidate] = {}
    for each in candidates:
        known = kept.setdefault(each.key[0], each)
        if _likelihood(each) > _likelihood(known):
            kept[each.key[0]] = each
    return list(kept.values())
