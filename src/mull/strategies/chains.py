"""Chains of work on one problem, side by side; none waits for another.

Each chain keeps the order of its own outcomes and has its own share of the budget, so what it asks
next depends on nothing but itself: a slow chain holds no other back, and timing changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mull.budget import Budget, Purpose
from mull.strategies.base import (
    POLICY,
    Action,
    Ended,
    Failure,
    Generate,
    Inbox,
    Outcome,
    Room,
    Score,
    Start,
    unscored,
)
from mull.strategies.number import Patience
from mull.types import Branch, Candidate, Completion, StopReason, Until, Usage


def chunk_of(limit: Until, tokens: int, chunk: int | None) -> Until | None:
    """When the next chunk ends behind ``tokens`` of a solution; ``None`` if none is left of it.

    The last chunk ends by the solution's own limit, so that it counts as truncated.

    >>> chunk_of(Until(100), 64, 64), chunk_of(Until(100), 0, 64).tokens
    (Until(max_tokens=36, steps=None, tokens=None, separator='\\n', stop=()), 64)
    """
    left = limit.max_tokens - tokens
    if left < 1:
        return None
    return replace(limit, max_tokens=left, tokens=chunk if chunk and chunk < left else None)


def with_chunk(branch: Branch, completion: Completion) -> Branch:
    """The branch with one more chunk; one without a token cuts it off.

    Behind such a chunk there would be another like it, for ever.

    >>> from mull.types import Problem, Prompt
    >>> branch = Branch.root(Problem("p", Prompt.of("?")))
    >>> with_chunk(branch, Completion(0, "", StopReason.TOKENS, Usage())).finished
    True
    """
    if completion.stop is StopReason.TOKENS and not completion.usage.generated:
        completion = replace(completion, stop=StopReason.LENGTH)
    return branch.child(completion)


@dataclass(slots=True)
class Chain:
    """What has become of one chain; ``cut`` where its share of the budget ended it.

    ``generative`` are the verifiers of which a score that took effect here has generated.
    """

    inbox: Inbox = field(default_factory=Inbox)
    spent: Usage = Usage()
    candidates: list[Candidate] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    generative: set[str] = field(default_factory=set)
    cut: bool = False


@dataclass
class ChainSearch(ABC):
    """A search made of ``count`` chains, each told its own outcomes in the order it asked.

    A subclass asks by ``open`` (the first work of several chains, as one request), ``generate`` and
    ``score`` inside ``begin`` and ``take``; a chain that waits for nothing has ended.
    """

    start: Start
    count: int
    chains: list[Chain] = field(default_factory=list, init=False)
    _share: Budget | None = field(default=None, init=False)
    _queue: list[Action] = field(default_factory=list, init=False)
    _owner: dict[int, int] = field(default_factory=dict, init=False)
    _shared: dict[int, int] = field(default_factory=dict, init=False)
    _parents: dict[int, Branch] = field(default_factory=dict, init=False)
    _scored: dict[int, str] = field(default_factory=dict, init=False)
    _begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.chains = [Chain() for _ in range(self.count)]
        self._share = self.start.budget and self.start.budget.share(self.count)

    @abstractmethod
    def begin(self) -> None:
        """Ask for the first work."""

    @abstractmethod
    def take(self, at: int, outcome: Outcome) -> None:
        """One outcome of chain ``at``, in its order; may ask for more."""

    def ask(self, room: Room) -> list[Action]:
        self._wake()
        actions, self._queue = self._queue, []
        return actions

    def tell(self, outcome: Outcome) -> None:
        at = self._owner[outcome.action]
        if outcome.action in self._shared:
            at += outcome.index - self._shared[outcome.action]
        chain = self.chains[at]
        if outcome.action in self._scored:
            outcome = unscored(outcome)
        for due in chain.inbox.put(outcome):
            chain.spent = chain.spent + due.usage
            if isinstance(due.value, Failure):
                chain.failures.append(due.value)
            if due.action in self._scored and due.usage.generated:
                chain.generative.add(self._scored[due.action])
            self.take(at, due)

    @property
    def done(self) -> bool:
        self._wake()
        return not self._queue and not self.busy

    @property
    def busy(self) -> bool:
        """Whether some chain waits for an outcome."""
        return any(len(chain.inbox) for chain in self.chains)

    @property
    def ended(self) -> Ended:
        """Why the search ended, if it has."""
        if not self.done:
            return Ended.UNFINISHED
        return Ended.BUDGET if any(chain.cut for chain in self.chains) else Ended.COMPLETE

    def open(
        self,
        branch: Branch,
        until: Until,
        first: int,
        chains: range,
        *,
        engine: str = POLICY,
        purpose: Purpose = Purpose.POLICY,
    ) -> None:
        """Children ``first ..`` of ``branch``, one a chain of ``chains``: one request, one prompt.

        The first work of these chains; nothing where there are none.
        """
        if not chains:
            return
        action = self._ask(chains[0], branch, until, len(chains), first, engine, purpose)
        self._shared[action] = first
        for child, at in enumerate(chains, first):
            self.chains[at].inbox.expect(action, (child,))

    def generate(
        self,
        at: int,
        branch: Branch,
        until: Until,
        first: int = 0,
        *,
        engine: str = POLICY,
        purpose: Purpose = Purpose.POLICY,
    ) -> bool:
        """Child ``first`` of ``branch`` for chain ``at``; false where its share is spent."""
        if not self.can_pay(at):
            return False
        action = self._ask(at, branch, until, 1, first, engine, purpose)
        self.chains[at].inbox.expect(action, (first,))
        return True

    def can_pay(self, at: int) -> bool:
        """Whether the share of chain ``at`` is not spent; it is ``cut`` where it is."""
        chain = self.chains[at]
        if self._share is not None and self._share.exhausted(chain.spent):
            chain.cut = True
        return not chain.cut

    def score(self, at: int, branches: Sequence[Branch], verifier: str) -> int:
        """A score for chain ``at``; returns the action's id.

        Where the chain's share is spent, a verifier that generates is not asked: the score is a
        failure in turn.
        """
        chain = self.chains[at]
        action = Score(len(self._owner), tuple(branches), verifier)
        self._owner[action.id] = at
        self._scored[action.id] = verifier
        chain.inbox.expect(action.id, range(1))
        if verifier not in chain.generative or self.can_pay(at):
            self._queue.append(action)
        else:
            refusal = Failure("BudgetError", f"a chain's share ({self._share}) is spent")
            chain.inbox.put(Outcome(action.id, 0, refusal))
        return action.id

    def child(self, outcome: Outcome) -> Branch:
        """The branch that a completion makes of the one it was asked for."""
        parent = self._parents[outcome.action]
        made = outcome.value
        return with_chunk(parent, made) if isinstance(made, Completion) else parent

    def held(self) -> Iterator[tuple[int, Outcome]]:
        """(chain, outcome) of what came before its turn."""
        for at, chain in enumerate(self.chains):
            for outcome in chain.inbox.held():
                yield at, outcome

    def found(self) -> list[Candidate]:
        """All candidates so far in key order, early ones included."""
        all_of = [candidate for chain in self.chains for candidate in chain.candidates]
        all_of += [
            self.start.candidate(self.child(outcome))
            for _, outcome in self.held()
            if isinstance(outcome.value, Completion)
        ]
        return sorted(all_of, key=lambda candidate: candidate.key)

    def failed(self) -> tuple[Failure, ...]:
        """All failures so far, chain by chain, early ones last."""
        told = [failure for chain in self.chains for failure in chain.failures]
        early = [o.value for _, o in self.held() if isinstance(o.value, Failure)]
        return (*told, *early)

    def _ask(
        self,
        at: int,
        branch: Branch,
        until: Until,
        count: int,
        first: int,
        engine: str,
        purpose: Purpose,
    ) -> int:
        id, how = len(self._owner), self.start.sampling
        action = Generate(id, branch, until, count, first, engine, how, purpose)
        self._owner[id] = at
        self._parents[id] = branch
        self._queue.append(action)
        return id

    def _wake(self) -> None:
        if not self._begun:
            self._begun = True
            self.begin()


@dataclass
class SampleChains(ChainSearch):
    """Samples 0 .. n - 1 of the root, each in several pieces, one at a time in each chain.

    Chain ``at`` makes the samples ``at``, ``at + count``, … behind those that exist already. A
    subclass says what follows a piece in ``take``, and calls ``begin_next`` behind a sample. A
    chain without an end of its own gives up by its ``Patience``.
    """

    n: int
    until: Until
    _sample: list[int] = field(default_factory=list, init=False)
    _patience: list[Patience] = field(default_factory=list, init=False)

    def begin_all(self, given: int, end: int) -> None:
        """The first piece of the samples ``given .. end - 1``, as far as there are chains."""
        self._sample = [given + at for at in range(self.count)]
        self._patience = [Patience(self.n) for _ in range(self.count)]
        self.begin_more(end)

    def begin_more(self, end: int) -> None:
        """The next piece of all chains that stand before sample ``end``; none of them is busy."""
        ready = [at for at in range(self.count) if self._sample[at] < end and self.can_pay(at)]
        chains = range(ready[0], ready[-1] + 1) if ready else range(0)
        first = self._sample[chains[0]] if ready else 0
        if ready == list(chains) and all(
            self._sample[at] == first + at - chains[0] for at in ready
        ):
            self.open(Branch.root(self.start.problem), self.until, first, chains)
            return
        for at in ready:
            self._begin(at)

    def begin_next(self, at: int, end: int, said: bool) -> None:
        """The next sample of chain ``at``, if it comes before ``end``; whether this one spoke."""
        self._patience[at].saw(said)
        self._sample[at] += self.count
        if self._sample[at] < end and not self._patience[at].over:
            self._begin(at)

    def _begin(self, at: int) -> None:
        self.generate(at, Branch.root(self.start.problem), self.until, self._sample[at])
