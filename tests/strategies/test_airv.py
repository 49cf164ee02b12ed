"""Augment, infer, revert, vote: views are asked, answers come back, the rest is a plain vote."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, one, problem
from tests.tasks.arc.world import Knows, random_puzzle, solver

from mull.budget import Budget, Ledger, Meter, Purpose
from mull.engines.base import check_supported
from mull.engines.simulated import SimulatedEngine, run_virtual
from mull.errors import BudgetError, SpecError, UnsupportedError
from mull.grades import Unanswered
from mull.selection import group, majority
from mull.strategies.airv import Airv
from mull.strategies.base import (
    Ended,
    Failure,
    Generate,
    Outcome,
    Result,
    Room,
    Score,
    Start,
    Strategy,
)
from mull.strategies.best_of_n import BestOfN
from mull.strategies.drive import Job, Solved, request_of
from mull.strategies.single import Greedy
from mull.strategies.token_beam import TokenBeamSearch
from mull.strategies.token_dfs import TokenDfs
from mull.strategies.vote import Vote
from mull.tasks.arc.task import ArcTask
from mull.types import (
    Capabilities,
    Completion,
    EngineInfo,
    Problem,
    Request,
    Sampling,
    Scored,
    ScoreRequest,
    StopReason,
    ThresholdDFS,
)
from mull.verifiers.views import own_views

ARC = ArcTask()
CHAT = ArcTask(format="GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))")
COLD = Sampling(temperature=0.0)


def asked(seed: int, task: ArcTask = ARC) -> Problem:
    (found,) = task.problems_of(random_puzzle(seed))
    return found


def engine_for(seed: int, count: int = 8, task: ArcTask = ARC) -> SimulatedEngine:
    return solver([random_puzzle(seed)], count, task, seed=seed)


def solve(
    strategy: Strategy,
    seed: int = 0,
    budget: Budget | None = None,
    task: ArcTask = ARC,
    engine: Any = None,
    **options: Any,
) -> Solved:
    start = Start(asked(seed, task), task, budget, COLD)
    return one(Job(strategy, start, 0), engine or engine_for(seed, task=task), **options)


FORMATS = ("marked", "architects", "lists", "MinimalGridEncoder()", CHAT.format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "strategy", [Greedy(), Vote(n=4), TokenBeamSearch(width=2), TokenDfs(), BestOfN(n=2)]
)
def test_every_strategy_asks_as_one_view_does(strategy: Strategy, format: str) -> None:
    """A single prediction and the first of a vote are of one and the same text."""
    task = ArcTask(format=format, colours=False, order=False)
    start = Start(asked(0, task), task, None, COLD)
    (own, *_) = strategy.start(start).ask(Room(8))
    (of_view,) = Airv(n=1).start(start).ask(Room(8))
    assert isinstance(own, Generate)
    assert isinstance(of_view, Generate)
    info = engine_for(0, task=task).info
    one_request, other = request_of(own, info, 0), request_of(of_view, info, 0)
    assert (one_request.prompt, one_request.assistant) == (other.prompt, other.assistant)
    assert one_request.assistant == task.views(start.problem, 1)[0].opening


@pytest.mark.parametrize("format", FORMATS)
def test_one_view_is_the_greedy_answer_under_it_brought_back(format: str) -> None:
    plain = ArcTask(format=format, colours=False, order=False)
    for seed in range(20):
        engine = engine_for(seed, task=plain)
        alone = solve(Airv(n=1), seed, task=plain, engine=engine).result
        greedy = solve(Greedy(), seed, task=plain, engine=engine).result
        assert alone.answer == greedy.answer
        assert [c.answer for c in alone.candidates] == [c.answer for c in greedy.candidates]
        assert [c.scores for c in alone.candidates] == [c.scores for c in greedy.candidates]
    for seed in range(20):
        (view,), of = ARC.views(asked(seed), 1), asked(seed)
        knows = Knows()
        knows.tell(ARC, of, 1, 0.5, seed)
        (candidate,) = solve(Airv(n=1), seed, engine=SimulatedEngine(knows)).result.candidates
        said, _ = knows.texts[view.prompt.plain]
        assert candidate.answer == ARC.extract_from(of, view, said).answer


@pytest.mark.parametrize("task", [ARC, CHAT])
def test_every_view_is_brought_back_and_equal_answers_are_one_group(task: ArcTask) -> None:
    for seed in range(12):
        gold = asked(seed, task)
        knows = Knows()
        knows.tell(task, gold, 8, right=1.0, seed=0)
        result = solve(Airv(n=8), seed, task=task, engine=SimulatedEngine(knows)).result
        assert [c.key for c in result.candidates] == [(view, 0) for view in range(8)]
        assert {c.answer for c in result.candidates} == {gold.answer}
        assert result.answer == gold.answer
        assert result.confidence == 1.0
        assert len(group(result.candidates, partial(task.same, gold))) == 1
        assert len({c.text for c in result.candidates}) == 1


def test_the_vote_is_the_majority_of_what_came_back() -> None:
    for seed in range(12):
        result = solve(Airv(n=8), seed).result
        assert result.answer == majority(result.candidates).answer
        counts = Counter(c.answer for c in result.candidates if c.answer)
        assert not counts or counts[str(result.answer)] == max(counts.values())


@given(seed=st.integers(0, 30), few=st.integers(1, 7), width=st.integers(1, 2))
@settings(max_examples=20)
def test_fewer_views_are_the_first_of_more(seed: int, few: int, width: int) -> None:
    engine = engine_for(seed)
    more = solve(Airv(n=8 * width, per_view=width), seed, engine=engine).result.candidates
    less = solve(Airv(n=few * width, per_view=width), seed, engine=engine).result.candidates
    assert less == more[: few * width]


def test_samples_of_a_view_are_its_children() -> None:
    result = solve(Airv(n=6, per_view=3, temperature=0.7), 1).result
    assert [c.key for c in result.candidates] == [(v, i) for v in range(2) for i in range(3)]


def test_what_has_no_answer_is_kept_as_the_model_said_it() -> None:
    broken = Knows()
    one_problem = asked(3, CHAT)
    for view in CHAT.views(one_problem, 4):
        broken.texts[view.prompt.plain] = ("no grid here", -0.5)
    result = solve(Airv(n=4), 3, task=CHAT, engine=SimulatedEngine(broken)).result
    assert result.answer is None
    assert {c.text for c in result.candidates} == {"no grid here"}
    assert all(c.unanswered in set(Unanswered) for c in result.candidates)
    assert all(c.scores["mean_logprob"] == pytest.approx(-0.5, rel=0.1) for c in result.candidates)
    assert all(c.tokens == len("no grid here") + 1 for c in result.candidates)


def test_the_opening_is_the_turns_begin_and_no_sample() -> None:
    start = Start(asked(0, CHAT), CHAT, None, COLD)
    (first, *_) = Airv(n=2).start(start).ask(Room(8))
    assert isinstance(first, Generate)
    (view,) = CHAT.views(start.problem, 1)
    assert first.branch.text == view.opening != ""
    assert sum(step.tokens for step in first.branch.steps) == 0


def test_a_budget_of_samples_gives_the_views() -> None:
    assert len(solve(Airv(), 0, Budget(samples=5)).result.candidates) == 5
    with pytest.raises(BudgetError, match="contradicts the budget of 4 samples"):
        solve(Airv(n=5), 0, Budget(samples=4))
    with pytest.raises(BudgetError, match="no whole number of views"):
        solve(Airv(n=5, per_view=2), 0)
    with pytest.raises(BudgetError, match="does not know how many"):
        solve(Airv(), 0)
    assert Airv(threshold=0.1).width == 10
    assert Airv(per_view=3).width == 3


def test_a_metered_budget_ends_it_in_time() -> None:
    limits = Budget(tokens=40)
    solved = solve(Airv(flight=1), 2, limits)
    assert solved.result.ended is Ended.BUDGET
    *before, last = [c.tokens for c in solved.result.candidates]
    assert sum(before) < 40 <= sum(before) + last
    keys = [c.key for c in solved.result.candidates]
    assert keys == [(number, 0) for number in range(len(keys))]


def test_ranked_by_views_is_the_product_of_experts_by_hand() -> None:
    for seed in range(8):
        engine, task = engine_for(seed), ARC
        verifier = own_views(task, engine, views=5)
        solved = solve(Airv(n=8, rank="views"), seed, engine=engine, verifiers={"views": verifier})
        asked_of = asked(seed)
        content = engine.content
        assert isinstance(content, Knows)
        answers = dict.fromkeys(c.answer for c in solved.result.candidates if c.answer)
        by_hand = {
            answer: math.fsum(
                math.fsum(
                    content.score(view.prompt.plain, task.solution_in(asked_of, view, answer))
                )
                for view in task.views(asked_of, 5)
            )
            for answer in answers
        }
        for candidate in solved.result.candidates:
            if candidate.answer is None:
                assert "views" not in candidate.scores
            else:
                assert candidate.scores["views"] == pytest.approx(by_hand[candidate.answer])
        assert solved.result.answer == max(by_hand, key=by_hand.__getitem__, default=None)
        paid = {purpose: n for purpose, _, _, n in solved.ledger.rows()}
        assert paid.get(Purpose.VERIFIER, 0) == len(answers), "each distinct answer once"


class Likely:
    """By threshold: under every view the right answer, and a wrong one where that is likely too."""

    def __init__(self, task: ArcTask, of: Problem, views: int, wrong: str) -> None:
        self.said: dict[str, list[tuple[str, float]]] = {}
        for number, view in enumerate(task.views(of, views)):
            right = (task.solution_in(of, view, str(of.answer)), math.log(0.5))
            other = (task.solution_in(of, view, wrong), math.log(0.3))
            self.said[view.prompt.plain] = [right, other] if number % 2 else [other]

    @property
    def info(self) -> EngineInfo:
        can = Capabilities(logprobs=True, threshold_dfs=True)
        return EngineInfo("test", "likely", slots=4, capabilities=can)

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        check_supported(request, self.info)
        assert isinstance(request.decoding, ThresholdDFS)
        found = self.said[request.prompt.plain]
        for index in range(request.first, request.first + request.n):
            meter.charge(index, generated=2)
            usage = meter.usage(index)
            if index < len(found):
                text, logprob = found[index]
                yield Completion(index, text, StopReason.END, usage, None, (logprob,))
            else:
                yield Completion(index, "", StopReason.EXHAUSTED, usage, ())

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        raise UnsupportedError("this engine scores nothing")

    async def aclose(self) -> None:
        self.said = {}


def test_by_threshold_all_likely_answers_of_each_view_are_candidates() -> None:
    of = asked(0)
    engine = Likely(ARC, of, 4, "77\n77")
    solved = solve(Airv(n=12, threshold=0.3), 0, engine=engine)
    assert [c.key for c in solved.result.candidates] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (3, 1),
    ]
    assert Counter(c.answer for c in solved.result.candidates) == {of.answer: 2, "77\n77": 4}
    assert solved.result.answer == "77\n77"
    assert (solved.result.failures, solved.result.ended) == ((), Ended.COMPLETE)
    with pytest.raises(UnsupportedError, match="decodes by threshold"):
        solve(Airv(n=3, threshold=0.3), 0)


class Noted(Likely):
    """Keeps which ranks were asked for together."""

    def __init__(self, task: ArcTask, of: Problem, views: int, wrong: str) -> None:
        super().__init__(task, of, views, wrong)
        self.requests: list[tuple[int, int]] = []

    async def generate(self, request: Request, meter: Meter) -> AsyncGenerator[Completion, None]:
        self.requests.append((request.first, request.n))
        async for completion in super().generate(request, meter):
            yield completion


@pytest.mark.parametrize("flight", [3, 4, 8])
def test_a_threshold_search_is_asked_whole_whatever_the_budget(flight: int) -> None:
    engine = Noted(ARC, asked(0), 32, "77\n77")
    solved = solve(Airv(threshold=0.3, flight=flight), 0, Budget(tokens=60), engine=engine)
    assert solved.result.ended is Ended.BUDGET
    assert set(engine.requests) == {(0, 3)}
    assert len(engine.requests) <= 10 + flight // 3


def test_searches_that_find_nothing_cost_something_and_go_on() -> None:
    engine = Noted(ARC, asked(0), 32, "77\n77")
    engine.said = {prompt: [] for prompt in engine.said}
    solved = solve(Airv(threshold=0.3), 0, Budget(tokens=120), engine=engine)
    assert (solved.result.ended, solved.result.answer) == (Ended.BUDGET, None)
    assert len(engine.requests) >= 20


def test_ranks_that_a_search_does_not_have_are_not_missed() -> None:
    engine = Likely(ARC, asked(0), 4, "77\n77")
    solved = solve(Airv(n=12, threshold=0.3, quorum=0.9), 0, engine=engine)
    assert solved.result.answer == "77\n77"


def test_a_task_that_cannot_show_a_problem_otherwise_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"airv needs a task that shows .* not plain"):
        Airv(n=2).start(Start(problem(), TASK))


@pytest.mark.parametrize(
    "bad",
    [
        {"rank": "prm"},
        {"per_view": 0},
        {"threshold": 0.0},
        {"threshold": math.nan},
        {"threshold": 0.1, "per_view": 2},
        {"threshold": 0.1, "temperature": 0.5},
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"flight": 0},
        {"quorum": 1.5},
    ],
)
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="airv"):
        Airv(**bad)


def test_other_seeds_draw_other_views() -> None:
    prompts = []
    for seed in (0, 0, 1):
        actions = Airv(n=8, seed=seed).start(Start(asked(1), ARC, None, COLD)).ask(Room(8))
        prompts.append([a.branch.prompt for a in actions if isinstance(a, Generate)])
    assert prompts[0] == prompts[1] != prompts[2]


def told_in(order: random.Random, strategy: Airv, seed: int, fails: float) -> Result:
    """Tell outcomes in any order; what a sample or a score is depends on nothing but itself."""
    engine = engine_for(seed)
    search = strategy.start(Start(asked(seed), ARC, None, COLD))
    waiting: list[tuple[Generate | Score, int]] = []
    while not search.done:
        for action in search.ask(Room(order.randint(0, 4))):
            assert isinstance(action, Generate | Score)
            count = action.count if isinstance(action, Generate) else 1
            first = action.first if isinstance(action, Generate) else 0
            waiting += [(action, first + index) for index in range(count)]
        assert waiting, "asks for nothing and waits for nothing"
        action, index = waiting.pop(order.randrange(len(waiting)))
        search.tell(outcome(engine, action, index, fails))
        result = search.result()
        assert result.answer in {None, *(c.answer for c in result.candidates)}
        keys = [candidate.key for candidate in result.candidates]
        assert keys == sorted(set(keys))
    assert not waiting
    return search.result()


def outcome(engine: SimulatedEngine, action: Generate | Score, index: int, fails: float) -> Outcome:
    name = action.branch.key if isinstance(action, Generate) else action.branches[0].text
    if random.Random(f"{name} {index}").random() < fails:
        return Outcome(action.id, index, Failure("EngineConnectionError", "reset"))
    if isinstance(action, Score):
        return Outcome(action.id, 0, (-random.Random(str(name)).random(),))

    async def sample() -> Completion:
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        request = Request(
            action.branch.prompt, action.until, action.branch.text, first=index,
            decoding=action.decoding or COLD,
        )  # fmt: skip
        (made,) = [c async for c in engine.generate(request, meter) if isinstance(c, Completion)]
        return made

    made = run_virtual(sample())
    return Outcome(action.id, index, made, made.usage)


@pytest.mark.parametrize("rank", ["vote", "views"])
@given(seed=st.integers(0, 9), order=st.integers(0, 2**32), fails=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=15)
def test_any_order_gives_the_same_result(rank: Any, seed: int, order: int, fails: float) -> None:
    strategy = Airv(n=8, rank=rank, flight=3)
    chance = random.Random(order)
    assert told_in(chance, strategy, seed, fails) == told_in(chance, strategy, seed, fails)
    if fails == 1.0:
        result = told_in(chance, strategy, seed, fails)
        assert (result.answer, len(result.failures)) == (None, 8)
