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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from mull.budget import Budget, Purpose
from mull.selection import Selection
from mull.tasks.base import Task
from mull.types import (
    Branch,
    Candidate,
    Completion,
    Decoding,
    Message,
    Problem,
    Prompt,
    Sampling,
    StopReason,
    Unanswered,
    Until,
    Usage,
)


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
    engine: str = "policy"
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
class Commit:
    """Speculative actions whose outcomes the search has taken: they move to their own purpose."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Actions whose outcomes are not wanted any more: stop them, tell nothing more of them."""

    ids: tuple[int, ...]


Work = Generate | Score
Action = Work | Commit | Cancel


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that did not come: the error's type name and message. Data, not an exception."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of part ``index`` of an action.

    A ``Generate`` has ``count`` outcomes with child indices ``first ..``; a ``Score`` has one, with
    index 0 and the scores as value. ``usage`` is what it cost, failed work included.
    """

    action: int
    index: int
    value: Completion | tuple[float, ...] | Failure
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Room:
    """What the driver has to give now: free slots, which only speculation may look at."""

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
    """The best answer so far: one selection per part of the problem, and all that it rests on."""

    parts: tuple[Selection, ...]
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...] = ()
    ended: Ended = Ended.UNFINISHED

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
    they are samples ``0 ..`` of the root. ``until`` is the task's, or the caller's own.
    """

    problem: Problem
    task: Task
    budget: Budget | None = None
    sampling: Sampling = Sampling()
    until: Until | None = None
    candidates: tuple[Candidate, ...] = ()

    @property
    def limit(self) -> Until:
        """When a whole solution ends."""
        return self.until or self.task.until

    def candidate(self, branch: Branch) -> Candidate:
        """Read a finished branch: its answer by the task, and its likelihood scores."""
        read = self.task.extract(self.problem, branch.text)
        logprobs = [x for step in branch.steps for x in step.logprobs or ()]
        tokens = sum(len(step.token_ids or ()) for step in branch.steps)
        known = bool(branch.steps) and all(step.logprobs is not None for step in branch.steps)
        total = sum(logprobs)
        scores = {"logprob": total, "mean_logprob": total / max(1, len(logprobs))} if known else {}
        stop = branch.steps[-1].stop if branch.steps else StopReason.END
        missing = read.unanswered
        if missing is not None and stop.truncated:
            missing = Unanswered.TRUNCATED
        elif missing is not None and stop is StopReason.FILTERED:
            missing = Unanswered.FILTERED
        return Candidate(branch.key, branch.text, read.answer, missing, stop, tokens, scores)

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


AGAIN = "That may be wrong. Look at it once more and solve the problem again."


def prompt_of(branch: Branch) -> Prompt:
    """A branch's view with the earlier attempts behind it, oldest first.

    Chat prompts get one assistant turn an attempt, answered by its feedback; text prompts get the
    attempts as text, each closed by a blank line.
    """
    if not branch.history:
        return branch.view
    if branch.view.messages:
        turns = [
            turn
            for attempt in branch.history
            for turn in (
                Message("assistant", attempt.text),
                Message("user", attempt.feedback or AGAIN),
            )
        ]
        return Prompt.chat(*branch.view.messages, *turns)
    shown = [
        text for attempt in branch.history for text in (attempt.text, attempt.feedback) if text
    ]
    return Prompt.of("\n\n".join([branch.view.plain, *shown]) + "\n\n")


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

    def drop(self, actions: Sequence[int]) -> Iterator[Outcome]:
        """Forget the turns of cancelled actions; give those whose turn has come by that."""
        gone = set(actions)
        self._turns = deque(turn for turn in self._turns if turn[0] not in gone)
        self._arrived = {turn: o for turn, o in self._arrived.items() if turn[0] not in gone}
        return self._due()

    def actions(self) -> set[int]:
        """The actions that have turns left."""
        return {action for action, _ in self._turns}

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
        if not self._running():
            return
        for due in self._inbox.put(outcome):
            self.spent = self.spent + due.usage
            if isinstance(due.value, Failure):
                self.failures.append(due.value)
            self.take(due)
            if not self._running():  # `take` may have stopped the search
                return

    @property
    def done(self) -> bool:
        self._wake()
        return not self._queue and (self._stopped or not len(self._inbox))

    def generate(
        self,
        branch: Branch,
        until: Until,
        count: int = 1,
        *,
        first: int = 0,
        engine: str = "policy",
        decoding: Decoding | None = None,
        purpose: Purpose = Purpose.POLICY,
        final: bool = False,
    ) -> int:
        """Queue a ``Generate``; returns its id."""
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
        self._queue.append(action)
        self._inbox.expect(action.id, range(first, first + count))
        return action.id

    def score(self, branches: Sequence[Branch], verifier: str = "verifier") -> int:
        """Queue a ``Score``; returns its id."""
        action = Score(self._id(), tuple(branches), verifier)
        self._queue.append(action)
        self._inbox.expect(action.id, range(1))
        return action.id

    def stop(self) -> None:
        """Stop now: what is outstanding is cancelled and no outcome takes effect any more."""
        asked = self._inbox.actions() - {a.id for a in self._queue if isinstance(a, Work)}
        self._queue = [Cancel(tuple(sorted(asked)))] if asked else []
        self._stopped = True

    def _running(self) -> bool:
        return not self._stopped

    def _id(self) -> int:
        self._next += 1
        return self._next - 1

    def _wake(self) -> None:
        if not self._begun:
            self._begun = True
            self.begin()
