"""The prefix tree remembers exactly what was put in, under its cap."""

from __future__ import annotations

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mull.engines.torch.tree import PrefixTree  # noqa: E402

Ids = tuple[int, ...]


def payload(ids: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [1, 1, 1, n] and values [1, 1, n, 1] that tell which prefix each token has."""
    marks = [float(hash(ids[: n + 1]) % 9973) for n in range(len(ids))]
    return torch.tensor(marks).view(1, 1, 1, -1), torch.tensor(marks).view(1, 1, -1, 1)


def put(tree: PrefixTree, ids: Ids) -> None:
    match = tree.match(ids)
    if match.length < len(ids):
        keys, values = payload(ids)
        start = match.length
        tree.insert(match, ids[start:], keys[..., start:], values[..., start:, :])


def texts(seed: int, count: int) -> list[Ids]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(2) for _ in range(rng.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_known_prefix_comes_back_with_its_own_keys(seed: int) -> None:
    tree, known = PrefixTree(4), set[Ids]()
    for ids in texts(seed, 60):
        put(tree, ids)
        known |= {ids[:n] for n in range(1, len(ids) + 1)}
        for probe in texts(seed + 1000, 5):
            match = tree.match(probe)
            want = max((n for n in range(len(probe) + 1) if probe[:n] in known), default=0)
            assert match.length == want
            assert sum((node.ids for node in match.nodes), ()) == probe[:want]
            if want:
                keys = torch.cat([node.keys for node in match.nodes], -1)
                values = torch.cat([node.values for node in match.nodes], -2)
                assert torch.equal(keys, payload(probe[:want])[0])
                assert torch.equal(values, payload(probe[:want])[1])
        assert tree.tokens == len(known), "every prefix is kept once"


@pytest.mark.parametrize("seed", range(10))
def test_the_cap_holds_and_what_stays_is_still_right(seed: int) -> None:
    tree = PrefixTree(4)
    for ids in texts(seed, 200):
        put(tree, ids)
        tree.shrink(4 * 40)
        assert tree.bytes <= 4 * 40
        match = tree.match(ids)
        if match.length:
            keys = torch.cat([node.keys for node in match.nodes], -1)
            assert torch.equal(keys, payload(ids[: match.length])[0])
    tree.shrink(0)
    assert tree.tokens == 0
    assert tree.match((0, 1)).length == 0


def test_the_least_recently_used_leaf_goes_first() -> None:
    tree = PrefixTree(1)
    for ids in ((1, 1), (2, 2), (3, 3)):
        put(tree, ids)
    tree.match((1, 1))
    tree.shrink(4)
    assert [tree.match(ids).length for ids in ((1, 1), (2, 2), (3, 3))] == [2, 0, 2]


def test_annotations_stay_with_their_tokens_when_a_node_is_split() -> None:
    tree = PrefixTree(1)
    put(tree, (1, 2, 3, 4))
    nan = np.full(3, np.nan, np.float32)
    tree.annotate((1, 2, 3, 4), 1, np.array([-2, -3, -4], np.float32), nan)
    put(tree, (1, 2, 9))
    nodes = tree.match((1, 2, 3, 4)).nodes
    joined = np.concatenate([node.logprobs for node in nodes])
    assert np.isnan(joined[0])
    assert joined[1:].tolist() == [-2, -3, -4]
