"""Keys and values of the sequences that run now: one contiguous row each, copied on fork.

Reading keys through a tree would gather all of them every step (measured at half to all of the
attention's own time); a fork copies its prefix once, about the cost of one step's reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mull.engines.torch.model import Model

GRAIN = 32


class Rows:
    """A slab that grows: keys [layers, rows, kv_heads, head_dim, length], values transposed."""

    def __init__(self, model: Model, cap: int = 1 << 62) -> None:
        self.model = model
        self.cap = cap
        self.rows = 0
        self.length = 0
        self.keys, self.values = self._allocate(0, 0)

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return self.rows * self.length * self.model.kv_bytes

    @staticmethod
    def padded(length: int) -> int:
        """The allocated length for ``length`` tokens: the next multiple of the grain."""
        return -(-max(length, 1) // GRAIN) * GRAIN

    def reserve(self, rows: int, length: int, used: int) -> None:
        """Make room for ``rows`` rows of ``length`` tokens, as long as the longest in use; the
        first ``used`` rows are kept.

        The length is exact to the grain: a batched product on CPUs first copies every operand that
        is a slice, so that reading a part of longer rows costs thrice the product itself, while
        growing costs one copy every grain. Rows are generous up to half the cap, exact above.
        """
        if rows <= self.rows and length <= self.length:
            return
        exact = self.padded(length)
        ample = self.rows if rows <= self.rows else rows * 3 // 2
        longer = max(exact, self.length)
        if ample * longer * self.model.kv_bytes <= self.cap // 2:
            self._repack(ample, longer, used)
        else:
            self._repack(rows, exact, used)

    def fit(self, length: int, used: int) -> None:
        """Let go of length that nobody uses any more, if it is more than one grain."""
        if self.length > self.padded(length) + GRAIN:
            self._repack(self.rows, self.padded(length), used)

    def _repack(self, rows: int, length: int, used: int) -> None:
        old_keys, old_values, kept = self.keys, self.values, min(length, self.length)
        self.rows, self.length = rows, length
        self.keys, self.values = self._allocate(rows, length)
        self.keys[:, :used, :, :, :kept] = old_keys[:, :used, :, :, :kept]
        self.values[:, :used, :, :kept] = old_values[:, :used, :, :kept]

    def rest(self) -> None:
        """Give memory back when nothing runs, if it is much: the prefix tree can use it."""
        if self.bytes > self.cap // 2:
            self.rows, self.length = 0, 0
            self.keys, self.values = self._allocate(0, 0)

    def copy(self, source: int, targets: Sequence[int], length: int) -> None:
        """Fork: the first ``length`` tokens of row ``source`` into each of ``targets``."""
        for target in targets:
            self.keys[:, target, :, :, :length] = self.keys[:, source, :, :, :length]
            self.values[:, target, :, :length] = self.values[:, source, :, :length]

    def permute(self, targets: Sequence[int], sources: Sequence[int], length: int) -> None:
        """Rows ``targets`` become what rows ``sources`` were (beam reordering)."""
        index = torch.tensor(sources, device=self.keys.device)
        keys = self.keys[..., :length].index_select(1, index)
        values = self.values[..., :length, :].index_select(1, index)
        for place, target in enumerate(targets):
            self.keys[:, target, :, :, :length] = keys[:, place]
            self.values[:, target, :, :length] = values[:, place]

    def load(self, row: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Write tokens kept elsewhere, [layers, kv_heads, dim, n] and [..., n, dim], to a row."""
        end = start + values.shape[-2]
        self.keys[:, row, :, :, start:end] = keys
        self.values[:, row, :, start:end] = values

    def read(self, row: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of the keys and values of tokens ``start`` to ``end`` of a row."""
        return (
            self.keys[:, row, :, :, start:end].clone(),
            self.values[:, row, :, start:end].clone(),
        )

    def wipe(self, row: int) -> None:
        """Zero a row that holds numbers that are none: 0 · NaN would spoil the next user."""
        self.keys[:, row] = 0
        self.values[:, row] = 0

    def _allocate(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        c, model = self.model.config, self.model
        keys = torch.zeros(
            c.layers, rows, c.kv_heads, c.head_dim, length, dtype=model.dtype, device=model.device
        )
        values = torch.zeros(
            c.layers, rows, c.kv_heads, length, c.head_dim, dtype=model.dtype, device=model.device
        )
        return keys, values
