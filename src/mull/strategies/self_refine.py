"""Attempts that are criticised and tried again, by prompt alone: no revision model is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from mull.budget import Purpose
from mull.errors import SpecError
from mull.strategies.attempts_tree import attempts_tree
from mull.strategies.base import Ended, Failure, OrderedSearch, Outcome, Result, Search, Start
from mull.strategies.checks import check_positive
from mull.strategies.judge import (
    JUDGE,
    JUDGE_CHILD,
    VERDICT_TOKENS,
    grade_prompt,
    read_grade,
    reply_of,
    without_verdict,
)
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import Patience, samples_of
from mull.strategies.sample import branch_of
from mull.strategies.scored import ByScore, FirstBest
from mull.types import GREEDY, Branch, Candidate, Completion, Until


@dataclass(frozen=True, slots=True)
class SelfRefine:
    """Attempt, criticism, attempt, …; the best grade answers (Self-Refine; Madaan et al. 2023).

    Source: arXiv 2303.17651. ``n`` attempts at most. After each one ``judge`` (``policy``: the
    model itself) criticises and grades it; at a grade of ``approve`` (0..1) the search stops. The
    next attempt sees the last ``history`` attempts with their criticism. The best grade answers,
    the first of equals: never just the last attempt. A judge without a verdict approves nothing,
    and where it never gives one the majority answers. A verdict is no sample; it takes at most
    ``judge_tokens``.
    """

    n: int | None = None
    judge: str = POLICY
    approve: float = 0.95
    history: int = 1
    judge_tokens: int = VERDICT_TOKENS

    def __post_init__(self) -> None:
        check_positive("self-refine", history=self.history, judge_tokens=self.judge_tokens)
        if not 0.0 < self.approve <= 1.0:
            raise SpecError(f"self-refine(approve={self.approve}): approve must lie in (0, 1]")

    @property
    def needs(self) -> Needs:
        """The policy and the judge."""
        return Needs(engines=tuple(dict.fromkeys((POLICY, self.judge))))

    def start(self, start: Start) -> Search:
        return RefineSearch(start, samples_of("self-refine", self.n, start.budget), self)


@dataclass
class RefineSearch(OrderedSearch):
    """One chain: what is asked next depends on what the judge said of the attempt before.

    A failed attempt is drawn again; an attempt without an answer is judged like any other, and so
    told what is missing. Without a number of its own the chain gives up by its ``Patience``. In the
    tree a criticism stands between two attempts: it is why the second differs from the first.
    """

    n: int
    config: SelfRefine
    candidates: list[Candidate] = field(default_factory=list, init=False)
    ended: Ended = field(default=Ended.COMPLETE, init=False)
    _head: Branch = field(init=False)
    _tries: int = field(default=0, init=False)
    _attempts: int = field(default=0, init=False)
    _patience: Patience = field(init=False)
    _judged: dict[int, Branch] = field(default_factory=dict, init=False)
    _lost: list[tuple[int, ...]] = field(default_factory=list, init=False)
    _criticism: dict[tuple[int, ...], str] = field(default_factory=dict, init=False)

    def begin(self) -> None:
        self._patience = Patience(self.n)
        self._head = Branch.root(self.start.problem)
        for candidate in self.start.candidates[:1]:
            self._attempts += 1
            self._landed(branch_of(self.start.problem, candidate), candidate)
            return
        self._attempt()

    def take(self, outcome: Outcome) -> None:
        judged = self._judged.get(outcome.action)
        if judged is not None:
            self._heard(judged, outcome)
            return
        self._patience.saw(outcome.said)
        if isinstance(outcome.value, Completion):
            branch = self._head.child(outcome.value)
            self._landed(branch, self.start.candidate(branch))
        else:
            self._lost.append((*self._head.key, outcome.index))
            self._attempt()

    def result(self) -> Result:
        """The best attempt so far; one that the judge has not graded counts where none has."""
        select = ByScore(JUDGE, FirstBest(JUDGE), self.start.majority)
        selection = select(self.candidates, self.start.same)
        ended = self.ended if self.done else Ended.UNFINISHED
        tree = attempts_tree(self.candidates, JUDGE, self._lost, self._criticism.items())
        return Result((selection,), tuple(self.candidates), tuple(self.failures), ended, tree)

    def _attempt(self) -> None:
        budget = self.start.budget
        if self._attempts >= self.n or self._patience.over:
            return
        if budget is not None and budget.exhausted(self.spent):
            self.ended = Ended.BUDGET
            return
        purpose = Purpose.REVISION if self._head.history else Purpose.POLICY
        self.generate(self._head, self.start.limit, first=self._tries, purpose=purpose)
        self._attempts += 1
        self._tries += 1

    def _landed(self, branch: Branch, candidate: Candidate) -> None:
        """An attempt came: have it judged, unless the budget is spent."""
        self.candidates.append(candidate)
        known = candidate.scores.get(JUDGE, math.nan)
        budget = self.start.budget
        if budget is not None and budget.exhausted(self.spent):
            self.ended = Ended.BUDGET
        elif math.isfinite(known):
            self._onward(branch, known, "")
        else:
            view = grade_prompt(branch.problem, branch.text)
            asked = Branch(branch.problem, view, (*branch.key, JUDGE_CHILD))
            action = self.generate(
                asked,
                Until(self.config.judge_tokens),
                engine=self.config.judge,
                decoding=GREEDY,
                purpose=Purpose.JUDGE,
            )
            self._judged[action] = branch

    def _heard(self, branch: Branch, outcome: Outcome) -> None:
        grade = reply_of(outcome.value, read_grade)
        if isinstance(grade, Failure):
            if grade is not outcome.value:
                self.failures.append(grade)
            self._onward(branch, None, "")
            return
        last = self.candidates[-1]
        self.candidates[-1] = replace(last, scores={**last.scores, JUDGE: grade})
        text = outcome.value.text if isinstance(outcome.value, Completion) else ""
        self._onward(branch, grade, without_verdict(text))

    def _onward(self, branch: Branch, grade: float | None, criticism: str) -> None:
        approved = grade is not None and grade >= self.config.approve
        if approved and self.candidates[-1].answer is not None:
            self.ended = Ended.CONFIDENT
            return
        feedback = f"{criticism}\n\nSolve the problem again with this in mind." if criticism else ""
        revision = branch.revision(feedback)
        self._head = replace(revision, history=revision.history[-self.config.history :])
        self._tries = 0
        self._attempt()
        if criticism and self._tries:  # an attempt was asked for that sees it
            self._criticism[revision.key] = criticism
