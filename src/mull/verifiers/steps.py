"""One value a step → one score a branch; two scored texts → how likely the one is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from mull.types import Scored

Aggregate = Literal["last", "min", "product", "mean"]
AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "product": math.prod,
    "mean": lambda values: math.fsum(values) / len(values),
}
"""How the values of a branch's steps become its score; never called without a step.

>>> AGGREGATES["min"]([0.9, 0.5, 0.7])
0.5
"""


def preference(one: Scored, other: Scored) -> float:
    """P(one) / (P(one) + P(other)) of two texts that differ in their ends alone.

    Both were scored behind the same prompt: the probabilities of the tokens in which they differ
    are those of one distribution, so that for single tokens this is the softmax over the two.
    """
    common = 0
    for a, b in zip(one.token_ids, other.token_ids, strict=False):
        if a != b:
            break
        common += 1
    gap = math.fsum(other.logprobs[common:]) - math.fsum(one.logprobs[common:])
    return 1 / (1 + math.exp(min(gap, 700.0)))


def pieces(text: str, separator: str) -> list[str]:
    """The steps of a text without their separators; blank ones are none.

    >>> pieces("a\\n\\nb\\n", "\\n")
    ['a', 'b']
    """
    return [piece for piece in text.split(separator) if piece.strip()]
