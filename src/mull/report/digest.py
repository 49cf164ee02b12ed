"""A cell's problems become arrays for the numbers and entries for the browser, one at a time.

Texts are kept only as far as the browser will show them, so that a cell of 2,000 problems of 64
samples needs little memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mull.metrics import Pool
from mull.report.browser import Entry, TextBudget
from mull.report.data import Cell, ProblemResult, Sample

Floats = NDArray[np.float64]

UNITS = ("samples", "tokens", "flops", "seconds")
"""What accuracy is plotted against: per problem; tokens are computed ones (new prompt, generated);
seconds are those that a slot was held."""

COUNTED = ("reason", "outcome", "undecided", "undecided sample", "stop", "error", "erring")

OWN = frozenset({"logprob", "mean_logprob"})
"""Scores that a policy gives its own samples: no verifier's."""


@dataclass(frozen=True, slots=True)
class CellDigest:
    """Arrays over the problems of a cell, shape [problems] unless said otherwise.

    ``graded`` marks problems with a gold answer and a verdict on the strategy's own; a problem that
    failed is graded, and wrong. ``undecided`` counts by outcome the answers without a verdict to
    problems with a gold answer, ``undecided_samples`` the samples.
    ``fixed`` and ``marginal`` [problems, units] are the cost of the prompt and of one more sample:
    k samples cost fixed + k·marginal, which for k = n is exactly what was charged.
    ``total`` [problems, units] is what each problem cost in all, judges and verifiers included.
    ``errors`` counts failures by type, and ``erring`` the problems that have some of a type.
    ``pools`` is empty where the cell's samples are not independent and equal in number.
    ``scored`` has, by name of a verifier's score, the graded problems that have some: each by
    its position, with the scores as the pool's weights.
    """

    label: str
    strategy: str
    budget: str
    seed: int
    parameters: Mapping[str, str | int | float]
    ids: tuple[str, ...]
    levels: tuple[int | str | None, ...]
    pools: tuple[Pool, ...]
    scored: Mapping[str, tuple[tuple[int, Pool], ...]]
    n: int
    graded: NDArray[np.bool_]
    selected: Floats
    single: Floats
    covered: Floats
    unanswered: Floats
    fixed: Floats
    marginal: Floats
    total: Floats
    samples: int
    reasons: Mapping[str, int]
    outcomes: Mapping[str, int]
    undecided: Mapping[str, int]
    undecided_samples: Mapping[str, int]
    stops: Mapping[str, int]
    errors: Mapping[str, int]
    erring: Mapping[str, int]
    failures: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]

    def cost(self, k: int) -> Floats:
        """Mean cost of a problem at k samples, shape [units]."""
        return np.asarray((self.fixed + k * self.marginal).mean(axis=0))


def digest(cell: Cell, texts: TextBudget) -> CellDigest:
    """Read a cell's problems once."""
    rows = [_problem(problem, texts) for problem in cell.problems]
    sizes = {row.n for row in rows if row.n}
    n = max(sizes, default=0)
    independent = cell.independent and len(sizes) == 1 and n > 0
    count: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    for row in rows:
        for name, counter in count.items():
            counter.update(row.counts[name])
    return CellDigest(
        label=cell.label,
        strategy=cell.strategy,
        budget=cell.budget,
        seed=cell.seed,
        parameters=dict(cell.parameters),
        ids=tuple(row.id for row in rows),
        levels=tuple(row.level for row in rows),
        pools=tuple(_filled(row.pool, n) for row in rows) if independent else (),
        scored=_by_score(rows),
        n=n,
        graded=np.array([row.graded for row in rows], dtype=np.bool_),
        selected=np.array([row.selected for row in rows], dtype=np.float64),
        single=np.array([row.pool.correct.mean() if row.n else 0.0 for row in rows]),
        covered=np.array([float(row.pool.correct.any()) for row in rows]),
        unanswered=np.array([(row.pool.groups < 0).mean() if row.n else 1.0 for row in rows]),
        fixed=np.array([row.fixed for row in rows]).reshape(-1, len(UNITS)),
        marginal=np.array([row.marginal for row in rows]).reshape(-1, len(UNITS)),
        total=np.array([row.total for row in rows]).reshape(-1, len(UNITS)),
        samples=sum(row.n for row in rows),
        reasons=dict(sorted(count["reason"].items())),
        outcomes=dict(sorted(count["outcome"].items())),
        undecided=dict(sorted(count["undecided"].items())),
        undecided_samples=dict(sorted(count["undecided sample"].items())),
        stops=dict(sorted(count["stop"].items())),
        errors=dict(sorted(count["error"].items())),
        erring=dict(sorted(count["erring"].items())),
        failures=tuple((row.id, row.failure) for row in rows if row.failure is not None),
        entries=tuple(row.entry for row in rows),
    )


def _by_score(rows: Sequence[_Row]) -> dict[str, tuple[tuple[int, Pool], ...]]:
    names = sorted({name for row in rows for name in row.scored})
    return {
        name: tuple((at, row.scored[name]) for at, row in enumerate(rows) if name in row.scored)
        for name in names
    }


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    level: int | str | None
    n: int
    pool: Pool
    scored: Mapping[str, Pool]
    graded: bool
    selected: float
    fixed: Floats
    marginal: Floats
    total: Floats
    failure: str | None
    counts: Mapping[str, Counter[str]]
    entry: Entry


def _problem(problem: ProblemResult, texts: TextBudget) -> _Row:
    samples = problem.samples
    fixed, marginal = _costs(samples)
    asked = problem.gold is not None
    graded = asked and problem.correct is not None
    unsure = [s.outcome for s in samples if asked and s.correct is None]
    pool = _pool(samples)
    return _Row(
        id=problem.id,
        level=problem.level,
        n=len(samples),
        pool=pool,
        scored=_scored(samples, pool) if graded else {},
        graded=graded,
        selected=float(problem.correct is True),
        fixed=fixed,
        marginal=marginal,
        total=_total(problem, fixed + marginal * len(samples)),
        failure=problem.failure,
        counts={
            "reason": Counter(s.unanswered for s in samples if s.unanswered is not None),
            "outcome": Counter(s.outcome for s in samples),
            "undecided": Counter([problem.outcome] if asked and not graded else []),
            "undecided sample": Counter(unsure),
            "stop": Counter(s.stop for s in samples),
            "error": Counter(problem.failures),
            "erring": Counter(problem.failures.keys()),
        },
        entry=texts.entry(problem),
    )


def _total(problem: ProblemResult, samples: Floats) -> Floats:
    """What a problem cost in all, [units]: its bill, where it is known, else its samples'."""
    paid = problem.paid
    if paid is None:
        return samples
    asked = samples[0] if problem.asked is None else problem.asked
    return np.array([asked, paid.tokens, paid.flops, paid.seconds], dtype=np.float64)


def _pool(samples: Sequence[Sample]) -> Pool:
    return Pool(
        groups=np.array([s.group for s in samples], dtype=np.int64),
        correct=np.array([s.correct is True for s in samples], dtype=np.bool_),
        mean_logprob=np.array(
            [s.scores.get("mean_logprob", np.nan) for s in samples], dtype=np.float64
        ),
    )


def _scored(samples: Sequence[Sample], pool: Pool) -> dict[str, Pool]:
    """The pool under each verifier's score that some sample has.

    Of a sample without a verdict no score counts: there is nothing to hold it against.
    """
    names = {name for sample in samples for name in sample.scores} - OWN
    return {
        name: replace(
            pool,
            weights=np.array(
                [np.nan if s.correct is None else s.scores.get(name, np.nan) for s in samples],
                dtype=np.float64,
            ),
        )
        for name in sorted(names)
    }


def _filled(pool: Pool, n: int) -> Pool:
    """A failed problem as n unanswered samples: it counts as wrong, and is not left out."""
    missing = n - pool.n
    if not missing:
        return pool
    likelihood = np.full(pool.n, np.nan) if pool.mean_logprob is None else pool.mean_logprob
    return Pool(
        np.r_[pool.groups, np.full(missing, -1)],
        np.r_[pool.correct, np.zeros(missing, dtype=np.bool_)],
        np.r_[likelihood, np.full(missing, np.nan)],
    )


def _costs(samples: Sequence[Sample]) -> tuple[Floats, Floats]:
    """Cost of the prompt and of one more sample, each [units]; they add up to what was charged.

    Prompt tokens are charged once a request. FLOPs and seconds are charged as one number for
    prompt and generation, so each sample's are parted in proportion to its computed tokens.
    """
    fixed, varying = np.zeros(len(UNITS)), np.zeros(len(UNITS))
    for sample in samples:
        usage = sample.usage
        new = usage.prompt - usage.cached
        share = new / usage.tokens if usage.tokens > 0 else 0.0
        whole = np.array([0.0, 0.0, usage.flops, usage.seconds])
        fixed += whole * share + [0.0, new, 0.0, 0.0]
        varying += whole * (1 - share) + [1.0, usage.generated, 0.0, 0.0]
    return fixed, varying / max(len(samples), 1)
