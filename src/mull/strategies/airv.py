"""Augment, infer, revert, vote: a sample of each of many views of a problem, one answer from all.

A view shows the problem turned, recoloured, reordered (``ViewedTask``); answers come back to the
problem's own frame before they are counted. With temperature 0 all variety comes from the views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.selection import Best, Majority, Selector
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_options, check_positive
from mull.strategies.judge import JUDGE
from mull.strategies.judged_views import JudgedViewSearch
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import FAR, FLIGHT, UNSAID, samples_of
from mull.strategies.scored import ByScore, FirstBest
from mull.strategies.view_search import ViewSearch
from mull.tasks.base import ViewedTask
from mull.types import Decoding, Sampling, ThresholdDFS, TokenBeam

VERIFIER = "views"
Rank = Literal["vote", "views", "verify", "select"]
QUESTIONS: Final[Mapping[str, int]] = MappingProxyType({"verify": 32, "select": 8})
"""The ranks that ask a judge: verdicts on an answer, matches of an answer a round."""


@dataclass(frozen=True, slots=True)
class Airv:
    """``per_view`` samples of each view, a vote over the answers brought back.

    Sources: test-time augmentation with votes, as both ARC write-ups do it; ``rank="views"`` is
    the product of experts (Franzen et al. 2025, arXiv 2505.07859): each distinct answer is scored
    under all views by the verifier ``views``, and the likeliest answers. ``threshold`` takes all
    answers of at least that probability under a view instead of samples; a view then costs
    1 / ``threshold`` of them. ``temperature`` is the run's unless given; 0 is usual here. ``seed``
    draws the views, the same for every run, so that runs can be compared.

    One answer a view, searched for: ``keep="likeliest"`` counts only that one of a view's
    ``per_view`` samples (a pseudo beam); ``beam`` is the width of a search over tokens whose first
    hypothesis counts, and what a view costs then.

    ``rank="verify"`` and ``"select"`` have the engine ``judge`` say which of the distinct answers
    is right, each question in a fresh view: verdicts on each, ``questions`` (32) at most, fewer
    where it is hopeless; or matches of two by successive halving, ``questions`` (8) of each a
    round. A verdict is no sample.
    """

    n: int | None = None
    per_view: int = 1
    threshold: float | None = None
    keep: Literal["all", "likeliest"] = "all"
    beam: int | None = None
    rank: Rank = "vote"
    judge: str | None = None
    questions: int | None = None
    temperature: float | None = None
    seed: int = 0
    flight: int = FLIGHT
    quorum: float = 0.0

    def __post_init__(self) -> None:
        check_options("airv", self.flight, self.quorum)
        if self.rank not in get_args(Rank):
            raise SpecError(f"airv(rank={self.rank!r}): rank is {', '.join(get_args(Rank))}")
        if self.rank not in QUESTIONS and (self.judge is not None or self.questions is not None):
            raise SpecError(f"airv(rank={self.rank}) asks no judge: leave out judge and questions")
        check_positive("airv", questions=self.questions, per_view=self.per_view)
        if self.keep not in ("all", "likeliest"):
            raise SpecError(f"airv(keep={self.keep!r}): keep is all or likeliest")
        if self.threshold is not None and not 1 / FAR < self.threshold <= 1.0:
            raise SpecError(f"airv(threshold={self.threshold}): a probability, as in 0.1")
        if self.beam is not None and not 1 <= self.beam <= FAR:
            raise SpecError(f"airv(beam={self.beam}): a width of at least 1, as in 4")
        if self.threshold is not None and self.beam is not None:
            raise SpecError("airv: threshold and beam are two searches; give one of them")
        sampled = self.per_view != 1 or self.temperature is not None
        if sampled and (self.threshold is not None or self.beam is not None):
            search = "threshold" if self.beam is None else "beam"
            raise SpecError(f"airv: a {search} takes no samples; leave per_view, temperature")
        if self.keep == "likeliest" and self.per_view < 2:
            raise SpecError("airv(keep=likeliest): needs samples to keep one of, as per_view=4")
        if self.temperature is not None and not 0.0 <= self.temperature < math.inf:
            raise SpecError(f"airv(temperature={self.temperature}): 0 or more, as in 0.7")

    @property
    def needs(self) -> Needs:
        """The verifier or judge that ranks, and a policy that searches as it is to."""
        able = {
            "threshold_dfs": self.threshold is not None,
            "token_beam": self.beam is not None,
            "logprobs": self.keep == "likeliest",
        }
        judges = (self.judge or JUDGE,) if self.rank in QUESTIONS else ()
        return Needs(
            engines=tuple(dict.fromkeys((POLICY, *judges))),
            verifiers=(VERIFIER,) if self.rank == "views" else (),
            capabilities=tuple(name for name, needed in able.items() if needed),
            sampled=self.threshold is None and self.beam is None,
        )

    @property
    def width(self) -> int:
        """Samples that a view costs."""
        if self.threshold is not None:
            return ThresholdDFS(self.threshold).width
        return self.beam or self.per_view

    def start(self, start: Start) -> Search:
        if not isinstance(start.task, ViewedTask):
            raise UnsupportedError(
                f"airv needs a task that shows a problem in several ways (arc), not "
                f"{start.task.name}: use vote"
            )
        n = samples_of("airv", self.n, start.budget)
        if n == FAR and self.rank in QUESTIONS:
            # Answers are judged once they are there: samples without an end of their own would
            # leave nothing of the budget to judge them with.
            n = UNSAID * self.width
        if n != FAR and n % self.width:
            raise BudgetError(
                f"airv takes {self.width} samples of a view, of which {n} samples make no whole "
                "number of views"
            )
        decoding: Decoding = start.sampling
        if self.threshold is not None:
            decoding = ThresholdDFS(self.threshold)
        elif self.beam is not None:
            decoding = TokenBeam(self.beam)
        elif self.temperature is not None:
            known = start.sampling if isinstance(start.sampling, Sampling) else Sampling()
            decoding = replace(known, temperature=self.temperature)
        # Samples that exist already were drawn under the plain prompt: they are no views.
        fresh = replace(start, candidates=())
        apart = isinstance(decoding, Sampling) and self.keep == "all"
        options: dict[str, Any] = {
            "flight": max(self.flight, self.width),
            "quorum": self.quorum,
            "unit": 1 if apart else self.width,
            "task": start.task,
            "width": self.width,
            "seed": self.seed,
            "likeliest": self.keep == "likeliest",
        }
        if self.rank in QUESTIONS:
            return JudgedViewSearch(
                fresh,
                n,
                ByScore(JUDGE, Best(JUDGE)),
                decoding,
                judge=self.judge or JUDGE,
                pairwise=self.rank == "select",
                questions=self.questions or QUESTIONS[self.rank],
                **options,
            )
        mark = VERIFIER if self.rank == "views" else ""
        select: Selector = ByScore(mark, FirstBest(mark)) if mark else Majority()
        return ViewSearch(fresh, n, select, decoding, mark=mark, **options)
