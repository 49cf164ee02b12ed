"""Views ranked by a judge, and one answer a view: a judge decides among what came, never more."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from tests.strategies.common import one, rows
from tests.strategies.test_airv import ARC, CHAT, COLD, Likely, asked, engine_for
from tests.tasks.arc.world import spoilt

from mull.budget import Budget, Meter, Purpose
from mull.engines.simulated import Latency, SimulatedEngine
from mull.engines.simulated.content import Piece
from mull.engines.simulated.text import encode, prompt_text
from mull.errors import BudgetError, EngineError, SpecError, UsageError
from mull.rng import derive
from mull.selection import majority
from mull.strategies.airv import Airv
from mull.strategies.base import Ended, Generate, Outcome, Room, Start
from mull.strategies.drive import Job, Solved
from mull.strategies.judge import JUDGE
from mull.tasks.arc.task import ArcTask
from mull.types import (
    Capabilities,
    Completion,
    EngineInfo,
    Problem,
    Request,
    Sampling,
    StopReason,
    TokenBeam,
    Usage,
)

JudgedRank = Literal["verify", "select"]
RANKS: tuple[JudgedRank, ...] = ("verify", "select")


@dataclass(frozen=True)
class Knowing:
    """A judge that knows the right turn under each of its views; ``says`` makes a verdict of it."""

    of: Problem
    says: Callable[[str], str] = lambda verdict: f"Let me see.\n[[{verdict}]]"
    task: ArcTask = ARC
    asked: list[str] = field(default_factory=list)
    right: dict[str, str] = field(default_factory=dict)

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        prompt = prompt_text(request.prompt)
        shown, *said = re.findall(r"==== \w+ ====\n(.*?)\n==== \w+ ====", prompt, re.DOTALL)
        self.asked.append(prompt)
        if not self.right:
            for view in self.task.views(self.of, 64, derive(0, JUDGE)):
                turn = view.opening + self.task.solution_in(self.of, view, str(self.of.answer))
                self.right[view.prompt.plain.strip()] = turn.strip()
        right = self.right[shown]
        if len(said) == 1:
            verdict = "correct" if said[0] == right else "wrong"
        else:
            first, second = (each == right for each in said)
            verdict = "tie" if first == second else "A" if first else "B"
        yield self.says(verdict), None


@dataclass(eq=False)
class Varied:
    """Says another answer to each sample of a view: the right one to one view in ``every``."""

    of: Problem
    task: ArcTask = ARC
    every: int = 4
    views: int = 8

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        prompts = [view.prompt.plain for view in self.task.views(self.of, self.views)]
        number = prompts.index(prompt_text(request.prompt))
        view = self.task.views(self.of, self.views)[number]
        rng = random.Random(f"{number} {index}")
        answer = str(self.of.answer)
        if number % self.every:
            answer = spoilt(answer, random.Random((number + index) % 3))
        text = self.task.solution_in(self.of, view, answer)
        yield text, [-rng.random()] * len(encode(text))


def solve(
    strategy: Airv,
    judge: Any = None,
    *,
    of: Problem | None = None,
    policy: Any = None,
    budget: Budget | None = None,
    task: ArcTask = ARC,
    **options: Any,
) -> Solved:
    problem = of or asked(1, task)
    engines = {
        "policy": policy or SimulatedEngine(Varied(problem, task), parameters=10),
        "judge": SimulatedEngine(judge or Knowing(problem, task=task), parameters=10, **options),
    }
    return one(Job(strategy, Start(problem, task, budget, COLD), 0), engines)


def bill(solved: Solved) -> dict[Purpose, int]:
    return {purpose: count for purpose, _, _, count in solved.ledger.rows()}


@pytest.mark.parametrize("task", [ARC, CHAT])
@pytest.mark.parametrize("rank", RANKS)
def test_a_judge_that_knows_finds_the_answer_wherever_a_view_has_it(
    rank: JudgedRank, task: ArcTask
) -> None:
    outvoted = 0
    for seed in range(1, 7):
        of = asked(seed, task)
        result = solve(Airv(n=8, rank=rank), of=of, task=task).result
        assert any(c.answer == of.answer for c in result.candidates)
        assert result.answer == of.answer
        assert result.ended is Ended.COMPLETE
        outvoted += majority(result.candidates).answer != of.answer
    assert outvoted, "a vote would have done as well"


@pytest.mark.parametrize("rank", RANKS)
def test_a_judge_without_a_verdict_leaves_the_vote(rank: JudgedRank) -> None:
    of = asked(1)
    silent = Knowing(of, says=lambda verdict: "It is hard to say.")
    solved = solve(Airv(n=8, rank=rank, questions=4), silent)
    voted = majority(solved.result.candidates)
    assert (solved.result.answer, solved.result.confidence) == (voted.answer, voted.confidence)
    assert {failure.error for failure in solved.result.failures} == {"NoVerdict"}
    assert len(solved.result.failures) == len(silent.asked) == bill(solved)[Purpose.JUDGE]


def test_every_question_shows_the_problem_in_a_fresh_view() -> None:
    of = asked(1)
    judge = Knowing(of)
    solve(Airv(n=8, rank="verify", questions=16), judge)
    shown = Counter(judge.asked)
    assert len(shown) == len(judge.asked) > 16


@pytest.mark.parametrize("rank", RANKS)
def test_verdicts_are_the_judges_cost_and_no_samples(rank: JudgedRank) -> None:
    solved = solve(Airv(rank=rank), budget=Budget(samples=8))
    plain = solve(Airv(), budget=Budget(samples=8))
    assert solved.samples == plain.samples == 8
    judged, policy = rows(solved), rows(plain)
    assert {key: row for key, row in judged.items() if key[0] is not Purpose.JUDGE} == policy
    assert len(judged) == len(policy) + 1


@pytest.mark.parametrize("rank", RANKS)
def test_answers_without_a_rival_are_not_judged(rank: JudgedRank) -> None:
    of = asked(1)
    judge = Knowing(of)
    policy = SimulatedEngine(Varied(of, every=1))
    result = solve(Airv(n=8, rank=rank), judge, policy=policy).result
    assert (judge.asked, result.answer, result.confidence) == ([], of.answer, 1.0)
    assert not any("judge" in candidate.scores for candidate in result.candidates)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("share", [0.5, 1.2, 3.0])
def test_no_question_is_asked_once_the_budget_is_spent(rank: JudgedRank, share: float) -> None:
    policy = solve(Airv(n=8)).ledger.total.generated
    limit = round(share * policy)
    judge = Knowing(asked(1))
    solved = solve(Airv(rank=rank, flight=2), judge, budget=Budget(samples=8, tokens=limit))
    assert solved.result.ended is Ended.BUDGET
    dearest = max(c.tokens for c in solved.result.candidates)
    assert solved.ledger.total.generated <= limit + 2 * max(dearest, 40)
    assert solved.result.answer is not None
    assert bool(judge.asked) == (share > 1)


@pytest.mark.parametrize("rank", RANKS)
def test_timing_and_slots_change_nothing(rank: JudgedRank) -> None:
    found = [
        solve(Airv(n=8, rank=rank), latency=Latency(token_ms=ms), slots=slots)
        for ms, slots in ((1.0, 1), (5.0, 3), (0.2, 64))
    ]
    assert len({repr(each.result) for each in found}) == 1
    assert len({str(rows(each)) for each in found}) == 1


def test_a_judge_must_be_there() -> None:
    start = Start(asked(1), ARC, None, COLD)
    with pytest.raises(UsageError, match="needs engine 'judge'"):
        one(Job(Airv(n=8, rank="verify"), start, 0), engine_for(1))
    of = asked(1)
    result = solve(Airv(n=8, rank="select", judge="policy"), policy=SimulatedEngine(Both(of)))
    assert result.result.answer == of.answer


@dataclass(eq=False)
class Both(Varied):
    """One model that solves and judges."""

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        judged = "[[" in prompt_text(request.prompt)
        return Knowing(self.of).write(request, index) if judged else super().write(request, index)


def test_of_a_pseudo_beam_the_likeliest_sample_of_each_view_counts() -> None:
    of, width = asked(2), 3
    policy = SimulatedEngine(Varied(of))
    every = solve(Airv(n=24, per_view=width, temperature=0.7), of=of, policy=policy)
    kept = solve(
        Airv(n=24, per_view=width, temperature=0.7, keep="likeliest"), of=of, policy=policy
    )
    best = [
        max(
            (c for c in every.result.candidates if c.key[0] == view),
            key=lambda c: (c.scores["logprob"], -c.key[1]),
        )
        for view in range(8)
    ]
    assert list(kept.result.candidates) == best
    assert kept.result.answer == majority(best).answer
    assert (kept.samples, rows(kept)) == (every.samples, rows(every)), "what is dropped was paid"


class Beams(Likely):
    """By token beam: as many hypotheses as the beam is wide, the likeliest of each view first."""

    @property
    def info(self) -> EngineInfo:
        can = Capabilities(logprobs=True, token_beam=True)
        return EngineInfo("test", "beams", slots=4, capabilities=can)

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        assert request.decoding == TokenBeam(3)
        assert (request.first, request.n) == (0, 3)
        best, *_ = self.said[request.prompt.plain]
        for index, (text, logprob) in enumerate([best, ("1", -4.0), ("2", -5.0)]):
            meter.charge(index, generated=2)
            usage = meter.usage(index)
            yield Completion(index, text, StopReason.END, usage, None, (logprob,))


def test_of_a_token_beam_the_first_hypothesis_counts_and_the_width_is_paid() -> None:
    of = asked(0)
    solved = solve(Airv(n=12, beam=3), of=of, policy=Beams(ARC, of, 4, "77\n77"))
    assert [c.key for c in solved.result.candidates] == [(view, 0) for view in range(4)]
    assert solved.samples == 12
    assert solved.result.confidence == 0.5
    solved = solve(Airv(beam=3, quorum=1.0), of=of, policy=Beams(ARC, of, 4, "77\n77"),
                   budget=Budget(samples=12))  # fmt: skip
    assert solved.result.answer is not None, "hypotheses behind the first are not missed"
    with pytest.raises(BudgetError, match="no whole number of views"):
        Airv(n=5, beam=2).start(Start(of, ARC, None, COLD))


@pytest.mark.parametrize(
    "bad",
    [
        {"judge": "judge"},
        {"questions": 3},
        {"rank": "views", "judge": "judge"},
        {"rank": "verify", "questions": 0},
        {"keep": "best"},
        {"keep": "likeliest"},
        {"keep": "likeliest", "beam": 2},
        {"beam": 0},
        {"beam": 2, "per_view": 2},
        {"beam": 2, "temperature": 0.5},
        {"beam": 2, "threshold": 0.5},
    ],
)
def test_options_that_would_be_ignored_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="airv"):
        Airv(**bad)


@pytest.mark.parametrize("rank", RANKS)
def test_a_metered_budget_leaves_something_to_judge_with(rank: JudgedRank) -> None:
    """Samples without an end of their own would spend it all, and the vote would decide unsaid."""
    policy = SimulatedEngine(Varied(asked(1), views=16), parameters=10)
    solved = solve(Airv(rank=rank), policy=policy, budget=Budget(tokens=100_000))
    assert bill(solved)[Purpose.JUDGE] > 0
    assert any(JUDGE in candidate.scores for candidate in solved.result.candidates)


@pytest.mark.parametrize("rank", RANKS)
def test_below_the_quorum_no_judge_is_asked(rank: JudgedRank) -> None:
    problem = asked(1)

    class Mute(Varied):
        def write(self, request: Request, index: int) -> Iterator[Piece]:
            raise EngineError("away")

    policy = SimulatedEngine(Mute(problem), parameters=10)
    solved = solve(Airv(n=8, rank=rank, quorum=0.9), policy=policy, of=problem)
    assert solved.result.answer is None
    assert Purpose.JUDGE not in bill(solved)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 3), (3, 0, 2)])
def test_of_a_view_cut_short_the_likeliest_that_came_counts(order: tuple[int, ...]) -> None:
    """In whatever order they came: what is held out of its turn counts like what took effect."""
    problem = asked(1)
    search = Airv(n=4, per_view=4, keep="likeliest").start(Start(problem, ARC, None, Sampling()))
    (action,) = search.ask(Room(8))
    assert isinstance(action, Generate)
    (view,) = ARC.views(problem, 1)
    text = ARC.solution_in(problem, view, str(problem.answer))
    for index in order:
        made = Completion(index, text, StopReason.END, Usage(), (1,), (-1.0 - index,))
        search.tell(Outcome(action.id, index, made))
    (kept,) = search.result().candidates
    assert kept.scores["logprob"] == -1.0 - min(order)


def test_of_a_beam_that_is_held_its_first_hypothesis_counts() -> None:
    problem = asked(1)
    search = Airv(n=8, beam=4).start(Start(problem, ARC, None, COLD))
    actions = search.ask(Room(8))
    assert len(actions) == 2
    view = ARC.views(problem, 2)[1]
    text = ARC.solution_in(problem, view, str(problem.answer))
    for index in range(4):
        made = Completion(index, text, StopReason.END, Usage(), (1,), (-1.0,))
        search.tell(Outcome(actions[1].id, index, made))
    assert len(search.result().candidates) == 1
