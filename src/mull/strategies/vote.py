"""Sample n solutions, answer what most of them answer; optionally stop once that is sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mull.errors import SpecError
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_options
from mull.strategies.number import FLIGHT, samples_of
from mull.strategies.sample import SampleSearch
from mull.strategies.stopping import Beta, Dirichlet, StopRule

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Vote:
    """Majority vote (self-consistency; Wang et al. 2022, arXiv 2203.11171).

    ``stop`` ends the vote early by the ``beta`` or ``dirichlet`` rule at ``confidence``
    (Aggarwal et al. 2023, arXiv 2305.11860). ``flight`` samples are under way under a budget in
    tokens, FLOPs or money, or in seconds alone. Below ``quorum`` (share of the samples that came
    back) no answer.
    Answers of a task with fields (``json``) are voted field by field.
    """

    n: int | None = None
    stop: Literal["beta", "dirichlet"] | None = None
    confidence: float = CONFIDENCE
    flight: int = FLIGHT
    quorum: float = 0.5

    def __post_init__(self) -> None:
        if self.stop not in (None, "beta", "dirichlet"):
            raise SpecError(f"vote(stop={self.stop!r}): stop is beta or dirichlet")
        if not 0.5 < self.confidence < 1.0:
            raise SpecError(f"vote(confidence={self.confidence}): must lie between 0.5 and 1")
        if self.stop is None and self.confidence != CONFIDENCE:
            raise SpecError(
                f"vote(confidence={self.confidence}): only a stopping rule asks for it; add "
                "stop=beta or stop=dirichlet, or leave it out"
            )
        check_options("vote", self.flight, self.quorum)

    def start(self, start: Start) -> Search:
        rule: StopRule | None = None
        if self.stop is not None:
            rule = Beta(self.confidence) if self.stop == "beta" else Dirichlet(self.confidence)
        n, select = samples_of("vote", self.n, start.budget), start.majority
        return SampleSearch(start, n, select, start.sampling, rule, self.flight, self.quorum)
