"""Six toy strategies that together need everything the ask/tell contract can say.

Each is the shortest honest version of its algorithm: a stopped vote, a beam that speculates, MCTS
with virtual loss, a judged vote, chains of revisions, and lanes that do not wait for each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mull.budget import Purpose
from mull.selection import Selection, best, filtered, majority
from mull.strategies.base import (
    Action,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Inbox,
    OrderedSearch,
    Outcome,
    Result,
    Room,
    Score,
    Start,
)
from mull.types import Branch, Candidate, Completion, Prompt, Until

STEP = Until(max_tokens=8, steps=1)


@dataclass
class Toy(OrderedSearch):
    """What the toys share: the candidates so far and how the result is made of them."""

    candidates: list[Candidate] = field(default_factory=list, init=False)

    @property
    def root(self) -> Branch:
        return Branch.root(self.start.problem)

    def select(self) -> Selection:
        return majority(self.candidates, self.start.same)

    def result(self) -> Result:
        ended = Ended.CONFIDENT if self._stopped else Ended.COMPLETE
        return Result(
            (self.select(),),
            tuple(sorted(self.candidates, key=lambda c: c.key)),
            tuple(self.failures),
            ended if self.done else Ended.UNFINISHED,
        )


@dataclass
class StoppedVote(Toy):
    """Vote of ``n``, ``flight`` in flight; stops when P(p1 > p2) >= .95 (Aggarwal et al. 2023).

    Each sample is an action of its own: ``Cancel`` names whole actions, and those that took effect
    must not be among them.
    """

    n: int = 30
    flight: int = 6

    def begin(self) -> None:
        self.candidates.extend(self.start.candidates)
        self.asked = len(self.candidates)
        first = self.asked
        self.generate(self.root, self.start.limit, self.flight, first=first)
        self.asked += self.flight

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            self.candidates.append(self.start.candidate(self.root.child(outcome.value)))
        if self._sure():
            self.stop()
        else:
            self._sample()

    def _sample(self) -> None:
        if self.asked < self.n:
            self.generate(self.root, self.start.limit, first=self.asked)
            self.asked += 1

    def _sure(self) -> bool:
        votes = Counter(c.answer for c in self.candidates if c.answer).most_common(2)
        first, second = ([count for _, count in votes] + [0, 0])[:2]
        # P(Beta(a, b) > 1/2) for whole a, b is a binomial tail: P(Bin(a + b - 1, 1/2) < a).
        tosses = first + second + 1
        return sum(math.comb(tosses, k) for k in range(first + 1)) >= 0.95 * 2.0**tosses


@dataclass
class Guessing(Toy):
    """A toy that guesses: its guesses take their turns once they are committed."""

    guessed: dict[int, range] = field(default_factory=dict, init=False)

    def speculate(self, branch: Branch, until: Until, count: int = 1, *, first: int = 0) -> int:
        """Queue a guess; only from ``ask``."""
        guess = Generate(self._id(), branch, until, count, first, speculative=True)
        self._queue.append(guess)
        self.guessed[guess.id] = range(first, first + count)
        return guess.id

    def commit(self, guess: int) -> None:
        """A guess was right: its turns come now, after those of all that was asked before."""
        span = self.guessed.pop(guess)
        self._inbox.expect(guess, span)
        if self._refused(guess, span):
            self._queue.append(Cancel(tuple((guess, index) for index in span)))
        else:
            self._queue.append(Commit((guess,)))

    def forget(self, guesses: Iterable[int]) -> None:
        """Guesses were wrong."""
        spans = {guess: self.guessed.pop(guess) for guess in guesses}
        if spans:
            self._queue.append(Cancel(tuple((id, i) for id, span in spans.items() for i in span)))


@dataclass
class SpeculativeBeam(Guessing):
    """A step beam that extends branches which look like survivors before all scores are in."""

    keep: int = 2
    branch: int = 2
    depth: int = 4

    def begin(self) -> None:
        self.level: dict[tuple[int, ...], tuple[Branch, float]] = {}
        self.parents: dict[int, Branch] = {}
        self.scored: dict[int, Branch] = {}
        self.hints: dict[tuple[int, ...], tuple[Branch, float]] = {}
        self.guesses: dict[tuple[int, ...], int] = {}
        self._extend(self.root, self.keep * self.branch)

    def ask(self, room: Room) -> list[Action]:
        actions = super().ask(room)
        if actions or not self.waiting:
            return actions
        likely = sorted(self.hints.values(), key=lambda pair: -pair[1])[: self.keep]
        for branch, _ in likely[: room.slots]:
            if branch.key not in self.guesses and not branch.finished:
                guess = self.speculate(branch, STEP, self.branch)
                self.guesses[branch.key] = guess
                self.parents[guess] = branch
        return super().ask(room)

    def tell(self, outcome: Outcome) -> None:
        # What arrived may guide guesses before its turn: a guess never changes a result.
        if isinstance(outcome.value, tuple):
            branch = self.scored[outcome.action]
            self.hints[branch.key] = (branch, outcome.value[0])
        super().tell(outcome)

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            child = self.parents[outcome.action].child(outcome.value)
            self.scored[self.score((child,))] = child
        elif isinstance(outcome.value, tuple):
            branch = self.scored[outcome.action]
            self.level[branch.key] = (branch, outcome.value[0])
        if not self.waiting:
            self._next_level()

    def select(self) -> Selection:
        return best(self.candidates, "verifier", self.start.same)

    def _next_level(self) -> None:
        ranked = sorted(self.level.values(), key=lambda pair: (-pair[1], pair[0].key))
        for branch, score in ranked:
            if branch.finished or branch.depth == self.depth:
                scores = {"verifier": score}
                self.candidates.append(replace(self.start.candidate(branch), scores=scores))
        self.level, self.hints = {}, {}
        alive = [b for b, _ in ranked if not b.finished and b.depth < self.depth]
        for branch in alive[: self.keep]:
            self._extend(branch, self.branch)
        self.forget(self.guesses.values())
        self.guesses = {}

    def _extend(self, branch: Branch, count: int) -> None:
        guess = self.guesses.pop(branch.key, None)
        if guess is None:
            self.parents[self.generate(branch, STEP, count)] = branch
        else:
            self.commit(guess)


@dataclass
class Node:
    """A node of the tree: ``virtual`` counts simulations in flight below it."""

    branch: Branch
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    asked: int = 0
    visits: int = 0
    virtual: int = 0
    value: float = 0.0

    def uct(self) -> float:
        assert self.parent is not None
        seen, above = self.visits + self.virtual, self.parent.visits + self.parent.virtual
        return self.value / seen + math.sqrt(2 * math.log(above) / seen)

    def path(self) -> list[Node]:
        return [self, *(self.parent.path() if self.parent else [])]


@dataclass
class Mcts(Toy):
    """UCT over steps; ``flight`` simulations run at once, each a virtual loss on its path."""

    simulations: int = 48
    flight: int = 4
    width: int = 2

    def begin(self) -> None:
        self.tree = Node(self.root)
        self.at: dict[int, Node] = {}
        self.started = self.flying = 0
        self._fly()

    def take(self, outcome: Outcome) -> None:
        node = self.at.pop(outcome.action)
        if isinstance(outcome.value, Completion):
            child = Node(node.branch.child(outcome.value), node, virtual=1)
            node.children.append(child)
            self.at[self.score((child.branch,))] = child
        else:
            reward = outcome.value[0] if isinstance(outcome.value, tuple) else 0.0
            self._back(node, reward)
            if node.branch.finished and isinstance(outcome.value, tuple):
                scores = {"verifier": reward}
                self.candidates.append(replace(self.start.candidate(node.branch), scores=scores))
        self._fly()

    def select(self) -> Selection:
        return best(self.candidates, "verifier", self.start.same)

    def _fly(self) -> None:
        while self.flying < self.flight and self.started < self.simulations:
            node = self.tree
            while not node.branch.finished and node.asked >= self.width and node.children:
                node = max(node.children, key=lambda n: (n.uct(), n.branch.key))
            if not node.branch.finished and node.asked >= self.width and self.flying:
                return  # every child is still in flight: nothing to descend to yet
            self.started += 1
            self.flying += 1
            for above in node.path():
                above.virtual += 1
            if node.branch.finished or node.asked >= self.width:
                self._back(node, node.value / max(1, node.visits))
            else:
                self.at[self.generate(node.branch, STEP, first=node.asked)] = node
                node.asked += 1

    def _back(self, leaf: Node, reward: float) -> None:
        self.flying -= 1
        for node in leaf.path():
            node.virtual -= 1
            node.visits += 1
            node.value += reward


@dataclass
class JudgedVote(Toy):
    """A vote among the samples that a judge calls correct, among all if it calls none so."""

    n: int = 8

    def begin(self) -> None:
        self.judged: dict[int, Candidate] = {}
        self.passed: set[tuple[int, ...]] = set()
        self.generate(self.root, self.start.limit, self.n)

    def take(self, outcome: Outcome) -> None:
        candidate = self.judged.get(outcome.action)
        if not isinstance(outcome.value, Completion):
            return
        if candidate is None:
            self._judge(self.root.child(outcome.value))
        elif "[[correct]]" in outcome.value.text:
            self.passed.add(candidate.key)

    def select(self) -> Selection:
        return filtered(self.candidates, lambda c: c.key in self.passed, self.start.same)

    def _judge(self, branch: Branch) -> None:
        candidate = self.start.candidate(branch)
        self.candidates.append(candidate)
        view = Prompt.of(f"{branch.view.plain}\n{branch.text}\n[[correct]] or [[wrong]]?")
        asked = Branch(branch.problem, view, (*branch.key, -2))
        judge = self.generate(asked, Until(4), engine="judge", purpose=Purpose.JUDGE)
        self.judged[judge] = candidate


@dataclass
class Revisions(Toy):
    """``chains`` of ``length`` attempts, each seeing those before it; the likeliest of all wins."""

    chains: int = 2
    length: int = 4

    def begin(self) -> None:
        self.attempts: dict[int, Branch] = {}
        for chain in range(self.chains):
            self.attempts[self.generate(self.root, self.start.limit, first=chain)] = self.root

    def take(self, outcome: Outcome) -> None:
        if not isinstance(outcome.value, Completion):
            return
        finished = self.attempts[outcome.action].child(outcome.value)
        self.candidates.append(self.start.candidate(finished))
        if len(finished.history) + 1 < self.length:
            again = finished.revision("look again")
            asked = self.generate(again, self.start.limit, purpose=Purpose.REVISION)
            self.attempts[asked] = again

    def select(self) -> Selection:
        return best(self.candidates, "mean_logprob", self.start.same)


@dataclass
class Lanes:
    """Two greedy step searches that never wait for each other: an inbox each, as DVTS needs."""

    start: Start
    branch: int = 2

    def __post_init__(self) -> None:
        self.queue: list[Action] = []
        self.inboxes = (Inbox(), Inbox())
        self.lane: dict[int, int] = {}
        self.parent: dict[int, Branch] = {}
        self.children: tuple[list[Branch], list[Branch]] = ([], [])
        self.waiting = [0, 0]
        self.ends: dict[int, Candidate] = {}
        self.failures: tuple[list[Failure], list[Failure]] = ([], [])
        for lane in range(2):
            self._extend(lane, Branch.root(self.start.problem), first=lane * self.branch)

    def ask(self, room: Room) -> list[Action]:
        actions, self.queue = self.queue, []
        return actions

    def tell(self, outcome: Outcome) -> None:
        lane = self.lane[outcome.action]
        for due in self.inboxes[lane].put(outcome):
            self._take(lane, due)

    @property
    def done(self) -> bool:
        return not self.queue and not any(self.inboxes)

    def result(self) -> Result:
        candidates = tuple(self.ends[lane] for lane in sorted(self.ends))
        failures = (*self.failures[0], *self.failures[1])
        ended = Ended.COMPLETE if self.done else Ended.UNFINISHED
        return Result((majority(candidates, self.start.same),), candidates, failures, ended)

    def _take(self, lane: int, outcome: Outcome) -> None:
        children = self.children[lane]
        self.waiting[lane] -= 1
        if isinstance(outcome.value, Completion):
            children.append(self.parent[outcome.action].child(outcome.value))
        elif isinstance(outcome.value, Failure):
            self.failures[lane].append(outcome.value)
        else:
            chosen = max(zip(outcome.value, children, strict=True), key=lambda p: (p[0], p[1].key))
            children.clear()
            self._go_on(lane, chosen[1])
            return
        if not self.waiting[lane] and children:
            self._queue(lane, Score(len(self.lane), tuple(children)), range(1))

    def _go_on(self, lane: int, branch: Branch) -> None:
        if branch.finished:
            self.ends[lane] = self.start.candidate(branch)
        else:
            self._extend(lane, branch)

    def _extend(self, lane: int, branch: Branch, first: int = 0) -> None:
        action = Generate(len(self.lane), branch, STEP, self.branch, first)
        self.parent[action.id] = branch
        self._queue(lane, action, range(first, first + self.branch))

    def _queue(self, lane: int, action: Generate | Score, indices: range) -> None:
        self.lane[action.id] = lane
        self.inboxes[lane].expect(action.id, indices)
        self.waiting[lane] += len(indices)
        self.queue.append(action)
