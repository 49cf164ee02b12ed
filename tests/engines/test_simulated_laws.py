"""The simulator reproduces the known curves of voting on a mixed set of problems.

Values of the published simulation: 8 steps, success a step .975/.92/.82/.70/.50, distractor share
.35; accuracy at 4, 16, 64 samples over the mix.
"""

import asyncio
import math
from collections import Counter, defaultdict

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.simulated import SimulatedEngine, StepModel, levels
from mull.types import Branch, Request, Until
from mull.verifiers.simulated import SimulatedVerifier

PROBLEMS, SAMPLES, SIZES = 250, 64, (1, 4, 16, 64)
CURVES = {
    "majority": (0.32, 0.40, 0.45, 0.44),
    "weighted": (0.32, 0.56, 0.72, 0.79),
    "best": (0.32, 0.54, 0.71, 0.84),
}


async def measure() -> dict[str, dict[int, float]]:
    engine, verifier = SimulatedEngine(StepModel(tokens=(1, 1))), SimulatedVerifier()
    curves: dict[str, dict[int, float]] = {name: defaultdict(float) for name in CURVES}
    for number, problem in enumerate(levels(PROBLEMS)):
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        root = Branch.root(problem)
        request = Request(problem.prompt, Until(2000), n=SAMPLES, seed=number, logprobs=False)
        done = [c async for c in engine.generate(request, meter)]
        scores = await verifier.score([root.child(c) for c in done], meter)
        answers = [c.text.rpartition(" ")[2] for c in done]
        for n in SIZES:
            for start in range(0, SAMPLES, n):
                part = list(zip(answers[start : start + n], scores[start : start + n], strict=True))
                share = n / SAMPLES / PROBLEMS
                votes = Counter(answer for answer, _ in part)
                top = [a for a, count in votes.items() if count == max(votes.values())]
                curves["majority"][n] += share * (problem.answer in top) / len(top)
                weight: dict[str, float] = defaultdict(float)
                for answer, score in part:
                    weight[answer] += score
                curves["weighted"][n] += share * (
                    max(weight, key=weight.__getitem__) == problem.answer
                )
                curves["best"][n] += share * (max(part, key=lambda x: x[1])[0] == problem.answer)
    return curves


@pytest.mark.timeout(20)
def test_vote_weighted_vote_and_best_of_n_follow_the_published_curves():
    curves = asyncio.run(measure())
    for name, published in CURVES.items():
        for n, expected in zip(SIZES, published, strict=True):
            # Two standard errors of the problems drawn (paired over the bins), plus rounding.
            slack = 2 * math.sqrt(0.25 / PROBLEMS) * 0.6 + 0.005
            assert abs(curves[name][n] - expected) < slack, (name, n, curves[name][n])
    assert curves["majority"][16] > curves["majority"][1]
    assert curves["best"][64] > curves["weighted"][64] > curves["majority"][64]
