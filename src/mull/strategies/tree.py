"""What tree searches share: nodes, simulations in flight, scores, the final choice, the record.

A tree search grows one tree a problem. ``flight`` simulations are under way at a time; the next
starts as soon as one has taken effect, wherever the tree has room, so nothing waits for a level to
be complete. Everything is decided in the order of the actions, so timing changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mull.strategies.base import Ended, Failure, OrderedSearch, Outcome, Result
from mull.strategies.checks import check_positive
from mull.strategies.choice import Select, check_select, choose, path_candidate, path_score
from mull.strategies.owed import finish_is_due
from mull.trees import Fate, TreeNode
from mull.types import Branch, Candidate, Completion


@dataclass(slots=True, eq=False)
class Node:
    """A node of the tree: a branch, what it is worth, and how often the search came by.

    ``worth`` is what one visit to it brings, 0..1; ``value`` sums what was backed up through it in
    ``visits`` visits; ``virtual`` simulations are in flight below it. ``copies`` equal siblings are
    merged in it, of which ``joined`` wait for its score. In the prior each copy weighs ``weight``,
    all children ``mass``. ``end`` is its rollout, ``lost`` the keys of children that did not come,
    ``texts`` its children by text.
    """

    branch: Branch
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    lost: list[tuple[int, ...]] = field(default_factory=list)
    score: float | None = None
    settled: bool = False
    asked: int = 0
    worth: float = 0.0
    value: float = 0.0
    visits: int = 0
    virtual: int = 0
    copies: int = 1
    joined: int = 0
    weight: float = 1.0
    mass: float = 0.0
    end: Node | None = None
    texts: dict[tuple[str, bool], Node] = field(default_factory=dict)

    def path(self) -> Iterator[Node]:
        """The node and its ancestors, upwards."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def adopt(self, completion: Completion, branch: Branch) -> tuple[Node, bool]:
        """The child of that text, and whether it is new: an equal sibling takes it in."""
        made = branch.child(completion)
        same = (completion.text, made.finished)
        child = self.texts.get(same)
        if child is not None:
            child.copies += 1
            return child, False
        child = self.texts[same] = Node(made, self)
        self.children.append(child)
        return child, True

    def walk(self) -> Iterator[Node]:
        """All nodes below this one, in no particular order."""
        stack = list(self.children)
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children)
            if node.end is not None:
                stack.append(node.end)


def check_tree(name: str, flight: int | None, select: str) -> None:
    """Raise ``SpecError`` for options out of range that all tree searches have."""
    check_positive(name, flight=flight)
    check_select(name, select)


@dataclass
class TreeSearch(OrderedSearch):
    """One tree, up to ``flight`` simulations at a time, a choice among its ends at any moment.

    A subclass starts a simulation in ``grow``, takes its completions in ``came``, and learns in
    ``land`` what a node is worth; each simulation ends in one call of ``end``. One that grows paths
    step by step notes the tokens of the ``longest`` and can ``finish`` one (see ``owed.py``).
    """

    verifier: str
    select: Select
    flight: int
    root: Node = field(init=False)
    flying: int = field(default=0, init=False)
    longest: int = field(default=0, init=False)
    ended: Ended = field(default=Ended.UNFINISHED, init=False)
    _owes: bool = field(default=True, init=False)
    _scoring: dict[int, Node] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.root = Node(Branch.root(self.start.problem))

    @abstractmethod
    def grow(self) -> bool:
        """Start one simulation; ``False`` where there is nothing to start now."""

    @abstractmethod
    def came(self, outcome: Outcome) -> None:
        """A completion, or its failure."""

    @abstractmethod
    def extended(self, action: int) -> Branch:
        """The branch of which a generation in flight asks for children."""

    @abstractmethod
    def land(self, node: Node) -> None:
        """A node has its score, or will have none: ``node.score`` is ``None`` then."""

    @abstractmethod
    def complete(self) -> bool:
        """Whether the algorithm has nothing more to start, ever."""

    def finish(self) -> bool:
        """Start the one finish that is owed; ``False`` where none is, or there is nothing left."""
        return False

    def begin(self) -> None:
        self._go_on()

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            child = self.extended(outcome.action).child(outcome.value)
            self._owes = self._owes and not self.at_end(child)
        node = self._scoring.pop(outcome.action, None)
        if node is None:
            self.came(outcome)
        else:
            read = self._read(outcome)
            if not isinstance(read, Failure):
                node.score = read
            elif read is not outcome.value:  # a failed outcome is in the list already
                self.failures.append(read)
            node.settled = True
            self.land(node)
        self._go_on()

    def result(self) -> Result:
        """The choice among the ends so far, and the tree; what came before its turn counts too."""
        early, scores, failures = self._early()
        nodes = sorted([*self.root.walk(), *early], key=lambda node: node.branch.key)
        ends = [node for node in nodes if self.at_end(node.branch)]
        candidates = [self._candidate(node, scores.get(node, node.score)) for node in ends]
        votes = {node.branch.key: node.copies for node in ends}
        chosen = choose(self.select, self.verifier, candidates, votes, self.start)
        return Result(
            (chosen,),
            tuple(candidates),
            (*self.failures, *failures),
            self.ended if self._over() else Ended.UNFINISHED,
            self._record(nodes),
        )

    def at_end(self, branch: Branch) -> bool:
        """Whether nothing will follow: the model ended, or the task's limit leaves no token."""
        return branch.finished or self.start.tokens_left(branch) < 1

    def judge(self, node: Node) -> None:
        """Ask for a node's score."""
        self._scoring[self.score((node.branch,), self.verifier)] = node

    def end(self) -> None:
        """A simulation is over."""
        self.flying -= 1

    def _go_on(self) -> None:
        budget = self.start.budget
        due = self._owes and finish_is_due(budget, self.spent, self.longest)
        if due and not self.flying:
            self._owes = due = False
            self.flying += self.finish()
        spent = due or (budget is not None and budget.exhausted(self.spent))
        while not spent and self.flying < self.flight and self.grow():
            self.flying += 1
        if not self.flying:
            self.ended = Ended.BUDGET if spent and not self.complete() else Ended.COMPLETE

    def _read(self, outcome: Outcome) -> float | Failure:
        return path_score(self.verifier, outcome.value, self.select, bounded=True)

    def _early(self) -> tuple[list[Node], dict[Node, float], list[Failure]]:
        """What came before its turn: the solutions that ended, each a node of its own; the scores
        of nodes; the failures."""
        ends: list[Node] = []
        scores: dict[Node, float] = {}
        failures: list[Failure] = []
        for outcome in self._inbox.held():
            node, value = self._scoring.get(outcome.action), outcome.value
            read = value if node is None else self._read(outcome)
            if isinstance(read, Failure):
                failures.append(read)
            elif node is not None and isinstance(read, float):
                scores[node] = read
            elif isinstance(value, Completion):
                child = self.extended(outcome.action).child(value)
                ends += [Node(child)] if self.at_end(child) else []
        return ends, scores, failures

    def _over(self) -> bool:
        """``done``, without waking a search that was not begun."""
        return self._begun and not self._queue and (self._stopped or not self.waiting)

    def _candidate(self, node: Node, score: float | None) -> Candidate:
        capped = not node.branch.finished
        return path_candidate(self.start, node.branch, self.verifier, score, capped)

    def _record(self, nodes: Sequence[Node]) -> tuple[TreeNode, ...]:
        made = [
            TreeNode(n.branch.key, n.branch.steps[-1].text, n.score, self._fate(n), n.visits)
            for n in nodes
        ]
        lost = [TreeNode(key, "", None, Fate.FAILED, 0) for n in nodes for key in n.lost]
        lost += [TreeNode(key, "", None, Fate.FAILED, 0) for key in self.root.lost]
        return tuple(sorted([*made, *lost], key=lambda node: node.key))

    def _fate(self, node: Node) -> Fate:
        if self.at_end(node.branch):
            return Fate.FINISHED
        if node.children or node.asked:
            return Fate.KEPT
        if node.settled and node.score is None and node.end is None:
            return Fate.FAILED
        return Fate.PRUNED
