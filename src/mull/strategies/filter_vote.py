"""Sample n solutions, have each judged, vote among those judged correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mull.errors import SpecError
from mull.selection import Same, Selection, Selector, exact, filtered
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_options
from mull.strategies.judge import JUDGE, VERDICT_TOKENS, read_verdict, verdict_prompt
from mull.strategies.judged import GradedSearch
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import FLIGHT, samples_of
from mull.types import Candidate


@dataclass(frozen=True, slots=True)
class Approved:
    """A vote among the candidates that more than half of their verdicts call correct.

    If none is approved, among all.
    """

    score: str
    then: Selector

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return filtered(candidates, self._approved, same, self.then)

    def _approved(self, candidate: Candidate) -> bool:
        return candidate.scores.get(self.score, 0.0) > 0.5


@dataclass(frozen=True, slots=True)
class FilterVote:
    """Majority vote among the samples that a judge calls correct (Chen et al. 2024).

    Source: arXiv 2403.02419. ``judge`` names the engine that judges; ``policy`` judges itself. Each
    sample gets ``votes`` verdicts (one is greedy, more are sampled) and survives if more than half
    of those that came approve it. If none survives, all vote. A reply without a verdict is a
    failure and no approval. A verdict is no sample; it takes at most ``judge_tokens``.
    """

    n: int | None = None
    judge: str = JUDGE
    votes: int = 1
    judge_tokens: int = VERDICT_TOKENS
    flight: int = FLIGHT
    quorum: float = 0.5

    def __post_init__(self) -> None:
        if self.votes < 1 or self.judge_tokens < 1:
            raise SpecError(
                f"filter-vote(votes={self.votes}, judge_tokens={self.judge_tokens}): both must be "
                "at least 1"
            )
        check_options("filter-vote", self.flight, self.quorum)

    @property
    def needs(self) -> Needs:
        """The policy and the judge."""
        return Needs(engines=tuple(dict.fromkeys((POLICY, self.judge))))

    def start(self, start: Start) -> Search:
        return GradedSearch(
            start,
            samples_of("filter-vote", self.n, start.budget),
            Approved(JUDGE, start.majority),
            start.sampling,
            flight=self.flight,
            quorum=self.quorum,
            mark=JUDGE,
            judge=self.judge,
            votes=self.votes,
            judge_tokens=self.judge_tokens,
            question=verdict_prompt,
            reader=read_verdict,
        )
