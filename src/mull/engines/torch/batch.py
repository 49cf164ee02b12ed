"""Continuous batching: requests join and leave at any step, forks share one prefill.

One step: admit what fits (prefilling new prompts, forking computed ones), feed every running row
its next token, sample all rows at once, then look only at the rows where something happened.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mull.engines.torch import searches
from mull.engines.torch.jobs import Closed, Done, Event, Failed, Ids, Job, Made, Part, Prompted
from mull.engines.torch.model import Model
from mull.engines.torch.places import origin
from mull.engines.torch.rows import Rows
from mull.engines.torch.sampler import sample
from mull.engines.torch.state import State
from mull.engines.torch.stop import WATCHES_KEPT, Watch
from mull.engines.torch.tree import PrefixTree
from mull.errors import EngineError
from mull.types import Sampling, StopReason

PREFILL_TOKENS = 4096
SCORE_CELLS = 1 << 24
SHARED = 16


class Batch:
    """The rows, the queue and the prefix tree; ``step`` advances everything by one token.

    Not thread-safe: the model's thread owns it. Events are collected in ``events`` by job.
    """

    def __init__(
        self,
        model: Model,
        *,
        eos: Sequence[int],
        slots: int,
        memory_cap: int,
        one_row: bool,
    ) -> None:
        self.model = model
        self.memory_cap = memory_cap
        self.one_row = one_row
        self.rows = Rows(model, memory_cap)
        self.tree = PrefixTree(model.kv_bytes)
        self.state = State(slots)
        self.queue: list[Job] = []
        self.events: dict[Job, list[Event]] = {}
        vocab = model.config.vocab
        self.is_end = np.zeros(vocab, np.bool_)
        self.is_end[[token for token in eos if token < vocab]] = True
        # Row 0 of the tables is "no watch"; each watch in use adds one, rows refer by number.
        self._tables = np.zeros((1, vocab), np.bool_)
        self._watches: dict[Watch, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self.state.live or self.queue)

    def submit(self, job: Job) -> None:
        """Queue a request by (priority, arrival)."""
        if job.watch is not None:
            job.table = self._table(job.watch)
        if (places := self.model.walk(torch.tensor([job.ids]))) is not None:
            start = origin(1)[:, None]
            job.where = torch.cat([start, places], dim=1)[0].numpy()
        bisect.insort(self.queue, job, key=lambda each: each.order)

    def cancel(self, job: Job) -> None:
        """Free a request's rows at once; its event says what was made until now."""
        if not job.over:
            self.post(job, Closed(self._remove(job)))

    def fail(self, job: Job, error: Exception) -> None:
        """End a request with an error."""
        if not job.over:
            self.post(job, Failed(error, self._remove(job, wipe=True)))

    def abort(self, error: Exception) -> None:
        """End every request with an error and begin anew, whatever state a failed step left."""
        state, parts = self.state, dict[Job, list[Part]]()
        for row in range(state.live):
            job = state.job[row]
            if job is not None and job.search is None and not state.leads[row]:
                made = Part(int(state.index[row]), int(state.made[row]), 0.0)
                parts.setdefault(job, []).append(made)
        for job in dict.fromkeys([*self.queue, *(job for job in state.job if job)]):
            job.over, job.hidden, job.kept = True, None, None
            ended = searches.charged(job) or tuple(parts.get(job, ()))
            self.post(job, Failed(error, ended))
        self.queue = []
        self.state = State(state.slots)
        self.rows = Rows(self.model, self.memory_cap)
        self.tree = PrefixTree(self.model.kv_bytes)

    def forget(self) -> None:
        """Empty the prefix tree; running rows hold their own keys and values."""
        self.tree = PrefixTree(self.model.kv_bytes)

    def step(self) -> None:
        """Admit, feed one token to every row, sample, and settle what ended."""
        while self._admit():
            pass
        if self.state.live:
            self._decode()
        elif not self.queue:
            self.rows.rest()
        self.tree.shrink(self.memory_cap - self.rows.bytes)

    # --- admission -----------------------------------------------------------------------------

    def _admit(self) -> bool:
        """One wave of requests; a prompt that shares much with one of this wave waits for the
        next, where it finds the shared part computed. Returns whether another wave may help.
        """
        state, fresh, late = self.state, list[Job](), list[Job]()
        free, need, again = state.free - self._promised(), self._needed(), False
        for job in list(self.queue):
            if free <= 0:
                break
            if job.hidden is None and job.live:
                continue  # its prompt's last token is fed in the next decode step
            want = self._want(job)
            least = want if job.searches else 1
            room = self._room(max(need, job.need)) - (state.slots - free)
            if min(room, free) < least:
                if free == state.slots:
                    self.fail(job, self._too_big(job))
                    continue
                break
            if job.hidden is None and self._shares(job, fresh):
                again = True
                continue
            job.grant = min(want, free, room)
            (fresh if job.hidden is None else late).append(job)
            need, free = max(need, job.need), free - job.grant
        for job in late:
            self._spawn_late(job)
        if fresh:
            self._prefill(fresh)
        return again and bool(fresh)

    def _want(self, job: Job) -> int:
        decoding = job.request.decoding
        return len(job.waiting) if isinstance(decoding, Sampling) else decoding.width

    def _promised(self) -> int:
        """Slots that leading rows will take for their forks, and searches for their lines."""
        leads = np.flatnonzero(self.state.leads[: self.state.live])
        jobs = [job for row in leads if (job := self.state.job[row])]
        return sum(job.grant - 1 for job in jobs) + searches.promised(self.state)

    def _needed(self) -> int:
        live = self.state.live
        return int(self.state.need[:live].max()) if live else 0

    def _room(self, length: int) -> int:
        """How many rows of ``length`` tokens the memory cap allows."""
        return self.memory_cap // (Rows.padded(length) * self.model.kv_bytes)

    def _too_big(self, job: Job) -> EngineError:
        rows = self._want(job) if job.searches else 1
        bytes_needed = rows * Rows.padded(job.need) * self.model.kv_bytes
        return EngineError(
            f"a request of {len(job.ids)} prompt and up to {job.limit} new tokens needs "
            f"{bytes_needed} bytes for keys and values; memory_cap is {self.memory_cap}: "
            "raise it or lower max_tokens"
        )

    def _shares(self, job: Job, wave: list[Job]) -> bool:
        if self.one_row or not wave:
            return False
        known = min(self.tree.match(job.ids).length, len(job.ids) - 1)
        end = min(known + SHARED, len(job.ids))
        return any(end > known and other.ids[:end] == job.ids[:end] for other in wave)

    def _prefill(self, jobs: list[Job]) -> None:
        """Compute new prompts up to their last token, then fork and sample their first tokens.

        A prompt known but for its last token needs no pass of its own: its row leads, that is, it
        feeds this token in the next decode step together with all others.
        """
        state = self.state
        suffix = {job: len(job.ids) - self._known(job) for job in jobs}
        self.reserve(state.live + len(jobs), max(len(job.ids) + 1 for job in jobs))
        todo: list[int] = []
        for job in sorted(jobs, key=lambda each: suffix[each]):
            cached = len(job.ids) - suffix[job]
            row = state.add(job, cached, job.ids[-1], leads=True)
            self.load(row, job.ids, cached)
            self.post(job, Prompted(len(job.ids), cached))
            if suffix[job] > 1:
                todo.append(row)
        if not todo:
            return
        hidden = torch.cat([self._prefill_group(group) for group in self._groups(todo)])
        self._lead(todo, hidden)

    def reserve(self, rows: int, length: int) -> None:
        """Room for ``rows`` rows, ``length`` tokens and one more of every running row."""
        live = self.state.live
        longest = int(self.state.length[:live].max()) + 1 if live else 1
        self.rows.reserve(max(rows, live), max(length, longest), live)

    def _known(self, job: Job) -> int:
        """Cached tokens of a prompt; the last one is always computed, for its logits."""
        if self.one_row:
            return 0
        return min(self.tree.match(job.ids).length, len(job.ids) - 1)

    def load(self, row: int, ids: Ids, cached: int) -> None:
        at = 0
        for node in self.tree.match(ids[:cached]).nodes if cached else ():
            self.rows.load(row, at, node.keys, node.values)
            at += len(node.ids)

    def _groups(self, rows: list[int]) -> list[list[int]]:
        """Neighbouring rows that are prefilled as one padded batch: little padding, bounded size,
        and no padded position beyond the context.
        """
        state, groups = self.state, list[list[int]]()
        for row in rows:
            ids = self._ids(row)
            size = len(ids) - int(state.length[row])
            if groups and not self.one_row:
                group = groups[-1]
                small = min(len(self._ids(r)) - int(state.length[r]) for r in group)
                starts = max(int(state.length[r]) for r in [*group, row])
                if (
                    size <= small * 1.25 + 8
                    and size * (len(group) + 1) <= PREFILL_TOKENS
                    and starts + size <= self.model.config.context
                ):
                    group.append(row)
                    continue
            groups.append([row])
        return groups

    def _ids(self, row: int) -> Ids:
        return self.state.owner(row).ids

    def _prefill_group(self, group: list[int]) -> Tensor:
        """Hidden states [rows, hidden] at the last prompt token of neighbouring rows."""
        state = self.state
        starts = [int(state.length[row]) for row in group]
        hidden = self.encode(group[0], [self._ids(row) for row in group], starts)
        last = [len(self._ids(row)) - start - 1 for row, start in zip(group, starts, strict=True)]
        state.length[group] = [len(self._ids(row)) for row in group]
        for row in group:
            if (where := state.owner(row).where) is not None:
                state.where[row] = where[-1]
        picked = hidden[torch.arange(len(group)), torch.tensor(last)]
        return picked

    def room(self, first: int, texts: Sequence[Ids], starts: Sequence[int]) -> tuple[int, int]:
        """Room for ``encode``: the padded size of what is new, and the end of the longest row.

        Whoever loads the rows' beginnings behind the running rows asks for it before: growing keeps
        the running rows alone.
        """
        size = max(len(t) - s for t, s in zip(texts, starts, strict=True))
        end = max(starts) + size
        self.reserve(first + len(texts), end)
        return size, end

    def encode(self, first: int, texts: Sequence[Ids], starts: Sequence[int]) -> Tensor:
        """Hidden states [rows, q, hidden] of ``texts`` from ``starts`` on, padded to the longest;
        their keys and values go to the rows ``first`` and following, in chunks of bounded size.
        """
        device, count = self.model.device, len(texts)
        size, end = self.room(first, texts, starts)
        ids = np.zeros((count, size), np.int64)
        places = None
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            ids[row, : len(text) - start] = text[start:]
        if self.model.config.marks is not None:
            places = self._places(texts, starts, size)
        offsets = np.asarray(starts, np.int64)[:, None]
        cells = self.model.config.heads * end * count
        chunk = max(16, min(size, SCORE_CELLS // cells))
        keys = self.rows.keys[:, first : first + count]
        values = self.rows.values[:, first : first + count]
        parts = []
        for at in range(0, size, chunk):
            span = np.arange(at, min(at + chunk, size), dtype=np.int64)
            parts.append(
                self.model.forward(
                    torch.from_numpy(ids[:, span]).to(device),
                    torch.from_numpy(offsets + span).to(device),
                    keys,
                    values,
                    min(max(starts) + int(span[-1]) + 1, end),
                    None if places is None else places[:, span],
                )
            )
        return torch.cat(parts, dim=1)

    def _places(self, texts: Sequence[Ids], starts: Sequence[int], size: int) -> Tensor:
        """Places [texts, size, 3] of ``texts`` from ``starts`` on."""
        walked = [self.model.walk(torch.tensor([text], device=self.model.device)) for text in texts]
        return torch.stack(
            [
                F.pad(places[0, start:], (0, 0, 0, size - len(text) + start))
                for text, start, places in zip(texts, starts, walked, strict=True)
                if places is not None
            ]
        )

    # --- forks ---------------------------------------------------------------------------------

    def _lead(self, leaders: list[int], hidden: Tensor) -> None:
        """Prompts of the leading rows are computed: keep them, fork, sample first tokens.

        Args:
            hidden: [leaders, hidden] at the prompts' last tokens.
        """
        jobs = [self.state.owner(row) for row in leaders]
        for row, job, state in zip(leaders, jobs, hidden, strict=True):
            job.hidden = state.clone()
            self._remember(row, job.ids, None)
        chosen: list[int] = []
        source: list[int] = []
        for number, (row, job) in enumerate(zip(leaders, jobs, strict=True)):
            if not job.searches:
                started = self._fork(job, row)
                chosen.extend(started)
                source.extend([number] * len(started))
        if chosen:
            self._sample(np.asarray(chosen, np.int64), hidden[source])
        # A sample that ended has moved rows: a search looks its own up when its turn comes.
        for job in jobs:
            if job.searches:
                searches.start(self, job)

    def _fork(self, job: Job, row: int) -> list[int]:
        """Rows for as many waiting samples as were granted, ``row`` being the first of them."""
        state, length = self.state, len(job.ids)
        state.begin(row, job.waiting.popleft())
        more = min(len(job.waiting), job.grant - 1)
        self.reserve(state.live + more, length + 1)
        started = [row]
        for _ in range(more):
            fork = state.add(job, length, job.ids[-1])
            state.begin(fork, job.waiting.popleft())
            started.append(fork)
        self.rows.copy(row, started[1:], length)
        if job.waiting:
            job.kept = job.kept or self.rows.read(row, 0, length)
        else:
            self.unqueue(job)
        return started

    def _spawn_late(self, job: Job) -> None:
        """Start samples that found no slot when their prompt was computed."""
        if job.hidden is None or job.kept is None:
            raise ValueError("a late sample needs its prompt's computed state")
        self.reserve(self.state.live + 1, len(job.ids) + 1)
        row = self.state.add(job, len(job.ids), job.ids[-1])
        self.rows.load(row, 0, *job.kept)
        started = self._fork(job, row)
        self._sample(np.asarray(started, np.int64), job.hidden.expand(len(started), -1))

    def unqueue(self, job: Job) -> None:
        job.kept = None
        at = bisect.bisect_left(self.queue, job.order, key=lambda each: each.order)
        if at < len(self.queue) and self.queue[at] is job:
            del self.queue[at]

    # --- decoding ------------------------------------------------------------------------------

    def _decode(self) -> None:
        state, live = self.state, self.state.live
        self.reserve(live, 1)
        if not self.one_row:
            self.rows.fit(int(state.length[:live].max()) + 1, live)
        hidden = self._feed(live)
        state.length[:live] += 1
        plain = np.flatnonzero(~(state.leads[:live] | state.beams[:live]))
        leaders = np.flatnonzero(state.leads[:live]).tolist()
        # Rows move when others end, so what still refers to rows by number goes first.
        picked = hidden[leaders] if leaders else None
        advanced = [(job, hidden[searches.lines(state, job)]) for job in searches.running(state)]
        waiting = [(job, row) for row in leaders if (job := state.job[row])]
        if plain.size:
            self._sample(plain, hidden if plain.size == live else hidden[plain])
        for job, states in advanced:
            searches.advance(self, job, states)
        if picked is not None:
            place = {state.job[row]: row for row in range(state.live) if state.leads[row]}
            self._lead([place[job] for job, _ in waiting], picked)

    def _feed(self, live: int) -> Tensor:
        """Hidden states [live, hidden] after every row's next token."""
        state, rows, device = self.state, self.rows, self.model.device
        tokens = torch.from_numpy(state.token[:live, None]).to(device)
        places = torch.from_numpy(state.length[:live, None]).to(device)
        before = torch.from_numpy(state.where[:live]).to(device)
        walked = self.model.walk(tokens, before)
        if walked is not None:
            state.where[:live] = walked[:, 0].cpu().numpy()
        spans = [(0, live)] if not self.one_row else [(row, row + 1) for row in range(live)]
        parts = []
        for low, high in spans:
            longest = int(state.length[low:high].max()) + 1
            # Alone, a row must not see how long others are; together, whole rows read fastest.
            length = Rows.padded(longest) if self.one_row else rows.length
            parts.append(
                self.model.forward(
                    tokens[low:high],
                    places[low:high],
                    rows.keys[:, low:high],
                    rows.values[:, low:high],
                    length,
                    None if walked is None else walked[low:high],
                )
            )
        return torch.cat(parts)[:, 0]

    def _sample(self, rows: NDArray[np.int64], hidden: Tensor) -> None:
        """Draw one token for each of some rows from their hidden states, and settle them."""
        spans = [slice(0, len(rows))]
        if self.one_row:
            spans = [slice(place, place + 1) for place in range(len(rows))]
        drawn = [
            sample(self.model.logits(hidden[span]), self.state.settings(rows[span]))
            for span in spans
        ]
        tokens = torch.cat([each for each, _ in drawn]).cpu().numpy()
        logprobs = torch.cat([each for _, each in drawn]).cpu().numpy()
        self.state.record(rows, tokens, logprobs)
        self._settle(rows, tokens, logprobs)

    def _settle(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]
    ) -> None:
        """Find the rows where something happened; only they cost a loop."""
        state = self.state
        happened = (
            self.is_end[tokens]
            | (state.made[rows] >= state.limit[rows])
            | self._tables[state.table[rows], tokens]
            | state.deltas[rows]
            | np.isnan(logprobs)
        )
        ended: list[int] = []
        failed: dict[Job, None] = {}
        for at in np.flatnonzero(happened):
            row = int(rows[at])
            job = state.owner(row)
            if np.isnan(logprobs[at]):
                failed[job] = None
                continue
            if self._ends(job, row, int(tokens[at])):
                ended.append(row)
            elif state.deltas[row]:
                index = int(state.index[row])
                self.post(job, Made(index, int(tokens[at]), float(logprobs[at])))
        # Highest first: releasing a row moves the last one, which must not be on the list any more.
        for row in sorted(ended, reverse=True):
            self.release(row)
        for job in failed:
            self.fail(job, EngineError("the model's output is not a number: its weights are bad"))

    def _ends(self, job: Job, row: int, token: int) -> bool:
        """Whether the newest token ends the sample; if so its event is posted."""
        state, until = self.state, job.request.until
        if self.is_end[token]:
            self._finish(job, row, StopReason.END)
            return True
        if job.watch is not None and job.watch.table[token]:
            ids = state.tokens[row, : state.made[row]]
            look = job.watch.look(ids, state.place[row], job.ids[-4:])
            state.place[row] = look.place
            if look.stop is not None:
                self._finish(job, row, StopReason.STOP, look.stop, look.cut)
                return True
            if until.steps is not None and look.place.steps >= until.steps:
                self._finish(job, row, StopReason.STEP)
                return True
        if state.made[row] >= state.limit[row]:
            self._finish(job, row, job.at_limit)
            return True
        return False

    def _finish(
        self, job: Job, row: int, stop: StopReason, stop_string: str | None = None, cut: int = 0
    ) -> None:
        state, made = self.state, int(self.state.made[row])
        ids = tuple(state.tokens[row, :made].tolist())
        logprobs = state.logprobs[row, :made]
        if not stop.finished:
            # A branch that may be extended: keep what was computed for it.
            self._remember(row, job.ids + ids[:-1], logprobs[:-1])
        seconds = time.perf_counter() - float(state.started[row])
        done = Done(
            int(state.index[row]),
            ids,
            tuple(logprobs.tolist()),
            stop,
            seconds,
            made,
            stop_string,
            cut,
        )
        self.post(job, done)

    def _remember(self, row: int, ids: Ids, logprobs: NDArray[np.float32] | None) -> None:
        """Hang a row's tokens into the tree, as far as they are new there."""
        if self.one_row:
            return
        match = self.tree.match(ids)
        if match.length == len(ids):
            return
        keys, values = self.rows.read(row, match.length, len(ids))
        known = np.full(len(ids), np.nan, np.float32)
        if logprobs is not None and len(logprobs):
            known[-len(logprobs) :] = logprobs
        self.tree.insert(match, ids[match.length :], keys, values, known[match.length :])

    def release(self, row: int, wipe: bool = False) -> None:
        """Free a row; the last one moves into its place, so that running rows are neighbours."""
        state = self.state
        job, last = state.job[row], state.live - 1
        if job is not None:
            job.live -= 1
            job.over = job.live == 0 and not job.waiting
        if wipe:
            self.rows.wipe(row)
        if row != last:
            self.rows.copy(last, [row], int(state.length[last]))
            state.move(last, row)
        state.drop_last()

    def _remove(self, job: Job, wipe: bool = False) -> tuple[Part, ...]:
        """Take a request out of queue and rows; what was made of the samples that were running."""
        state, now, parts = self.state, time.perf_counter(), list[Part]()
        self.unqueue(job)
        job.waiting.clear()
        for row in reversed(range(state.live)):
            if state.job[row] is not job:
                continue
            seconds = now - float(state.started[row])
            if job.search is None and not state.leads[row]:
                parts.append(Part(int(state.index[row]), int(state.made[row]), seconds))
            self.release(row, wipe)
        job.over, job.hidden, job.kept = True, None, None
        return searches.charged(job) or tuple(reversed(parts))

    # --- bookkeeping ---------------------------------------------------------------------------

    def _table(self, watch: Watch) -> int:
        """The row of the watch tables for a watch; the tables grow by doubling."""
        number = self._watches.pop(watch, None)
        if number is None:
            number = self._free_table()
            if number >= len(self._tables):
                self._tables = np.concatenate([self._tables, np.zeros_like(self._tables)])
            self._tables[number] = watch.table
        self._watches[watch] = number  # the last asked for stands last
        return number

    def _free_table(self) -> int:
        """A new row of the watch tables; of many, the oldest that no request uses."""
        if len(self._watches) >= WATCHES_KEPT:
            used = {job.table for job in (*self.queue, *self.state.job) if job is not None}
            for watch, number in self._watches.items():
                if number not in used:
                    del self._watches[watch]
                    return number
        return len(self._watches) + 1

    def post(self, job: Job, event: Event) -> None:
        self.events.setdefault(job, []).append(event)
