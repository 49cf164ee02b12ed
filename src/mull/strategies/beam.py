"""Step beam search and lookahead: the best steps are kept, each grows the same number of children.

Source: Snell et al. 2024 (arXiv 2408.03314), sections 5.2 and 5.3. What becomes of finished paths
is not said there, and implementations differ; here it is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mull.errors import BudgetError, SpecError
from mull.strategies.base import Search, Start
from mull.strategies.checks import check_positive
from mull.strategies.levels import WIDTH
from mull.strategies.levels_options import LevelOptions
from mull.strategies.levels_rule import Level, Shares, ranked

Finished = Literal["compete", "bank", "reserve"]
BRANCH = 4


@dataclass(frozen=True, slots=True)
class BeamRule:
    """``branch`` children for each of the best paths, ``n`` in all.

    ``finished`` paths ``compete`` (keep their score, are copied, may crowd out the others), are put
    in the ``bank`` (vote once each; the search goes on at full width), or take their place as a
    ``reserve`` (what is among the best leaves with the votes of its children; the search narrows).

    >>> from mull.strategies.levels_rule import Entry
    >>> BeamRule(4, 2).allocate(Level(1, tuple(Entry(s) for s in (0.1, 0.9, 0.5)))).children
    (0, 2, 2)
    """

    n: int
    branch: int
    finished: Finished = "reserve"

    @property
    def unit(self) -> int:
        return self.branch if self.n % self.branch == 0 else 1

    def allocate(self, level: Level) -> Shares:
        entries = level.entries
        children, votes = [0] * len(entries), [0] * len(entries)
        left = self.n - level.banked if self.finished == "reserve" else self.n
        order = ranked(entries)
        if self.finished == "bank":
            votes = [int(entry.finished) for entry in entries]
            order = [i for i in order if not entries[i].finished]
        while left > 0 and order:
            for i in order:
                take = min(self.branch, left)
                left -= take
                if entries[i].finished and self.finished == "reserve":
                    votes[i] += take
                else:
                    children[i] += take
            if self.finished != "bank":  # only the bank refills what paths that ended leave free
                break
        return Shares(tuple(children), tuple(votes))


def beam_size(
    name: str, keep: int | None, branch: int | None, samples: int | None, keep_is: str = "keep"
) -> tuple[int, int]:
    """(n, branch) from what is given; ``samples`` is the budget's, in paths.

    Without ``branch``: n / keep, or 4 where that is less than n. Raises ``BudgetError`` where the
    numbers contradict each other.

    >>> beam_size("beam", None, None, 64), beam_size("beam", 2, None, 16)
    ((64, 4), (16, 8))
    """
    if keep is None:
        n = samples or (BRANCH * branch if branch else WIDTH)
        branch = branch or min(BRANCH, n)
        if branch > n:
            raise BudgetError(
                f"{name}(branch={branch}) contradicts the budget of {n} samples: a beam has at "
                "least one path for every child"
            )
        return n, branch
    if samples is not None and keep > samples:
        raise BudgetError(
            f"{name}({keep_is}={keep}) contradicts the budget of {samples} samples: each of the "
            f"{keep} has at least one path; leave out {keep_is}, or give a larger budget"
        )
    branch = branch or (samples // keep if samples else BRANCH)
    if samples is not None and keep * branch != samples:
        raise BudgetError(
            f"{name}({keep_is}={keep}, branch={branch}) contradicts the budget of {samples} "
            f"samples: it costs {keep * branch} paths; leave out {keep_is}, or give that budget"
        )
    return keep * branch, branch


@dataclass(frozen=True, slots=True)
class Beam(LevelOptions):
    """Step beam search: of n paths the best n / branch are kept, and each grows ``branch`` steps.

    n is the budget's samples, or ``keep`` x ``branch`` (both 4 where nothing is given).
    ``finished``: see ``BeamRule``; the other options are those of ``LevelOptions``.
    """

    keep: int | None = None
    branch: int | None = None
    finished: Finished = "reserve"

    def _check(self) -> None:
        check_beam(self.name, self.keep, self.branch, self.finished)

    def start(self, start: Start) -> Search:
        samples = start.budget.samples if start.budget else None
        n, branch = beam_size(self.name, self.keep, self.branch, samples)
        return self._search(start, BeamRule(n, branch, self.finished))


@dataclass(frozen=True, slots=True)
class Lookahead(LevelOptions):
    """Beam search that scores a step by where up to ``k`` further greedy steps lead.

    A path costs k + 1 samples, so a budget of S samples gives n = S / (k + 1) paths; k = 0 is the
    beam. The other options are the beam's.
    """

    keep: int | None = None
    branch: int | None = None
    k: int = 1
    finished: Finished = "reserve"

    def _check(self) -> None:
        if self.k < 0:
            raise SpecError(f"lookahead(k={self.k}): k must be 0 or more")
        check_beam(self.name, self.keep, self.branch, self.finished)

    def start(self, start: Start) -> Search:
        samples = start.budget.samples if start.budget else None
        if samples is not None:
            samples //= self.k + 1
            if not samples:
                raise BudgetError(
                    f"lookahead(k={self.k}) needs {self.k + 1} samples for one path; the budget "
                    f"is {start.budget}"
                )
        n, branch = beam_size(self.name, self.keep, self.branch, samples)
        return self._search(start, BeamRule(n, branch, self.finished), lookahead=self.k)


def check_beam(name: str, keep: int | None, branch: int | None, finished: Finished) -> None:
    """Raise ``SpecError`` for a beam's options that are out of range."""
    check_positive(name, keep=keep, branch=branch)
    if finished not in ("compete", "bank", "reserve"):
        raise SpecError(f"{name}(finished={finished!r}): finished is compete, bank or reserve")
