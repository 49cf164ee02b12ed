"""Log-probabilities and values of given texts, batched; what the tree knows is not redone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mull.engines.torch.batch import SHARED, Batch
from mull.engines.torch.jobs import ScoredText, ScoreJob
from mull.engines.torch.rows import Rows
from mull.engines.torch.tree import Node
from mull.errors import EngineError

LOGIT_CELLS = 1 << 24
TOGETHER = 16
TOKENS = 8192
Floats = NDArray[np.float32]


class Scorer:
    """Scores texts on free rows behind the running ones of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.model = batch.model

    def fit(self, jobs: Sequence[ScoreJob]) -> int:
        """How many of the first jobs can be encoded together now; 0 if the rows leave no room.

        Raises:
            EngineError: the first text does not fit the memory cap even alone.
        """
        if self.batch.one_row:
            jobs = jobs[:1]
        live, longest, tokens = self.batch.state.live, 1, 0
        needed = int(self.batch.state.need[:live].max()) if live else 1
        for count, job in enumerate(jobs[:TOGETHER]):
            longest, tokens = max(longest, len(job.ids)), tokens + len(job.ids)
            cells = (live + count + 1) * Rows.padded(max(longest, needed))
            if cells * self.model.kv_bytes > self.batch.memory_cap or (count and tokens > TOKENS):
                if count == 0 and live == 0:
                    raise EngineError(
                        f"a text of {len(job.ids)} tokens needs more memory for keys and values "
                        f"than memory_cap = {self.batch.memory_cap}: raise it"
                    )
                return count
        return min(len(jobs), TOGETHER)

    def run(self, jobs: Sequence[ScoreJob]) -> list[ScoredText]:
        """Score texts in waves, results in order: a text that shares much with one of a wave waits
        for the next, where it finds the shared part encoded.
        """
        began = time.perf_counter()
        found: dict[ScoreJob, ScoredText] = {}
        left = list(jobs)
        while left:
            wave: list[ScoreJob] = []
            later: list[ScoreJob] = []
            starts = {job: self._known(job) for job in left}
            for job in left:
                (later if self._shares(job, starts[job], wave) else wave).append(job)
            for group in self._groups(wave, starts):
                self._encode(group, starts, found)
            left = later
        seconds = (time.perf_counter() - began) / len(jobs)
        return [replace(found[job], seconds=seconds) for job in jobs]

    def _shares(self, job: ScoreJob, known: int, wave: list[ScoreJob]) -> bool:
        end = min(known + SHARED, len(job.ids))
        if self.batch.one_row or end <= known:
            return False
        if job.request.certainty and known >= job.prompt - 1:
            return False  # its text is read anew whatever the tree holds of it
        return any(other.ids[:end] == job.ids[:end] for other in wave)

    def _groups(self, wave: list[ScoreJob], starts: dict[ScoreJob, int]) -> list[list[ScoreJob]]:
        """Texts that are encoded as one padded batch, by the size of their new part."""
        groups: list[list[ScoreJob]] = []
        for job in sorted(wave, key=lambda job: (len(job.ids) - starts[job], len(job.ids))):
            if groups and self._together([*groups[-1], job], starts):
                groups[-1].append(job)
            else:
                groups.append([job])
        return groups

    def _known(self, job: ScoreJob) -> int:
        """Tokens that need not be encoded again: their keys and what is asked of them are in the
        tree. For log-probabilities the one before the first new token is encoded again unless its
        output was kept, which is the first new token's probability. The tree keeps no certainty:
        where it is asked, the text is read anew from its first token on. Nor does it keep the
        end's probability, which the last token's output gives: where it is asked, that token is
        encoded again.
        """
        if self.batch.one_row:
            return 0
        match = self.batch.tree.match(job.ids)
        if not match.length:
            return 0
        logprobs, scores = _joined(match.nodes)
        reads = self._reads_logprobs(job)
        missing = np.isnan(logprobs) if reads else np.zeros(match.length, np.bool_)
        missing[: job.prompt] = False
        if job.request.values:
            needed = [end for end in job.ends if end < match.length]
            absent = np.zeros(match.length, np.bool_)
            absent[needed] = np.isnan(scores[needed])
            missing |= absent
        known = int(missing.argmax()) if missing.any() else match.length
        if job.request.end:
            known = min(known, len(job.ids) - 1)
        if job.request.certainty:
            return min(known, job.prompt - 1)
        kept = known == match.length and match.tail is not None
        if known == len(job.ids) or kept or not reads:
            return known
        return max(known - 1, 0)

    def _reads_logprobs(self, job: ScoreJob) -> bool:
        """Whether log-probabilities are asked, or the value head needs them."""
        request = job.request
        head = self.model.value_head
        return request.logprobs or (
            request.values and head is not None and head.logprob_weight != 0.0
        )

    def _together(self, group: list[ScoreJob], starts: dict[ScoreJob, int]) -> bool:
        """Whether padding this group to one size stays inside the context and wastes little."""
        sizes = [len(job.ids) - starts[job] for job in group]
        if self.batch.one_row or max(sizes) > min(sizes) * 1.5 + 16:
            return False
        return max(starts[job] for job in group) + max(sizes) <= self.model.config.context

    def _encode(
        self, group: list[ScoreJob], starts: dict[ScoreJob, int], found: dict[ScoreJob, ScoredText]
    ) -> None:
        batch, first = self.batch, self.batch.state.live
        fresh = [job for job in group if starts[job] < len(job.ids)]
        if fresh:
            texts, begun = [job.ids for job in fresh], [starts[job] for job in fresh]
            batch.room(first, texts, begun)
            for place, (text, start) in enumerate(zip(texts, begun, strict=True)):
                batch.load(first + place, text, start)
            hidden = batch.encode(first, texts, begun)
        for job in group:
            start = starts[job]
            if start == len(job.ids):
                found[job] = self._recall(job)
                continue
            place = fresh.index(job)
            own = hidden[place, : len(job.ids) - start]
            if start and self._reads_logprobs(job):
                before = batch.tree.match(job.ids[:start]).tail
                if before is not None:
                    own, start = torch.cat([before[None], own]), start - 1
            logprobs, scores, certainty = self._read(job, start, own)
            end = self._end(own[-1:]) if job.request.end else None
            if batch.one_row:
                made = self._result(job, logprobs, scores, start, start)
                found[job] = replace(made, certainty=certainty, end=end)
                continue
            known = batch.tree.match(job.ids)
            if known.length < len(job.ids):
                keys, values = batch.rows.read(first + place, known.length, len(job.ids))
                batch.tree.insert(known, job.ids[known.length :], keys, values)
            tail = own[-1].clone() if self._reads_logprobs(job) else None
            batch.tree.annotate(job.ids, start, logprobs, scores, tail)
            found[job] = replace(self._recall(job, starts[job]), certainty=certainty, end=end)

    def _read(
        self, job: ScoreJob, start: int, hidden: Tensor
    ) -> tuple[Floats, Floats, tuple[float, ...] | None]:
        """Log-probabilities and values [tokens from start on], NaN where there is none; certainty
        [tokens of the text] where it is asked.
        """
        size = len(job.ids) - start
        logprobs = np.full(size, np.nan, np.float32)
        scores = np.full(size, np.nan, np.float32)
        # Position i gives token i + 1; nothing before the text's first token is wanted.
        certain: list[float] | None = [] if job.request.certainty else None
        asked = self._reads_logprobs(job) or certain is not None
        begin = max(job.prompt - 1 - start, 0) if asked else size
        step = max(1, LOGIT_CELLS // self.model.config.vocab)
        targets = torch.tensor(job.ids[start + 1 :], device=hidden.device)
        for low in range(begin, size - 1, step):
            high = min(low + step, size - 1)
            table = torch.log_softmax(self.model.logits(hidden[low:high]), dim=-1)
            picked = table.gather(1, targets[low:high, None])[:, 0]
            logprobs[low + 1 : high + 1] = picked.cpu().numpy()
            if certain is not None:
                certain += _from_uniform(table).tolist()
        if self.model.value_head is not None:
            scores[:] = self.model.value_head(hidden.float())[:, 0].cpu().numpy()
        wanted = logprobs[begin + 1 :]
        if np.isnan(wanted).any() or not np.isfinite(hidden.float().sum().item()):
            raise EngineError("the model's output is not a number: its weights are bad")
        return logprobs, scores, None if certain is None else tuple(certain)

    def _end(self, hidden: Tensor) -> float:
        """The log-probability of any end token, of the text's last output [1, width]."""
        table = torch.log_softmax(self.model.logits(hidden), dim=-1)[0]
        ends = torch.as_tensor(np.flatnonzero(self.batch.is_end), device=table.device)
        return float(torch.logsumexp(table[ends], dim=0))

    def _recall(self, job: ScoreJob, cached: int | None = None) -> ScoredText:
        """A result read back from the tree, where all of it stands now."""
        logprobs, scores = _joined(self.batch.tree.match(job.ids).nodes)
        total = len(job.ids)
        return self._result(job, logprobs, scores, total if cached is None else cached, 0)

    def _result(
        self, job: ScoreJob, logprobs: Floats, scores: Floats, cached: int, start: int
    ) -> ScoredText:
        """A result from arrays whose first entry belongs to token ``start``."""
        wanted = logprobs[job.prompt - start :].tolist() if job.request.logprobs else ()
        return ScoredText(
            tuple(wanted),
            self._values(job, logprobs, scores, start) if job.request.values else (),
            len(job.ids),
            cached,
            0.0,
        )

    def _values(
        self, job: ScoreJob, logprobs: Floats, scores: Floats, start: int
    ) -> tuple[float, ...]:
        """The values at the ends, of arrays as for ``_result``."""
        ends = np.array(job.ends, np.int64) - start
        logits = scores[ends]
        head = self.model.value_head
        if head is not None and head.logprob_weight:
            likely = logprobs[job.prompt - start :].cumsum(dtype=np.float64)
            added = head.logprob_weight * likely[ends - (job.prompt - start)]
            logits = (logits + added).astype(np.float32)
        return tuple(torch.sigmoid(torch.from_numpy(logits)).tolist())


def _from_uniform(table: Tensor) -> Tensor:
    """KL(uniform || p) = -ln V - mean(ln p) in nats, [rows], of log-probabilities [rows, V]."""
    return (-table.mean(dim=-1) - math.log(table.shape[-1])).clamp_min(0.0)


def _joined(nodes: Sequence[Node]) -> tuple[Floats, Floats]:
    """The log-probabilities and values along a path of the tree."""
    return (
        np.concatenate([node.logprobs for node in nodes]),
        np.concatenate([node.scores for node in nodes]),
    )
