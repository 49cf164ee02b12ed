"""What has been computed once: a radix tree from token ids to keys, values and scores.

Prefixes are shared at token granularity. The least recently used leaves go first when the memory
cap is reached. Whoever needs a prefix copies it at once, so that nothing has to be pinned.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = tuple[int, ...]
Floats = NDArray[np.float32]


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens behind its parent's.

    ``keys`` [layers, kv_heads, head_dim, n], ``values`` [layers, kv_heads, n, head_dim];
    ``logprobs`` and ``scores`` [n], NaN where they were never computed: the log-probability of
    each token given all before it, and the logit of the value head at it. ``tail`` [hidden] is the
    output at the last token, which tells the next one's probability; ``None`` where it was not
    kept.
    """

    ids: Ids
    keys: Tensor
    values: Tensor
    logprobs: Floats
    scores: Floats
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    tail: Tensor | None = None
    used: int = 0
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known prefix of some ids: nodes from the root on, the last one whole."""

    nodes: tuple[Node, ...]
    length: int

    @property
    def tail(self) -> Tensor | None:
        """The output [hidden] at the last token of the prefix, where it was kept."""
        return self.nodes[-1].tail if self.nodes else None


class PrefixTree:
    """Keys and values by token ids, under a cap in bytes that may change."""

    def __init__(self, bytes_per_token: int) -> None:
        self.bytes_per_token = bytes_per_token
        self.tokens = 0
        none = torch.empty(0)
        self.root = Node((), none, none, _unknown(0), _unknown(0), None)
        self._clock = count(1)
        self._heap: list[tuple[int, int, Node]] = []
        self._order = count()

    @property
    def bytes(self) -> int:
        """Bytes of keys and values held."""
        return self.tokens * self.bytes_per_token

    def match(self, ids: Ids) -> Match:
        """The longest prefix of ``ids`` that is known; a node is split where they part."""
        node, at, path, now = self.root, 0, [], next(self._clock)
        while at < len(ids):
            child = node.children.get(ids[at])
            if child is None:
                break
            common = _common(child.ids, ids, at)
            parted = common < len(child.ids)
            if parted:
                child = self._split(child, common)
            child.used = now
            path.append(child)
            at += common
            node = child
            if parted:
                break
        return Match(tuple(path), at)

    def insert(
        self,
        match: Match,
        ids: Ids,
        keys: Tensor,
        values: Tensor,
        logprobs: Floats | None = None,
        scores: Floats | None = None,
    ) -> Node:
        """Hang the tokens ``ids`` behind a match (just made, so that they are new there)."""
        parent = match.nodes[-1] if match.nodes else self.root
        node = Node(
            ids,
            keys,
            values,
            _unknown(len(ids)) if logprobs is None else logprobs,
            _unknown(len(ids)) if scores is None else scores,
            parent,
            used=next(self._clock),
        )
        parent.children[ids[0]] = node
        self.tokens += len(ids)
        self._push(node)
        return node

    def annotate(
        self,
        ids: Ids,
        start: int,
        logprobs: Floats,
        scores: Floats,
        tail: Tensor | None = None,
    ) -> None:
        """Write scores of tokens ``start`` on into the nodes that hold them, and the last output
        into the last.
        """
        at, nodes = 0, self.match(ids).nodes
        if tail is not None:
            nodes[-1].tail = tail
        for node in nodes:
            end = at + len(node.ids)
            low, high = max(at, start), min(end, start + len(logprobs))
            for target, source in ((node.logprobs, logprobs), (node.scores, scores)):
                if low < high:
                    fresh = source[low - start : high - start]
                    old = target[low - at : high - at]
                    target[low - at : high - at] = np.where(np.isnan(fresh), old, fresh)
            at = end

    def shrink(self, cap: int) -> None:
        """Evict leaves, least recently used first, until at most ``cap`` bytes are held."""
        while self.bytes > max(cap, 0) and self._heap:
            used, _, node = heapq.heappop(self._heap)
            if not node.alive or node.children or node is self.root:
                continue
            if used < node.used:
                self._push(node)
                continue
            parent = node.parent or self.root
            node.alive = False
            del parent.children[node.ids[0]]
            self.tokens -= len(node.ids)
            if not parent.children:
                self._push(parent)

    def _push(self, node: Node) -> None:
        """Make a node a candidate for eviction; stale entries are dropped when they come up."""
        if node.alive and not node.children and node.parent is not None:
            heapq.heappush(self._heap, (node.used, next(self._order), node))

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two and return the new head; the node object keeps the tail."""
        parent = node.parent or self.root
        head = Node(
            node.ids[:at],
            node.keys[..., :at].clone(),
            node.values[..., :at, :].clone(),
            node.logprobs[:at].copy(),
            node.scores[:at].copy(),
            parent,
            {node.ids[at]: node},
            used=node.used,
        )
        parent.children[head.ids[0]] = head
        node.parent, node.ids = head, node.ids[at:]
        node.keys, node.values = node.keys[..., at:].clone(), node.values[..., at:, :].clone()
        node.logprobs, node.scores = node.logprobs[at:].copy(), node.scores[at:].copy()
        return head


def _common(known: Ids, ids: Sequence[int], at: int) -> int:
    """How many of ``known`` agree with ``ids`` from ``at`` on."""
    other = ids[at : at + len(known)]
    if known == other:
        return len(known)
    for place, (a, b) in enumerate(zip(known, other, strict=False)):
        if a != b:
            return place
    return len(other)


def _unknown(n: int) -> Floats:
    return np.full(n, np.nan, dtype=np.float32)
