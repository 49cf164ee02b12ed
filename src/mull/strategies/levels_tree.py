"""The tree that a level search grows: its nodes, and the requests that ask for their children."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from mull.strategies.base import Failure
from mull.strategies.levels_rule import LOWEST, Entry
from mull.trees import Fate, TreeNode
from mull.types import Branch, Usage

Key = tuple[int, ...]
AHEAD = 1 << 20
"""Child index of a rollout: a key of its own beside a branch's real children."""


@dataclass(slots=True, eq=False)
class Node:
    """A child that was asked for, wanted or guessed; ``branch`` is there once it came.

    ``seen`` is what the verifier is shown: the branch itself, or its rollout. ``used`` and
    ``failure`` are the generation's, ``judged`` and ``doubts`` those of rollout and score;
    ``generated`` says whether its verifier generated to judge it, where that is known.
    Nothing follows a ``finished`` path: the model ended it, or it may go no further and is
    ``capped``. ``early`` are rollout and score asked for as guesses; ``settled`` says that they are
    wanted. ``taken`` children are in use; ``visits`` counts the paths that the node stands for.
    """

    key: Key
    parent: Node | None = None
    branch: Branch | None = None
    came: bool = False
    finished: bool = False
    capped: bool = False
    wanted: bool = False
    settled: bool = False
    early: list[int] = field(default_factory=list)
    seen: Branch | None = None
    rollout: int | None = None
    verdict: int | None = None
    score: float | None = None
    scored: bool = False
    failure: Failure | None = None
    doubts: list[Failure] = field(default_factory=list)
    used: Usage = Usage()
    judged: Usage = Usage()
    generated: bool | None = None
    batches: dict[int, Batch] = field(default_factory=dict)
    children: dict[int, Node] = field(default_factory=dict)
    taken: int = 0
    visits: int = 0

    @property
    def there(self) -> Branch:
        """The branch of a node that came."""
        if self.branch is None:
            raise RuntimeError(f"node {self.key} did not come")
        return self.branch

    @property
    def identity(self) -> Hashable:
        """What makes two paths of one depth the same."""
        branch = self.branch
        return branch and (branch.text, branch.steps[-1].stop if branch.finished else None)

    def recorded(self, votes: int) -> TreeNode:
        """The node as it is recorded and drawn."""
        if votes:
            fate = Fate.FINISHED
        elif self.branch is None:
            fate = Fate.FAILED
        elif any(child.wanted for child in self.children.values()):
            fate = Fate.KEPT
        else:
            fate = Fate.FAILED if self.scored and self.score is None else Fate.PRUNED
        text = self.branch.steps[-1].text if self.branch else ""
        return TreeNode(self.key, text, self.score, fate, max(1, self.visits))


@dataclass(slots=True, eq=False)
class Batch:
    """One request: ``count`` children of ``parent`` from index ``first`` on."""

    action: int
    parent: Node
    first: int
    nodes: tuple[Node, ...]
    wanted: bool

    @property
    def count(self) -> int:
        """Number of children."""
        return len(self.nodes)


@dataclass(slots=True, eq=False)
class Path:
    """One entry of a level: a node, and what the rule must know of it beside its score.

    ``same`` is the node that stands for it: itself, or the first of equal text.
    """

    node: Node
    weight: float = 0.0
    stays: bool = False
    reference: bool = False
    same: Node | None = None

    def entry(self, score: float | None, finished: bool) -> Entry:
        """What the rule sees of the path."""
        parent = self.node.parent
        root = parent is None or parent.parent is None
        before = None if parent is None else parent.score
        return Entry(
            LOWEST if score is None else score,
            finished,
            1.0 if root else LOWEST if before is None else before,
            self.weight,
            self.stays,
            self.reference,
        )
