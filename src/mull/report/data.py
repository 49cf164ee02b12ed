"""What a report is made of: runs, their cells, problems and samples, as plain frozen values.

``mull.report.load`` fills these from a run's directory; anything else may, too. Nothing here reads
files or computes numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mull.runs.cells import exact
from mull.store.store import Waste
from mull.trees import TreeNode
from mull.types import EMPTY, Usage

BETWEEN = " · "
"""Between the parts of a label."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded candidate.

    ``group`` numbers the problem's answers by task equality in key order, -1 without an answer
    (``mull.selection.group`` gives it); ``correct`` is ``None`` where nothing can be said, and
    ``outcome`` says why (a ``GradeOutcome`` value). ``usage`` is what this sample was charged.
    """

    key: tuple[int, ...]
    text: str
    answer: str | None
    group: int
    correct: bool | None
    outcome: str
    unanswered: str | None = None
    stop: str = "end"
    usage: Usage = Usage()
    scores: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    tokens: int = 0
    """Length of the solution; what was charged for it may be more (searches) or less."""


@dataclass(frozen=True, slots=True)
class ProblemResult:
    """One problem in one cell: its samples in key order and what was selected.

    ``answer``, ``correct`` and ``confidence`` are the strategy's own selection, and ``outcome`` (a
    ``GradeOutcome`` value) says why it has no verdict; ``level`` is the task's difficulty, ``None``
    without one; ``failure`` is the first recorded error, ``failures`` the number of errors by type.
    ``asked`` and ``paid`` are the samples that the strategy asked for and its whole bill, judges
    and verifiers included; ``None`` where only the samples' own usage is known. Where a tree was
    recorded: the ``tree`` in key order, how many nodes of it were ``left_out``, the key of the
    ``chosen`` end, and what was ``spent`` on this problem. ``meta`` are the task's own facts.
    """

    id: str
    prompt: str
    gold: str | None
    level: int | str | None
    samples: tuple[Sample, ...]
    answer: str | None
    correct: bool | None
    confidence: float = 0.0
    failure: str | None = None
    failures: Mapping[str, int] = field(default_factory=lambda: EMPTY)
    asked: int | None = None
    paid: Usage | None = None
    tree: tuple[TreeNode, ...] = ()
    left_out: int = 0
    chosen: tuple[int, ...] | None = None
    spent: tuple[LedgerRow, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One strategy with one budget and one seed over the problems.

    ``parameters`` are what else distinguishes cells (``temperature`` …). ``independent`` says that
    every problem has the same number of independent samples, so that smaller n may be read off
    the pool; it is false for searches and for votes that stop early. Cells of one run that are
    independent and have equal parameters draw the same samples. ``problems`` is read once.
    """

    strategy: str
    budget: str
    seed: int
    problems: Iterable[ProblemResult]
    parameters: Mapping[str, str | int | float] = field(default_factory=lambda: EMPTY)
    independent: bool = True

    @property
    def label(self) -> str:
        """The cell in a report, by one name; cells that differ in their seed alone share it.

        >>> Cell("vote", "samples=4", 0, (), {"temperature": 1.0}).label
        'vote · samples=4 · T=1'
        """
        named = [
            f"{'T' if name == 'temperature' else name}="
            f"{value if isinstance(value, str) else exact(value)}"
            for name, value in sorted(self.parameters.items())
        ]
        return BETWEEN.join(part for part in (self.strategy, self.budget, *named) if part)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What was spent for one purpose on one model, by one cell."""

    purpose: str
    model: str
    usage: Usage
    completions: int
    cell: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: who answered what, under which config, and what it cost.

    ``facts`` are shown in the header as they stand (engine, revision, dtype, decoding …);
    ``config`` is the text of the frozen config and ``config_hash`` its hash. ``waste`` is what
    interruptions and retries cost beside all bills of the ``ledger``.
    """

    name: str
    task: str
    model: str
    config: str
    config_hash: str
    cost_model: str
    cells: tuple[Cell, ...]
    ledger: tuple[LedgerRow, ...] = ()
    waste: tuple[Waste, ...] = ()
    facts: Mapping[str, str] = field(default_factory=lambda: EMPTY)
