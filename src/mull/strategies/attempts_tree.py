"""The tree of a search over whole attempts: each hangs below the latest one that it saw."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mull.trees import Fate, TreeNode
from mull.types import Candidate

Key = tuple[int, ...]


def attempts_tree(
    candidates: Iterable[Candidate],
    score: str,
    lost: Iterable[Key],
    criticism: Iterable[tuple[Key, str]] = (),
) -> tuple[TreeNode, ...]:
    """Nodes in key order: attempts with their score of that name, and ``lost`` that did not come.

    ``criticism`` says what the attempts below the key of a revision (``Branch.revision``) were told
    of the attempt above it: a node between them. Where there is none, no node stands for that key.

    >>> made = [Candidate(key, "…", "7", scores={"orm": 0.5}) for key in ((0,), (0, -1, 1))]
    >>> [(node.key, node.fate.value) for node in attempts_tree(made, "orm", [(0, -1, 0)])]
    [((0,), 'finished'), ((0, -1, 0), 'failed'), ((0, -1, 1), 'finished')]
    """
    nodes = [TreeNode(key, "", None, Fate.FAILED) for key in lost]
    nodes += [TreeNode(key, said, None, Fate.KEPT) for key, said in criticism]
    for made in candidates:
        known = made.scores.get(score, math.nan)
        worth = known if math.isfinite(known) else None
        nodes.append(TreeNode(made.key, made.text, worth, Fate.FINISHED))
    return tuple(sorted(nodes, key=lambda node: node.key))
