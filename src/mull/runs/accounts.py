"""What a run paid beside its results: work that interruptions lost, and the bill of each sample.

A result's own ledger says what its search costs; this keeps what stands in no ledger that is
recorded. Knows ledgers; knows no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from mull.budget import Ledger, Purpose
from mull.engines.cache import Lost
from mull.runs.result import Spent
from mull.store.store import Waste
from mull.types import Candidate, Completion, Prompt, Request, Usage

SETTLED_AGAIN = (Purpose.FAILED.value, Purpose.CANCELLED.value, Purpose.RETRY.value)
"""Rows of a result's bill that are paid anew when the problem is tried again."""


@dataclass(slots=True)
class _Open:
    """What is known of a problem in flight; the ledger is held so that its id stays its own."""

    ledger: Ledger
    lost: list[Lost] = field(default_factory=list)
    samples: dict[tuple[Prompt, int], Usage] = field(default_factory=dict)


class Accounts:
    """Books of one session. Scores are not recorded: what ``verifiers`` (their models' names) cost
    in a problem that is solved again is paid anew.
    """

    def __init__(self, verifiers: Collection[str] = ()) -> None:
        self._verifiers = frozenset(verifiers)
        self._open: dict[int, _Open] = {}
        self._waste: dict[tuple[str, str, str], tuple[Usage, int]] = {}

    def served(self, ledger: Ledger, request: Request, completion: Completion) -> None:
        """A completion was handed to a search."""
        if not request.assistant:
            samples = self._of(ledger).samples
            samples.setdefault((request.prompt, completion.index), completion.usage)

    def lost(self, lost: Lost) -> None:
        """Work that is not recorded: done twice, or a sample or training closed unfinished."""
        if lost.repeated:
            what = "search" if lost.usage.generated else "prompt"
            what = "training" if lost.purpose is Purpose.ADAPTATION else what
            self._add(f"repeated {what}", lost.purpose.value, lost.model, lost.usage)
        else:
            self._of(lost.ledger).lost.append(lost)

    def again(self, spent: Sequence[Spent]) -> None:
        """A result with failures was replaced; ``spent`` is its bill, parts of it paid anew."""
        for row in spent:
            if row.purpose in SETTLED_AGAIN or row.model in self._verifiers:
                self._add("tried again", row.purpose, row.model, row.usage, row.completions)

    def usage_of(self, ledger: Ledger, root: Prompt) -> Callable[[Candidate], Usage | None]:
        """What each plain sample of a problem was charged."""
        samples = self._of(ledger).samples

        def usage(candidate: Candidate) -> Usage | None:
            if len(candidate.key) != 1:
                return None
            return samples.get((root, candidate.key[0]))

        return usage

    def settle(self, ledger: Ledger) -> None:
        """The problem's result is recorded, and its whole ledger with it."""
        self._open.pop(id(ledger), None)

    def waste(self) -> list[Waste]:
        """Everything paid for nothing so far; what is still in flight counts as interrupted."""
        for entry in self._open.values():
            for lost in entry.lost:
                self._add("interrupted", lost.purpose.value, lost.model, lost.usage)
            for purpose, model, usage, completions in entry.ledger.rows():
                if model in self._verifiers:
                    self._add("interrupted", purpose.value, model, usage, completions)
        self._open.clear()
        return [Waste(*key, usage, count) for key, (usage, count) in sorted(self._waste.items())]

    def _of(self, ledger: Ledger) -> _Open:
        entry = self._open.get(id(ledger))
        if entry is None:
            entry = self._open[id(ledger)] = _Open(ledger)
        return entry

    def _add(self, reason: str, purpose: str, model: str, usage: Usage, count: int = 1) -> None:
        before, counted = self._waste.get((reason, purpose, model), (Usage(), 0))
        self._waste[reason, purpose, model] = (before + usage, counted + count)
