"""One answer without a choice."""

from __future__ import annotations

import pytest
from tests.strategies.common import TASK, job, one, problem

from mull.budget import Budget
from mull.engines.simulated import Script, SimulatedEngine, StepModel
from mull.errors import BudgetError
from mull.strategies.base import Generate, Room, Start
from mull.strategies.single import Greedy, Sample
from mull.types import GREEDY


def test_greedy_is_the_likeliest_completion_whatever_the_seed() -> None:
    engine = SimulatedEngine(StepModel())
    results = [one(job(Greedy(), seed=seed), engine).result for seed in range(5)]
    texts = {result.candidates[0].text for result in results}
    assert len(texts) == 1
    (action,) = Greedy().start(Start(problem(), TASK)).ask(Room(1))
    assert isinstance(action, Generate)
    assert (action.decoding, action.final, action.count) == (GREEDY, True, 1)


def test_greedy_takes_one_sample() -> None:
    assert one(job(Greedy(), Budget(samples=1)), SimulatedEngine(StepModel())).samples == 1
    assert one(job(Greedy(), Budget(tokens=3)), SimulatedEngine(StepModel())).samples == 1
    with pytest.raises(BudgetError, match="greedy takes one sample, and the budget is 16: use"):
        Greedy().start(Start(problem(), TASK, Budget(samples=16)))


def test_the_first_sample_answers_though_others_outvote_it() -> None:
    engine = SimulatedEngine(Script(["answer 1", "answer 2", "answer 2"]))
    result = one(job(Sample(n=3)), engine).result
    assert (result.answer, len(result.candidates)) == ("1", 3)


def test_a_first_sample_without_an_answer_gives_none() -> None:
    engine = SimulatedEngine(Script(["who knows", "answer 2"]))
    assert one(job(Sample(n=2)), engine).result.answer is None


def test_sample_takes_one_unless_told() -> None:
    engine = SimulatedEngine(StepModel())
    assert one(job(Sample()), engine).samples == 1
    assert one(job(Sample(), Budget(samples=5)), engine).samples == 5
    assert one(job(Sample(n=3), Budget(tokens=10**6)), engine).samples == 3
