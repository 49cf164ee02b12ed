"""Monte-Carlo tree search over steps: PUCT, virtual loss, a verifier's score instead of a rollout.

A simulation walks down from the root by PUCT to a node that has no children yet, asks for all its
children at once (one request, one prompt), and has each of them scored; each score is backed up to
the root. A tree is a bet on early scores: with few ends there is little to vote on, so at equal
cost it may well lose to plain sampling (Wu et al. 2024, arXiv 2408.00724, section 3).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from mull.errors import SpecError
from mull.strategies.base import Outcome, Search, Start
from mull.strategies.checks import check_positive
from mull.strategies.choice import Select
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import FAR, samples_of
from mull.strategies.tree import Node, TreeSearch, check_tree
from mull.types import Branch, Completion, Until

MAX_STEPS = 40
BRANCH = 4
LEAST = -20.0
"""The mean log-probability below which a step weighs no less in a prior."""


@dataclass(frozen=True, slots=True)
class Mcts:
    """MCTS with PUCT over the steps of a solution (AlphaZero's form; Silver et al. 2017).

    A node is worth its verifier score, which must lie in 0..1 (another is a ``ScoreError``); with
    ``rollout`` that of one completion from it to the end, which is a candidate too. PUCT picks the
    child with the largest Q + ``exploration`` · P · √(visits of the parent) / (1 + visits of the
    child); a simulation in flight counts as a visit that brought nothing. The prior P is
    ``uniform`` over the sampled children, equal ones merged with their share, or goes by the
    exponential of each step's mean log-probability (``logprob``). The root gets ``root_branch``
    children (default: half of n, or 2 ``branch`` where that is more), every other node ``branch``
    (default 4, at most n). A path has at most ``max_steps`` steps; the last runs to the end.

    ``flight`` simulations run side by side. Siblings wait for each other's scores, and nobody else
    does; with more in flight than n / ``branch`` there is nothing left to choose.

    A sample is a path at a depth: at most ``n`` children (or the budget's samples) are asked for at
    any depth, with ``rollout`` at all depths together, and the search ends when every path is at an
    end (the model's, or the task's limit of tokens) or there is no room. ``simulations`` ends it
    sooner. All ends are candidates for ``select``.
    """

    n: int | None = None
    simulations: int | None = None
    branch: int | None = None
    root_branch: int | None = None
    exploration: float = 1.25
    flight: int = 4
    verifier: str = "prm"
    prior: Literal["uniform", "logprob"] = "uniform"
    rollout: bool = False
    select: Select = "weighted"
    max_steps: int = MAX_STEPS

    def __post_init__(self) -> None:
        check_tree("mcts", self.flight, self.select)
        check_positive(
            "mcts",
            simulations=self.simulations,
            branch=self.branch,
            root_branch=self.root_branch,
            max_steps=self.max_steps,
        )
        if not 0.0 <= self.exploration < math.inf:
            raise SpecError(f"mcts(exploration={self.exploration}): must be 0 or more")
        if self.prior not in ("uniform", "logprob"):
            raise SpecError(f"mcts(prior={self.prior!r}): prior is uniform or logprob")

    @property
    def needs(self) -> Needs:
        """A policy that continues a turn, with log-probabilities for that prior; a verifier."""
        prior = ("logprobs",) if self.prior == "logprob" else ()
        return Needs((POLICY,), (self.verifier,), ("continue_assistant", *prior))

    def start(self, start: Start) -> Search:
        given = start.budget is not None or self.n is not None or self.simulations is None
        n = samples_of("mcts", self.n, start.budget) if given else FAR
        branch = self.branch or min(n, BRANCH)
        root = 2 * branch if n == FAR else max(n // 2, min(n, 2 * branch))
        return MctsSearch(
            start,
            self.verifier,
            self.select,
            self.flight,
            config=self,
            n=n,
            branch=branch,
            root_branch=self.root_branch or root,
        )


@dataclass
class MctsSearch(TreeSearch):
    """See ``Mcts``; ``n``, ``branch`` and ``root_branch`` are its numbers as they were settled.

    ``_leaves`` are the nodes of a depth that may be extended, ``_ready`` those that have one of
    them at or below them, so that a walk down never ends where nothing can be done.
    """

    config: Mcts
    n: int
    branch: int
    root_branch: int
    started: int = field(default=0, init=False)
    _expanding: dict[int, Node] = field(default_factory=dict, init=False)
    _rolling: dict[int, Node] = field(default_factory=dict, init=False)
    _due: dict[Node, int] = field(default_factory=dict, init=False)
    _asked: dict[int, int] = field(default_factory=lambda: defaultdict(int), init=False)
    _leaves: dict[int, set[Node]] = field(default_factory=lambda: defaultdict(set), init=False)
    _ready: set[Node] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._plant(self.root)

    def grow(self) -> bool:
        if self.complete():
            return False
        node = self.root
        while node not in self._leaves[node.branch.depth]:
            ready = (child for child in node.children if child in self._ready)
            worth = partial(self._puct, node)
            node = min(ready, key=lambda child: (-worth(child), child.branch.key))
        self._expand(node)
        return True

    def complete(self) -> bool:
        most = self.config.simulations
        # A root with everything in flight is not ready, and may be again.
        return (most is not None and self.started >= most) or self.root not in self._ready

    def finish(self) -> bool:
        """Write the best path to its end: of the leaves, the best scored, then the deepest."""
        leaves = [leaf for leaves in self._leaves.values() for leaf in leaves]
        if not leaves:
            return False
        best = max(leaves, key=_promise)
        self._expand(best, owed=self.start.tokens_left(best.branch))
        return True

    def came(self, outcome: Outcome) -> None:
        rolled = self._rolling.pop(outcome.action, None)
        if rolled is not None:
            self._rolled(rolled, outcome)
            return
        node = self._expanding[outcome.action]
        if not isinstance(outcome.value, Completion):
            node.lost.append((*node.branch.key, outcome.index))
            self._landed(node)
            return
        child, new = node.adopt(outcome.value, node.branch)
        self.longest = max(self.longest, child.branch.tokens)
        if new and self.config.prior == "logprob":
            # Bounded below: of two unlikely steps one may still be entered.
            child.weight = math.exp(max(outcome.value.mean_logprob or 0.0, LEAST))
        node.mass += child.weight
        if new:
            self._value(child)
        elif child.settled:
            self._back(child)
        else:
            child.joined += 1

    def extended(self, action: int) -> Branch:
        return (self._rolling.get(action) or self._expanding[action]).branch

    def land(self, node: Node) -> None:
        worth = node.score or 0.0
        parent = node.parent
        if parent is not None and parent.end is node:
            node.visits = 1
            self._settle(parent, worth)
        else:
            self._settle(node, worth)

    def _puct(self, node: Node, child: Node) -> float:
        seen = child.visits + child.virtual
        prior = child.weight * child.copies / node.mass
        spread = math.sqrt(node.visits + node.virtual)
        return child.value / seen + self.config.exploration * prior * spread / (1 + seen)

    def _expand(self, node: Node, owed: int = 0) -> None:
        """Ask for a node's children, or a finish of ``owed`` tokens: one simulation."""
        depth = node.branch.depth
        wanted = 1 if owed else self.branch if node.parent else self.root_branch
        count = min(wanted, self._room(depth))
        self.started += 1
        for above in node.path():
            above.virtual += 1
        node.asked = self._due[node] = count
        until = self._until(node.branch, 1)
        if owed:
            until = replace(until, steps=None, max_tokens=owed)
        action = self.generate(node.branch, until, count, owed=owed > 0)
        self._expanding[action] = node
        self._asked[depth] += count
        self._leaves[depth].discard(node)
        self._refresh(node)
        for full in list(self._leaves) if self.config.rollout else [depth]:
            if self._room(full) < 1:
                leaves, self._leaves[full] = self._leaves[full], set()
                for leaf in leaves:
                    self._refresh(leaf)

    def _value(self, child: Node) -> None:
        """Have a new child valued: by its own score, or by that of a rollout."""
        if not self.config.rollout or self.at_end(child.branch):
            self.judge(child)
        else:
            # A rollout's index is none of the children's, so it draws on its own.
            until = self._until(child.branch, None)
            action = self.generate(child.branch, until, first=self.branch)
            self._rolling[action] = child

    def _rolled(self, node: Node, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            node.end = Node(node.branch.child(outcome.value), node)
            self.judge(node.end)
        else:
            node.lost.append((*node.branch.key, outcome.index))
            self._settle(node, 0.0)

    def _settle(self, node: Node, worth: float) -> None:
        """A node's worth is known: back it up, once for each equal sibling."""
        node.settled, node.worth = True, worth
        joined, node.joined = node.joined, 0
        for _ in range(1 + joined):
            self._back(node)

    def _back(self, child: Node) -> None:
        for above in child.path():
            above.visits += 1
            above.value += child.worth
        if child.parent is not None:
            self._landed(child.parent)

    def _landed(self, leaf: Node) -> None:
        """One child of a simulation is dealt with; with the last one the simulation is over.

        Children may be extended from then on: the first to be scored is not yet the best.
        """
        self._due[leaf] -= 1
        if not self._due[leaf]:
            del self._due[leaf]
            for above in leaf.path():
                above.virtual -= 1
            for child in leaf.children:
                self._plant(child)
            self.end()

    def _plant(self, node: Node) -> None:
        """Let a node be extended, if it can be."""
        branch = node.branch
        open_end = not self.at_end(branch) and branch.depth < self.config.max_steps
        if open_end and self._room(branch.depth) > 0:
            self._leaves[branch.depth].add(node)
            self._refresh(node)

    def _refresh(self, node: Node) -> None:
        """Note whether a node, and those above it, lead to work."""
        for above in node.path():
            ready = above in self._leaves[above.branch.depth]
            ready = ready or any(child in self._ready for child in above.children)
            if ready == (above in self._ready):
                return
            (self._ready.add if ready else self._ready.discard)(above)

    def _room(self, depth: int) -> int:
        """How many more children the paths of a depth may get.

        A rollout is a path at every depth below it, so with rollouts all children share one bound.
        """
        return self.n - (sum(self._asked.values()) if self.config.rollout else self._asked[depth])

    def _until(self, branch: Branch, steps: int | None) -> Until:
        """One step, or the whole rest; the last step that a path may have is the whole rest."""
        last = branch.depth + 1 >= self.config.max_steps
        left = self.start.tokens_left(branch)
        return replace(self.start.limit, steps=None if last else steps, max_tokens=left)


def _promise(node: Node) -> tuple[float, int, tuple[int, ...]]:
    """What a node that nothing is known of below it is judged by: score, depth, then its key."""
    score = -math.inf if node.score is None else node.score
    return score, node.branch.depth, tuple(-index for index in node.branch.key)
