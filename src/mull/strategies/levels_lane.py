"""One subtree of a level search: the level that grows, what was guessed beyond it, its votes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mull.budget import Budget
from mull.rng import derive
from mull.strategies.base import Ended, Failure, Outcome, Start
from mull.strategies.levels_guess import LIKELY, ROOMY, Guess, chances
from mull.strategies.levels_rule import Level, Rule, Shares, requests, softmax
from mull.strategies.levels_tree import AHEAD, Batch, Node, Path
from mull.strategies.owed import finish_is_due
from mull.types import Branch, Completion, Usage

IN_DOUBT = 8
"""Generations that judge paths in flight at a time, where a budget limits what they cost."""
NEWS = 8
"""Guesses are thought over when this part of a lane's width has come since."""


class Desk(Protocol):
    """What a lane needs of its search: the options, and the ways to ask."""

    start: Start
    max_steps: int
    merge: bool
    speculate: bool
    rounds: int
    seed: int
    dear: bool
    """Whether the search judges a path by a generation, which a budget in tokens must pay."""

    def step(
        self,
        lane: Lane,
        parent: Node,
        first: int,
        count: int,
        guess: bool,
        *,
        owed: int = 0,
    ) -> Batch: ...

    def judge(self, lane: Lane, node: Node, guess: bool) -> int: ...

    def commit(self, actions: Iterable[int]) -> None: ...

    def cancel(self, actions: Iterable[tuple[int, range]]) -> None: ...


@dataclass(eq=False)
class Lane:
    """A subtree under a rule, which begins with n children of the root from index ``first`` on.

    Whether its verifier judges by generating is not known until a score that took effect tells;
    until then a budget in tokens, FLOPs or money is kept as if it did.
    """

    search: Desk
    rule: Rule
    budget: Budget | None
    first: int
    level: list[Path] = field(default_factory=list)
    depth: int = 0
    round: int = 0
    banked: int = 0
    reference: tuple[Node, ...] = ()
    votes: dict[Node, int] = field(default_factory=dict)
    grown: list[Node] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    spent: Usage = Usage()
    ended: Ended | None = None
    guesses: dict[int, Batch] = field(default_factory=dict)
    _root: Node = field(default_factory=lambda: Node(()))
    _texts: dict[Hashable, Node] = field(default_factory=dict)
    _hints: dict[Hashable, Node] = field(default_factory=dict)
    _settled: int = 0
    _judged: int = 0
    _level_spent: Usage = Usage()
    _generative: bool | None = None
    _last: Node | None = None
    _news: int = 1
    _plan: list[Guess] = field(default_factory=list)

    def begin(self) -> None:
        """Ask for the first steps; in later rounds, beside those of the reference."""
        root = self._root
        root.branch = Branch.root(self.search.start.problem)
        count = self.rule.n - bool(self.reference)
        paths = [Path(node, reference=True) for node in self.reference[:1]]
        if count:
            batch = self.search.step(self, root, self.first + root.taken, count, guess=False)
            paths += [Path(node) for node in batch.nodes]
        root.taken += count
        self._open(paths)

    def ballot(self) -> dict[Node, int]:
        """Votes by node; before the end, what ended so far has one a path."""
        if self.ended is not None:
            return self.votes
        votes = dict(self.votes)
        for path in self.level:
            node = path.same or path.node
            if node.finished:
                votes[node] = votes.get(node, 0) + 1
        return votes

    # Outcomes --------------------------------------------------------------------------------

    def take_step(self, node: Node, outcome: Outcome) -> None:
        """A child came, or failed."""
        node.came, node.used = True, outcome.usage
        self._news += 1
        if isinstance(outcome.value, Failure):
            node.failure, node.scored = outcome.value, True
            return
        if isinstance(outcome.value, Completion) and node.parent is not None:
            node.branch = node.parent.there.child(outcome.value)
        long = node.there.depth >= self.search.max_steps
        over = long or self.search.start.tokens_left(node.there) < 1
        node.capped = over and not node.there.finished
        node.finished = over or node.there.finished
        if node.wanted and not self.search.merge and not self._pays_dear():
            self._want(node)
        elif self.search.speculate and not self._may_generate():
            self._judge_ahead(node)

    def take_rollout(self, node: Node, rollout: Completion) -> None:
        """A rollout came: its end is what the verifier sees."""
        node.judged = node.judged + rollout.usage
        node.seen = node.there.child(rollout)
        asked = self.search.judge(self, node, guess=not node.settled)
        if not node.settled:
            node.early.append(asked)

    def take_score(
        self, node: Node, score: float | None, doubts: Sequence[Failure], used: Usage
    ) -> None:
        """A score came, or did not; ``doubts`` say why, or what of its judges said nothing."""
        node.judged = node.judged + used
        node.score, node.scored = score, True
        if used.generated or score is not None:
            node.generated = used.generated > 0
        node.doubts += doubts
        self._news += 1

    def go_on(self) -> None:
        """Close the level once all of it has come; with good guesses, several at once."""
        while self.ended is None:
            self._settle()
            if self._settled < len(self.level):
                return
            if any(path.same and not path.same.scored for path in self.level):
                return
            self._close()

    # Guesses ---------------------------------------------------------------------------------

    def likely(self, roomy: bool) -> list[Guess]:
        """Requests that the lane will likely make and has not made, each with its chance.

        The chances are worked out anew when an eighth of the lane's width has come since. Guesses
        that run and have become unlikely are given up then. ``roomy``: slots are to spare.
        """
        if self.ended is not None:
            return []
        if self._news * NEWS >= self.rule.n:
            self._news = 0
            found = chances(self)
            self._plan = [Guess(chance, *request) for request, chance in found.items()]
            for batch in list(self.guesses.values()):
                request = (batch.parent, batch.first, batch.count)
                runs = not all(node.came for node in batch.nodes)
                if found and runs and found.get(request, 0.0) < (ROOMY if not roomy else ROOMY / 2):
                    self._forget(batch)
        least = ROOMY if roomy else LIKELY
        return [
            guess
            for guess in self._plan
            if guess.chance >= least and guess.first not in guess.node.batches
        ]

    def guess(self, node: Node, first: int, count: int) -> None:
        """Ask for children that are likely wanted."""
        batch = self.search.step(self, node, first, count, guess=True)
        self.guesses[batch.action] = batch

    def _judge_ahead(self, node: Node) -> None:
        """Ask for a score before it is known whether the node stands for itself."""
        if self.search.merge:
            hint = (len(node.key), node.identity)
            if self._hints.setdefault(hint, node) is not node:
                return
        node.early.append(self.search.judge(self, node, guess=True))

    # The level -------------------------------------------------------------------------------

    def _settle(self) -> None:
        """In key order, as far as paths have come: each stands for itself or joins its twin."""
        level = self.level
        while self._settled < len(level) and level[self._settled].node.came:
            path = level[self._settled]
            node = path.node
            if not self._overlooks():
                return
            self._settled += 1
            if path.stays or path.reference:
                path.same = node
                self._texts.setdefault(node.identity, node)
                continue
            if node.branch is not None:
                merge = self.search.merge
                path.same = self._texts.setdefault(node.identity, node) if merge else node
            self._level_spent = self._level_spent + node.used
            if path.same is node and not self._refused(node):
                self._want(node)
            elif node.early:
                self.search.cancel(_turns(node))
                node.early.clear()
            if path.same is None or path.same is node:
                self.grown.append(node)

    def _overlooks(self) -> bool:
        """Whether the costs of all but the last judgements of this level are known, where they
        count: what is asked next may depend on them, and only on them.
        """
        if not self._pays_dear():
            return True
        while self._judged <= self._settled - IN_DOUBT:
            path = self.level[self._judged]
            node = path.node
            if not (path.stays or path.reference) and path.same is node:
                if not node.scored:
                    return False
                self._level_spent = self._level_spent + node.judged
                self._learn(node)
            self._judged += 1
        return True

    def _refused(self, node: Node) -> bool:
        """Whether the budget is spent before a node is judged, and judging it costs a generation.

        It stays without a score then, whatever a guess has brought; nothing is extended any more in
        any case.
        """
        budget = self.budget
        if node.settled or budget is None or not (self.search.dear or self._generative):
            return False
        if not budget.exhausted(self.spent + self._level_spent):
            return False
        node.settled = node.scored = True
        node.score, node.judged, node.generated = None, Usage(), None
        node.doubts = [Failure("BudgetError", f"the budget ({budget}) is spent")]
        return True

    def _pays_dear(self) -> bool:
        """Whether judging is a generation that the budget must pay, or may be one."""
        return self._may_generate() or (self.search.dear and self._metered)

    def _may_generate(self) -> bool:
        """Whether the verifier may generate at the expense of the budget."""
        return self._metered and self._generative is not False

    @property
    def _metered(self) -> bool:
        return self.budget is not None and self.budget.metered

    def _learn(self, node: Node) -> None:
        """What a judged node tells of its verifier: one that has generated once may do so again."""
        if node.generated is not None and not self._generative:
            self._generative = node.generated

    def _want(self, node: Node) -> None:
        """The node's score is wanted: commit what was asked ahead, else ask."""
        if node.settled:
            return
        node.settled = True
        if node.early:
            self.search.commit(node.early)
            node.early.clear()
        else:
            self.search.judge(self, node, guess=False)

    def _close(self) -> None:
        """The whole level takes effect: costs, failures, votes, and the children of the next."""
        self._account()
        if self._last is not None:
            self._close_last(self._last)
            return
        paths = [(path, path.same) for path in self.level if path.same is not None]
        shares = self.rule.allocate(
            Level(
                self.depth,
                tuple(path.entry(same.score, same.finished) for path, same in paths),
                self.banked,
                self.search.start.problem.id,
                self.round,
            )
        )
        following: list[tuple[Path, Node, int]] = []
        counts: dict[Node, int] = {}
        for at, (path, node) in enumerate(paths):
            node.visits += 1
            if shares.votes[at]:
                self.votes[node] = self.votes.get(node, 0) + shares.votes[at]
                self.banked += shares.votes[at]
            self._children(path, node, at, shares, following, counts)
        over = self.budget is not None and self.budget.exhausted(self.spent)
        alive = any(not path.stays for path, _, _ in following)
        ended = bool(self.votes) or any(path.stays for path, _, _ in following)
        if counts and not ended and not self.first and self._finish(counts):
            return
        if over or not alive:
            if over and not self.votes:
                self._cut(counts)
            self._end([path for path, _, _ in following if path.stays], over and alive)
            return
        for node, count in counts.items():
            self._grow(node, count)
        for path, node, index in following:
            if index >= 0:
                path.node = node.children[index]
        self._open([path for path, _, _ in following])

    def _children(
        self,
        path: Path,
        node: Node,
        at: int,
        shares: Shares,
        following: list[tuple[Path, Node, int]],
        counts: dict[Node, int],
    ) -> None:
        """Append the next level's paths behind one path: (path, parent, child index or -1)."""
        weight = shares.weight(at)
        for number in range(shares.children[at]):
            chosen = path.reference and number == 0
            if node.finished:
                following.append((Path(node, weight, True, chosen), node, -1))
            elif chosen:
                following.append((Path(self.reference[self.depth], weight, False, True), node, -1))
            else:
                index = node.taken + counts.get(node, 0)
                counts[node] = counts.get(node, 0) + 1
                following.append((Path(node, weight), node, index))

    def _grow(self, node: Node, count: int) -> None:
        """Ask for children; where they were guessed, commit the guess."""
        for offset, size in requests(count, self.rule.unit):
            first = node.taken + offset
            batch = node.batches.get(first)
            if batch is not None and batch.count == size:
                batch.wanted = True
                del self.guesses[batch.action]
                self.search.commit((batch.action,))
                continue
            if batch is not None:
                self._forget(batch)
            self.search.step(self, node, first, size, guess=False)
        node.taken += count

    def _cut(self, counts: dict[Node, int]) -> None:
        """The budget is spent and no path has ended: those that would go on stand as they are."""
        for node, count in counts.items():
            node.capped = node.finished = True
            self.votes[node] = count

    def _finish(self, counts: dict[Node, int]) -> bool:
        """Write the best path to its end, if that is all that the budget covers: it is owed."""
        best = max(counts, key=lambda node: -math.inf if node.score is None else node.score)
        if not finish_is_due(self.budget, self.spent, best.there.tokens):
            return False
        owed = self.search.start.tokens_left(best.there)
        batch = self.search.step(self, best, best.taken, 1, guess=False, owed=owed)
        best.taken += 1
        self._last = best
        self._open([Path(node) for node in batch.nodes])
        return True

    def _close_last(self, parent: Node) -> None:
        """What was owed has come; where it failed, the path stands as it is."""
        (path,) = self.level
        node = path.node
        node.visits += 1
        if node.finished:
            self.votes[node] = 1
        else:
            self._cut({parent: 1})
        self._end([], True)

    def _open(self, paths: list[Path]) -> None:
        """Begin a level; guesses that do not grow from it are given up."""
        self.level = paths
        self.depth += 1
        self._settled = self._judged = 0
        self._level_spent = Usage()
        self._news = self.rule.n
        self._texts.clear()
        self._hints = {hint: n for hint, n in self._hints.items() if len(n.key) > self.depth}
        growing = set()
        for path in paths:
            path.node.wanted = True
            growing.add(path.node)
        for batch in list(self.guesses.values()):  # parents were guessed before their children
            if batch.parent in growing:
                growing.update(batch.nodes)
            else:
                self._forget(batch)

    def _forget(self, batch: Batch) -> None:
        """Give up a guess, and the scores asked for its nodes."""
        if self.guesses.pop(batch.action, None) is None:
            return  # with its parents, already
        if batch.parent.batches.get(batch.first) is batch:
            del batch.parent.batches[batch.first]
        gone = [(batch.action, range(batch.first, batch.first + batch.count))]
        for node in batch.nodes:
            gone += _turns(node)
            node.early.clear()
            if batch.parent.children.get(node.key[-1]) is node:
                del batch.parent.children[node.key[-1]]
            for deeper in list(node.batches.values()):
                self._forget(deeper)
        self.search.cancel(gone)

    def _account(self) -> None:
        """Book what the level cost and what failed in it, in its order."""
        for path in self.level:
            node = path.node
            if path.stays or path.reference:
                continue
            self.spent = self.spent + node.used
            if node.failure is not None:
                self.failures.append(node.failure)
            if path.same is node:
                self.spent = self.spent + node.judged
                self._learn(node)
                self.failures += node.doubts

    def _end(self, stays: list[Path], short: bool) -> None:
        """The round is over: what is still in the race has one vote a path."""
        for path in stays:
            self.votes[path.node] = self.votes.get(path.node, 0) + 1
        for batch in list(self.guesses.values()):
            self._forget(batch)
        self.round += 1
        if short or self.round >= self.search.rounds or not stays:
            self.ended = Ended.BUDGET if short else Ended.COMPLETE
            return
        over = self.budget is not None and self.budget.exhausted(self.spent)
        if over:
            self.ended = Ended.BUDGET
            return
        self.reference = self._draw(stays)
        self.depth = self.banked = 0
        self.begin()

    def _draw(self, paths: list[Path]) -> tuple[Node, ...]:
        """The path that the next round grows around: drawn by weight; its nodes from the root."""
        search = self.search
        draw = derive(search.seed, search.start.problem.id, self.round, "reference") / 2**63
        node = paths[-1].node
        for path, share in zip(paths, softmax([p.weight for p in paths], 1.0), strict=True):
            draw -= share
            if draw < 0:
                node = path.node
                break
        chain: list[Node] = []
        while node.parent is not None:
            chain.append(node)
            node = node.parent
        return tuple(reversed(chain))


def _turns(node: Node) -> list[tuple[int, range]]:
    """The turns of a node's guessed rollout and score."""
    return [(id, range(AHEAD, AHEAD + 1) if id == node.rollout else range(1)) for id in node.early]
