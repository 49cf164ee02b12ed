"""A run's chains of revisions → its attempts, graded, each with those that it had in context."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mull.catalog import load_strategy
from mull.errors import InputError
from mull.labels.samples import Recorded, Sample, config_of, recorded_start
from mull.runs.cells import Cell
from mull.runs.config import Config
from mull.runs.prepare import problem_from_json
from mull.runs.records import Records
from mull.runs.result import GradedCandidate, ResultRecord
from mull.store.keys import request_key
from mull.store.reader import Reader
from mull.strategies.base import Generate
from mull.strategies.drive import request_of
from mull.strategies.needs import POLICY
from mull.strategies.revise import Mixed, Revise
from mull.types import Attempt, Branch, Completion, EngineInfo, Problem, StopReason, Usage

Turns = tuple[Sample, ...]
"""The answered attempts of one chain, oldest first; an attempt without an answer is shown to none
and is not among them."""


def read_chains(recorded: Recorded) -> list[tuple[Turns, ...]]:
    """The chains of each problem that has some, problems in order, each chain once.

    Those of all ``revise`` and ``mixed`` cells count. Raises ``InputError`` where there is none.
    """
    with Records(recorded.directory) as records, Reader(recorded.directory) as reader:
        problems = [problem_from_json(row) for row in records.raw_problems()]
        of = {problem.id: problem for problem in problems}
        found: dict[str, list[Turns]] = {problem.id: [] for problem in problems}
        config, engines = config_of(records), reader.engines()
        for cell in records.cells:
            strategy = load_strategy(cell.strategy)
            if isinstance(strategy, Revise | Mixed):
                read = _Cell(recorded, config, cell, strategy, reader, engines)
                for result in records.results(cell):
                    if result.problem in of:  # else its problem's record is damaged
                        found[result.problem] += read.chains(of[result.problem], result)
    groups = [_longest(chains) for chains in found.values() if chains]
    if not groups:
        raise InputError(
            f"{recorded.directory} holds no chains of revisions: run a config with the strategy "
            "revise first"
        )
    return groups


def _longest(chains: list[Turns]) -> tuple[Turns, ...]:
    """The chains that begin no other: a cell of a smaller budget has the beginnings of a larger."""
    kept: dict[tuple[str, ...], Turns] = {}
    begun: set[tuple[str, ...]] = set()
    for chain in sorted(chains, key=len, reverse=True):
        texts = tuple(sample.text for sample in chain)
        if texts not in begun:
            kept[texts] = chain
            begun.update(texts[:end] for end in range(1, len(texts) + 1))
    return tuple(kept.values())


@dataclass(frozen=True)
class _Cell:
    """One cell of a strategy that revises, with what its requests are found by."""

    recorded: Recorded
    config: Config
    cell: Cell
    strategy: Revise | Mixed
    reader: Reader
    engines: list[EngineInfo]

    def chains(self, problem: Problem, result: ResultRecord) -> Iterator[Turns]:
        """The chains of one problem; each begins with a child of the root."""
        answered = {c.key: c for c in result.candidates if c.answer is not None}
        chains: dict[int, list[Sample]] = {}
        for at, key in enumerate(sorted(answered, key=lambda key: (len(key), key))):
            # A revision's key is that of the attempt before it, -1, and its own child index.
            before = [answered[key[:end]] for end, index in enumerate(key) if index == -1]
            history = tuple(Attempt(c.text) for c in before[-self.strategy.history :])
            made = self._completion(problem, answered[key], history)
            sample = self.recorded.graded(problem, at, made, history)
            chains.setdefault(key[0], []).append(sample)
        return map(tuple, chains.values())

    def _completion(
        self, problem: Problem, candidate: GradedCandidate, history: tuple[Attempt, ...]
    ) -> Completion:
        """The attempt with its exact tokens, if the store has them, else its text."""
        *parent, index = candidate.key
        head = Branch(problem, problem.prompt, tuple(parent), history)
        opening = not history and self.strategy.first == "policy"
        start = recorded_start(problem, self.recorded.task, self.config, self.cell.temperature)
        role = POLICY if opening else self.strategy.reviser
        asked = Generate(0, head, start.limit, engine=role, decoding=start.sampling)
        for info in self.engines:
            key = request_key(request_of(asked, info, self.cell.seed), info)
            made = self.reader.samples(key, range(index, index + 1)).get(index)
            if made is not None and made.text == candidate.text:
                return made
        return Completion(index, candidate.text, StopReason(candidate.stop), Usage())
