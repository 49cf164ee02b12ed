"""What strategies over steps have in common: their options, their checks, and how they start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mull.strategies.base import Start
from mull.strategies.checks import check_positive
from mull.strategies.choice import Select, check_select
from mull.strategies.levels import LevelSearch
from mull.strategies.levels_rule import Rule
from mull.strategies.needs import Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOptions:
    """The base of step beam, lookahead, DVTS, REBASE and particles.

    ``select`` chooses among the paths that ended: the vote weighted by the last score, the best, or
    the plain majority. Only ``weighted`` needs scores that are not negative: a negative one is a
    ``ScoreError``, and its path counts as without a score. ``merge`` joins equal texts at the same
    depth: they are scored once and share their children (a verifier that scores equal texts alike
    keeps the same steps either way).
    ``speculate`` extends likely survivors in idle slots: it changes no result, makes a problem
    alone about a fifth faster, and costs tokens in a column of their own (a quarter to a third of
    all where most slots idle, next to none where none do).
    """

    verifier: str = "prm"
    select: Select = "weighted"
    max_steps: int = 40
    merge: bool = True
    speculate: bool = True

    def __post_init__(self) -> None:
        check_level_options(self.name, self.select, self.max_steps)
        self._check()

    def _check(self) -> None:
        """Raise ``SpecError`` for options of the strategy's own that are out of range."""

    @property
    def name(self) -> str:
        """The strategy's name in specs."""
        return type(self).__name__.lower()

    @property
    def needs(self) -> Needs:
        """A policy that continues a turn, and the verifier."""
        return level_needs(self.verifier)

    def _search(self, start: Start, *rules: Rule, **more: Any) -> LevelSearch:
        """The search, one lane under each rule."""
        return LevelSearch(
            start,
            rules,
            self.verifier,
            select=self.select,
            max_steps=self.max_steps,
            merge=self.merge,
            speculate=self.speculate,
            **more,
        )


def check_level_options(name: str, select: str, max_steps: int) -> None:
    """Raise ``SpecError`` for a selection or a number of steps that there is not."""
    check_select(name, select)
    check_positive(name, max_steps=max_steps)


def level_needs(verifier: str) -> Needs:
    """What every level search needs: a policy that continues a turn, and its verifier."""
    return Needs(verifiers=(verifier,), capabilities=("continue_assistant",))
