"""A solution that ends too early is made to go on: the turn continues behind a word like "Wait"."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mull.errors import SpecError
from mull.strategies.base import Outcome, Result, Search, Start
from mull.strategies.chains import SampleChains, chunk_of
from mull.strategies.checks import check_positive
from mull.strategies.needs import Needs
from mull.strategies.number import FAR, FLIGHT, samples_of, side_by_side
from mull.types import Branch, Completion, Step, StopReason


@dataclass(frozen=True, slots=True)
class BudgetForcing:
    """A turn that ends goes on behind "Wait": budget forcing (s1; Muennighoff et al. 2025).

    Source: arXiv 2501.19393. When the model ends its turn, ``word`` is appended on a line of its
    own and the same turn goes on, up to ``waits`` times (default: once); with ``min_tokens``, only
    while the solution has fewer tokens, and by default however often that takes. A turn that says
    nothing behind the word is at its end. The answer is read from the whole turn, so a later one
    replaces an earlier one. ``n`` such samples vote (default: one, under a budget as many as it
    pays for); ``flight`` are under way under a budget in tokens, FLOPs or money. The upper end of a
    solution is the task's (or the caller's) limit.
    """

    n: int | None = None
    waits: int | None = None
    min_tokens: int | None = None
    word: str = "Wait"
    flight: int = FLIGHT

    def __post_init__(self) -> None:
        check_positive(
            "budget-forcing", waits=self.waits, min_tokens=self.min_tokens, flight=self.flight
        )
        if not self.word.strip():
            raise SpecError("budget-forcing(word=…): give a word that is not blank")

    @property
    def needs(self) -> Needs:
        """A policy that can continue a turn."""
        return Needs(capabilities=("continue_assistant",))

    def start(self, start: Start) -> Search:
        n = self.n if self.n is not None or start.budget else 1
        n = samples_of("budget-forcing", n, start.budget)
        count = side_by_side(n, start.budget, self.flight)
        return ForcingSearch(start, count, n, start.limit, self)


@dataclass
class ForcingSearch(SampleChains):
    """Each sample goes on where it ended; what it had when it ended counts if it cannot."""

    config: BudgetForcing
    _ended: dict[int, Branch] = field(default_factory=dict, init=False)
    _waits: list[int] = field(default_factory=list, init=False)

    def begin(self) -> None:
        self._waits = [0] * self.count
        # Samples that exist already were not forced: they are drawn again, at the same seeds.
        self.begin_all(0, self.n)

    def take(self, at: int, outcome: Outcome) -> None:
        before = self._ended.get(at)
        branch = self.child(outcome) if isinstance(outcome.value, Completion) else before
        # A failure, or a turn without a token: going on from there need never end.
        silent = before is not None and not outcome.said
        if branch is not None and not silent and self._goes_on(at, branch):
            self._ended[at] = branch
            self._waits[at] += 1
            return
        if branch is not None:
            self.chains[at].candidates.append(self.start.candidate(branch))
        self._ended.pop(at, None)
        self._waits[at] = 0
        self.begin_next(at, self.n, said=branch is not None and branch.tokens > 0)

    def result(self) -> Result:
        """The vote so far; a sample that is being continued counts as it stood."""
        unfinished = [self.start.candidate(branch) for branch in self._ended.values()]
        candidates = tuple(sorted([*self.found(), *unfinished], key=lambda c: c.key))
        voted = self.start.majority(candidates, self.start.same)
        return Result((voted,), candidates, self.failed(), self.ended)

    def _goes_on(self, at: int, branch: Branch) -> bool:
        """Ask for more of a sample that ended by itself, if there is room and money for it."""
        least, most = self.config.min_tokens, self.config.waits
        short = least is None or branch.tokens < least
        if most is None:
            most = 1 if least is None else FAR
        own_end = branch.steps[-1].stop in (StopReason.END, StopReason.STOP)
        until = chunk_of(self.start.limit, branch.tokens, None)
        if not (short and own_end and self._waits[at] < most) or until is None:
            return False
        gap = "" if branch.text.endswith("\n") or not branch.text else "\n"
        word = Step(f"{gap}{self.config.word}", StopReason.STEP, logprobs=())
        return self.generate(at, replace(branch, steps=(*branch.steps, word)), until)
