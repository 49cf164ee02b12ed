"""Tree of Thoughts, breadth first: a judge grades every next step, the best are kept.

Source: Yao et al. 2023 (arXiv 2305.10601), ToT-BFS with independent valuation. The same search with
a scalar verifier in the judge's place is a step beam, and is built as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from mull.budget import Purpose
from mull.errors import SpecError
from mull.strategies.base import Failure, Generate, Outcome, Search, Start
from mull.strategies.beam import BeamRule, Finished, beam_size, check_beam
from mull.strategies.checks import check_positive
from mull.strategies.choice import Select
from mull.strategies.judge import (
    JUDGE,
    JUDGE_CHILD,
    VERDICT_TOKENS,
    grade_prompt,
    question,
    read_grade,
    reply_of,
)
from mull.strategies.levels import LevelSearch
from mull.strategies.levels_lane import Lane
from mull.strategies.levels_options import check_level_options, level_needs
from mull.strategies.levels_tree import Node
from mull.strategies.needs import POLICY, Needs
from mull.types import GREEDY, Branch, Problem, Prompt, Until, Usage


@dataclass(frozen=True, slots=True)
class Tot:
    """Tree of Thoughts (BFS): ``keep`` states, each with ``branch`` next steps, graded 0 to 10.

    A state's value is the mean of ``votes`` grades by the engine ``judge`` (``policy`` grades
    itself; one grade is greedy, several are sampled); a reply without a grade is a failure and has
    no say, and a state without any grade comes last. With ``verifier`` its score takes the place of
    the judge. Samples are the policy's, keep x branch of them at a depth; what the judge spends
    stands on its own row, at most ``judge_tokens`` a grade. The rest is as in ``beam``.
    """

    keep: int | None = None
    branch: int | None = None
    judge: str = JUDGE
    verifier: str | None = None
    votes: int = 1
    judge_tokens: int = VERDICT_TOKENS
    finished: Finished = "reserve"
    select: Select = "best"
    max_steps: int = 40

    def __post_init__(self) -> None:
        check_beam("tot", self.keep, self.branch, self.finished)
        check_positive("tot", votes=self.votes, judge_tokens=self.judge_tokens)
        asked = (self.judge, self.judge_tokens) != (JUDGE, VERDICT_TOKENS)
        if self.verifier is not None and asked:
            raise SpecError(
                f"tot(verifier={self.verifier}) asks no judge: leave out judge and judge_tokens, "
                "or the verifier"
            )
        if self.verifier is not None and self.votes != 1:
            raise SpecError(f"tot(votes={self.votes}): a verifier gives one score; leave out votes")
        check_level_options("tot", self.select, self.max_steps)

    @property
    def needs(self) -> Needs:
        """A policy that continues a turn, and the judge or the verifier."""
        if self.verifier is not None:
            return level_needs(self.verifier)
        engines = tuple(dict.fromkeys((POLICY, self.judge)))
        return Needs(engines, capabilities=("continue_assistant",))

    def start(self, start: Start) -> Search:
        samples = start.budget.samples if start.budget else None
        n, branch = beam_size("tot", self.keep, self.branch, samples)
        rule = BeamRule(n, branch, self.finished)
        if self.verifier is not None:
            return LevelSearch(start, (rule,), self.verifier, self.select, max_steps=self.max_steps)
        return TotSearch(
            start,
            (rule,),
            JUDGE,
            self.select,
            max_steps=self.max_steps,
            speculate=False,  # a guess would pay for grades that nobody asks for
            config=self,
        )


def state_prompt(problem: Problem, branch: Branch) -> Prompt:
    """Asks for a grade of a state: of a solution as it stands, or of how far it will lead."""
    if branch.finished:
        return grade_prompt(problem, branch.text)
    return question(
        problem,
        [("Unfinished solution", branch.text)],
        "Check the steps so far. How likely does going on from here lead to the right answer? Then "
        "end with a line that holds nothing but a grade, from [[0]] (impossible) to [[10]] (sure).",
    )


@dataclass(slots=True)
class _Grades:
    """The replies to the question of a node and what they cost, by their index."""

    lane: Lane
    node: Node
    missing: int
    found: dict[int, tuple[float | Failure, Usage]] = field(default_factory=dict)


@dataclass(eq=False)
class TotSearch(LevelSearch):
    """A level search that asks a judge where it would ask a verifier."""

    config: Tot = field(default_factory=Tot)
    _grades: dict[int, _Grades] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.dear = True

    def judge(self, lane: Lane, node: Node, guess: bool) -> int:
        """Ask the judge for its grades of a state."""
        branch, config = node.there, self.config
        view = state_prompt(branch.problem, branch)
        asked = Generate(
            self._id(),
            Branch(branch.problem, view, (*branch.key, JUDGE_CHILD)),
            Until(config.judge_tokens),
            config.votes,
            engine=config.judge,
            decoding=GREEDY if config.votes == 1 else self.start.sampling,
            purpose=Purpose.JUDGE,
            speculative=guess,
        )
        node.verdict = asked.id
        self._grades[asked.id] = _Grades(lane, node, config.votes)
        self._put(asked, lane, node)
        return asked.id

    def tell(self, outcome: Outcome) -> None:
        grades = self._grades.get(outcome.action)
        if grades is None:
            super().tell(outcome)
            return
        grades.missing -= 1
        grades.found[outcome.index] = reply_of(outcome.value, read_grade), outcome.usage
        if not grades.missing:
            self._value(grades)

    def _value(self, grades: _Grades) -> None:
        """All grades of a state came: their mean, and each reply that was none."""
        rows = [grades.found[index] for index in sorted(grades.found)]
        given = [reply for reply, _ in rows if isinstance(reply, float)]
        silent = [reply for reply, _ in rows if isinstance(reply, Failure)]
        used = sum((cost for _, cost in rows), Usage())
        grades.lane.take_score(grades.node, fmean(given) if given else None, silent, used)
        grades.lane.go_on()
