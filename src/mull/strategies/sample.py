"""Independent samples of the root, then a selection: the search behind greedy, vote, best-of-n.

How many samples run side by side is a parameter of the algorithm. A plain vote asks for all its
samples at once. Under a limit that only the outcomes tell (tokens, FLOPs, money, or time alone)
``flight`` samples are under way, and the next starts only while what took effect leaves room. Under
a stopping rule just as many are in flight as must come before the rule could fire, so nothing asked
for is wasted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mull.selection import NOTHING, Selector
from mull.strategies.base import Ended, Failure, OrderedSearch, Outcome, Result
from mull.strategies.number import FLIGHT, Patience, side_by_side
from mull.strategies.stopping import StopRule, samples_needed
from mull.types import Branch, Candidate, Completion, Decoding, Problem, Step, StopReason


def branch_of(problem: Problem, candidate: Candidate) -> Branch:
    """The branch of a candidate that exists already: its text as one step, without tokens."""
    step = Step(candidate.text, candidate.stop, tokens=candidate.tokens)
    return replace(Branch.root(problem), key=candidate.key, steps=(step,))


@dataclass
class SampleSearch(OrderedSearch):
    """Up to ``n`` samples, a stopping rule if given, a selection at any moment.

    ``quorum`` is the share of the samples asked for that must come back (failed ones do not): below
    it there is no answer, rather than a vote of the few in silence, and a failure ``Quorum`` tells
    how few came. Samples that exist already count where they were drawn as this search draws.
    Without a number of samples the search gives up by its ``Patience``. Samples are asked for by
    the ``unit``: the ranks of one threshold search come of one request, and those that it does not
    have are not missed.
    """

    n: int
    select: Selector
    decoding: Decoding
    rule: StopRule | None = None
    flight: int = FLIGHT
    quorum: float = 0.0
    unit: int = 1
    candidates: list[Candidate] = field(default_factory=list, init=False)
    ended: Ended = field(default=Ended.UNFINISHED, init=False)
    _asked: int = field(default=0, init=False)
    _came: int = field(default=0, init=False)
    _patience: Patience = field(init=False)
    _empty: int = field(default=0, init=False)
    _votes: list[tuple[str, int]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(self.n, self.flight)

    def begin(self) -> None:
        if self.decoding == self.start.sampling:
            for candidate in self.start.candidates[: self.n]:
                self._asked += 1
                self._came += 1
                self._add(candidate, branch_of(self.start.problem, candidate))
        self._go_on()

    def take(self, outcome: Outcome) -> None:
        self._came += 1
        self._patience.saw(outcome.said)
        if isinstance(outcome.value, Completion):
            if self._void(outcome):
                self._empty += 1
            else:
                self._add(*self._read(outcome.action, outcome.value))
        self._go_on()

    @property
    def enough(self) -> bool:
        """Whether so many samples came back as the quorum asks for."""
        return len(self.candidates) >= self.quorum * (self._came - self._empty)

    def result(self) -> Result:
        """The selection so far. Before the end, what came before its turn counts as well."""
        candidates, failures, came = list(self.candidates), list(self.failures), self._came
        for outcome in self._early():
            came += 1
            if isinstance(outcome.value, Completion):
                candidates.append(self._read(outcome.action, outcome.value)[0])
            elif isinstance(outcome.value, Failure):
                failures.append(outcome.value)
        candidates = self._marked(candidates)
        due = came - self._empty
        if len(candidates) >= self.quorum * due:
            selection = self.select(candidates, self.start.same)
        else:
            answered = sum(candidate.answer is not None for candidate in candidates)
            selection = replace(NOTHING, n_answered=answered, left_out=answered)
            if candidates:  # the failures say it where none came
                failures.append(Failure("Quorum", f"{len(candidates)} of {due} samples came"))
        return Result((selection,), tuple(candidates), tuple(failures), self.ended)

    def _read(self, action: int, completion: Completion) -> tuple[Candidate, Branch]:
        """A sample that came, and the branch it stands for; a subclass may read it otherwise."""
        branch = Branch.root(self.start.problem).child(completion)
        return self.start.candidate(branch), branch

    def _request(self, first: int, count: int) -> None:
        """Ask for samples ``first ..``; a subclass may show each the problem otherwise."""
        self.generate(
            Branch.root(self.start.problem),
            self.start.limit,
            count,
            first=first,
            decoding=self.decoding,
            final=self.n == 1,
        )

    def _early(self) -> list[Outcome]:
        """Samples that came before their turn, while their turn may still come."""
        held = self._inbox.held() if self.ended is Ended.UNFINISHED else []
        return [outcome for outcome in held if not self._void(outcome)]

    def _void(self, outcome: Outcome) -> bool:
        """Whether it is no sample: a rank behind the last solution that a threshold search found;
        a subclass may leave out more."""
        value = outcome.value
        return isinstance(value, Completion) and value.stop is StopReason.EXHAUSTED

    def _marked(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates as the selection sees them; a subclass adds scores."""
        return candidates

    def _add(self, candidate: Candidate, branch: Branch) -> None:
        """One sample took effect; a subclass asks about ``branch``."""
        self.candidates.append(candidate)
        if self.rule is None or candidate.answer is None:
            return
        for at, (answer, votes) in enumerate(self._votes):
            if answer == candidate.answer or self.start.same(answer, candidate.answer):
                self._votes[at] = (answer, votes + 1)
                return
        self._votes.append((candidate.answer, 1))

    def _go_on(self) -> None:
        counts = [votes for _, votes in self._votes]
        if self.rule is not None and self.rule.certainty(counts) >= self.rule.confidence:
            self.ended = Ended.CONFIDENT
            self.stop()
        elif self._came >= self.n:
            self.ended = Ended.COMPLETE
        elif self.start.budget is not None and self.start.budget.exhausted(self.spent):
            if self._came >= self._asked:
                self.ended = Ended.BUDGET
        elif self._patience.over:
            if self._came >= self._asked:
                self.ended = Ended.COMPLETE
        elif self._asked < self.n:
            self._ask_more(counts)

    def _ask_more(self, counts: Sequence[int]) -> None:
        budget, in_flight = self.start.budget, self._asked - self._came
        most = min(self.n - self._asked, side_by_side(self.n, budget, self.flight) - in_flight)
        if self.rule is not None:
            most = min(most, samples_needed(self.rule, counts, in_flight + most) - in_flight)
        most -= most % self.unit
        if most > 0:
            self._request(self._asked, most)
            self._asked += most
