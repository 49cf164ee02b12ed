"""A vote weighted by the policy's own confidence, which gives up on samples that lack it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mull.errors import SpecError
from mull.grades import Unanswered
from mull.selection import (
    Same,
    Selection,
    Selector,
    Weighted,
    at_least,
    exact,
    filtered,
    majority,
)
from mull.strategies.base import Outcome, Result, Search, Start
from mull.strategies.chains import SampleChains, chunk_of
from mull.strategies.checks import check_positive
from mull.strategies.needs import Needs
from mull.strategies.number import FLIGHT, samples_of, side_by_side
from mull.strategies.scored import ByScore
from mull.types import Branch, Candidate, Completion, StopReason
from mull.verifiers.confidence import lowest_mean

SCORE = "confidence"


def confidence(logprobs: Sequence[float], window: int) -> float:
    """exp of the lowest mean log-probability of ``window`` tokens in a row, in 0..1.

    Of a shorter text, of all its tokens; of none, 0.

    >>> round(confidence([0.0, -1.0, -3.0, 0.0], 2), 4) == round(math.exp(-2), 4)
    True
    """
    if not logprobs:
        return 0.0
    return min(1.0, math.exp(max(-700.0, lowest_mean(logprobs, window))))


@dataclass(frozen=True, slots=True)
class ConfidentVote:
    """Vote weighted by confidence; unsure samples are given up (DeepConf online; Fu et al. 2025).

    Source: arXiv 2508.15260. The confidence of a sample is its lowest over ``window`` tokens in a
    row. The first ``warm`` samples (those of them that the budget pays for) run to their end; their
    quantile 1 - ``eta`` is the bar (``eta`` = .9 keeps the best 90 %). The others are written
    ``chunk`` tokens at a time and given up once their confidence is under the bar. Whoever reaches
    the bar votes with its confidence as weight.

    Two differences: the paper takes the mean log-probability of the 20 likeliest tokens, this the
    chosen token's, which every engine with log-probabilities gives; and the paper's window is
    2,048 tokens. ``flight`` samples are under way under a budget in tokens, FLOPs or money.
    """

    n: int | None = None
    warm: int = 8
    eta: float = 0.9
    window: int = 64
    chunk: int = 64
    flight: int = FLIGHT

    def __post_init__(self) -> None:
        check_positive(
            "confident-vote",
            warm=self.warm,
            window=self.window,
            chunk=self.chunk,
            flight=self.flight,
        )
        if not 0.0 < self.eta <= 1.0:
            raise SpecError(f"confident-vote(eta={self.eta}): eta must lie in (0, 1]")

    @property
    def needs(self) -> Needs:
        """A policy that tells its log-probabilities and can continue a turn."""
        return Needs(capabilities=("logprobs", "continue_assistant"))

    def start(self, start: Start) -> Search:
        n = samples_of("confident-vote", self.n, start.budget)
        count = side_by_side(n, start.budget, self.flight)
        return ConfidentSearch(start, count, n, start.limit, self)


@dataclass(frozen=True, slots=True)
class Confident:
    """The weighted vote of those whose confidence reaches the bar; of all if none does."""

    bar: float
    otherwise: Selector = majority

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        select = ByScore(SCORE, Weighted(SCORE), self.otherwise)
        return filtered(candidates, at_least(SCORE, self.bar), same, select)


@dataclass
class ConfidentSearch(SampleChains):
    """Warm-up samples in one piece, then the others in chunks against the bar."""

    config: ConfidentVote
    _bar: float | None = field(default=None, init=False)
    _warm: int = field(default=0, init=False)

    def begin(self) -> None:
        self._warm = min(self.config.warm, self.n)
        given = 0
        for candidate in self.start.candidates[: self.n]:
            known = self._known(candidate)
            if known is None:
                break  # it is drawn again, at the same seed
            scores = {**candidate.scores, SCORE: known}
            self.chains[given % self.count].candidates.append(replace(candidate, scores=scores))
            given += 1
        warm = given < self._warm
        if not warm:
            self._raise_bar()
        self.begin_all(given, self._warm if warm else self.n)

    def take(self, at: int, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            branch = self.child(outcome)
            if not branch.finished and self._goes_on(at, branch):
                return
            self._land(at, branch)
        if self._bar is None:
            self.begin_next(at, self._warm, outcome.said)
            if not self.busy:  # all came, or the budget leaves no more of them
                self._raise_bar()
                self.begin_more(self.n)
        else:
            self.begin_next(at, self.n, outcome.said)

    def result(self) -> Result:
        """The vote so far."""
        candidates = tuple(self.found())
        selection = Confident(self._bar or 0.0, self.start.majority)(candidates, self.start.same)
        return Result((selection,), candidates, self.failed(), self.ended)

    def _goes_on(self, at: int, branch: Branch) -> bool:
        """Ask for the next chunk of a sample that is not under the bar."""
        until = chunk_of(self.start.limit, branch.tokens, self.config.chunk)
        known = self._confidence(branch)
        full = branch.tokens >= self.config.window
        if until is None or (full and known is not None and known < (self._bar or 0.0)):
            return False
        return self.generate(at, branch, until)

    def _land(self, at: int, branch: Branch) -> None:
        """A sample ended, or was given up: then it has no answer, whatever stands in it."""
        candidate = self.start.candidate(branch)
        known = self._confidence(branch)
        if known is not None:
            candidate = replace(candidate, scores={**candidate.scores, SCORE: known})
        if not branch.finished:
            candidate = replace(
                candidate,
                answer=None,
                unanswered=Unanswered.TRUNCATED,
                stop=StopReason.CANCELLED,
            )
        self.chains[at].candidates.append(candidate)

    def _raise_bar(self) -> None:
        """Set the bar by the samples so far; from here on samples come in chunks."""
        known = [
            c.scores[SCORE] for chain in self.chains for c in chain.candidates if SCORE in c.scores
        ]
        self._bar = float(np.quantile(known, 1.0 - self.config.eta)) if known else 0.0
        self.until = chunk_of(self.start.limit, 0, self.config.chunk) or self.start.limit

    def _confidence(self, branch: Branch) -> float | None:
        logprobs: list[float] = []
        for step in branch.steps:
            if step.logprobs is None:
                return None
            logprobs += step.logprobs
        return confidence(logprobs, self.config.window)

    def _known(self, candidate: Candidate) -> float | None:
        """The confidence of a sample that exists already; its tokens are gone, so only if short."""
        known = candidate.scores.get(SCORE, math.nan)
        if 0.0 <= known <= 1.0:
            return known
        mean = candidate.scores.get("mean_logprob", math.nan)
        if not math.isfinite(mean) or candidate.tokens > self.config.window:
            return None
        return min(1.0, math.exp(min(0.0, mean)))
