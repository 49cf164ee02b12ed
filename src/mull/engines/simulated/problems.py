"""The simulator's problems: what the step model must know stands in the prompt as a JSON line.

An engine sees nothing but a request, so difficulty and gold answer travel in the prompt's last
JSON line, as they would travel in the words of a real problem. ``levels`` makes the mixed set of
the published simulations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mull.rng import derive
from mull.types import Problem, Prompt

LEVELS = (0.975, 0.92, 0.82, 0.70, 0.50)
"""Success probability a step of the five difficulty bins: at 8 steps pass@1 is about
.82, .51, .20, .06, .004."""
OTHER = (0.92, 4)
"""Success and steps of a prompt that says nothing about itself: pass@1 is about .72."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides a simulated problem: success a step, number of steps, gold answer."""

    success: float
    steps: int
    gold: int


def simulated_problem(id: str, success: float, steps: int, gold: int, level: int = 0) -> Problem:
    """One problem for ``StepModel``.

    ``success`` is the probability 0..1 that a step is right, ``steps`` how many must be, ``gold``
    the answer (a non-negative integer), ``level`` the difficulty bin for reports.

    >>> simulated_problem("p0", 0.9, 8, 17).answer
    '17'
    """
    if not 0.0 <= success <= 1.0 or steps < 1 or gold < 0:
        raise ValueError(
            "a simulated problem needs success in 0..1, steps >= 1 and gold >= 0, "
            f"not {success}, {steps}, {gold}"
        )
    facts = json.dumps({"success": success, "steps": steps, "gold": gold})
    prompt = Prompt.of(f"Simulated problem {id}.\n{facts}\n")
    meta = {"level": level, "success": success, "steps": steps}
    return Problem(id, prompt, str(gold), meta)


def levels(
    count: int, *, success: Sequence[float] = LEVELS, steps: int = 8, seed: int = 0
) -> Iterator[Problem]:
    """``count`` problems that walk through the difficulty bins in turn, lazily.

    Gold answers are drawn from 0..999 by problem, so that votes of different problems differ.

    >>> [problem.meta["level"] for problem in levels(6)]
    [1, 2, 3, 4, 5, 1]
    """
    for number in range(count):
        level = number % len(success)
        gold = derive(seed, "gold", number) % 1000
        yield simulated_problem(f"s{number}", success[level], steps, gold, level + 1)


@lru_cache(maxsize=16_384)
def read_facts(prompt: str) -> Facts:
    """The facts in a prompt: its last JSON line that has all three of them.

    Any other prompt is a problem too, of four steps and a gold answer that follows from its text:
    so ``simulated`` can be asked anything.
    """
    for line in reversed(prompt.splitlines()):
        if line.startswith("{"):
            try:
                row = json.loads(line)
                return Facts(float(row["success"]), int(row["steps"]), int(row["gold"]))
            except (ValueError, KeyError, TypeError):
                continue
    return Facts(*OTHER, derive(0, "gold", prompt) % 1000)
