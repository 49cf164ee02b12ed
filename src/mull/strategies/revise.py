"""Chains of revisions: each attempt sees the last few before it; the best of all answers.

Never the last: a naive chain turns about 38 % of its right answers wrong (Snell et al. 2024,
arXiv 2408.03314, section 6.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mull.budget import Budget, Purpose
from mull.errors import BudgetError, SpecError
from mull.selection import (
    Group,
    Same,
    Selection,
    Selector,
    exact,
    weighted,
)
from mull.strategies.attempts_tree import attempts_tree
from mull.strategies.base import Failure, Outcome, Result, Search, Start
from mull.strategies.chains import ChainSearch
from mull.strategies.checks import check_positive
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import FAR, UNSAID, Patience, samples_of
from mull.strategies.sample import branch_of
from mull.strategies.scored import ByScore, score_of, with_score
from mull.types import Branch, Candidate, Completion

VERIFIER = "orm"
"""Who scores the attempts where nobody else is named."""


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """Weighted best-of-n in two levels (Snell et al. 2024, section 6.2).

    In each chain the answer with the largest summed score, by its best-scored solution; then the
    same among the chains' winners. Chain of a candidate: its first child index modulo ``chains``.
    """

    score: str
    chains: int

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return hierarchical(candidates, self.score, self._chain, same)

    def _chain(self, candidate: Candidate) -> int:
        return candidate.key[0] % self.chains


def hierarchical(
    candidates: Sequence[Candidate],
    score: str,
    chain: Callable[[Candidate], int],
    same: Same = exact,
) -> Selection:
    """The weighted vote among the winners of each chain's weighted vote.

    ``ranking`` and ``confidence`` are those of the vote among winners; ``left_out`` counts the
    answered candidates without a score. ``InputError`` if no answered candidate has one.

    >>> def made(key, answer, prm): return Candidate(key, "", answer, scores={"prm": prm})
    >>> chains = [made((0, i), "7", .3) for i in range(3)] + [made((1, 0), "9", .4)]
    >>> weighted(chains, "prm").answer, hierarchical(chains, "prm", lambda c: c.key[0]).answer
    ('7', '9')
    """
    votes = [i for i, c in enumerate(candidates) if c.answer is not None and score in c.scores]
    members: dict[int, list[int]] = {}
    for i in votes:
        members.setdefault(chain(candidates[i]), []).append(i)
    winners: list[int] = []
    for _, own in sorted(members.items()):
        inner = weighted([candidates[i] for i in own], score, same)
        if inner.index is not None:
            winners.append(own[inner.index])
    if not winners:
        return weighted(candidates, score, same)
    final = weighted([candidates[i] for i in winners], score, same)
    ranking = tuple(
        Group(g.answer, g.votes, g.weight, tuple(winners[i] for i in g.members))
        for g in final.ranking
    )
    answered = sum(c.answer is not None for c in candidates)
    index = None if final.index is None else winners[final.index]
    return Selection(
        final.answer, index, final.confidence, ranking, answered, answered - len(votes)
    )


@dataclass(frozen=True, slots=True)
class Revise:
    """``chains`` chains of ``length`` revisions each; the best of all attempts (Snell et al. 2024).

    ``n`` = chains · length. The first attempt of a chain is made by ``first`` (``policy``, or the
    ``reviser`` itself), each later one by the ``reviser`` engine, which sees the last ``history``
    attempts of its chain, if they had an answer. ``select`` is ``verifier`` (its weighted vote in
    each chain, then among the chains' winners) or ``majority`` of all attempts, which asks no
    verifier.
    """

    n: int | None = None
    chains: int = 1
    length: int | None = None
    reviser: str = "reviser"
    verifier: str | None = VERIFIER
    history: int = 4
    select: Literal["verifier", "majority"] = "verifier"
    first: Literal["policy", "reviser"] = "policy"

    def __post_init__(self) -> None:
        _check("revise", self)
        check_positive("revise", chains=self.chains, length=self.length)

    @property
    def needs(self) -> Needs:
        """The policy, the reviser and the verifier that it asks."""
        return _needs(self)

    def start(self, start: Start) -> Search:
        return RevisionSearch(start, self.chains, self._length(start.budget), self)

    def _length(self, budget: Budget | None) -> int:
        if self.length is None:
            n = samples_of("revise", self.n, budget)
            if n != FAR and n % self.chains:
                raise BudgetError(
                    f"revise(chains={self.chains}) cannot share {n} attempts among its chains "
                    f"evenly: give a multiple of {self.chains}, or other chains"
                )
            return FAR if n == FAR else n // self.chains
        n = self.chains * self.length
        if self.n not in (None, n):
            raise BudgetError(
                f"revise(n={self.n}, chains={self.chains}, length={self.length}): n must be "
                f"chains * length = {n}; give two of the three"
            )
        return samples_of("revise", n, budget) // self.chains


@dataclass(frozen=True, slots=True)
class Mixed:
    """Revisions with a ``ratio`` of sequential to parallel attempts (Snell et al. 2024, section 6).

    Of n attempts, chains of length S = sqrt(n · ratio), n / S of them; S is the divisor of n that
    is nearest (for a power of two: the nearest power of two; halves count as longer chains).
    """

    n: int | None = None
    ratio: float = 1.0
    reviser: str = "reviser"
    verifier: str | None = VERIFIER
    history: int = 4
    select: Literal["verifier", "majority"] = "verifier"
    first: Literal["policy", "reviser"] = "policy"

    def __post_init__(self) -> None:
        _check("mixed", self)
        if not 0.0 < self.ratio < math.inf:
            raise SpecError(f"mixed(ratio={self.ratio}): ratio must be a positive number")

    @property
    def needs(self) -> Needs:
        """The policy, the reviser and the verifier that it asks."""
        return _needs(self)

    def start(self, start: Start) -> Search:
        n = samples_of("mixed", self.n, start.budget)
        chains, length = self.shape(UNSAID if n == FAR else n)
        plain = Revise(
            None,
            chains,
            length,
            self.reviser,
            self.verifier,
            self.history,
            self.select,
            self.first,
        )
        return RevisionSearch(start, chains, length, plain)

    def shape(self, n: int) -> tuple[int, int]:
        """(chains, length) of ``n`` attempts; ``BudgetError`` where n has no such divisor.

        >>> Mixed(ratio=4.0).shape(16), Mixed(ratio=0.25).shape(4)
        ((2, 8), (4, 1))
        """
        wanted = math.log2(n * self.ratio) / 2
        divisors = [s for s in range(1, n + 1) if n % s == 0]
        divisors.sort(key=lambda s: (round(abs(math.log2(s) - wanted), 9), -s))
        length = divisors[0]
        if abs(math.log2(length) - wanted) > 0.5 + 1e-9:
            ratios = " or ".join(f"{s * s / n:.3g} (chains of {s})" for s in divisors[:2])
            raise BudgetError(
                f"mixed(ratio={self.ratio:g}) cannot split {n} attempts: chains of "
                f"{2**wanted:.3g} attempts do not divide them. Give a ratio of {ratios}, "
                "another number of attempts, or revise(chains=…, length=…)"
            )
        return n // length, length


def _check(name: str, config: Revise | Mixed) -> None:
    check_positive(name, history=config.history)
    if config.select not in ("verifier", "majority"):
        raise SpecError(f"{name}(select={config.select!r}): select is verifier or majority")
    if config.first not in ("policy", "reviser"):
        raise SpecError(f"{name}(first={config.first!r}): first is policy or reviser")
    if config.select == "verifier" and config.verifier is None:
        raise SpecError(f"{name}(select=verifier) needs a verifier: name one, or select=majority")
    if config.select == "majority" and config.verifier not in (None, VERIFIER):
        raise SpecError(
            f"{name}(select=majority, verifier={config.verifier}): a majority asks no verifier; "
            "leave out one of the two"
        )


def _needs(config: Revise | Mixed) -> Needs:
    author = POLICY if config.first == "policy" else config.reviser
    asked = config.select == "verifier" and config.verifier is not None
    return Needs(
        engines=tuple(dict.fromkeys((author, config.reviser))),
        verifiers=(config.verifier,) if asked and config.verifier else (),
    )


@dataclass
class RevisionSearch(ChainSearch):
    """``count`` chains of up to ``length`` attempts, scored as they come.

    An attempt that failed or has no answer is no history: the next one is drawn from where it was.
    A chain without a length of its own gives up by its ``Patience``.
    """

    length: int
    config: Revise
    _heads: list[Branch] = field(default_factory=list, init=False)
    _tries: list[int] = field(default_factory=list, init=False)
    _attempts: list[int] = field(default_factory=list, init=False)
    _patience: list[Patience] = field(default_factory=list, init=False)
    _about: dict[int, tuple[int, ...]] = field(default_factory=dict, init=False)
    _scores: dict[tuple[int, ...], float] = field(default_factory=dict, init=False)
    _lost: list[tuple[int, ...]] = field(default_factory=list, init=False)

    def begin(self) -> None:
        root = Branch.root(self.start.problem)
        self._heads = [root] * self.count
        self._tries, self._attempts = [0] * self.count, [0] * self.count
        self._patience = [Patience(self.length) for _ in range(self.count)]
        given = self.start.candidates[: self.count] if self.config.first == "policy" else ()
        # The other chains' first attempts are one request; it is asked before any revision.
        engine, purpose = self._author(root)
        others = range(len(given), self.count)
        self.open(root, self.start.limit, len(given), others, engine=engine, purpose=purpose)
        for at, candidate in enumerate(given):
            self._attempted(at, branch_of(self.start.problem, candidate), candidate)

    def take(self, at: int, outcome: Outcome) -> None:
        if outcome.action in self._about:
            reading = self._read(outcome)
            if not isinstance(reading, Failure):
                self._scores[self._about[outcome.action]] = reading
            elif reading is not outcome.value:
                self.chains[at].failures.append(reading)
            return
        self._patience[at].saw(outcome.said)
        if isinstance(outcome.value, Completion):
            branch = self.child(outcome)
            self._attempted(at, branch, self.start.candidate(branch))
        else:
            self._lost.append((*self.child(outcome).key, outcome.index))
            self._attempted(at)

    def result(self) -> Result:
        """The selection so far, by whatever came so far."""
        scores, failures, lost = dict(self._scores), list(self.failed()), list(self._lost)
        for _, outcome in self.held():
            key = self._about.get(outcome.action)
            reading = None if key is None else self._read(outcome)
            if key is not None and isinstance(reading, float):
                scores[key] = reading
            elif isinstance(reading, Failure) and reading is not outcome.value:
                failures.append(reading)
            elif key is None and isinstance(outcome.value, Failure):
                lost.append((*self.child(outcome).key, outcome.index))
        name = self.config.verifier or "verifier"
        candidates = tuple(self.found())
        select: Selector = self.start.majority
        if self.config.select == "verifier":
            candidates = tuple(with_score(c, name, scores.get(c.key)) for c in candidates)
            select = ByScore(name, Hierarchical(name, self.count), select)
        selection = select(candidates, self.start.same)
        tree = attempts_tree(candidates, name, lost)
        return Result((selection,), candidates, tuple(failures), self.ended, tree)

    def _read(self, outcome: Outcome) -> float | Failure:
        return score_of(self.config.verifier or "", outcome.value, "identity")

    def _author(self, head: Branch) -> tuple[str, Purpose]:
        """Who makes an attempt: the reviser wherever there is something to revise."""
        if head.history or self.config.first == "reviser":
            return self.config.reviser, Purpose.REVISION
        return POLICY, Purpose.POLICY

    def _attempted(
        self, at: int, branch: Branch | None = None, candidate: Candidate | None = None
    ) -> None:
        """An attempt of chain ``at`` took effect: ask for the next one, and for its score."""
        self._attempts[at] += 1
        self._tries[at] += 1
        if branch is not None and candidate is not None:
            self.chains[at].candidates.append(candidate)
            if candidate.answer is not None:
                revision = branch.revision()
                history = revision.history[-self.config.history :]
                self._heads[at], self._tries[at] = replace(revision, history=history), 0
        if self._attempts[at] < self.length and not self._patience[at].over:
            head = self._heads[at]
            # Children of the root are shared out among the chains; those of a revision are its own.
            child = self._tries[at] if head.history else at + self.count * self._tries[at]
            engine, purpose = self._author(head)
            self.generate(at, head, self.start.limit, child, engine=engine, purpose=purpose)
        if self.config.select == "verifier" and candidate is not None and branch is not None:
            # Behind the next attempt, so that it waits for no verifier.
            self._judge(at, branch, candidate)

    def _judge(self, at: int, branch: Branch, candidate: Candidate) -> None:
        name = self.config.verifier
        if name is None or candidate.answer is None:
            return
        known = candidate.scores.get(name)
        if known is not None and not isinstance(score_of(name, (known,), "identity"), Failure):
            self._scores[candidate.key] = known
        else:
            self._about[self.score(at, (branch,), name)] = candidate.key
