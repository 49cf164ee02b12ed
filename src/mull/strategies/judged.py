"""Samples that a judge ranks: by the grade it gives each, or by comparing their answers in pairs.

Both stand in a verifier's place in best-of-n; for filter-vote a verdict is a grade, 0 or 1. A grade
is asked for as its sample takes effect; pairs are compared once the samples are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mull.budget import Purpose
from mull.selection import Group, Selection, group
from mull.strategies.base import Ended, Failure, Outcome, Result
from mull.strategies.judge import (
    JUDGE,
    JUDGE_CHILD,
    VERDICT_TOKENS,
    both_orders,
    grade_prompt,
    pair_prompt,
    read_grade,
    read_pair,
    reply_of,
)
from mull.strategies.sample import SampleSearch
from mull.strategies.scored import FollowedSearch, end_of
from mull.types import GREEDY, Branch, Candidate, Problem, Prompt, Until


@dataclass
class GradedSearch(FollowedSearch):
    """Each sample is asked about ``votes`` times, by default for a grade.

    Its score ``mark`` is the mean of what ``reader`` finds in the replies to ``question``, 0..1.
    """

    judge: str = JUDGE
    votes: int = 1
    judge_tokens: int = VERDICT_TOKENS
    question: Callable[[Problem, str], Prompt] = grade_prompt
    reader: Callable[[str], float | None] = read_grade

    def follow(self, candidate: Candidate, branch: Branch) -> int:
        view = self.question(branch.problem, branch.text)
        return self.generate(
            Branch(branch.problem, view, (*branch.key, JUDGE_CHILD)),
            Until(self.judge_tokens),
            self.votes,
            engine=self.judge,
            decoding=GREEDY if self.votes == 1 else None,
            purpose=Purpose.JUDGE,
        )

    def read(self, outcome: Outcome) -> float | Failure:
        reply = reply_of(outcome.value, self.reader)
        return reply if isinstance(reply, Failure) else float(reply)


@dataclass(eq=False)
class _Entrant:
    """One distinct answer: its candidates' positions, and the round that it lost in."""

    members: tuple[int, ...]
    out: int | None = None


@dataclass(eq=False)
class _Match:
    """Two entrants, the one with more votes first, and what the judge said in both orders."""

    entrants: tuple[_Entrant, _Entrant]
    said: list[float | None] = field(default_factory=list)


@dataclass
class KnockoutSearch(SampleSearch):
    """A knock-out over the distinct answers, each shown by its first sample.

    In a round the entrant with the most votes meets the one with the fewest, and so on inwards;
    of an odd number the first waits. A match is asked in both orders. Where the judge contradicts
    itself or says nothing in one of them, there is no verdict and the entrant with more votes goes
    on, of equals the first; so it does where both are said to be equal. Under a budget that only
    outcomes tell, about ``flight`` questions are under way.
    """

    judge: str = JUDGE
    judge_tokens: int = VERDICT_TOKENS
    _entrants: list[_Entrant] = field(default_factory=list, init=False)
    _round: int = field(default=0, init=False)
    _waiting: list[_Match] = field(default_factory=list, init=False)
    _open: dict[int, _Match] = field(default_factory=dict, init=False)

    def begin(self) -> None:
        super().begin()
        self._play()

    def take(self, outcome: Outcome) -> None:
        match = self._open.pop(outcome.action, None)
        if match is None:
            super().take(outcome)
        else:
            self._hear(match, outcome)
        self._play()

    def result(self) -> Result:
        """Who is left, by votes, then who went out, the last first; before the end, the vote."""
        result = super().result()
        ended = end_of(self.ended, result.failures) if self.done else Ended.UNFINISHED
        if not self._entrants:
            return replace(result, ended=ended)
        return replace(result, parts=(self._standing(),), ended=ended)

    def _standing(self) -> Selection:
        last = self._round + 1
        ranked = sorted(self._entrants, key=lambda e: -(last if e.out is None else e.out))
        answers = [self.candidates[e.members[0]].answer or "" for e in ranked]
        ranking = tuple(
            Group(answer, len(e.members), float(last if e.out is None else e.out), e.members)
            for answer, e in zip(answers, ranked, strict=True)
        )
        voters = sum(found.votes for found in ranking)
        share = ranking[0].votes / voters
        return Selection(answers[0], ranking[0].members[0], share, ranking, voters)

    def _play(self) -> None:
        """Ask for what the samples that are there, and the matches that are over, allow."""
        if self.ended is Ended.UNFINISHED:
            return
        if not self._entrants and self.enough:
            found = group(self.candidates, self.start.same)
            self._entrants = [_Entrant(g) for g in sorted(found, key=lambda g: -len(g))]
        if not self._waiting and not self._open:
            self._pair()
        budget = self.start.budget
        metered = budget is not None and budget.metered
        while self._waiting and not (metered and len(self._open) >= self.flight):
            match = self._waiting.pop(0)
            first, second = (self.candidates[e.members[0]] for e in match.entrants)
            for shown in ((first, second), (second, first)):
                self._open[self._compare(*shown)] = match

    def _pair(self) -> None:
        """The matches of the next round; none once a spent budget has refused one."""
        alive = [entrant for entrant in self._entrants if entrant.out is None]
        if len(alive) < 2 or self._refusals:
            return
        self._round += 1
        meet = alive[len(alive) % 2 :]
        self._waiting = [_Match((meet[i], meet[-1 - i])) for i in range(len(meet) // 2)]

    def _compare(self, shown: Candidate, other: Candidate) -> int:
        problem, opening = self.start.problem, self.start.problem.opening
        view = pair_prompt(problem, opening + shown.text, opening + other.text)
        return self.generate(
            Branch(problem, view, (*shown.key, JUDGE_CHILD, *other.key)),
            Until(self.judge_tokens),
            engine=self.judge,
            decoding=GREEDY,
            purpose=Purpose.JUDGE,
        )

    def _hear(self, match: _Match, outcome: Outcome) -> None:
        reply = reply_of(outcome.value, read_pair)
        if isinstance(reply, Failure) and reply is not outcome.value:
            self.failures.append(reply)
        match.said.append(None if isinstance(reply, Failure) else reply)
        if len(match.said) < 2:
            return
        better = both_orders(*match.said)
        if better is None and None not in match.said:
            self.failures.append(
                Failure("NoVerdict", "the judge contradicts itself when solutions change places")
            )
        match.entrants[0 if better == 0.0 else 1].out = self._round
