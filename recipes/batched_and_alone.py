"""How far batched rows of the torch engine are from the same rows computed alone.

    python recipes/batched_and_alone.py                 # words-s, 100 problems x 16 samples

Both engines draw the same samples with the same seeds in float32. Printed: the share of samples
with the same tokens, with its 95 % interval (Wilson), and over those the largest difference of a
log-probability.
"""

from __future__ import annotations

import argparse
import asyncio

from mull import load_engine
from mull.budget import Ledger, Meter, Purpose
from mull.catalog import load_task, model_card
from mull.engines.base import Engine
from mull.metrics.intervals import wilson
from mull.tasks.base import GeneratedTask
from mull.types import Completion, Problem, Request


async def samples(engine: Engine, problems: list[Problem], n: int) -> list[Completion]:
    """Every sample of every problem, in order."""
    until = load_task(card_task(engine)).until

    async def of(problem: Problem) -> list[Completion]:
        meter = Meter(Ledger(), Purpose.POLICY, engine.info)
        request = Request(problem.prompt, until, n=n, seed=7)
        items = [item async for item in engine.generate(request, meter)]
        return sorted((c for c in items if isinstance(c, Completion)), key=lambda c: c.index)

    try:
        return [c for each in await asyncio.gather(*map(of, problems)) for c in each]
    finally:
        await engine.aclose()


def card_task(engine: Engine) -> str:
    """The task that a shipped model was trained for."""
    card = model_card(engine.info.model)
    if card is None:
        raise SystemExit(f"{engine.info.model} has no card: name a shipped model")
    return str(card["task"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="words-s")
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--samples", type=int, default=16)
    given = parser.parse_args()
    batched = load_engine(given.model, dtype="float32", slots=64)
    alone = load_engine(given.model, dtype="float32", one_row=True)
    task = load_task(card_task(batched))
    if not isinstance(task, GeneratedTask):
        raise SystemExit(f"task {task.name} makes no problems of its own")
    problems = list(task.problems("validation", given.problems))
    pairs = list(
        zip(
            asyncio.run(samples(batched, problems, given.samples)),
            asyncio.run(samples(alone, problems, given.samples)),
            strict=True,
        )
    )
    same = [(a, b) for a, b in pairs if a.token_ids == b.token_ids]
    most = max(
        abs(x - y) for a, b in same for x, y in zip(a.logprobs or (), b.logprobs or (), strict=True)
    )
    share = wilson(len(same), len(pairs)).percent(2)
    print(
        f"{len(same):,} of {len(pairs):,} samples have the same tokens, {share} %; "
        f"their log-probabilities differ by at most {most:.1e}"
    )


if __name__ == "__main__":
    main()
