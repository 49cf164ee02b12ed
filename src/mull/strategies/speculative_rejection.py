"""Best-of-n that drops what a verifier likes least while it is still being written."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mull.errors import SpecError
from mull.strategies.base import Ended, Failure, OrderedSearch, Outcome, Result, Search, Start
from mull.strategies.chains import chunk_of, with_chunk
from mull.strategies.checks import check_positive
from mull.strategies.needs import Needs
from mull.strategies.number import FAR, UNSAID, samples_of
from mull.strategies.owed import finish_is_due
from mull.strategies.sample import branch_of
from mull.strategies.scored import ByScore, FirstBest, score_of
from mull.trees import Fate, TreeNode
from mull.types import Branch, Candidate, Completion

Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SpeculativeRejection:
    """Best of n, of which the worst are dropped while they are written (Sun et al. 2024).

    Source: arXiv 2410.20290. All n solutions are written ``chunk`` tokens at a time. After each
    chunk the verifier scores those in the race, and the share ``alpha`` with the lowest scores
    leaves it, rounded down; what has ended stays in the race by its score. The last one left is
    written to its end; so is the best of the race where the budget runs out before any has ended.
    The best final score answers, the first of equals. Where nothing is scored
    the majority answers.
    """

    n: int | None = None
    verifier: str = "prm"
    alpha: float = 0.5
    chunk: int = 64

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < 1.0:
            raise SpecError(f"speculative-rejection(alpha={self.alpha}): alpha must lie in [0, 1)")
        check_positive("speculative-rejection", chunk=self.chunk)

    @property
    def needs(self) -> Needs:
        """A verifier, and a policy that can continue a turn."""
        return Needs(verifiers=(self.verifier,), capabilities=("continue_assistant",))

    def start(self, start: Start) -> Search:
        n = samples_of("speculative-rejection", self.n, start.budget)
        return RejectionSearch(start, UNSAID if n == FAR else n, self)


@dataclass
class RejectionSearch(OrderedSearch):
    """The race: rounds of a chunk each, the scores asked as the chunks take effect.

    Equal texts are scored once. The tree has a node a chunk, whose score is the one that its round
    was decided by.
    """

    n: int
    config: SpeculativeRejection
    ended: Ended = field(default=Ended.COMPLETE, init=False)
    _owes: bool = field(default=True, init=False)
    _came: dict[Key, Branch] = field(default_factory=dict, init=False)
    _lost: list[Key] = field(default_factory=list, init=False)
    _racing: dict[Key, Branch] = field(default_factory=dict, init=False)
    _finished: dict[Key, Candidate] = field(default_factory=dict, init=False)
    _scores: dict[Hashable, float] = field(default_factory=dict, init=False)
    _parents: dict[int, Branch] = field(default_factory=dict, init=False)
    _about: dict[int, Hashable] = field(default_factory=dict, init=False)
    _asked: set[Hashable] = field(default_factory=set, init=False)
    _waiting: int = field(default=0, init=False)

    def begin(self) -> None:
        given = self.start.candidates[: self.n]
        root = Branch.root(self.start.problem)
        if len(given) < self.n:
            chunk = self.config.chunk if self.n > 1 else None
            until = chunk_of(self.start.limit, 0, chunk)
            if until is not None:
                count = self.n - len(given)
                self._parents[self.generate(root, until, count, first=len(given))] = root
                self._waiting += count
        for candidate in given:
            self._landed(branch_of(self.start.problem, candidate), candidate)

    def take(self, outcome: Outcome) -> None:
        self._waiting -= 1
        what = self._about.pop(outcome.action, None)
        if what is not None:
            reading = score_of(self.config.verifier, outcome.value)
            if not isinstance(reading, Failure):
                self._scores[what] = reading
            elif reading is not outcome.value:
                self.failures.append(reading)
        elif isinstance(outcome.value, Completion):
            branch = with_chunk(self._parents[outcome.action], outcome.value)
            self._landed(branch, self.start.candidate(branch) if branch.finished else None)
        else:
            self._lost.append((*self._parents[outcome.action].key, outcome.index))
        if not self._waiting:
            self._check()

    def result(self) -> Result:
        """The best finished solution so far; what is still being written has no answer yet."""
        name = self.config.verifier
        finished, scores, failures = dict(self._finished), dict(self._scores), list(self.failures)
        came, lost = dict(self._came), list(self._lost)
        for outcome in self._inbox.held():
            if outcome.action in self._about:
                reading = score_of(name, outcome.value)
                if isinstance(reading, Failure):
                    failures.append(reading)
                else:
                    scores[self._about[outcome.action]] = reading
            elif isinstance(outcome.value, Completion):
                branch = with_chunk(self._parents[outcome.action], outcome.value)
                came[branch.key] = branch
                if branch.finished:
                    finished[branch.key] = self.start.candidate(branch)
            elif isinstance(outcome.value, Failure):
                failures.append(outcome.value)
                lost.append((*self._parents[outcome.action].key, outcome.index))
        candidates = tuple(
            replace(c, scores={**c.scores, name: scores[c.text, True]})
            if (c.text, True) in scores
            else c
            for _, c in sorted(finished.items())
        )
        select = ByScore(name, FirstBest(name), self.start.majority)
        selection = select(candidates, self.start.same)
        ended = self.ended if self.done else Ended.UNFINISHED
        tree = self._tree(came, lost, finished, scores)
        return Result((selection,), candidates, tuple(failures), ended, tree)

    def _tree(
        self,
        came: Mapping[Key, Branch],
        lost: Sequence[Key],
        finished: Container[Key],
        scores: Mapping[Hashable, float],
    ) -> tuple[TreeNode, ...]:
        """Every chunk that came, and those that did not."""
        extended = {parent.key for parent in self._parents.values()}
        silent = self._asked - scores.keys() - set(self._about.values())
        nodes = [TreeNode(key, "", None, Fate.FAILED) for key in lost]
        for key, branch in came.items():
            what = _said(branch)
            if key in finished:
                fate = Fate.FINISHED
            elif key in extended:
                fate = Fate.KEPT
            else:
                fate = Fate.FAILED if what in silent else Fate.PRUNED
            nodes.append(TreeNode(key, branch.steps[-1].text, scores.get(what), fate))
        return tuple(sorted(nodes, key=lambda node: node.key))

    def _landed(self, branch: Branch, candidate: Candidate | None) -> None:
        """A branch came to the end of its chunk, or (a candidate) to its own end."""
        self._came[branch.key] = self._racing[branch.key] = branch
        what = _said(branch)
        if candidate is not None:
            self._finished[branch.key] = candidate
        known = (
            math.nan if candidate is None else candidate.scores.get(self.config.verifier, math.nan)
        )
        if math.isfinite(known):
            self._scores[what] = known
            self._asked.add(what)
        elif what not in self._asked and (candidate is None or candidate.answer is not None):
            self._asked.add(what)
            self._about[self.score((branch,), self.config.verifier)] = what
            self._waiting += 1

    def _check(self) -> None:
        """All chunks and scores of a round are in: drop the worst, go on with the rest."""
        ranked = sorted(self._racing, key=lambda key: (-self._liking(key), key))
        keep = len(ranked) - math.floor(self.config.alpha * len(ranked))
        racing = {key: self._racing[key] for key in sorted(ranked[:keep])}
        self._racing = {key: b for key, b in racing.items() if key in self._finished}
        alive = [branch for key, branch in racing.items() if key not in self._finished]
        budget = self.start.budget
        if alive and self._finish(next(racing[key] for key in ranked if key in racing)):
            return
        if alive and budget is not None and budget.exhausted(self.spent):
            self.ended = Ended.BUDGET
            return
        for branch in alive:
            chunk = self.config.chunk if len(racing) > 1 else None
            until = chunk_of(self.start.limit, branch.tokens, chunk)
            if until is not None:
                self._parents[self.generate(branch, until)] = branch
                self._waiting += 1

    def _liking(self, key: tuple[int, ...]) -> float:
        """The score of one in the race; behind all others without one."""
        return self._scores.get(_said(self._racing[key]), -math.inf)

    def _finish(self, best: Branch) -> bool:
        """Write the best of the race to its end if nothing ended and it is all that is left."""
        if not self._owes or self._finished:
            return False
        if not finish_is_due(self.start.budget, self.spent, best.tokens):
            return False
        until = chunk_of(self.start.limit, best.tokens, None)
        if until is None:
            return False
        self._owes, self.ended = False, Ended.BUDGET
        self._parents[self.generate(best, until, owed=True)] = best
        self._waiting += 1
        return True


def _said(branch: Branch) -> Hashable:
    """What a verifier is asked about: a text, and whether it is all of it."""
    return branch.said, branch.finished
