"""The answers that views gave, ranked by a judge that sees each of them under views of its own.

Rounds of questions, as ``contest`` has them; ``judge`` writes them and reads the replies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mull.budget import Purpose
from mull.rng import derive
from mull.selection import majority
from mull.strategies.base import Ended, Failure, Outcome
from mull.strategies.contest import Match, PairwiseSelection, Verify, VerifyRanking
from mull.strategies.judge import (
    JUDGE,
    JUDGE_CHILD,
    VERDICT_TOKENS,
    pair_prompt,
    read_pair,
    read_verdict,
    reply_of,
    verdict_prompt,
)
from mull.strategies.scored import with_score
from mull.strategies.view_search import ViewSearch
from mull.tasks.base import View
from mull.types import GREEDY, Branch, Candidate, Until

Question = Verify | Match


@dataclass
class JudgedViewSearch(ViewSearch):
    """When all samples came, each distinct answer is verified, or plays matches (``pairwise``).

    ``questions`` bounds the verdicts on an answer, or is its matches a round. Every question shows
    the problem in a fresh view, at most ``flight`` at a time, and none is asked once the budget
    is spent: what is known then ranks. The score is the share of verdicts that say right, or the
    place in the matches, 0, -1 … (no probability); answers without a rival have none.
    """

    judge: str = JUDGE
    pairwise: bool = False
    questions: int = 1
    _contest: VerifyRanking | PairwiseSelection | None = field(default=None, init=False)
    _answers: list[str] = field(default_factory=list, init=False)
    _asked_of: dict[int, Question] = field(default_factory=dict, init=False)
    _pending: deque[Question] = field(default_factory=deque, init=False)
    _open: int = field(default=0, init=False)
    _seen: Sequence[View] = field(default=(), init=False)

    def begin(self) -> None:
        super().begin()
        self._question()

    def take(self, outcome: Outcome) -> None:
        question = self._asked_of.get(outcome.action)
        if question is None:
            super().take(outcome)
        else:
            self._open -= 1
            self._hear(question, outcome)
        self._question()

    def read(self, outcome: Outcome) -> float | Failure:
        """A verdict as 1 or 0; of a pair, what the first shown one is worth."""
        reply = reply_of(outcome.value, read_pair if self.pairwise else read_verdict)
        return reply if isinstance(reply, Failure) else float(reply)

    def _is_reply(self, action: int) -> bool:
        return action in self._asked_of

    def _hear(self, question: Question, outcome: Outcome) -> None:
        reply = self.read(outcome)
        if isinstance(reply, Failure) and reply is not outcome.value:
            self.failures.append(reply)  # a failed action is in the list already
        known = None if isinstance(reply, Failure) else reply
        if isinstance(self._contest, VerifyRanking) and isinstance(question, Verify):
            self._contest.tell(question, None if known is None else known == 1.0)
        elif isinstance(self._contest, PairwiseSelection) and isinstance(question, Match):
            winners = {1.0: question.first, 0.0: question.second}
            self._contest.tell(question, None if known is None else winners.get(known))

    def _question(self) -> None:
        """Ask on, as far as the budget goes."""
        if self.ended is Ended.UNFINISHED or not self.enough:
            return
        if self._contest is None:
            groups = majority(self.candidates, self.start.same).ranking
            self._answers = [group.answer for group in groups]
            count = len(self._answers)
            least = min(8, self.questions)
            self._contest = (
                PairwiseSelection(count, self.questions, self.seed)
                if self.pairwise
                else VerifyRanking(count, min(4, self.questions), least, self.questions)
            )
        budget = self.start.budget
        self._pending.extend(self._contest.ask())
        while self._pending and self._open < self.flight:
            if budget is not None and budget.exhausted(self.spent):
                self.ended = Ended.BUDGET
                return
            self._ask_judge(self._pending.popleft())

    def _ask_judge(self, question: Question) -> None:
        problem = self.start.problem
        view = self._fresh(question.number)
        shown = replace(problem, prompt=view.prompt)
        if isinstance(question, Verify):
            about: tuple[int, ...] = (question.candidate, question.number)
            prompt = verdict_prompt(shown, self._turn(view, question.candidate))
        else:
            about = (question.first, question.second, question.number)
            first, second = (self._turn(view, i) for i in (question.first, question.second))
            prompt = pair_prompt(shown, first, second)
        action = self.generate(
            Branch(problem, prompt, (JUDGE_CHILD, *about)),
            Until(VERDICT_TOKENS),
            engine=self.judge,
            decoding=GREEDY,
            purpose=Purpose.JUDGE,
        )
        self._asked_of[action] = question
        self._open += 1

    def _turn(self, view: View, candidate: int) -> str:
        """What a model would have said for an answer under the view."""
        said = self.task.solution_in(self.start.problem, view, self._answers[candidate])
        return view.opening + said

    def _fresh(self, number: int) -> View:
        if number >= len(self._seen):
            count = max(8, 2 * number)
            self._seen = self.task.views(self.start.problem, count, derive(self.seed, JUDGE))
        return self._seen[number]

    def _marked(self, candidates: list[Candidate]) -> list[Candidate]:
        contest, answers = self._contest, self._answers
        marks: dict[str, float] = {}
        if contest is not None and len(answers) > 1:
            for place, number in enumerate(contest.ranking()):
                marks[answers[number]] = (
                    contest.rate(number) if isinstance(contest, VerifyRanking) else -float(place)
                )
        return [
            with_score(c, JUDGE, marks.get(self._group(c.answer)) if c.answer else None)
            for c in self._kept(candidates)
        ]

    def _group(self, answer: str) -> str:
        """The answer that stands for all that mean the same."""
        same = (each for each in self._answers if self.start.same(each, answer))
        return answer if answer in self._answers else next(same, answer)
