"""A run's directory → the values that a report is made of. Reads records; computes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from mull.grades import GradeOutcome, Unanswered
from mull.report import data
from mull.runs.cells import Cell
from mull.runs.records import ProblemRecord, Records, Session
from mull.runs.result import GradedCandidate, ResultRecord
from mull.store.store import Waste
from mull.types import EngineInfo, Usage

INDEPENDENT = frozenset({"sample", "vote", "best-of-n"})
"""Strategies whose candidates are independent samples of one distribution."""

CHAINS = frozenset({"revise", "mixed", "self-refine", "speculative-rejection"})
"""Strategies whose tree is made of samples: no other path stands in for one that did not come."""

NO_SAMPLES = frozenset({"ScoreError", "NoVerdict", "Quorum"})
"""Failures of what was to be said of samples: the samples themselves came, or failed as well."""


class Runs:
    """The runs of some directories, open for one report.

    Problems are read from the store while the report is made, one at a time; ``close`` frees the
    files. Raises ``StoreError`` for a directory that holds no run.
    """

    def __init__(self, directories: Sequence[str | Path]) -> None:
        with ExitStack() as opened:
            records = [opened.enter_context(Records(path)) for path in directories]
            self.runs: tuple[data.Run, ...] = _named([_run(each) for each in records])
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Free the files."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _named(runs: Sequence[data.Run]) -> tuple[data.Run, ...]:
    """Runs of the same name are numbered, so that their rows can be told apart."""
    seen: dict[str, int] = {}
    named = []
    for run in runs:
        seen[run.name] = count = seen.get(run.name, 0) + 1
        named.append(run if count == 1 else replace(run, name=f"{run.name} ({count})"))
    return tuple(named)


def _run(records: Records) -> data.Run:
    config, before = records.config, records.damaged
    problems = list(records.problems())
    asked = (len(problems) + records.damaged - before) * len(records.cells)
    counts = {cell.id: records.done(cell) for cell in records.cells}
    engines, sessions, waste = records.engines(), records.sessions(), _waste(records)
    damaged = records.damaged - before  # so far every row was read once
    done = sum(counts.values())
    facts = {
        **_facts(engines),
        "problems": f"{len(problems):,}",
        "seeds": ", ".join(str(seed) for seed in config.get("seeds", [])),
        "sampling": _sampling(config),
    }
    if done < asked:
        facts["unfinished"] = f"{done:,} of {asked:,} results so far"
    if len(sessions) > 1:
        facts["sessions"] = _sessions(sessions)
    if damaged:
        facts["damaged"] = (
            f"{damaged:,} damaged records are left out, a problem with its results; run it again"
        )
    return data.Run(
        name=records.name,
        task=str(config["task"]),
        model=str(config["model"]),
        config=json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False),
        config_hash=records.config_hash,
        cost_model=str(config["cost_model"]),
        cells=tuple(_cell(records, cell, problems) for cell in records.cells if counts[cell.id]),
        ledger=_ledger(records),
        waste=waste,
        facts=facts,
    )


def _facts(engines: Sequence[EngineInfo]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for i, info in enumerate(engines):
        ending = "" if i == 0 else f" {i + 1}"
        size = f"{info.parameters / 1e6:.3g} M parameters" if info.parameters else ""
        parts = [info.kind, info.dtype, size]
        facts[f"engine{ending}"] = ", ".join(part for part in parts if part)
        if info.revision:
            facts[f"revision{ending}"] = info.revision[:16]
    return facts


def _sessions(sessions: Sequence[Session]) -> str:
    """How many there were, and how many before the last were killed: nobody wrote down what they
    had in flight.
    """
    killed = sum(session.ended is None for session in sessions[:-1])
    unknown = f", {killed:,} without an end: what was in flight then is in no bill"
    return f"{len(sessions):,}{unknown if killed else ''}"


def _sampling(config: Mapping[str, object]) -> str:
    temperatures = config.get("temperatures")
    listed = temperatures if isinstance(temperatures, list) else [temperatures]
    parts = ["T " + ", ".join(f"{value:g}" for value in listed if isinstance(value, int | float))]
    for name, off in (("top_k", 0), ("top_p", 1), ("min_p", 0)):
        if config.get(name, off) != off:
            parts.append(f"{name} {config[name]}")
    return ", ".join(parts)


def _cell(records: Records, cell: Cell, problems: Sequence[ProblemRecord]) -> data.Cell:
    parameters: dict[str, str | int | float] = {}
    if cell.temperature is not None:
        parameters["temperature"] = cell.temperature
    return data.Cell(
        strategy=cell.strategy,
        budget=cell.budget_text,
        seed=cell.seed,
        problems=_Results(records, cell, problems),
        parameters=parameters,
        independent=cell.strategy.partition("(")[0] in INDEPENDENT,
    )


class _Results:
    """The problems of a cell, read anew at each iteration; those whose record is damaged are not
    among them.
    """

    def __init__(self, records: Records, cell: Cell, problems: Sequence[ProblemRecord]) -> None:
        self.records = records
        self.cell = cell
        self.problems = {problem.position: problem for problem in problems}

    def __iter__(self) -> Iterator[data.ProblemResult]:
        for result in self.records.results(self.cell):
            problem = self.problems.get(result.position)
            if problem is not None:
                yield _problem(problem, result, self.cell.strategy)


def _problem(problem: ProblemRecord, result: ResultRecord, strategy: str) -> data.ProblemResult:
    samples = [_sample(candidate) for candidate in result.candidates]
    errors = Counter(failure.partition(":")[0] for failure in result.failures)
    # A sample that did not come counts as one without an answer: it was asked for. Paths of a
    # search over steps that were asked for and are no candidates were pruned.
    counts = not result.tree or strategy.partition("(")[0] in CHAINS
    lost = sum(n for name, n in errors.items() if counts and name not in NO_SAMPLES)
    missing = min(lost, max(result.samples - len(samples), 0))
    samples += [_failed(i, problem.answer is not None) for i in range(missing)]
    return data.ProblemResult(
        id=problem.id,
        prompt=problem.text,
        gold=problem.answer,
        level=problem.level,
        samples=tuple(samples),
        answer=result.answer,
        correct=result.correct,
        confidence=result.confidence,
        failure=result.failures[0] if result.failures else None,
        failures=dict(errors),
        asked=result.samples,
        paid=result.total,
        tree=result.tree,
        left_out=result.left_out,
        chosen=None if result.index is None else result.candidates[result.index].key,
        spent=tuple(
            data.LedgerRow(row.purpose, row.model, row.usage, row.completions)
            for row in result.spent
        )
        if result.tree
        else (),
        meta=problem.meta,
        outcome=result.outcome,
    )


def _sample(candidate: GradedCandidate) -> data.Sample:
    return data.Sample(
        key=candidate.key,
        text=candidate.text,
        answer=candidate.answer,
        group=candidate.group,
        correct=candidate.correct,
        outcome=candidate.outcome,
        unanswered=candidate.unanswered,
        stop=candidate.stop,
        usage=candidate.usage,
        scores=candidate.scores,
        tokens=candidate.tokens,
    )


def _failed(number: int, graded: bool) -> data.Sample:
    return data.Sample(
        key=(-1, number),
        text="",
        answer=None,
        group=-1,
        correct=False if graded else None,
        outcome=GradeOutcome.UNANSWERED.value if graded else GradeOutcome.UNGRADED.value,
        unanswered=Unanswered.FAILED.value,
        stop=Unanswered.FAILED.value,
    )


def _ledger(records: Records) -> tuple[data.LedgerRow, ...]:
    """Sums over the problems of each cell, which tells its seed where there are several."""
    seeds = len({cell.seed for cell in records.cells}) > 1
    sums: dict[tuple[str, str, str], tuple[Usage, int]] = {}
    for cell in records.cells:
        label = _cell(records, cell, ()).label
        name = f"{label}{data.BETWEEN}seed {cell.seed}" if seeds else label
        for result in records.results(cell):
            for row in result.spent:
                key = (name, row.purpose, row.model)
                usage, count = sums.get(key, (Usage(), 0))
                sums[key] = (usage + row.usage, count + row.completions)
    return tuple(
        data.LedgerRow(purpose, model, usage, completions, cell)
        for (cell, purpose, model), (usage, completions) in sums.items()
    )


def _waste(records: Records) -> tuple[Waste, ...]:
    """Sums over the sessions."""
    sums: dict[tuple[str, str, str], tuple[Usage, int]] = {}
    for row in records.waste():
        key = (row.reason, row.purpose, row.model)
        usage, count = sums.get(key, (Usage(), 0))
        sums[key] = (usage + row.usage, count + row.count)
    return tuple(Waste(*key, usage, count) for key, (usage, count) in sorted(sums.items()))
