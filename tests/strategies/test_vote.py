"""A vote answers what most samples say; a stopped vote spends less and wastes nothing."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.strategies.common import TASK, Plain, idle, job, one, rows, run

from mull.budget import Budget, Purpose
from mull.engines.simulated import Latency, Script, SimulatedEngine, StepModel
from mull.errors import SpecError
from mull.grades import Extraction
from mull.strategies.base import Ended, Start
from mull.strategies.drive import Job
from mull.strategies.stopping import Beta, Dirichlet
from mull.strategies.vote import Vote
from mull.types import Problem, Prompt


def test_the_answer_is_what_most_say() -> None:
    engine = SimulatedEngine(StepModel())
    for number in range(8):
        result = one(job(Vote(n=15), number=number, success=0.6), engine).result
        counts = Counter(c.answer for c in result.candidates)
        assert counts[result.answer] == max(counts.values())
        assert result.confidence == counts[result.answer] / 15
        assert result.ended is Ended.COMPLETE


@pytest.mark.parametrize("stop", ["beta", "dirichlet"])
@pytest.mark.parametrize("slots", [1, 5, 64])
def test_a_stopped_vote_wastes_nothing(stop: str, slots: int) -> None:
    """Every sample asked for takes effect: none is cancelled, none is made in vain."""
    rule = Beta() if stop == "beta" else Dirichlet()
    confident = 0
    engine = SimulatedEngine(StepModel(), latency=Latency(token_ms=2), slots=slots)
    jobs = [
        job(Vote(stop=stop), Budget(samples=40), number, success=0.5 + number / 25)  # type: ignore[arg-type]
        for number in range(12)
    ]
    for solved in run(jobs, engine):
        result = solved.result
        assert {purpose for purpose, _ in rows(solved)} == {Purpose.POLICY}
        assert solved.samples == len(result.candidates) <= 40
        counts = Counter(c.answer for c in result.candidates)
        sure = rule.certainty(list(counts.values())) >= rule.confidence
        assert sure == (result.ended is Ended.CONFIDENT)
        before = Counter(c.answer for c in result.candidates[:-1])
        assert rule.certainty(list(before.values())) < rule.confidence
        confident += sure
    assert engine.stats.cancelled == 0
    assert idle(engine)
    assert confident >= 6


def test_unanimous_samples_stop_at_four() -> None:
    engine = SimulatedEngine(Script(["answer 4"]))
    solved = one(job(Vote(n=40, stop="beta")), engine)
    assert solved.samples == 4
    assert solved.result.answer == "4"


def test_samples_given_may_be_enough() -> None:
    engine = SimulatedEngine(Script(["answer 4"]))
    given = one(job(Vote(n=4)), engine).result.candidates
    solved = one(job(Vote(n=40, stop="beta"), candidates=given), engine)
    assert (solved.samples, solved.result.ended) == (0, Ended.CONFIDENT)


class Tenths(Plain):
    """Answers that agree to one digit are the same."""

    def same(self, problem: Problem, a: str, b: str) -> bool:
        return round(float(a), 1) == round(float(b), 1)


class Fields(Plain):
    """Answers are JSON objects."""

    per_field = True

    def extract(self, problem: Problem, text: str) -> Extraction:
        return Extraction(text)


def scripted(texts: list[str], task: Plain, **options: object) -> object:
    start = Start(Problem("p", Prompt.of("?")), task)
    vote = Vote(n=len(texts), **options)  # type: ignore[arg-type]
    return one(Job(vote, start), SimulatedEngine(Script(texts))).result


def test_answers_are_grouped_by_the_task() -> None:
    texts = ["answer 5", "answer 5", "answer 0.30", "answer 0.3", "answer 0.31"]
    assert scripted(texts, Tenths()).confidence == 3 / 5  # type: ignore[attr-defined]
    assert scripted(texts, TASK).answer == "5"  # type: ignore[attr-defined]
    stopped = scripted(["answer 0.30", "answer 0.3"] * 10, Tenths(), stop="beta")
    assert len(stopped.candidates) == 4  # type: ignore[attr-defined]


def test_objects_are_voted_field_by_field() -> None:
    texts = ['{"a":1,"b":2}', '{"a":1,"b":3}', '{"a":4,"b":3}']
    assert scripted(texts, Fields()).answer == '{"a":1,"b":3}'  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [{"confidence": c} for c in (0.5, 1.0, float("nan"))])
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="must lie between"):
        Vote(**bad)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="stop is beta or dirichlet"):
        Vote(stop="gamma")  # type: ignore[arg-type]
