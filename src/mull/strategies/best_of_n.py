"""Sample n solutions, answer with the best: by likelihood, a verifier or a judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mull.errors import SpecError
from mull.selection import Best
from mull.strategies.base import Failure, Result, Search, Start
from mull.strategies.checks import check_options, check_positive
from mull.strategies.judge import JUDGE, VERDICT_TOKENS
from mull.strategies.judged import GradedSearch, KnockoutSearch
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import FAR, FLIGHT, UNSAID, samples_of
from mull.strategies.sample import SampleSearch
from mull.strategies.scored import ByScore, FirstBest, ScoredSearch


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Best of n by likelihood, by a verifier's score, or by a judge (Cobbe et al. 2021).

    Source: arXiv 2110.14168. Without a ``verifier`` or a ``judge``, by the policy's own
    log-probability of the whole solution: ``score`` is ``mean_logprob`` (a token; does not favour
    short texts; the default) or ``logprob`` (the sum). Of samples that a verifier scores alike the
    first answers; where it scores none, the majority. So it is with samples that an endpoint sent
    without log-probabilities: each is a failure.

    ``judge`` names an engine in the verifier's place; ``policy`` judges itself. ``compare=grade``
    (the default) takes the mean of ``votes`` grades of each sample (one is greedy, more are
    sampled); ``compare=pairs`` lets distinct answers meet in a knock-out, each pair asked in both
    orders. A reply without a verdict, and a judge that contradicts itself, are failures and decide
    nothing. A verdict is no sample; it takes at most ``judge_tokens``.
    """

    n: int | None = None
    score: Literal["mean_logprob", "logprob"] | None = None
    verifier: str | None = None
    flight: int = FLIGHT
    quorum: float = 0.5
    judge: str | None = None
    compare: Literal["grade", "pairs"] | None = None
    votes: int | None = None
    judge_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.score not in (None, "mean_logprob", "logprob"):
            raise SpecError(f"best-of-n(score={self.score!r}): score is mean_logprob or logprob")
        if len([by for by in (self.score, self.verifier, self.judge) if by is not None]) > 1:
            raise SpecError("best-of-n ranks by a score, a verifier or a judge: give one of them")
        self._check_judge()
        check_options("best-of-n", self.flight, self.quorum)

    def _check_judge(self) -> None:
        if self.judge == "":
            raise SpecError("best-of-n(judge=…): give an engine's name; policy judges itself")
        if self.compare not in (None, "grade", "pairs"):
            raise SpecError(f"best-of-n(compare={self.compare!r}): compare is grade or pairs")
        options = {name: getattr(self, name) for name in ("compare", "votes", "judge_tokens")}
        for name, value in options.items():
            if value is not None and self.judge is None:
                raise SpecError(f"best-of-n({name}={value}) needs judge=…, the name of an engine")
        check_positive("best-of-n", votes=self.votes, judge_tokens=self.judge_tokens)
        if self.compare == "pairs" and self.votes is not None:
            raise SpecError(
                f"best-of-n(compare=pairs, votes={self.votes}): a pair is asked about once in each "
                "order; votes are of grades"
            )

    @property
    def needs(self) -> Needs:
        """The verifier, the judge, or a policy that tells its log-probabilities."""
        if self.verifier is not None:
            return Needs(verifiers=(self.verifier,))
        if self.judge is not None:
            return Needs(engines=tuple(dict.fromkeys((POLICY, self.judge))))
        return Needs(capabilities=("logprobs",))

    def start(self, start: Start) -> Search:
        n = samples_of("best-of-n", self.n, start.budget)
        how, flight, quorum = start.sampling, self.flight, self.quorum
        if self.judge is not None:
            return self._judged(start, n, self.judge)
        if self.verifier is None:
            score = self.score or "mean_logprob"
            by_likelihood = ByScore(score, Best(score), start.majority)
            return LikelihoodSearch(
                start, n, by_likelihood, how, flight=flight, quorum=quorum, ranked_by=score
            )
        by_score = ByScore(self.verifier, FirstBest(self.verifier), start.majority)
        return ScoredSearch(
            start, n, by_score, how, flight=flight, quorum=quorum, mark=self.verifier
        )

    def _judged(self, start: Start, n: int, judge: str) -> Search:
        flight, quorum, room = self.flight, self.quorum, self.judge_tokens or VERDICT_TOKENS
        if self.compare == "pairs":
            # Samples are compared once they are there: without an end of their own they would
            # leave nothing of the budget to compare them with.
            return KnockoutSearch(
                start,
                UNSAID if n == FAR else n,
                start.majority,
                start.sampling,
                flight=flight,
                quorum=quorum,
                judge=judge,
                judge_tokens=room,
            )
        return GradedSearch(
            start,
            n,
            ByScore(JUDGE, FirstBest(JUDGE), start.majority),
            start.sampling,
            flight=flight,
            quorum=quorum,
            mark=JUDGE,
            judge=judge,
            votes=self.votes or 1,
            judge_tokens=room,
        )


@dataclass
class LikelihoodSearch(SampleSearch):
    """Samples that are ranked by a likelihood; an answer that came without one is a failure."""

    ranked_by: str = "mean_logprob"

    def result(self) -> Result:
        result = super().result()
        missing = Failure(
            "ScoreError",
            f"an answer came without log-probabilities, so {self.ranked_by} cannot rank it: use "
            "vote, or best-of-n with a verifier or a judge",
        )
        answered = [c for c in result.candidates if c.answer is not None]
        bare = [c for c in answered if self.ranked_by not in c.scores]
        return replace(result, failures=(*result.failures, *(missing for _ in bare)))
