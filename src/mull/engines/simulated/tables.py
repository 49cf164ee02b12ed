"""Drawing a step: words with probabilities under any sampling, lengths, and their exact logs.

A token is a byte, so the log-probability of a word is spread over its bytes: each carries the
share of the probability mass that it decides. The sum over a text is the log of its probability.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

from mull.types import Sampling

IMPOSSIBLE = -50.0
"""Log-probability of a token that the model cannot say; finite, so that sums stay numbers."""


def shape(masses: tuple[float, ...], how: Sampling) -> tuple[float, ...]:
    """Probabilities under a sampling: temperature, then top-k, top-p, min-p, renormalised.

    Ties keep their order; temperature 0 puts everything on the first of the likeliest.
    """
    order = sorted(range(len(masses)), key=lambda i: -masses[i])
    if how.temperature == 0:
        return tuple(float(i == order[0]) for i in range(len(masses)))
    peak = masses[order[0]]
    hot = [(mass / peak) ** (1 / how.temperature) for mass in masses]
    total = math.fsum(hot)
    kept = order[: how.top_k] if how.top_k else order
    if how.top_p < 1:
        whole = math.fsum(hot[i] for i in kept)
        sums = accumulate(hot[i] / whole for i in kept)
        need = 1 + sum(1 for mass in sums if mass < how.top_p - 1e-12)
        kept = kept[:need]
    alive = {i for i in kept if hot[i] >= how.min_p * hot[order[0]]}
    total = math.fsum(hot[i] for i in alive)
    return tuple(hot[i] / total if i in alive else 0.0 for i in range(len(masses)))


class Table:
    """What a step can say: prefix-free words, each ending in a blank, with their probabilities."""

    def __init__(self, rows: tuple[tuple[str, float], ...]) -> None:
        self.words = tuple(word for word, _ in rows)
        self.masses = tuple(mass for _, mass in rows)
        below: dict[str, float] = {}
        for word, mass in rows:
            for end in range(len(word) + 1):
                below[word[:end]] = below.get(word[:end], 0.0) + mass
        self.logprobs = {
            word: tuple(
                min(0.0, math.log(below[word[: end + 1]] / below[word[:end]]))
                for end in range(len(word))
            )
            for word in self.words
        }
        self._sums: dict[Sampling, list[float]] = {}

    def draw(self, how: Sampling, rng: random.Random, begun: str = "") -> str | None:
        """A word that agrees with ``begun`` (part of a word, or a word and more); else ``None``."""
        if not begun:
            sums = self._sums.get(how)
            if sums is None:
                sums = self._sums[how] = list(accumulate(shape(self.masses, how)))
            place = bisect_right(sums, rng.random() * sums[-1])
            return self.words[min(place, len(self.words) - 1)]
        fitting = [
            i
            for i, word in enumerate(self.words)
            if word.startswith(begun) or begun.startswith(word)
        ]
        if not fitting:
            return None
        sums = list(accumulate(shape(tuple(self.masses[i] for i in fitting), how)))
        return self.words[fitting[min(bisect_right(sums, rng.random() * sums[-1]), len(sums) - 1)]]


class Pads:
    """How many dots fill a line to a length drawn uniformly from a range."""

    def __init__(self, base: int, low: int, high: int) -> None:
        self._fills = [max(0, length - base) for length in range(low, high + 1)]
        most = self._fills[-1]
        reach = [sum(1 for fill in self._fills if fill >= d) for d in range(most + 2)]
        self._dot = [math.log(reach[d + 1] / reach[d]) for d in range(most)]
        self._end = [math.log((reach[d] - reach[d + 1]) / reach[d]) if reach[d] > reach[d + 1]
                     else IMPOSSIBLE for d in range(most + 1)]  # fmt: skip

    def draw(self, how: Sampling, rng: random.Random, least: int) -> int:
        """A number of dots, at least ``least``; filters keep the shortest of the equally likely."""
        choices = [fill for fill in self._fills if fill >= least] or [least]
        kept = len(choices)
        if how.temperature == 0:
            kept = 1
        elif how.top_k or how.top_p < 1:
            kept = min(how.top_k or kept, kept)
            kept = max(1, math.ceil(kept * how.top_p - 1e-9))
        return choices[int(rng.random() * kept)]

    def dots(self, start: int, end: int) -> list[float]:
        """Log-probabilities of dots ``start`` to ``end``."""
        known = self._dot[start:end]
        return known + [IMPOSSIBLE] * (end - start - len(known))

    def end(self, dots: int) -> float:
        """Log-probability that the line ends after so many dots."""
        return self._end[dots] if dots < len(self._end) else IMPOSSIBLE


@lru_cache(maxsize=1024)
def pads(base: int, low: int, high: int) -> Pads:
    """The paddings of lines that have ``base`` tokens of their own."""
    return Pads(base, low, high)
