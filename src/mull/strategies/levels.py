"""Tree search level by level: extend every path by a step, score it, let a rule divide the next.

The search behind step beam, lookahead, DVTS, REBASE and particles. What a level does takes effect
when all of it has come, in key order; so nothing depends on arrival. Independent subtrees are lanes
of their own: none waits for another.

While a level waits for its last scores, idle slots extend the paths that it will likely keep
(``levels_guess``), those are scored ahead, and so on. A guess is the very request that the level
would ask for: a right one is committed when the level is complete, a wrong one cancelled, and
neither changes what the search does or what stands on the ledger's ordinary rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mull.budget import Budget, Purpose
from mull.errors import BudgetError
from mull.strategies.base import (
    Action,
    Cancel,
    Commit,
    Ended,
    Failure,
    Generate,
    Outcome,
    Result,
    Room,
    Score,
    Start,
    Work,
    unscored,
)
from mull.strategies.choice import Select, choose, path_candidate, path_score
from mull.strategies.levels_lane import Lane
from mull.strategies.levels_rule import Rule
from mull.strategies.levels_tree import AHEAD, Batch, Node
from mull.types import GREEDY, Completion

WIDTH = 16
"""Paths side by side where neither the strategy nor the budget says."""


def level_width(name: str, n: int | None, budget: Budget | None, times: int = 1) -> int:
    """Paths side by side: the strategy's ``n``, else the budget's samples / ``times``, else 16.

    ``times`` is how often the search is repeated. Raises ``BudgetError`` where the two contradict
    each other, leave no path, or leave samples that no path can use.
    """
    given = budget.samples if budget else None
    if n is not None and n < 1:
        raise BudgetError(f"{name}(n={n}): n must be at least 1")
    if given is None:
        return n or WIDTH
    if n is not None and n * times != given:
        raise BudgetError(
            f"{name}(n={n}) costs {n * times} samples, and the budget is {given}: give one of the "
            "two"
        )
    if given < times:
        raise BudgetError(f"{name} needs at least {times} samples; the budget is {given}")
    if given % times:
        raise BudgetError(
            f"{name}(iterations={times}) cannot share {given} samples among its rounds evenly: "
            f"give a multiple of {times}, or other iterations"
        )
    return given // times


@dataclass(eq=False)
class LevelSearch:
    """One problem searched level by level, in a lane for each of ``rules``.

    A rule divides the children of its lane. A path ends with the model, at ``max_steps``, or where
    the task's limit of tokens leaves nothing. Paths of equal text at the same depth of a lane are
    one (``merge``): scored once, their children summed.
    With ``lookahead`` k a path is scored at the end of a greedy rollout of at most k steps.
    ``rounds`` repeats the search from the root, each round around a path of the one before, drawn
    by ``seed``. Under a ``bounded`` rule a score outside 0..1 is none (``choice.path_score``).

    Under a budget in tokens, FLOPs or money a lane asks for no level once its share is spent, nor,
    where judging is itself a generation (a lookahead, a judge's grade, the score of a verifier that
    generates), for more than ``IN_DOUBT`` of those at a time. What had finished by then answers;
    where nothing had, the first lane writes its best path to the end (``owed.py``), and of the
    others' paths those that they would have extended stand as truncated candidates. Samples that
    exist already have no steps and take no part.
    """

    start: Start
    rules: tuple[Rule, ...]
    verifier: str
    select: Select = "weighted"
    max_steps: int = 40
    merge: bool = True
    speculate: bool = True
    lookahead: int = 0
    rounds: int = 1
    seed: int = 0
    bounded: bool = False
    dear: bool = field(default=False, init=False)
    lanes: list[Lane] = field(default_factory=list, init=False)
    _queue: list[Action] = field(default_factory=list, init=False)
    _works: dict[int, tuple[Lane, Batch | Node]] = field(default_factory=dict, init=False)
    _next: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.dear = self.lookahead > 0
        self.speculate = self.speculate and self.start.speculate

    def ask(self, room: Room) -> list[Action]:
        self._wake()
        if self.speculate and room.slots > 0:
            self._guess(room.slots)
        actions, self._queue = self._queue, []
        return actions

    def tell(self, outcome: Outcome) -> None:
        found = self._works.get(outcome.action)
        if found is None:
            return
        lane, target = found
        if isinstance(target, Batch):
            lane.take_step(target.nodes[outcome.index - target.first], outcome)
        elif outcome.action == target.rollout and isinstance(outcome.value, Completion):
            lane.take_rollout(target, outcome.value)
        else:  # a rollout that failed is a score that did not come
            said = unscored(outcome).value
            score = path_score(self.verifier, said, self.select, self.bounded)
            if isinstance(score, Failure):
                lane.take_score(target, None, [score], outcome.usage)
            else:
                lane.take_score(target, score, [], outcome.usage)
        lane.go_on()

    @property
    def done(self) -> bool:
        self._wake()
        return not self._queue and all(lane.ended is not None for lane in self.lanes)

    def result(self) -> Result:
        """The selection among the paths that ended; before the end, of all that came to one."""
        done = bool(self.lanes) and self.done
        votes: dict[Node, int] = {}
        for lane in self.lanes:
            for node, count in lane.ballot().items():
                votes[node] = votes.get(node, 0) + count
        nodes = sorted((node for node, count in votes.items() if count), key=lambda n: n.key)
        candidates = tuple(
            path_candidate(self.start, node.there, self.verifier, node.score, node.capped)
            for node in nodes
        )
        counts = {node.key: votes[node] for node in nodes}
        ended = Ended.UNFINISHED
        if done:
            short = any(lane.ended is Ended.BUDGET for lane in self.lanes)
            ended = Ended.BUDGET if short else Ended.COMPLETE
        grown = {node.key: node for lane in self.lanes for node in lane.grown}
        grown.update((node.key, node) for node in nodes)  # some ended before their turn came
        return Result(
            (choose(self.select, self.verifier, candidates, counts, self.start),),
            candidates,
            tuple(failure for lane in self.lanes for failure in lane.failures),
            ended,
            tuple(grown[key].recorded(votes.get(grown[key], 0)) for key in sorted(grown)),
        )

    # What lanes ask ------------------------------------------------------------------------

    def step(
        self,
        lane: Lane,
        parent: Node,
        first: int,
        count: int,
        guess: bool,
        *,
        owed: int = 0,
    ) -> Batch:
        """Ask for children of a node: one step each, or the finish of ``owed`` tokens at most."""
        branch = parent.there
        nodes = tuple(Node((*parent.key, i), parent) for i in range(first, first + count))
        steps, left = (None, owed) if owed else (1, self.start.tokens_left(branch))
        until = replace(self.start.limit, steps=steps, max_tokens=left)
        action = Generate(
            self._id(),
            branch,
            until,
            count,
            first,
            decoding=self.start.sampling,
            speculative=guess,
        )
        batch = Batch(action.id, parent, first, nodes, not guess)
        parent.batches[first] = batch
        parent.children.update({node.key[-1]: node for node in nodes})
        self._put(action, lane, batch)
        return batch

    def judge(self, lane: Lane, node: Node, guess: bool) -> int:
        """Ask for a node's rollout, or for its score where it has none or that has come."""
        branch = node.there
        if self.lookahead and node.rollout is None and not node.finished:
            left = self.start.tokens_left(branch)
            until = replace(self.start.limit, steps=self.lookahead, max_tokens=left)
            ahead = Generate(
                self._id(),
                branch,
                until,
                first=AHEAD,
                decoding=GREEDY,
                purpose=Purpose.LOOKAHEAD,
                speculative=guess,
            )
            node.rollout = ahead.id
            self._put(ahead, lane, node)
            return ahead.id
        score = Score(self._id(), (node.seen or branch,), self.verifier, speculative=guess)
        node.verdict = score.id
        self._put(score, lane, node)
        return score.id

    def commit(self, actions: Iterable[int]) -> None:
        """Guesses that are wanted now."""
        self._queue.append(Commit(tuple(actions)))

    def cancel(self, actions: Iterable[tuple[int, range]]) -> None:
        """Guesses that are not wanted any more: (action, its indices)."""
        gone = dict(actions)
        for action in gone:
            self._works.pop(action, None)
        unasked = {a.id for a in self._queue if isinstance(a, Work) and a.id in gone}
        if unasked:
            self._queue = [a for a in self._queue if not isinstance(a, Work) or a.id not in unasked]
        turns = tuple((id, i) for id, span in gone.items() if id not in unasked for i in span)
        if turns:
            self._queue.append(Cancel(turns))

    # Inside --------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self.lanes:
            return
        budget = self.start.budget and self.start.budget.share(len(self.rules))
        first = 0
        for rule in self.rules:
            self.lanes.append(Lane(self, rule, budget, first))
            first += rule.n
        for lane in self.lanes:
            lane.begin()

    def _guess(self, slots: int) -> None:
        """Ask for what levels will likely ask for, as far as slots are idle."""
        slots -= sum(a.count for a in self._queue if isinstance(a, Generate))
        if slots <= 0:
            return
        roomy = slots >= sum(rule.n for rule in self.rules)
        found = [
            (-guess.chance, guess.node.key, guess.first, guess.count, at, guess.node)
            for at, lane in enumerate(self.lanes)
            for guess in lane.likely(roomy)
        ]
        for _, _, first, count, at, node in sorted(found, key=lambda row: row[:5]):
            if slots <= 0:
                return
            self.lanes[at].guess(node, first, count)
            slots -= count

    def _put(self, action: Work, lane: Lane, target: Batch | Node) -> None:
        self._queue.append(action)
        self._works[action.id] = (lane, target)

    def _id(self) -> int:
        self._next += 1
        return self._next - 1
