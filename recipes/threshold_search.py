"""What threshold search costs and finds beside greedy and beam decoding, on a shipped model.

    python recipes/threshold_search.py                  # words-s, 20 test problems, all together

One row a decoding: tokens made, steps of the batch, rows a step, problems with at least one
completion, and on how many the first or any of them is right.
"""

from __future__ import annotations

import argparse
import asyncio
from statistics import fmean
from typing import Any

from mull import load_engine, load_task
from mull.budget import Ledger, Meter, Purpose
from mull.tasks.base import GeneratedTask, Task
from mull.types import GREEDY, Completion, Problem, Request, StopReason, ThresholdDFS, TokenBeam

THRESHOLDS = (0.2, 0.1, 0.05, 0.01)
DECODINGS = {
    "greedy": (GREEDY, 1),
    **{f"threshold {t:g}": (ThresholdDFS(t), ThresholdDFS(t).width) for t in THRESHOLDS},
    "token beam of 4": (TokenBeam(4), 4),
}


async def search(
    engine: Any, task: Task, problem: Problem, name: str, ledger: Ledger
) -> list[bool]:
    """Which completions of a problem are right, the likeliest first."""
    decoding, n = DECODINGS[name]
    request = Request(problem.prompt, task.until, n=n, decoding=decoding)
    meter = Meter(ledger, Purpose.POLICY, engine.info)
    found = [item async for item in engine.generate(request, meter) if isinstance(item, Completion)]
    right = []
    for each in sorted(found, key=lambda each: each.index):
        answer = task.extract(problem, each.text).answer
        if each.stop is not StopReason.EXHAUSTED:
            right.append(answer is not None and task.same(problem, answer, problem.answer or ""))
    return right


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="words-s")
    parser.add_argument("--task", default="words")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--slots", type=int, default=256)
    options = parser.parse_args()
    engine: Any = load_engine(options.model, slots=options.slots)
    task = load_task(options.task)
    if not isinstance(task, GeneratedTask):
        parser.error(f"{options.task} draws no problems of its own: name words or countdown")
    problems = list(task.problems("test", options.problems))
    live, step = list[int](), engine.batch.step

    def watched() -> None:
        step()
        live.extend([engine.batch.state.live] if engine.batch.state.live else [])

    engine.batch.step = watched
    print("| decoding | tokens | steps | rows a step | with a completion | right: first, any |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in DECODINGS:
        engine.forget()
        live.clear()
        ledger = Ledger()
        jobs = (search(engine, task, problem, name, ledger) for problem in problems)
        rights = await asyncio.gather(*jobs)
        first, any_of = sum(each[:1] == [True] for each in rights), sum(map(any, rights))
        cells = [f"{ledger.total.generated:,}", len(live), f"{fmean(live):.1f}"]
        print(
            "|", *[f"{c} |" for c in [name, *cells, sum(map(bool, rights)), f"{first}, {any_of}"]]
        )
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main())
