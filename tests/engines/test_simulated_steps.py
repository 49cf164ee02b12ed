"""Laws of the step model: its texts explain themselves, its probabilities are exact."""

import asyncio
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mull.budget import Ledger, Meter, Purpose
from mull.engines.simulated import (
    Script,
    SimulatedEngine,
    StepModel,
    levels,
    load_simulated,
    read_solution,
    simulated_problem,
)
from mull.engines.simulated.tables import IMPOSSIBLE, shape
from mull.errors import UnsupportedError
from mull.tasks.text import Text
from mull.types import Completion, Prompt, Request, Sampling, ScoreRequest, StopReason, Until

PROBLEM = simulated_problem("p", 0.7, 4, 100)
SMALL = StepModel(tokens=(14, 16), wrong=2, deceptive=0.2, exploit=0.05, approach=0.8)


def ask(model: StepModel, request: Request) -> list[Completion]:
    engine = SimulatedEngine(model)
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)

    async def main() -> list[Completion]:
        return [item async for item in engine.generate(request, meter)]

    return asyncio.run(main())


def test_success_is_the_product_of_its_steps():
    for problem in levels(5):
        done = ask(StepModel(), Request(problem.prompt, Until(2000), n=600, logprobs=False))
        right = sum(c.text.endswith(f"\nanswer {problem.answer}") for c in done) / 600
        expected = problem.meta["success"] ** problem.meta["steps"]
        assert abs(right - expected) < 4 * math.sqrt(expected * (1 - expected) / 600) + 1e-9


def test_the_common_wrong_answer_has_its_share_of_the_errors():
    done = ask(StepModel(distractor=0.35), Request(PROBLEM.prompt, Until(2000), n=3000))
    answers = Counter(read_solution(c.text, 4).answer for c in done)
    wrong = 3000 - answers[100]
    assert abs(answers[101] / wrong - 0.35) < 0.04
    assert max(count for k, count in answers.items() if k not in (100, 101)) / wrong < 0.05


def test_the_first_error_decides_the_answer_and_every_step_has_its_length():
    for done in ask(StepModel(deceptive=0.3), Request(PROBLEM.prompt, Until(2000), n=200)):
        reading = read_solution(done.text, 4)
        assert len(reading.events) == 4
        assert reading.answer == 100 + (reading.error[1] if reading.error else 0)
        assert all(20 <= len(line) + 1 <= 60 for line in done.text.splitlines()[:-1])
        assert done.stop is StopReason.END


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_step_by_step_has_the_distribution_of_whole_solutions(separator):
    model = StepModel(separator=separator, approach=0.7, wrong=3)
    step = Until(200, steps=1, separator=separator)
    finals = Counter()
    for sample in range(400):
        text, depth = "", 0
        while True:
            (done,) = ask(model, Request(PROBLEM.prompt, step, text, seed=sample * 50 + depth))
            text += done.text
            depth += 1
            if done.stop is StopReason.END:
                break
            assert done.text.endswith(separator)
        assert depth == (5 if separator == "\n" else 4)
        finals[read_solution(text, 4, separator).answer] += 1
    whole = ask(model, Request(PROBLEM.prompt, Until(2000), n=4000))
    share = Counter(read_solution(c.text, 4, separator).answer for c in whole)
    assert set(finals) == set(share) == {100, 101, 102, 103, 104}
    for answer, count in share.items():
        assert abs(finals[answer] / 400 - count / 4000) < 0.09


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 90), st.sampled_from(["\n", "\n\n"]))
def test_a_turn_cut_anywhere_is_finished_well(seed, cut, separator):
    model = StepModel(tokens=(14, 20), separator=separator, deceptive=0.3, exploit=0.1)
    (whole,) = ask(model, Request(PROBLEM.prompt, Until(2000), seed=seed))
    begun = whole.text[:cut]
    (rest,) = ask(model, Request(PROBLEM.prompt, Until(2000), begun, seed=seed + 1))
    reading = read_solution(begun + rest.text, 4, separator)
    assert len(reading.events) == 4 or reading.trapped
    assert reading.rest == f"answer {reading.answer}"


def test_probabilities_of_all_texts_of_one_step_sum_to_one():
    problem = simulated_problem("q", 0.6, 1, 5)
    model = StepModel(tokens=(12, 14), wrong=2, deceptive=0.25, exploit=0.1, approach=0.7)
    found: dict[str, float] = {}
    for done in ask(model, Request(problem.prompt, Until(200), n=6000)):
        found.setdefault(done.text, done.logprob)
        assert found[done.text] == pytest.approx(done.logprob, abs=1e-9)
    assert sum(math.exp(value) for value in found.values()) == pytest.approx(1.0, abs=1e-6)


def test_scoring_a_text_gives_the_logprobs_of_its_generation():
    engine = SimulatedEngine(SMALL)
    done = ask(SMALL, Request(PROBLEM.prompt, Until(2000), n=40))
    requests = [ScoreRequest(PROBLEM.prompt, c.text, values=True) for c in done]
    meter = Meter(Ledger(), Purpose.VERIFIER, engine.info)
    scored = asyncio.run(engine.score(requests, meter))
    for completion, score in zip(done, scored, strict=True):
        assert (*score.token_ids, 256) == completion.token_ids
        assert score.logprobs == pytest.approx(completion.logprobs[:-1])
        right = completion.text.endswith("answer 100")
        assert score.values[-1] == float(right)
        if right:
            assert list(score.values) == sorted(score.values)


def test_a_text_that_the_model_cannot_say_is_scored_impossible():
    engine = SimulatedEngine(SMALL)
    meter = Meter(Ledger(), Purpose.VERIFIER, engine.info)
    (scored,) = asyncio.run(engine.score([ScoreRequest(PROBLEM.prompt, "step 1: maybe\n")], meter))
    assert min(scored.logprobs) == IMPOSSIBLE
    assert len(scored.logprobs) == len(scored.token_ids)
    with pytest.raises(UnsupportedError, match="StepModel"):
        asyncio.run(
            SimulatedEngine(Script(["a"])).score([ScoreRequest(PROBLEM.prompt, "a")], meter)
        )


def test_a_turn_ends_behind_a_whole_solution_alone():
    engine = SimulatedEngine(SMALL)
    done = ask(SMALL, Request(PROBLEM.prompt, Until(2000), n=20))
    meter = Meter(Ledger(), Purpose.VERIFIER, engine.info)

    def ends(*texts: str) -> list[float | None]:
        requests = [ScoreRequest(PROBLEM.prompt, text, end=True) for text in texts]
        return [scored.end for scored in asyncio.run(engine.score(requests, meter))]

    assert ends(*(c.text for c in done)) == [0.0] * 20
    assert ends(*(c.text[:-1] for c in done), *(c.text + "." for c in done)) == [IMPOSSIBLE] * 40
    (plain,) = asyncio.run(engine.score([ScoreRequest(PROBLEM.prompt, done[0].text)], meter))
    assert plain.end is None


def test_filters_and_temperature_shape_the_draw():
    def rate(**how: float) -> float:
        request = Request(PROBLEM.prompt, Until(2000), n=400, decoding=Sampling(**how))
        return sum(c.text.endswith("answer 100") for c in ask(StepModel(), request)) / 400

    plain, cold, hot = rate(), rate(temperature=0.5), rate(temperature=2.0)
    assert cold > plain + 0.2 > hot + 0.3
    assert rate(top_k=1) == rate(top_p=0.5) == rate(min_p=0.9) == 1.0


def test_shape_is_a_distribution_and_filters_as_defined():
    masses = (0.5, 0.3, 0.15, 0.05)
    assert shape(masses, Sampling()) == pytest.approx(masses)
    assert shape(masses, Sampling(top_k=2)) == pytest.approx((0.625, 0.375, 0, 0))
    assert shape(masses, Sampling(top_p=0.8)) == pytest.approx((0.625, 0.375, 0, 0))
    assert shape(masses, Sampling(top_p=0.81)) == pytest.approx((10 / 19, 6 / 19, 3 / 19, 0))
    assert shape(masses, Sampling(min_p=0.3)) == pytest.approx((10 / 19, 6 / 19, 3 / 19, 0))
    hot = [mass**0.5 for mass in masses]
    assert shape(masses, Sampling(temperature=2)) == pytest.approx([h / sum(hot) for h in hot])


def revised(model: StepModel, attempt: str, n: int = 1000) -> list[str]:
    prompt = Prompt.of(f"{PROBLEM.prompt.text}Earlier attempt:\n{attempt}\nTry again.\n")
    return [c.text for c in ask(model, Request(prompt, Until(2000), n=n, logprobs=False))]


def test_a_revision_fixes_slips_leaves_wrong_approaches_and_breaks_what_was_right():
    model = StepModel(fix=0.4, switch=0.2, breaks=0.3)
    right = "step 1: ok .\nstep 2: ok .\nstep 3: ok .\nstep 4: ok .\nanswer 100"
    slipped = right.replace("2: ok", "2: slip 7").replace("100", "107")
    off = right.replace("1: ok", "1: off 3").replace("100", "103")
    kept = sum(text.endswith("answer 100") for text in revised(model, right)) / 1000
    assert abs(kept - 0.7) < 0.05
    repaired = sum("step 2: ok" in text for text in revised(model, slipped)) / 1000
    assert abs(repaired - 0.4) < 0.05
    after_off = revised(model, off)
    stayed = sum("step 1: off 3" in text for text in after_off) / 1000
    assert abs(stayed - 0.8) < 0.05
    solved = sum(text.endswith("answer 100") for text in after_off) / 1000
    assert abs(solved - 0.2 * 0.7**4) < 0.03


def test_a_foreign_text_in_the_turn_does_not_stop_the_model():
    begun = "step 1: ok .........\nWait, let me think"
    (done,) = ask(StepModel(), Request(PROBLEM.prompt, Until(2000), begun))
    reading = read_solution(begun + done.text, 4)
    assert len(reading.events) == 4
    assert reading.answer is not None


def test_the_final_answer_is_read_by_the_tasks_for_users_own_prompts():
    engine = load_simulated()
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)

    async def main() -> list[Completion]:
        request = Request(PROBLEM.prompt, Until(2000), n=20)
        return [item async for item in engine.generate(request, meter)]

    for done in asyncio.run(main()):
        answer = str(read_solution(done.text, 4).answer)
        assert Text().extract(PROBLEM, done.text).answer == answer


def test_any_other_prompt_is_a_problem_with_an_answer_of_its_own():
    request = Request(Prompt.of("What is 2 + 2?"), Until(500), n=32)
    answers = Counter(read_solution(done.text, 4).answer for done in ask(StepModel(), request))
    [(_, votes)] = answers.most_common(1)
    assert votes > 16
    assert len(answers) > 1


def test_numbers_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="distractor"):
        StepModel(distractor=1.5)
    with pytest.raises(ValueError, match="success"):
        simulated_problem("p", float("nan"), 3, 1)
