"""AB-MCTS-A: at every node, try something new or refine what is there, by Thompson sampling.

Nodes are whole solutions: a child of the root is a fresh attempt, a child of a solution a revision
that sees it. Width and depth are not set beforehand. Source: Inoue et al. 2025, "Wider or Deeper?"
(arXiv 2503.04412), variant A with node aggregation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mull.budget import Purpose
from mull.errors import SpecError
from mull.rng import derive
from mull.strategies.base import Outcome, Search, Start
from mull.strategies.checks import check_positive
from mull.strategies.choice import Select
from mull.strategies.needs import POLICY, Needs
from mull.strategies.number import Patience, samples_of
from mull.strategies.tree import Node, TreeSearch, check_tree
from mull.types import Branch, Completion

FLIGHT = 4  # fewer than samples: what is in flight cannot be refined


@dataclass(frozen=True, slots=True)
class AbMcts:
    """Adaptive branching: each of ``n`` solutions is a new attempt or a revision of one.

    From the root down, a score is drawn for the arm "new child" and one for "go on below", each
    from the posterior of what that arm has brought; the larger decides. Going on, the child with
    the largest draw is entered. A score counts for the arm that made it, and for every "go on" arm
    and every node above. Posteriors: ``gaussian`` (normal with unknown variance, prior mean 0,
    κ = 1, ν = 1, τ² = 0.1), or ``beta`` (Beta(½, ½), a score r counts r for and 1 - r against).
    A score must lie in 0..1; another is a ``ScoreError``.

    ``n`` counts all solutions, fresh and revised. Revisions come from the engine ``reviser`` (the
    ``policy`` may be its own) and see the last ``history`` solutions of their line, which has at
    most ``depth``. ``flight`` solutions are written at a time (default 4, at most n / 4: what is in
    flight cannot be refined). Draws follow from the problem, ``seed`` and the solution's number.
    """

    n: int | None = None
    verifier: str = "prm"
    reviser: str = "reviser"
    posterior: Literal["gaussian", "beta"] = "gaussian"
    flight: int | None = None
    depth: int = 8
    history: int = 4
    select: Select = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        check_tree("ab-mcts", self.flight, self.select)
        check_positive("ab-mcts", depth=self.depth, history=self.history)
        if self.posterior not in ("gaussian", "beta"):
            raise SpecError(f"ab-mcts(posterior={self.posterior!r}): gaussian or beta")

    @property
    def needs(self) -> Needs:
        """A policy, a reviser where lines may grow, and a verifier."""
        engines = (POLICY,) if self.depth == 1 or self.reviser == POLICY else (POLICY, self.reviser)
        return Needs(engines, (self.verifier,))

    def start(self, start: Start) -> Search:
        n = samples_of("ab-mcts", self.n, start.budget)
        flight = self.flight or min(FLIGHT, max(1, n // 4))
        return AbMctsSearch(start, self.verifier, self.select, flight, config=self, n=n)


def draw(kind: str, scores: Sequence[float], rng: random.Random) -> float:
    """A draw of the mean of an arm from its posterior, given the scores 0..1 that it brought.

    >>> seen = [draw("beta", [1.0] * 50, random.Random(i)) > 0.9 for i in range(20)]
    >>> sum(seen) >= 19
    True
    """
    if kind == "beta":
        total = math.fsum(scores)
        return rng.betavariate(0.5 + total, 0.5 + len(scores) - total)
    # Normal-inverse-chi-squared, conjugate update from m = 0, κ = 1, ν = 1, τ² = 0.1.
    count = len(scores)
    mean = math.fsum(scores) / count if count else 0.0
    kappa, nu = 1.0 + count, 1.0 + count
    squares = math.fsum((score - mean) ** 2 for score in scores)
    scale = 0.1 + squares + mean * mean * count / kappa
    variance = scale / (2.0 * rng.gammavariate(nu / 2.0, 1.0))
    return rng.gauss(mean * count / kappa, math.sqrt(variance / kappa))


@dataclass(slots=True)
class _Arms:
    """What the arms of a node have brought: new children, going on below, and the node itself."""

    fresh: list[float] = field(default_factory=list)
    below: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


@dataclass
class AbMctsSearch(TreeSearch):
    """See ``AbMcts``. Without a number of samples it gives up by its ``Patience``."""

    config: AbMcts
    n: int
    asked: int = field(default=0, init=False)
    _patience: Patience = field(init=False)
    _arms: dict[Node, _Arms] = field(default_factory=dict, init=False)
    _making: dict[int, tuple[Node, Branch]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._arms[self.root] = _Arms()
        self._patience = Patience(self.n, self.flight)

    def grow(self) -> bool:
        if self.complete():
            return False
        rng = random.Random(derive(self.config.seed, self.start.problem.id, "arms", self.asked))
        node = self._descend(rng)
        self.asked += 1
        for above in node.path():
            above.virtual += 1
        branch = self._to_extend(node)
        fresh = node is self.root
        action = self.generate(
            branch,
            self.start.limit,
            first=node.asked,
            engine=POLICY if fresh else self.config.reviser,
            purpose=Purpose.POLICY if fresh else Purpose.REVISION,
        )
        node.asked += 1
        self._making[action] = node, branch
        return True

    def complete(self) -> bool:
        return self.asked >= self.n or self._patience.over

    def came(self, outcome: Outcome) -> None:
        node, branch = self._making.pop(outcome.action)
        self._patience.saw(outcome.said)
        if not isinstance(outcome.value, Completion):
            node.lost.append((*branch.key, outcome.index))
            self._over_at(node)
            return
        child, new = node.adopt(outcome.value, branch)
        if new:
            self._arms[child] = _Arms()
            self.judge(child)
        elif child.settled:
            self._back(child)
        else:
            child.joined += 1

    def extended(self, action: int) -> Branch:
        return self._making[action][1]

    def land(self, node: Node) -> None:
        # What could not be scored counts as the worst, so that nothing is built on it.
        node.worth = node.score or 0.0
        joined, node.joined = node.joined, 0
        for _ in range(1 + joined):
            self._back(node)

    def _descend(self, rng: random.Random) -> Node:
        """The node that gets a new child."""
        node, kind = self.root, self.config.posterior
        while True:
            # A solution whose line is at its end can be neither refined nor entered.
            ready = [c for c in node.children if c.settled and self._line(c) < self.config.depth]
            if not ready:
                return node
            arms = self._arms[node]
            if draw(kind, arms.fresh, rng) >= draw(kind, arms.below, rng):
                return node
            draws = [(draw(kind, self._arms[child].whole, rng), child) for child in ready]
            node = max(draws, key=lambda pair: pair[0])[1]

    def _to_extend(self, node: Node) -> Branch:
        """The branch of which a node's next child is a completion."""
        if node is self.root:
            return node.branch
        again = node.branch.revision()
        return replace(again, history=again.history[-self.config.history :])

    def _line(self, node: Node) -> int:
        """How many solutions stand in a line down to a node, itself included."""
        return sum(1 for _ in node.path()) - 1

    def _back(self, child: Node) -> None:
        """A score counts for the arm that made it and for everything above."""
        for above in child.path():
            above.visits += 1
            above.value += child.worth
            self._arms[above].whole.append(child.worth)
            if above is child.parent:
                self._arms[above].fresh.append(child.worth)
            elif above is not child:
                self._arms[above].below.append(child.worth)
        if child.parent is not None:
            self._over_at(child.parent)

    def _over_at(self, node: Node) -> None:
        """A simulation that asked for a child of this node is over."""
        for above in node.path():
            above.virtual -= 1
        self.end()
