"""Runs with invented answers: known pass rates, a distractor, likelihoods that know a little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mull.report.data import Cell, LedgerRow, ProblemResult, Run, Sample
from mull.selection import majority
from mull.types import Candidate, Usage


def problem(
    number: int, n: int, rate: float, level: int | None, chance: np.random.Generator
) -> ProblemResult:
    gold = str(10 + number % 80)
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    for i in range(n):
        draw = chance.random()
        right = draw < rate
        answer = gold if right else str(int(gold) + 7) if draw < rate + 0.3 * (1 - rate) else None
        if answer is None and chance.random() < 0.8:
            answer = str(chance.integers(1, 99))
        right = answer == gold
        tokens = int(chance.integers(20, 60))
        group = -1 if answer is None else seen.setdefault(answer, len(seen))
        text = "\n".join(
            f"{a} + {b} = {a + b}" for a, b in chance.integers(1, 50, (tokens // 8, 2))
        )
        text += "" if answer is None else f"\nanswer {answer}"
        usage = Usage(
            prompt=80 if i == 0 else 0, generated=tokens, flops=4e5 * (tokens + 80 * (i == 0)),
            seconds=tokens * 5e-4,
        )  # fmt: skip
        samples.append(
            Sample(
                key=(i,), text=text, answer=answer, group=group, correct=right,
                outcome="correct" if right else "unanswered" if answer is None else "wrong",
                unanswered="truncated" if answer is None else None,
                stop="length" if answer is None else "end", usage=usage,
                scores={"mean_logprob": -float(chance.random()) - 0.25 * (not right)},
            )
        )  # fmt: skip
    chosen = majority([Candidate(s.key, s.text, s.answer, scores=s.scores) for s in samples])
    story = f"Tom has {number % 9 + 2} bags with {number % 7 + 3} apples each. How many apples?"
    return ProblemResult(
        id=f"words/test/{number}", prompt=story, gold=gold, level=level, samples=tuple(samples),
        answer=chosen.answer, correct=chosen.answer == gold, confidence=chosen.confidence,
    )  # fmt: skip


def cell(
    problems: int = 40,
    n: int = 8,
    seed: int = 0,
    levels: bool = True,
    strategy: str = "vote",
    independent: bool = True,
    **parameters: str | float,
) -> Cell:
    def rows() -> Iterator[ProblemResult]:
        chance = np.random.default_rng([seed, 7])
        for number in range(problems):
            level = number % 5 + 1
            rate = float(np.clip(chance.beta(2, 2) * (1.35 - 0.22 * level), 0, 1))
            yield problem(number, n, rate, level if levels else None, chance)

    named: Mapping[str, str | float] = parameters
    return Cell(strategy, f"samples={n}", seed, tuple(rows()), named, independent)


def run(*cells: Cell, name: str = "words-s on words") -> Run:
    cells = cells or (cell(),)
    total = sum((s.usage for c in cells for p in c.problems for s in p.samples), Usage())
    count = sum(len(p.samples) for c in cells for p in c.problems)
    return Run(
        name=name, task="words", model="words-s", config='task = "words"\nmodel = "words-s"\n',
        config_hash="3f6c1b9e0a52d7c4", cost_model="2P+4LWc", cells=cells,
        ledger=(LedgerRow("policy", "words-s", total, count),),
        facts={"engine": "simulated", "problems": str(len(tuple(cells[0].problems))),
               "seeds": ", ".join(sorted({str(c.seed) for c in cells})), "decoding": "T 0.8"},
    )  # fmt: skip


NO_SCRIPT = (
    *("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("),
    *("setTimeout(", ".href", ".src", "location", "fetch("),
)
"""What a page's own script must not hold: ways from text to markup, code or the network."""
