"""The running rows' numbers, as arrays with one entry a row, so that a step has no row loop."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.engines.torch.jobs import Job
from mull.engines.torch.places import AXES
from mull.engines.torch.sampler import Settings
from mull.engines.torch.stop import Place
from mull.rng import derive
from mull.types import GREEDY, Sampling

FIRST_OUTPUT = 64


class State:
    """Rows 0 .. live-1 run. Row r's cache is row r of the slab; both move together."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.live = 0
        self.job: list[Job | None] = [None] * slots
        self.place: list[Place] = [Place()] * slots
        self.index = np.zeros(slots, np.int64)
        self.length = np.zeros(slots, np.int64)  # tokens whose keys and values are in the row
        self.token = np.zeros(slots, np.int64)  # the next one to be fed
        self.where = np.zeros((slots, AXES), np.int64)  # place of the last token in the row
        self.made = np.zeros(slots, np.int64)
        self.limit = np.zeros(slots, np.int64)
        self.need = np.zeros(slots, np.int64)
        self.table = np.zeros(slots, np.int64)
        self.leads = np.zeros(slots, np.bool_)  # feeds the prompt's last token, samples nothing yet
        self.beams = np.zeros(slots, np.bool_)
        self.deltas = np.zeros(slots, np.bool_)
        self.started = np.zeros(slots, np.float64)
        self.temperature = np.zeros(slots, np.float32)
        self.top_k = np.zeros(slots, np.int64)
        self.top_p = np.ones(slots, np.float64)
        self.min_p = np.zeros(slots, np.float64)
        self.key = np.zeros(slots, np.uint64)
        self.tokens = np.zeros((slots, FIRST_OUTPUT), np.int32)
        self.logprobs = np.zeros((slots, FIRST_OUTPUT), np.float32)

    @property
    def free(self) -> int:
        return self.slots - self.live

    def add(self, job: Job, length: int, token: int, *, leads: bool = False) -> int:
        """A new row at the end; the caller fills its cache."""
        row = self.live
        self.job[row], self.place[row] = job, Place()
        self.length[row], self.token[row], self.made[row] = length, token, 0
        self.limit[row], self.need[row], self.table[row] = job.limit, job.need, job.table
        self.leads[row], self.beams[row] = leads, job.search is not None
        self.deltas[row] = job.request.deltas
        self.started[row] = time.perf_counter()
        if job.where is not None:  # a search's later lines stand where their parents stood
            self.where[row] = job.where[min(length, len(job.ids))]
        job.live += 1
        self.live += 1
        return row

    def owner(self, row: int) -> Job:
        """The job that a running row works for."""
        job = self.job[row]
        if job is None:
            raise IndexError(f"row {row} is free")
        return job

    def begin(self, row: int, index: int) -> None:
        """Make a row sample ``index`` of its job."""
        job = self.owner(row)
        decoding = job.request.decoding
        sampling = decoding if isinstance(decoding, Sampling) else GREEDY
        self.leads[row], self.index[row] = False, index
        self.temperature[row], self.top_k[row] = sampling.temperature, sampling.top_k
        self.top_p[row], self.min_p[row] = sampling.top_p, sampling.min_p
        self.key[row] = derive(job.request.seed, index)

    def settings(self, rows: NDArray[np.int64]) -> Settings:
        """The sampler's view of some rows."""
        return Settings(
            self.temperature[rows],
            self.top_k[rows],
            self.top_p[rows],
            self.min_p[rows],
            self.key[rows],
            self.made[rows].astype(np.uint64),
        )

    def record(
        self, rows: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]
    ) -> None:
        """Append one token to each of some rows."""
        made = self.made[rows]
        width = self.tokens.shape[1]
        if made.size and int(made.max()) >= width:
            more = ((0, 0), (0, width))
            self.tokens, self.logprobs = np.pad(self.tokens, more), np.pad(self.logprobs, more)
        self.tokens[rows, made] = tokens
        self.logprobs[rows, made] = logprobs
        self.made[rows] = made + 1
        self.token[rows] = tokens

    def move(self, source: int, target: int) -> None:
        """Row ``target`` becomes what row ``source`` is."""
        for array in self._arrays():
            array[target] = array[source]
        self.job[target], self.place[target] = self.job[source], self.place[source]

    def drop_last(self) -> None:
        self.live -= 1
        self.job[self.live] = None

    def _arrays(self) -> list[NDArray[Any]]:
        return [value for value in vars(self).values() if isinstance(value, np.ndarray)]
