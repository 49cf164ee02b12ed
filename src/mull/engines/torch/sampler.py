"""Logits → tokens: every row with its own settings and its own counter-based random stream.

A row's draw depends on nothing but its key, its position and its logits, so results do not depend
on which rows share the batch: one uniform a token from SplitMix64 (Steele, Lea, Flood 2014) over
(key, position), then the inverse of the cumulative distribution, two levels deep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 128
FIRST_TRY = 128
COLDEST = 1e-6
"""Temperatures below are greedy: their inverse is beyond what float32 can scale."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(slots=True)
class Settings:
    """Sampling settings of a batch: arrays with one entry a row."""

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int64]
    top_p: NDArray[np.float64]
    min_p: NDArray[np.float64]
    key: NDArray[np.uint64]
    position: NDArray[np.uint64]


def uniforms(key: NDArray[np.uint64], position: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniforms in [0, 1), one a row: output ``position`` of the SplitMix64 stream ``key``.

    >>> key = np.array([1, 1, 2], dtype=np.uint64)
    >>> u = uniforms(key, np.array([0, 1, 0], dtype=np.uint64))
    >>> len(set(u.tolist()))
    3
    """
    z = key + (position + np.uint64(1)) * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    draws: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws


def sample(logits: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Tokens [rows] int64 and their log-probabilities [rows] float32.

    Log-probabilities are those of the unscaled, unfiltered distribution; a row whose logits are
    not finite numbers gets NaN there, for the caller to refuse.

    Args:
        logits: [rows, vocab] float32.
    """
    greedy = settings.temperature < COLDEST
    if greedy.all():
        normal = torch.logsumexp(logits, dim=-1)
        best, tokens = logits.max(dim=-1)
        return tokens, best - normal
    temperature = np.where(greedy, np.float32(1.0), settings.temperature)
    peak = logits.amax(dim=-1, keepdim=True)
    weights = (logits - peak).exp_()
    normal = peak[:, 0] + torch.log(weights.sum(dim=-1))
    if not (temperature == 1.0).all():
        inverse = torch.from_numpy(1.0 / temperature).to(logits.device)
        weights = (logits - peak).mul_(inverse[:, None]).exp_()
    draw = torch.from_numpy(uniforms(settings.key, settings.position)).to(logits.device)
    cut = ~greedy & ((settings.top_k > 0) | (settings.top_p < 1.0))
    floor = ~greedy & ~cut & (settings.min_p > 0.0)
    if floor.any():
        least = torch.from_numpy(np.where(floor, settings.min_p, 0.0)).to(weights)
        weights = torch.where(weights < least[:, None], 0.0, weights)  # the peak's weight is 1
    tokens = _invert(weights, draw)
    if cut.any():
        rows = torch.from_numpy(np.flatnonzero(cut)).to(logits.device)
        tokens[rows] = _filtered(
            weights[rows], settings.top_k[cut], settings.top_p[cut], settings.min_p[cut], draw[rows]
        )
    if greedy.any():
        tokens = torch.where(torch.from_numpy(greedy).to(logits.device), logits.argmax(-1), tokens)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - normal


def _invert(weights: Tensor, draw: Tensor) -> Tensor:
    """Index [rows] where the cumulated weights pass ``draw`` of their total.

    Sums of blocks first, then within the one block that is hit: a cumulative sum over the whole
    vocabulary would cost more than the rest of sampling, and lose precision in float32.
    """
    rows, vocab = weights.shape
    blocks = -(-vocab // BLOCK)
    if vocab % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, blocks * BLOCK - vocab))
    grid = weights.view(rows, blocks, BLOCK)
    cumulated = grid.sum(-1).double().cumsum(-1)
    target = draw * cumulated[:, -1]
    # A NaN row compares false everywhere: clamp, the caller sees its log-probability.
    block = (cumulated <= target[:, None]).sum(-1).clamp_(max=blocks - 1)
    row = torch.arange(rows, device=weights.device)
    before = torch.where(block > 0, cumulated[row, (block - 1).clamp_(min=0)], 0.0)
    inner = grid[row, block]
    within = (inner.double().cumsum(-1) <= (target - before)[:, None]).sum(-1)
    # Rounding may pass the last weight of the block: the last one that has any is then meant.
    last = BLOCK - 1 - (inner > 0).flip(-1).int().argmax(-1)
    token = block * BLOCK + torch.minimum(within, last)
    return token.clamp_(max=vocab - 1)


def _filtered(
    weights: Tensor,
    top_k: NDArray[np.int64],
    top_p: NDArray[np.float64],
    min_p: NDArray[np.float64],
    draw: Tensor,
) -> Tensor:
    """Tokens [rows] after top-k, top-p on what that leaves, and min-p, in that order."""
    vocab = weights.shape[1]
    device = weights.device
    k = torch.from_numpy(np.where(top_k > 0, np.minimum(top_k, vocab), vocab)).to(device)
    p = torch.from_numpy(top_p).to(device)
    total = weights.sum(-1).double()
    width = min(vocab, FIRST_TRY)
    while True:
        kept, ids = _largest(weights, width)
        cumulated = kept.double().cumsum(-1)
        # Enough if every row has all of its top k, or the mass p of the whole, in view.
        if width == vocab or bool(((k <= width) | (cumulated[:, -1] >= p * total)).all()):
            break
        width = min(vocab, width * 8)
    place = torch.arange(width, device=device)
    inside = place < k[:, None]
    mass = torch.where(k >= vocab, total, torch.where(inside, kept.double(), 0.0).sum(-1))
    # A token stays while the mass before it is short of p: the one that crosses p is in.
    inside &= (cumulated - kept.double()) < (p * mass)[:, None]
    inside &= kept >= kept[:, :1] * torch.from_numpy(min_p).to(weights)[:, None]
    inside[:, 0] = True
    choice = _invert(torch.where(inside, kept, 0.0), draw)
    return ids.gather(1, choice[:, None])[:, 0]


def _largest(weights: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` largest weights a row, in falling order, lower ids first among equals."""
    if width < weights.shape[1]:
        # Which of equals it takes, and in which order, is topk's own affair: see to both.
        kept, ids = torch.topk(weights, width, dim=-1)
        _take_first_of_equals(weights, kept[:, -1:], ids)
        ids = ids.sort(dim=-1).values
        kept, order = weights.gather(1, ids).sort(dim=-1, descending=True, stable=True)
        return kept, ids.gather(1, order)
    kept, ids = torch.sort(weights, dim=-1, descending=True, stable=True)
    return kept, ids


def _take_first_of_equals(weights: Tensor, least: Tensor, ids: Tensor) -> None:
    """Where more than fit are no less than ``least`` [rows, 1], write to ``ids`` [rows, width]
    those above it and the first of its equals.
    """
    width = ids.shape[1]
    reach = weights >= least
    crowded = reach.sum(-1) > width
    if not bool(crowded.any()):
        return
    row, token = (reach & crowded[:, None]).nonzero(as_tuple=True)
    equal = weights[row, token] == least[row, 0]
    ends = torch.bincount(row[equal], minlength=len(ids)).cumsum(0)
    place = equal.cumsum(0) - (ends - ends.diff(prepend=ends.new_zeros(1)))[row]
    room = width - torch.bincount(row[~equal], minlength=len(ids))
    ids[crowded] = token[~equal | (place <= room[row])].view(-1, width)
