"""A turn that ends too early goes on; what it had when it ended is not lost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.strategies.common import TASK, job, one
from tests.strategies.test_self_refine import Noting

from mull.budget import Budget
from mull.engines.simulated import Fault, Faults, Latency, Script, SimulatedEngine, StepModel
from mull.errors import SpecError
from mull.strategies.base import Ended
from mull.strategies.budget_forcing import BudgetForcing
from mull.strategies.vote import Vote
from mull.types import Completion, StopReason, Until, Usage

TALE = "answer 1\nWait\nanswer 2\nWait\nanswer 3"


class Tale:
    """Says one answer a turn: the next one whenever it is made to go on."""

    def write(self, request, index):  # type: ignore[no-untyped-def]
        yield (
            f"{chr(10) if request.assistant else ''}answer {1 + request.assistant.count('Wait')}",
            None,
        )


@pytest.mark.parametrize("waits", [1, 2, 5])
def test_every_wait_makes_the_turn_go_on_and_the_last_answer_counts(waits: int) -> None:
    engine = Noting(Tale())
    result = one(job(BudgetForcing(waits=waits)), engine).result
    (candidate,) = result.candidates
    assert candidate.text == "\nWait\n".join(f"answer {i}" for i in range(1, waits + 2))
    assert result.answer == str(waits + 1)
    assert [r.assistant.count("Wait") for r in engine.asked] == list(range(waits + 1))
    assert candidate.tokens == sum(len(line) + 1 for line in candidate.text.split("\nWait"))
    assert result.ended is Ended.COMPLETE


def test_enough_tokens_are_enough() -> None:
    for least, answer in ((1, "1"), (9, "1"), (10, "2"), (19, "2"), (20, "3"), (900, "6")):
        result = one(job(BudgetForcing(waits=5, min_tokens=least)), SimulatedEngine(Tale())).result
        assert result.answer == answer


def test_without_a_number_of_waits_a_turn_goes_on_until_it_has_its_tokens() -> None:
    result = one(job(BudgetForcing(min_tokens=100)), SimulatedEngine(Tale())).result
    assert 100 <= result.candidates[0].tokens < 110
    assert result.answer == "10"


def test_a_turn_that_says_nothing_more_is_at_its_end() -> None:
    class Mute(SimulatedEngine):
        asked = 0

        async def generate(self, request, meter):  # type: ignore[no-untyped-def]
            self.asked += 1
            if request.assistant:
                yield Completion(request.first, "", StopReason.END, Usage())
                return
            async for item in super().generate(request, meter):
                yield item

    engine = Mute(Tale())
    assert one(job(BudgetForcing(min_tokens=100)), engine).result.answer == "1"
    assert engine.asked == 2


def test_the_word_may_be_another() -> None:
    engine = SimulatedEngine(Script(["answer 1\nHm, let me see:answer 8"]))
    # The script says all of it at once; what was said is never said again.
    result = one(job(BudgetForcing(word="Hm")), engine).result
    assert result.candidates[0].text.startswith("answer 1\nHm, let me see:answer 8")


def test_a_turn_that_was_cut_is_not_forced() -> None:
    strategy = BudgetForcing(waits=3)
    engine = Noting(Script(["a" * 600]))
    result = one(job(strategy), engine).result
    assert len(engine.asked) == 1
    assert result.candidates[0].stop is StopReason.LENGTH


def test_the_limit_is_that_of_the_whole_solution() -> None:
    given = job(BudgetForcing(waits=50))
    start = replace(given.start, until=Until(max_tokens=40))
    result = one(replace(given, start=start), SimulatedEngine(Tale())).result
    assert result.candidates[0].tokens <= 40
    assert result.answer in {"4", "5"}


def test_a_continuation_that_fails_leaves_what_was_there() -> None:
    class Once(Tale):
        def write(self, request, index):  # type: ignore[no-untyped-def]
            if request.assistant:
                return iter(())
            return super().write(request, index)

    empty = one(job(BudgetForcing()), SimulatedEngine(Once())).result
    assert empty.answer == "1"

    class Away(SimulatedEngine):
        async def generate(self, request, meter):  # type: ignore[no-untyped-def]
            self.faults = Faults(chosen={0: Fault.DEADLINE}) if request.assistant else None
            async for item in super().generate(request, meter):
                yield item

    failed = one(job(BudgetForcing(waits=2)), Away(Tale())).result
    assert failed.answer == "1"
    assert [f.error for f in failed.failures] == ["DeadlineError"]


def test_samples_vote_and_their_first_turns_are_those_of_the_vote() -> None:
    engine = Noting(StepModel())
    forced = one(job(BudgetForcing(), Budget(samples=9), success=0.5), engine)
    assert [r.n for r in engine.asked] == [9] + [1] * 9
    voted = one(job(Vote(n=9), success=0.5), SimulatedEngine(StepModel())).result
    firsts = [c.text.split("\nWait")[0] for c in forced.result.candidates]
    assert firsts == [c.text for c in voted.candidates]
    assert forced.samples == 9


def test_samples_do_not_wait_for_one_another() -> None:
    engine = SimulatedEngine(StepModel(), latency=Latency(token_ms=1), slots=8)
    solved = one(job(BudgetForcing(n=8, waits=3), success=0.5), engine)
    assert solved.seconds == pytest.approx(max(c.tokens for c in solved.result.candidates) / 1e3)


def test_without_a_number_it_is_one_sample_or_what_the_budget_pays_for() -> None:
    assert one(job(BudgetForcing()), SimulatedEngine(Tale())).samples == 1
    paid = one(job(BudgetForcing(flight=2), Budget(tokens=400)), SimulatedEngine(Tale()))
    assert paid.result.ended is Ended.BUDGET
    assert 400 <= paid.ledger.total.generated < 400 + 2 * 10
    assert paid.samples == 2 * math.ceil(200 / 19)  # tokens of a share, of a sample
    assert TASK.until.max_tokens == 400


@pytest.mark.parametrize("bad", [{"waits": 0}, {"min_tokens": 0}, {"word": " "}, {"flight": 0}])
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(SpecError, match=rf"budget-forcing\(.*{name}="):
        BudgetForcing(**bad)  # type: ignore[arg-type]
