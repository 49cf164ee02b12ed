"""The strategy contract: a frozen config starts a search; a search is a state machine without I/O.

``ask`` gives actions, ``tell`` takes outcomes in any order, ``result`` is valid at any moment. A
search never sees a clock, an engine or the number of slots in use by others, so what it decides
depends on its seed and on what came back, not on when.

The order of effect. Outcomes arrive as engines finish them; they take effect in the order of the
actions that asked for them (``Inbox``). What a search asks next is decided while outcomes take
effect, budget included: two runs that differ only in timing ask for the same work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable

from mull.budget import Budget, Purpose
from mull.engines.adapt import AdaptRecipe, Parts
from mull.grades import Extraction
from mull.selection import Majority, PerField, Selection, Selector
from mull.tasks.base import FieldsTask, Task, settled
from mull.trees import TreeNode
from mull.types import (
    Branch,
    Candidate,
    Completion,
    Decoding,
    Problem,
    Sampling,
    StopReason,
    Until,
    Usage,
)

POLICY = "policy"
"""The engine that proposes."""


@dataclass(frozen=True, slots=True)
class Generate:
    """Children ``first .. first + count - 1`` of a branch, each one completion of ``engine``.

    The branch's key and the child's index fix each child's seed, so asking again, or in another
    order, gives the same children. ``speculative`` work runs only in idle slots, is charged in its
    own column until a ``Commit`` names it, and never changes a result. ``final`` marks what a
    server may stream to its client.
    """

    id: int
    branch: Branch
    until: Until
    count: int = 1
    first: int = 0
    engine: str = POLICY
    decoding: Decoding = Sampling()
    purpose: Purpose = Purpose.POLICY
    speculative: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """One score a branch by a named verifier; a single outcome with all scores."""

    id: int
    branches: tuple[Branch, ...]
    verifier: str = "verifier"
    purpose: Purpose = Purpose.VERIFIER
    speculative: bool = False


@dataclass(frozen=True, slots=True)
class Adapt:
    """Train the policy's weights on: test-time fine-tuning. One a search; it never speculates.

    The outcome's value names the weights that branches may then be continued and judged under
    (``Branch.weights``); they live until the search is done.
    """

    id: int
    examples: tuple[Parts, ...]
    recipe: AdaptRecipe = field(default_factory=AdaptRecipe)
    purpose: ClassVar[Purpose] = Purpose.ADAPTATION
    speculative: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Speculative actions that are wanted now, whether they wait, run or have been told.

    From here on they are ordinary work: what waits takes its turn, what they cost moves to their
    own purpose (``FAILED`` for a failure), what they will cost goes there.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Turns (action, index) that will not take effect: stop them, tell nothing more of them.

    What they cost, told or not, is booked as cancelled; speculation never committed stays
    speculative. The parts of an action that took effect before are not named and keep their place.
    """

    turns: tuple[tuple[int, int], ...]


Work = Generate | Score | Adapt
Action = Work | Commit | Cancel


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that did not come: the error's type name and message. Data, not an exception."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Adapted:
    """The name of weights that were trained."""

    name: str


Value = Completion | tuple[float, ...] | Adapted | Failure
"""What a part of an action gives: a sample, scores, adapted weights, or why there is none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of part ``index`` of an action.

    A ``Generate`` has ``count`` outcomes with child indices ``first ..``; a ``Score`` has one, with
    index 0 and the scores as value, an ``Adapt`` one likewise. ``usage`` is what it cost, failed
    work included.
    """

    action: int
    index: int
    value: Value
    usage: Usage = Usage()

    @property
    def said(self) -> bool:
        """Whether it is a completion of at least one token."""
        return isinstance(self.value, Completion) and self.value.usage.generated > 0


@dataclass(frozen=True, slots=True)
class Room:
    """What the driver has to give now: idle slots of the policy, for speculation alone to see."""

    slots: int


class Ended(StrEnum):
    """Why a search ended. Closed."""

    COMPLETE = "complete"
    """The algorithm ran to its end."""
    BUDGET = "budget"
    """A limit of the budget was reached first."""
    CONFIDENT = "confident"
    """A stopping rule was sure enough."""
    UNFINISHED = "unfinished"
    """Asked for its result while work was outstanding (deadline, interrupt)."""


@dataclass(frozen=True, slots=True)
class Result:
    """The best answer so far: one selection per part of the problem, and all that it rests on.

    ``tree`` holds the nodes that a search over steps, chunks or attempts grew, in key order; empty
    for other strategies.
    """

    parts: tuple[Selection, ...]
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...] = ()
    ended: Ended = Ended.UNFINISHED
    tree: tuple[TreeNode, ...] = ()

    @property
    def answer(self) -> str | None:
        """The answer to a problem of one part; ``None`` where there is none."""
        return self.parts[0].answer if self.parts else None

    @property
    def confidence(self) -> float:
        """The share of the vote behind the answer, 0 where there is none."""
        return self.parts[0].confidence if self.parts else 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a search begins with.

    ``candidates`` exist already (samples spent on judging difficulty) and are not paid for again;
    they are samples ``0 ..`` of the root. ``until`` is the task's, or the caller's own. Without
    ``speculate`` a search makes no guesses, whatever its own options say.
    """

    problem: Problem
    task: Task
    budget: Budget | None = None
    sampling: Sampling = Sampling()
    until: Until | None = None
    candidates: tuple[Candidate, ...] = ()
    speculate: bool = True

    @property
    def limit(self) -> Until:
        """When a whole solution ends."""
        return self.until or self.task.until

    def tokens_left(self, branch: Branch) -> int:
        """Tokens that a path may still have; 0 or less: none."""
        return self.limit.max_tokens - branch.tokens

    def candidate(self, branch: Branch, read: Extraction | None = None) -> Candidate:
        """Read a finished branch: its answer by the task (or as ``read``), and its likelihoods.

        Why its last step ended is weighed with what was read (``settled``).
        """
        stop = branch.steps[-1].stop if branch.steps else StopReason.END
        read = settled(self.task, read or self.task.extract(self.problem, branch.text), stop)
        known = [step.logprobs for step in branch.steps if step.logprobs is not None]
        scores: dict[str, float] = {}
        if known and len(known) == len(branch.steps):
            total = sum(map(sum, known))
            scores = {"logprob": total, "mean_logprob": total / max(1, sum(map(len, known)))}
        return Candidate(
            branch.key, branch.said, read.answer, read.unanswered, stop, branch.tokens, scores
        )

    @property
    def majority(self) -> Selector:
        """The plain vote over answers of this task: field by field where they have fields."""
        fields = isinstance(self.task, FieldsTask) and self.task.per_field
        return PerField() if fields else Majority()

    def same(self, a: str, b: str) -> bool:
        """The task's equality of two answers to this problem."""
        return self.task.same(self.problem, a, b)


class Search(Protocol):
    """One problem being solved. No I/O, no clock, no global state."""

    def ask(self, room: Room) -> list[Action]:
        """Actions not asked before; an empty list means: tell me something first, or done."""
        ...

    def tell(self, outcome: Outcome) -> None:
        """One outcome; any order."""
        ...

    @property
    def done(self) -> bool:
        """Whether no outcome could change the result any more."""
        ...

    def result(self) -> Result:
        """The best answer so far, at any moment."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """How a budget is spent on one problem: a frozen config that starts searches."""

    def start(self, start: Start) -> Search:
        """A fresh search. ``BudgetError`` where budget and parameters contradict each other."""
        ...


def unscored(outcome: Outcome) -> Outcome:
    """The outcome of a ``Score``; one that failed is a ``ScoreError``, whatever it failed of.

    So a report can tell a score that did not come from a sample that did not.

    >>> unscored(Outcome(0, 0, Failure("EndpointError", "HTTP 500"))).value
    Failure(error='ScoreError', message='EndpointError: HTTP 500')
    """
    failed = outcome.value
    if not isinstance(failed, Failure):
        return outcome
    return replace(outcome, value=Failure("ScoreError", f"{failed.error}: {failed.message}"))


class Inbox:
    """Holds outcomes back until it is their turn: action by action, index by index.

    A search that has independent lanes (subtrees) keeps one inbox a lane.

    >>> box = Inbox()
    >>> box.expect(0, range(2))
    >>> list(box.put(Outcome(0, 1, Failure("x", ""))))
    []
    >>> [outcome.index for outcome in box.put(Outcome(0, 0, Failure("x", "")))]
    [0, 1]
    """

    __slots__ = ("_arrived", "_turns")

    def __init__(self) -> None:
        self._turns: deque[tuple[int, int]] = deque()
        self._arrived: dict[tuple[int, int], Outcome] = {}

    def expect(self, action: int, indices: Sequence[int]) -> None:
        """Queue the turns of a new action."""
        self._turns.extend((action, index) for index in indices)

    def put(self, outcome: Outcome) -> Iterator[Outcome]:
        """Take one outcome in; give those whose turn has come."""
        self._arrived[outcome.action, outcome.index] = outcome
        return self._due()

    def drop(self, actions: Iterable[int]) -> list[tuple[int, int]]:
        """Forget what actions have left, turns and early arrivals; give the turns forgotten.

        Turns behind them may be due now: the ``put`` that is being read gives them, or the next.
        """
        gone = set(actions)
        dropped = [turn for turn in self._turns if turn[0] in gone]
        self._turns = deque(turn for turn in self._turns if turn[0] not in gone)
        self._arrived = {turn: o for turn, o in self._arrived.items() if turn[0] not in gone}
        return dropped

    def actions(self) -> set[int]:
        """The actions that have turns left."""
        return {action for action, _ in self._turns}

    def held(self) -> list[Outcome]:
        """Outcomes that came before their turn, in the order of their turns."""
        return [self._arrived[turn] for turn in self._turns if turn in self._arrived]

    def __len__(self) -> int:
        return len(self._turns)

    def _due(self) -> Iterator[Outcome]:
        while self._turns and self._turns[0] in self._arrived:
            yield self._arrived.pop(self._turns.popleft())


@dataclass
class OrderedSearch(ABC):
    """A search whose outcomes all take effect in one order: the base of most strategies.

    A subclass asks by ``generate`` and ``score`` inside ``begin`` and ``take``; it is done when it
    waits for nothing and has asked for nothing.
    """

    start: Start
    spent: Usage = field(default=Usage(), init=False)
    failures: list[Failure] = field(default_factory=list, init=False)
    _queue: list[Action] = field(default_factory=list, init=False)
    _inbox: Inbox = field(default_factory=Inbox, init=False)
    _refusals: set[int] = field(default_factory=set, init=False)
    _scored: dict[int, str] = field(default_factory=dict, init=False)
    _generative: set[str] = field(default_factory=set, init=False)
    _next: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    @abstractmethod
    def begin(self) -> None:
        """Ask for the first work."""

    @abstractmethod
    def take(self, outcome: Outcome) -> None:
        """One outcome, in order; may ask for more."""

    @abstractmethod
    def result(self) -> Result:
        """The best answer so far."""

    def ask(self, room: Room) -> list[Action]:
        self._wake()
        actions, self._queue = self._queue, []
        return actions

    def tell(self, outcome: Outcome) -> None:
        if not self._running() or outcome.action in self._refusals:
            return
        if outcome.action in self._scored:
            outcome = unscored(outcome)
        for due in self._inbox.put(outcome):
            self.spent = self.spent + due.usage
            if isinstance(due.value, Failure):
                self.failures.append(due.value)
            if due.action in self._scored and due.usage.generated:
                self._generative.add(self._scored[due.action])
            self.take(due)
            if not self._running():  # `take` may have stopped the search
                return

    @property
    def done(self) -> bool:
        self._wake()
        return not self._queue and (self._stopped or not self.waiting)

    @property
    def waiting(self) -> int:
        """How many outcomes that were asked for have not taken effect."""
        return len(self._inbox)

    def generate(
        self,
        branch: Branch,
        until: Until,
        count: int = 1,
        *,
        first: int = 0,
        engine: str = POLICY,
        decoding: Decoding | None = None,
        purpose: Purpose = Purpose.POLICY,
        final: bool = False,
        owed: bool = False,
    ) -> int:
        """Queue a ``Generate``; returns its id. A spent budget refuses it, as a failure in turn.

        Only the one finish that is ``owed`` (see ``owed.py``) is asked for nevertheless.
        """
        action = Generate(
            self._id(),
            branch,
            until,
            count,
            first,
            engine,
            decoding or self.start.sampling,
            purpose,
            final=final,
        )
        self._inbox.expect(action.id, range(first, first + count))
        if owed or not self._refused(action.id, range(first, first + count)):
            self._queue.append(action)
        return action.id

    def score(self, branches: Sequence[Branch], verifier: str = "verifier") -> int:
        """Queue a ``Score``; returns its id.

        A spent budget refuses it, as a failure in turn, once a score of that verifier that took
        effect has generated: that costs as a sample does.
        """
        action = Score(self._id(), tuple(branches), verifier)
        self._scored[action.id] = verifier
        self._inbox.expect(action.id, range(1))
        if verifier not in self._generative or not self._refused(action.id, range(1)):
            self._queue.append(action)
        return action.id

    def cancel(self, actions: Iterable[int]) -> None:
        """Give up actions; what of them has not taken effect never will. Only from ``take``."""
        gone = set(actions)
        turns = self._inbox.drop(gone)
        unasked = {a.id for a in self._queue if isinstance(a, Work) and a.id in gone}
        self._queue = [a for a in self._queue if not (isinstance(a, Work) and a.id in unasked)]
        never = unasked | self._refusals
        asked = tuple(turn for turn in turns if turn[0] not in never)
        if asked:
            self._queue.append(Cancel(asked))

    def stop(self) -> None:
        """Stop now: what is outstanding is cancelled and no outcome takes effect any more."""
        self.cancel(self._inbox.actions())
        self._stopped = True

    def _refused(self, action: int, indices: Sequence[int]) -> bool:
        """The net under strategies that do not keep their own budget.

        It acts in the order of effect, on what has taken effect, so timing changes nothing; a
        driver could not, since it sees several effects at once.
        """
        budget = self.start.budget
        if budget is None or not budget.exhausted(self.spent):
            return False
        for index in indices:
            refusal = Failure("BudgetError", f"the budget ({budget}) is spent")
            self._inbox.put(Outcome(action, index, refusal))
        self._refusals.add(action)
        return True

    def _running(self) -> bool:
        return not self._stopped

    def _id(self) -> int:
        self._next += 1
        return self._next - 1

    def _wake(self) -> None:
        if not self._begun:
            self._begun = True
            self.begin()
