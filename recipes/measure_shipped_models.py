"""Measure trained policies on unseen problems and write their cards.

    python recipes/measure_shipped_models.py words-s countdown-s --problems 500 --samples 64

For each model: ``card.json`` and ``README.md`` beside the weights, with pass@1 overall, by level
and by difficulty bin, pass@k and vote@k, each with its 95 % interval over problems.  Bins are
fifths of the problems by pass rate on one half of the samples; the other half is what is reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mull.budget import Ledger, Meter, Purpose
from mull.engines.base import Engine
from mull.engines.torch import load_torch_engine
from mull.fileio import write_atomic
from mull.metrics import (
    Interval,
    Pool,
    by_quantiles,
    held_out_halves,
    mean_interval,
    paired_difference,
    pass_at_k,
    vote_at_k,
)
from mull.rng import derive
from mull.tasks.base import GeneratedTask
from mull.tasks.countdown import CountdownTask
from mull.tasks.words import WordsTask
from mull.types import Completion, Problem, Request, Sampling

SHIPPED = Path(__file__).parent.parent / "src" / "mull" / "models"
TASKS: dict[str, GeneratedTask] = {"words": WordsTask(), "countdown": CountdownTask()}
IN_FLIGHT = 16


@dataclass(frozen=True)
class Measured:
    """Graded samples of all problems."""

    problems: list[Problem]
    pools: list[Pool]
    unanswered: float
    generated: int

    @property
    def rates(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Pass rate of each problem."""
        return np.array([pool.correct.mean() for pool in self.pools])


async def sample(
    engine: Engine, task: GeneratedTask, problems: list[Problem], samples: int
) -> list[list[Completion]]:
    """``samples`` completions of every problem at temperature 1, in order."""
    gate = asyncio.Semaphore(IN_FLIGHT)
    ledger = Ledger()

    async def one(problem: Problem) -> list[Completion]:
        request = Request(
            prompt=problem.prompt,
            until=task.until,
            n=samples,
            decoding=Sampling(temperature=1.0),
            seed=derive(0, problem.id),
        )
        async with gate:
            meter = Meter(ledger, Purpose.POLICY, engine.info)
            made = [c async for c in engine.generate(request, meter) if isinstance(c, Completion)]
        return sorted(made, key=lambda completion: completion.index)

    return await asyncio.gather(*(one(problem) for problem in problems))


def graded(task: GeneratedTask, problems: list[Problem], made: list[list[Completion]]) -> Measured:
    """Answers grouped by the task's equality, and their verdicts."""
    pools, silent = [], 0
    for problem, completions in zip(problems, made, strict=True):
        answers = [task.extract(problem, completion.text).answer for completion in completions]
        silent += answers.count(None)
        distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
        verdicts = {a: bool(task.grade(problem, a).correct) for a in distinct}
        groups = [-1 if a is None else distinct.index(a) for a in answers]
        correct = [a is not None and verdicts[a] for a in answers]
        logprobs = [completion.mean_logprob for completion in completions]
        pools.append(
            Pool(
                np.array(groups, dtype=np.int64),
                np.array(correct, dtype=np.bool_),
                np.array([float("nan") if x is None else x for x in logprobs]),
            )
        )
    tokens = sum(c.usage.generated for completions in made for c in completions)
    return Measured(problems, pools, silent / sum(p.n for p in pools), tokens)


def summary(measured: Measured) -> dict[str, Any]:
    """The card's numbers: [value, low, high] each."""
    pools, rates = measured.pools, measured.rates
    n = pools[0].n
    right = np.array([int(pool.correct.sum()) for pool in pools])
    levels = np.array([problem.meta["level"] for problem in measured.problems])
    first, second = held_out_halves(n)
    bins = by_quantiles([pool.correct[first].mean() for pool in pools])
    held_out = np.array([pool.correct[second].mean() for pool in pools])
    ks = [k for k in (1, 4, 16, 64) if k <= n]
    votes = {k: vote_at_k(pools, k) for k in ks}
    covered = {k: pass_at_k(n, right, k) for k in ks}
    return {
        "problems": len(pools),
        "samples": n,
        "split": "test",
        "temperature": 1.0,
        "pass_at_1": triple(mean_interval(rates)),
        "by_level": {
            str(level): triple(mean_interval(rates[levels == level])) for level in np.unique(levels)
        },
        "by_fifth": {
            str(5 - b): triple(mean_interval(held_out[bins == b]))
            for b in reversed(range(5))
            if (bins == b).any()
        },
        "pass_at_k": {str(k): triple(mean_interval(covered[k])) for k in ks},
        "vote_at_k": {str(k): triple(mean_interval(votes[k])) for k in ks},
        "coverage_minus_vote": triple(paired_difference(covered[n], votes[n])) if n in ks else None,
        "vote_minus_single": triple(paired_difference(votes[n], rates)) if n in ks else None,
        "unanswered": round(measured.unanswered, 4),
        "generated_tokens_per_sample": round(measured.generated / (len(pools) * n), 1),
    }


def card(folder: Path, numbers: dict[str, Any]) -> dict[str, Any]:
    """What a program wants to know about the model."""
    trained = json.loads((folder / "trained.json").read_text())
    task = TASKS[trained["task"]]
    return {
        "name": folder.name,
        "task": trained["task"],
        "parameters": trained["parameters"],
        "architecture": "LlamaForCausalLM",
        "tokens": trained["tokens"],
        "examples": trained["examples"],
        "epochs": round(trained["epochs"], 3),
        "seed": trained["config"]["seed"],
        "minutes": round(trained["seconds"] / 60, 1),
        "final_loss": trained["loss"],
        "recipe": trained["config"],
        "data": trained.get("data", {}),
        "max_tokens": task.until.max_tokens,
        "step_separator": task.until.separator,
        "stop": [],
        "pass_at_1": numbers["pass_at_1"][0],
        "measured": numbers,
    }


def readme(facts: dict[str, Any]) -> str:
    """The card for a human reader."""
    m = facts["measured"]
    share = f"{m['problems']} unseen problems of the {m['split']} split x {m['samples']} samples"
    lines = [
        f"# {facts['name']}",
        "",
        f"A policy of {facts['parameters']:,} parameters for the task `{facts['task']}`, trained",
        "from scratch on the task's own right solutions. It knows nothing else.",
        "",
        "| | |",
        "|---|---|",
        f"| architecture | {facts['architecture']}, tied embeddings, bfloat16 safetensors |",
        f"| data | {facts['examples']:,} generated problems of the train split, each with a right "
        "solution in a random valid order |",
        f"| training | {facts['tokens']:,} tokens ({facts['epochs']:g} epochs), loss on the "
        f"solution only, seed {facts['seed']}, {facts['minutes']:g} minutes on one shared core |",
        f"| recipe | `python recipes/train_shipped_models.py {facts['name']}` |",
        "",
        f"Measured on {share} at temperature 1; 95 % intervals over problems. Problems of the test",
        "split cannot occur in training: a hash of what a problem asks decides its split.",
        "",
        "| measure | percent |",
        "|---|---|",
        *(f"| pass@{k} | {percent(v)} |" for k, v in m["pass_at_k"].items()),
        *(f"| vote@{k} | {percent(v)} |" for k, v in m["vote_at_k"].items() if k != "1"),
    ]
    if m["coverage_minus_vote"] is not None:
        lines += [
            f"| pass@{m['samples']} - vote@{m['samples']} | {percent(m['coverage_minus_vote'])} |",
            f"| vote@{m['samples']} - pass@1 | {percent(m['vote_minus_single'])} |",
        ]
    lines += [
        f"| without an answer | {100 * m['unanswered']:.1f} |",
        "",
        "| level | pass@1 |",
        "|---|---|",
        *(f"| {level} | {percent(v)} |" for level, v in m["by_level"].items()),
        "",
        "| fifth of the problems, easiest first | pass@1 on held-out samples |",
        "|---|---|",
        *(f"| {number} | {percent(v)} |" for number, v in m["by_fifth"].items()),
        "",
    ]
    return "\n".join(lines)


def triple(interval: Interval) -> list[float]:
    """An interval as cards have it: value, low, high."""
    return [round(interval.value, 5), round(interval.low, 5), round(interval.high, 5)]


def percent(numbers: list[float]) -> str:
    """Such a triple for a page."""
    value, low, high = (100 * x for x in numbers)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


async def measure(folder: Path, problems: int, samples: int) -> None:
    """Sample, grade, write the card."""
    task = TASKS[json.loads((folder / "trained.json").read_text())["task"]]
    engine = load_torch_engine(folder, slots=256, dtype="float32")
    asked = list(task.problems("test", problems))
    try:
        made = await sample(engine, task, asked, samples)
    finally:
        await engine.aclose()
    facts = card(folder, summary(graded(task, asked, made)))
    write_atomic(folder / "card.json", json.dumps(facts, indent=1) + "\n")
    write_atomic(folder / "README.md", readme(facts))
    print(readme(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", help="models to measure")
    parser.add_argument("--models", type=Path, default=SHIPPED)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    for name in arguments.names:
        asyncio.run(measure(arguments.models / name, arguments.problems, arguments.samples))


if __name__ == "__main__":
    main()
