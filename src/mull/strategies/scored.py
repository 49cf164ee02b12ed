"""Samples that are each asked about once: scored by a verifier, judged by a model.

The question is asked as the sample takes effect, so it overlaps with the samples still in flight;
the driver batches scores across problems. Samples with the same text are asked about once, and one
without an answer never: neither could change a selection.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from mull.selection import (
    WEIGHABLE,
    Best,
    Same,
    Selection,
    Selector,
    best,
    exact,
    majority,
    weight_of,
)
from mull.strategies.base import Ended, Failure, Outcome, Result, Value
from mull.strategies.sample import SampleSearch
from mull.types import Branch, Candidate


def score_of(verifier: str, value: Value, transform: str | None = None) -> float | Failure:
    """The score in the outcome of a ``Score`` of one branch, or why there is none to use.

    A score must be a finite number and, under a ``transform``, a weight.

    >>> score_of("prm", (float("nan"),)).error, score_of("prm", (0.25,))
    ('ScoreError', 0.25)
    """
    if isinstance(value, Failure):
        return value
    score = float(value[0]) if isinstance(value, tuple) else math.nan
    if not math.isfinite(score):
        return Failure("ScoreError", f"verifier {verifier!r} gave {score}, which is no score")
    if transform is not None and weight_of(score, transform) is None:
        return Failure(
            "ScoreError",
            f"verifier {verifier!r} gave {score:g}, of which transform={transform} makes no "
            f"weight: {WEIGHABLE}",
        )
    return score


def end_of(ended: Ended, failures: Sequence[Failure]) -> Ended:
    """How a search ended whose samples are complete: by the budget if that refused anything."""
    refused = any(failure.error == "BudgetError" for failure in failures)
    return Ended.BUDGET if refused and ended is Ended.COMPLETE else ended


def with_score(candidate: Candidate, name: str, score: float | None) -> Candidate:
    """The candidate with this score of that name; with none, without the one it came with."""
    if score is not None:
        return replace(candidate, scores={**candidate.scores, name: score})
    if name in candidate.scores:
        others = {other: known for other, known in candidate.scores.items() if other != name}
        return replace(candidate, scores=others)
    return candidate


@dataclass(frozen=True, slots=True)
class ByScore:
    """A selection by a named score; where no answer has that score, the plain vote.

    That is the task's (``Start.majority``); without one, the majority of whole answers.
    """

    score: str
    select: Selector
    otherwise: Selector = majority

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        scored = any(
            c.answer is not None and math.isfinite(c.scores.get(self.score, math.nan))
            for c in candidates
        )
        return (self.select if scored else self.otherwise)(candidates, same)


@dataclass(frozen=True, slots=True)
class FirstBest(Best):
    """Best single candidate, by a named score; of equal ones the first."""

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return best(candidates, self.score, same, ties="first")


@dataclass
class FollowedSearch(SampleSearch):
    """A ``SampleSearch`` that follows each sample up; the mean of its readings is score ``mark``.

    A candidate given with a finite score of that name is not asked about again.
    """

    mark: str = ""
    _about: dict[int, str] = field(default_factory=dict, init=False)
    _readings: dict[str, list[float]] = field(default_factory=dict, init=False)

    @abstractmethod
    def follow(self, candidate: Candidate, branch: Branch) -> int:
        """Ask about a candidate; returns the action's id."""

    @abstractmethod
    def read(self, outcome: Outcome) -> float | Failure:
        """One reply: a finite number, or why there is none."""

    def given(self, score: float) -> bool:
        """Whether a score that a candidate came with can be used."""
        return math.isfinite(score)

    def _is_reply(self, action: int) -> bool:
        """Whether an action asks about a sample, and does not draw one."""
        return action in self._about

    def take(self, outcome: Outcome) -> None:
        text = self._about.get(outcome.action)
        if text is None:
            super().take(outcome)
            return
        reading = self.read(outcome)
        if not isinstance(reading, Failure):
            self._readings[text].append(reading)
        elif reading is not outcome.value:  # a failed action is in the list already
            self.failures.append(reading)

    def result(self) -> Result:
        """The selection so far, by whatever has been read so far."""
        result = super().result()
        replies = [self.read(o) for o in self._inbox.held() if self._is_reply(o.action)]
        early = tuple(reply for reply in replies if isinstance(reply, Failure))
        failures = (*result.failures, *early)
        ended = end_of(self.ended, failures) if self.done else Ended.UNFINISHED
        return replace(result, failures=failures, ended=ended)

    def _early(self) -> list[Outcome]:
        held = (o for o in self._inbox.held() if not self._is_reply(o.action))
        return [outcome for outcome in held if not self._void(outcome)]

    def _marked(self, candidates: list[Candidate]) -> list[Candidate]:
        readings = {text: list(known) for text, known in self._readings.items()}
        for outcome in self._inbox.held():
            text = self._about.get(outcome.action)
            reading = None if text is None else self.read(outcome)
            if text is not None and isinstance(reading, float):
                readings[text].append(reading)
        return [
            with_score(c, self.mark, fmean(known) if (known := readings.get(c.text)) else None)
            for c in candidates
        ]

    def _add(self, candidate: Candidate, branch: Branch) -> None:
        super()._add(candidate, branch)
        if candidate.answer is None or candidate.text in self._readings:
            return
        known = candidate.scores.get(self.mark)
        if known is not None and self.given(known):
            self._readings[candidate.text] = [known]
        else:
            self._readings[candidate.text] = []
            self._about[self.follow(candidate, branch)] = candidate.text


@dataclass
class ScoredSearch(FollowedSearch):
    """Each sample is scored by the verifier ``mark``.

    A score that is no finite number, or no weight under ``transform``, is kept as a failure; its
    sample stays unscored.
    """

    transform: str | None = None

    def follow(self, candidate: Candidate, branch: Branch) -> int:
        return self.score((branch,), self.mark)

    def given(self, score: float) -> bool:
        return not isinstance(score_of(self.mark, (score,), self.transform), Failure)

    def read(self, outcome: Outcome) -> float | Failure:
        return score_of(self.mark, outcome.value, self.transform)
