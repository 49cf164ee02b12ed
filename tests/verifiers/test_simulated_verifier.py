"""Laws of the simulated verifier: noise belongs to the branch, lures deceive, batches queue."""

import asyncio
import math
import statistics

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.simulated import run_virtual, simulated_problem
from mull.types import Branch, Problem, Prompt, Step, StopReason
from mull.verifiers.base import Verifier
from mull.verifiers.simulated import SimulatedVerifier

PROBLEM = simulated_problem("p", 0.7, 4, 100)


def branch(*lines: str, key: tuple[int, ...] = (0,)) -> Branch:
    steps = tuple(Step(line, StopReason.STEP) for line in lines)
    return Branch(PROBLEM, PROBLEM.prompt, key, steps=steps)


def score(verifier: SimulatedVerifier, *branches: Branch) -> list[float]:
    meter = Meter(Ledger(), Purpose.VERIFIER, verifier.info)
    return run_virtual(verifier.score(branches, meter))


def test_it_is_a_verifier_and_fits_every_policy():
    assert isinstance(SimulatedVerifier(), Verifier)
    assert SimulatedVerifier().policy == ()


def test_scores_do_not_depend_on_batch_or_order():
    verifier = SimulatedVerifier(seed=4)
    branches = [branch("step 1: ok .\n", key=(i,)) for i in range(9)]
    together = score(verifier, *branches)
    assert [score(verifier, b)[0] for b in branches] == together
    assert score(verifier, *reversed(branches)) == together[::-1]
    assert len(set(together)) == 9
    assert score(SimulatedVerifier(seed=5), *branches) != together


def test_without_noise_the_score_is_the_formula():
    verifier = SimulatedVerifier(noise=0.0)
    value = 0.7**2
    expected = 1 / (1 + math.exp(-0.8 * math.log(value / (1 - value))))
    right = branch("step 1: ok .\n", "step 2: ok .\n")
    wrong = branch("step 1: ok .\n", "step 2: slip 3 .\n")
    lure = branch("step 1: ok .\n", "step 2: lure 3 .\n")
    trap = branch("step 1: ok .\n", "step 2: trap 3 .\n")
    scores = score(verifier, right, wrong, lure, trap)
    assert scores[0] == pytest.approx(expected)
    assert scores[1] < scores[0] < scores[2] < scores[3]


def test_noise_is_standard_normal_times_its_factor():
    verifier = SimulatedVerifier(noise=0.5, sharpness=0.0)
    scores = score(verifier, *(branch("step 1: ok .\n", key=(i,)) for i in range(2000)))
    logits = [math.log(s / (1 - s)) for s in scores]
    assert abs(statistics.mean(logits)) < 0.05
    assert abs(statistics.stdev(logits) - 0.5) < 0.03


def test_a_step_is_encoded_once():
    verifier = SimulatedVerifier(parameters=10)
    meter = Meter(Ledger(), Purpose.VERIFIER, verifier.info)
    first, second = "step 1: ok .\n", "step 2: ok ...\n"
    asyncio.run(verifier.score([branch(first), branch(first, second)], meter))
    prompt = len(PROBLEM.prompt.text)
    assert meter.usage(0).tokens == prompt + len(first)
    assert meter.usage(1).tokens == len(second)


def test_batches_take_their_time_one_after_the_other():
    verifier = SimulatedVerifier(batch_ms=20)

    async def main() -> float:
        meter = Meter(Ledger(), Purpose.VERIFIER, verifier.info)
        await asyncio.gather(*(verifier.score([branch("step 1: ok .\n")], meter) for _ in range(5)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(0.1)
    assert run_virtual(main()) == pytest.approx(0.1)


def test_any_other_problem_is_scored_as_one_of_its_own():
    problem = Problem("x", Prompt.of("What is 2 + 2?"))
    [first], [again] = (score(SimulatedVerifier(), Branch.root(problem)) for _ in range(2))
    assert 0.0 < first == again < 1.0
