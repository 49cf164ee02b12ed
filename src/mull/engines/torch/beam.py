"""Token beam search: the ``width`` likeliest continuations survive, the ``n`` best come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mull.engines.torch.jobs import Done, Ids, Job
from mull.engines.torch.stop import START, Place
from mull.types import StopReason, TokenBeam


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A line of tokens with the log-probability of each, and why it ended, if it has."""

    ids: Ids = ()
    logprobs: tuple[float, ...] = ()
    total: float = 0.0
    place: Place = START
    stop: StopReason | None = None
    stop_string: str | None = None
    cut: int = 0

    def score(self, penalty: float) -> float:
        """Cumulative log-probability over length**penalty."""
        return self.total / float(max(len(self.ids), 1) ** penalty)

    def done(self, index: int, seconds: float, charged: int, lines: int) -> Done:
        """The line as sample ``index``."""
        stop = self.stop or StopReason.LENGTH
        rest = (self.stop_string, self.cut, lines)
        return Done(index, self.ids, self.logprobs, stop, seconds, charged, *rest)


class Tally:
    """Tokens that a search made, spread over its samples: line i is charged to sample i mod n."""

    def __init__(self, samples: int) -> None:
        self._tokens = [0] * samples
        self._depth = 0

    def add(self, lines: int) -> None:
        """A token for each line."""
        self._depth += 1
        for line in range(lines):
            self._tokens[line % len(self._tokens)] += 1

    def by_sample(self) -> list[tuple[int, int]]:
        """(tokens, on how many lines of the search's depth) of each sample."""
        return [(tokens, -(-tokens // max(1, self._depth))) for tokens in self._tokens]


def extend(
    job: Job,
    is_end: NDArray[np.bool_],
    old: Hypothesis,
    token: int,
    logprob: float,
    total: float,
) -> Hypothesis:
    """The line with one token more, and whether that ends it."""
    until = job.request.until
    ids = (*old.ids, token)
    logprobs = (*old.logprobs, logprob)
    stop, stop_string, cut, place = None, None, 0, old.place
    if is_end[token]:
        stop = StopReason.END
    else:
        if job.watch is not None and job.watch.table[token]:
            look = job.watch.look(ids, place, job.ids[-4:])
            place, stop_string, cut = look.place, look.stop, look.cut
            if stop_string is not None:
                stop = StopReason.STOP
            elif until.steps is not None and place.steps >= until.steps:
                stop = StopReason.STEP
        if stop is None and len(ids) >= job.limit:
            stop = job.at_limit
    return Hypothesis(ids, logprobs, total, place, stop, stop_string, cut)


class Beam:
    """One search. ``advance`` takes the live hypotheses' next-token log-probabilities.

    Each step looks at the 2·width likeliest continuations of all live hypotheses: those that end
    join the finished, the best ``width`` of the others live on. It is over when nothing that lives
    can still beat the worst of the ``width`` best finished ones.
    """

    def __init__(self, job: Job, decoding: TokenBeam, is_end: NDArray[np.bool_]) -> None:
        self.job = job
        self.decoding = decoding
        self.is_end = is_end
        self.hypotheses = [Hypothesis()]
        self.finished: list[Hypothesis] = []
        self.made = Tally(job.request.n)
        self.most = decoding.width
        self.began = 0.0
        self.over = False

    @property
    def live(self) -> int:
        return len(self.hypotheses)

    def advance(self, logprobs: Tensor) -> tuple[list[int], list[int]]:
        """Extend by one token: (parent of each new live hypothesis, its newest token).

        Args:
            logprobs: [live, vocab], the unscaled next-token distribution of each hypothesis.
        """
        width, vocab = self.decoding.width, logprobs.shape[1]
        before = torch.tensor([each.total for each in self.hypotheses], dtype=torch.float64)
        totals = (logprobs.double().cpu() + before[:, None]).view(-1)
        # A stable order, lower ids first among equals, so that a search repeats exactly.
        count = min(2 * width, totals.numel())
        floor = torch.topk(totals, count).values[-1]
        places = torch.nonzero(totals >= floor)[:, 0]
        places = places[torch.sort(totals[places], descending=True, stable=True).indices[:count]]
        parents, tokens, survivors = list[int](), list[int](), list[Hypothesis]()
        for place in places.tolist():
            parent, token = divmod(place, vocab)
            total = float(totals[place])
            if len(survivors) == width or total == float("-inf"):
                break
            # The token's own value, not a difference of sums: it is compared with other engines.
            own = float(logprobs[parent, token])
            new = extend(self.job, self.is_end, self.hypotheses[parent], token, own, total)
            if new.stop is not None:
                self.finished.append(new)
                continue
            parents.append(parent)
            tokens.append(token)
            survivors.append(new)
        self.made.add(self.live)
        self.hypotheses = survivors
        self._prune()
        return parents, tokens

    def _prune(self) -> None:
        penalty, keep = self.decoding.length_penalty, self.decoding.width
        self.finished.sort(key=lambda each: each.score(penalty), reverse=True)
        del self.finished[keep:]
        if not self.hypotheses:
            self.over = True
        elif len(self.finished) == keep:
            best = max(each.total for each in self.hypotheses)
            # Log-probabilities only fall; a positive penalty is kindest to the longest line.
            longest = self.job.limit if penalty > 0 else len(self.hypotheses[0].ids) + 1
            self.over = best / longest**penalty <= self.finished[-1].score(penalty)

    def results(self, seconds: float) -> list[Done]:
        """Ranks ``first`` to ``first + n - 1``, best first, as far as there are so many; all tokens
        of the search are charged among them.
        """
        first, n, made = self.job.request.first, self.job.request.n, self.made.by_sample()
        best = enumerate(self.finished[first : first + n])
        return [each.done(first + place, seconds, *made[place]) for place, each in best]
