"""Training texts without end, the same ones whenever they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from mull.errors import InputError
from mull.training.dialogue import TrainingText


class Stream(Protocol):
    """Training texts without end, the same ones whenever they are asked for.

    ``identity`` names them: two streams with the same one give the same texts. The length is that
    of an epoch, in texts.
    """

    def __len__(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def __call__(self, first: int = 0) -> Iterator[TrainingText]:
        """The texts from number ``first`` on."""
        ...


@dataclass(frozen=True)
class Repeated:
    """Texts again and again, in an order drawn anew every epoch; a ``Stream``."""

    texts: tuple[TrainingText, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.texts:
            raise InputError("no training texts")

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def identity(self) -> str:
        """A digest of the texts and the seed."""
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=8)
        for text in self.texts:
            digest.update(repr(text).encode("utf-8", "surrogatepass"))
        return f"{len(self.texts)} texts {digest.hexdigest()}"

    def __call__(self, first: int = 0) -> Iterator[TrainingText]:
        epoch, at = divmod(first, len(self.texts))
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.texts))
            yield from (self.texts[row] for row in order[at:])
            epoch, at = epoch + 1, 0
