"""Threshold search: every completion at least so likely, and none else.

The depth-first search of the ARChitects (ARC Prize 2024, arXiv 2505.07859) extends a line by every
token that keeps its probability above the threshold. Lines at one depth exclude each other, so
their probabilities add up to 1 at most and no more than 1 / threshold are ever open: here they are
extended side by side, level by level, and the set found is the same.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mull.engines.torch.beam import Hypothesis, Tally, extend
from mull.engines.torch.jobs import Done, Job
from mull.types import StopReason, ThresholdDFS

ROUNDING = 1e-6
"""What float32 log-probabilities may lack: a certainty has a logarithm of -1e-7 at times."""
NOTHING = Hypothesis(stop=StopReason.EXHAUSTED)


class Dfs:
    """One search. ``advance`` takes the open lines' next-token log-probabilities.

    ``most`` bounds the lines that may be open from here on: a line of probability p has room for
    p / threshold descendants. Once as many completions are found as are asked for, the worst of
    them is the threshold.
    """

    def __init__(self, job: Job, decoding: ThresholdDFS, is_end: NDArray[np.bool_]) -> None:
        self.job = job
        self.is_end = is_end
        self.floor = math.log(decoding.threshold) - ROUNDING
        self.keep = job.request.first + job.request.n
        self.open = [Hypothesis()]
        self.finished: list[Hypothesis] = []
        self.made = Tally(job.request.n)
        self.most = decoding.width
        self.began = 0.0
        self.over = False

    def advance(self, logprobs: Tensor) -> tuple[list[int], list[int]]:
        """Extend by one token: (parent of each new open line, its newest token).

        Args:
            logprobs: [open, vocab], the unscaled next-token distribution of each line.
        """
        self.made.add(len(self.open))
        found = list[tuple[int, Hypothesis]]()
        for parent, token, own, total in self._likely(logprobs):
            new = extend(self.job, self.is_end, self.open[parent], token, own, total)
            if new.stop is None:
                found.append((parent, new))
            else:
                self.finished.append(new)
        self._raise_floor()
        found = [pair for pair in found if pair[1].total >= self.floor]
        if len(found) > self.most:  # by rounding alone: the least likely were below the threshold
            found = sorted(found, key=lambda pair: -pair[1].total)[: self.most]
        self.open = [line for _, line in found]
        room = (int(math.exp(line.total - self.floor) + ROUNDING) for line in self.open)
        self.most = min(self.most, max(sum(max(each, 1) for each in room), len(self.open)))
        self.over = not self.open
        return [parent for parent, _ in found], [line.ids[-1] for line in self.open]

    def _likely(self, logprobs: Tensor) -> list[tuple[int, int, float, float]]:
        """(line, token, its log-probability, that of the line) above the threshold, in order."""
        before = [line.total for line in self.open]
        totals = torch.tensor(before, dtype=torch.float64, device=logprobs.device)[:, None]
        totals = totals + logprobs.double()
        rows, tokens = torch.nonzero(totals >= self.floor, as_tuple=True)
        return list(
            zip(
                rows.tolist(),
                tokens.tolist(),
                logprobs[rows, tokens].tolist(),
                totals[rows, tokens].tolist(),
                strict=True,
            )
        )

    def _raise_floor(self) -> None:
        self.finished.sort(key=lambda each: (-each.total, each.ids))
        del self.finished[self.keep :]
        if len(self.finished) == self.keep:
            self.floor = max(self.floor, self.finished[-1].total)

    def results(self, seconds: float) -> list[Done]:
        """Ranks ``first`` to ``first + n - 1``, best first; behind the last there is nothing."""
        first, done = self.job.request.first, list[Done]()
        for rank, made in enumerate(self.made.by_sample(), first):
            found = rank < len(self.finished)
            line = self.finished[rank] if found else NOTHING
            done.append(line.done(rank, seconds if found else 0.0, *made))
        return done
