"""Searches over tokens in the batch: a job whose rows are the lines of one search.

A line that goes on stays in its row; its other children fork into rows that dead lines leave, then
into new ones. Slots are promised for as many lines as a search may still hold, so that it never
waits in the middle, and none is fed that holds no line.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mull.engines.torch.beam import Beam
from mull.engines.torch.dfs import Dfs
from mull.engines.torch.jobs import Failed, Job, Part
from mull.engines.torch.state import State
from mull.errors import EngineError
from mull.types import Sampling, TokenBeam

if TYPE_CHECKING:
    from mull.engines.torch.batch import Batch


def start(batch: Batch, job: Job) -> None:
    """Turn a job's one row, whose prompt is computed, into a search's first line."""
    decoding = job.request.decoding
    if isinstance(decoding, Sampling) or job.hidden is None:
        raise TypeError("a search starts from a computed prompt of a request that searches")
    state, (row,) = batch.state, lines(batch.state, job)
    batch.unqueue(job)
    job.waiting.clear()
    if isinstance(decoding, TokenBeam):
        job.search = Beam(job, decoding, batch.is_end)
    else:
        job.search = Dfs(job, decoding, batch.is_end)
    job.search.began = float(state.started[row])
    state.leads[row], state.beams[row], state.index[row] = False, True, 0
    advance(batch, job, job.hidden[None])


def running(state: State) -> list[Job]:
    """The jobs that search, in the order of their first rows."""
    rows = np.flatnonzero(state.beams[: state.live])
    return list(dict.fromkeys(job for row in rows if (job := state.job[row])))


def promised(state: State) -> int:
    """Slots that running searches may still take."""
    return sum(job.search.most - job.live for job in running(state) if job.search)


def lines(state: State, job: Job) -> list[int]:
    """Rows of a search's lines, in their order."""
    rows = [row for row in range(state.live) if state.job[row] is job]
    return sorted(rows, key=lambda row: int(state.index[row]))


def charged(job: Job, found: int = 0) -> tuple[Part, ...]:
    """What a search has made, but for its first samples that were ``found``; nothing for other
    jobs.
    """
    if job.search is None:
        return ()
    seconds, first = time.perf_counter() - job.search.began, job.request.first
    made = enumerate(job.search.made.by_sample())
    return tuple(Part(first + i, tokens, seconds, lines) for i, (tokens, lines) in made)[found:]


def advance(batch: Batch, job: Job, hidden: Tensor) -> None:
    """One step of a search: extend every line by a token, drop, fork.

    Args:
        hidden: [lines, hidden] after each line's newest token.
    """
    search = job.search
    if search is None:
        raise TypeError("only a search's job advances")
    logprobs = torch.log_softmax(batch.model.logits(hidden), dim=-1)
    if bool(torch.isnan(logprobs).any()):
        batch.fail(job, EngineError("the model's output is not a number: its weights are bad"))
        return
    parents, tokens = search.advance(logprobs)
    if search.over:
        _finish(batch, job)
    else:
        _fork(batch, job, parents, tokens)


def _fork(batch: Batch, job: Job, parents: list[int], tokens: list[int]) -> None:
    """Rows for the new lines: each from its parent's, in the order given."""
    state, old = batch.state, lines(batch.state, job)
    length = int(state.length[old[0]])
    heirs = {parent: line for line, parent in reversed(list(enumerate(parents)))}
    dead = [row for line, row in enumerate(old) if line not in heirs]
    births = [line for line, parent in enumerate(parents) if heirs[parent] != line]
    batch.reserve(state.live + max(len(births) - len(dead), 0), length + 1)
    place = {line: old[parent] for parent, line in heirs.items()}
    for line in births:
        place[line] = dead.pop() if dead else state.add(job, length, tokens[line])
        batch.rows.copy(old[parents[line]], [place[line]], length)
        state.where[place[line]] = state.where[old[parents[line]]]
    for line, row in place.items():
        state.index[row], state.token[row] = line, tokens[line]
    for row in sorted(dead, reverse=True):
        batch.release(row)


def _finish(batch: Batch, job: Job) -> None:
    """Post what a search found, charge what it made, free its rows."""
    search = job.search
    if search is None:
        raise TypeError("only a search's job ends as one")
    seconds = time.perf_counter() - search.began
    results = search.results(seconds)
    for done in results:
        batch.post(job, done)
    if missing := charged(job, len(results)):
        text = f"the token beam found {len(search.finished)} hypotheses in all: lower n"
        batch.post(job, Failed(EngineError(text), missing))
    for row in sorted(lines(batch.state, job), reverse=True):
        batch.release(row)
    job.over = True
