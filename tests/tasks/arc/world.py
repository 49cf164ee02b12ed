"""A small world for puzzles: random ones, a solver that knows some answers, a tiny random model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mull.engines.simulated import SimulatedEngine
from mull.engines.simulated.content import Piece
from mull.engines.simulated.text import encode, prompt_text
from mull.tasks.arc.compact import CHARACTERS
from mull.tasks.arc.grids import Grid, Pair, Puzzle, as_text, from_text
from mull.tasks.arc.task import ArcTask
from mull.types import Problem, Request


def random_puzzle(seed: int, side: int = 5, tests: int = 1, id: str = "") -> Puzzle:
    """Two to four demonstrations of random grids."""
    rng = random.Random(seed)

    def grid() -> Grid:
        width = rng.randint(1, side)
        return tuple(tuple(rng.choices(range(10), k=width)) for _ in range(rng.randint(1, side)))

    pairs = tuple(Pair(grid(), grid()) for _ in range(rng.randint(2, 4) + tests))
    return Puzzle(id or f"p{seed}", pairs[tests:], pairs[:tests])


def spoilt(answer: str, rng: random.Random) -> str:
    """Another grid of the same shape."""
    grid = [list(row) for row in from_text(answer)]
    for _ in range(rng.randint(1, 2)):
        row = rng.choice(grid)
        row[rng.randrange(len(row))] = rng.randrange(10)
    grid[0][0] = (from_text(answer)[0][0] + 1) % 10
    return as_text(tuple(map(tuple, grid)))


@dataclass(eq=False)
class Knows:
    """Says one text to each prompt it was told, at a log-probability a token; else nothing."""

    texts: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        text, logprob = self.texts.get(prompt_text(request.prompt), ("", -1.0))
        yield text, [logprob] * len(encode(text))

    def score(self, prompt: str, assistant: str) -> list[float]:
        """As likely as the two texts say: any function of them will do."""
        rng = random.Random(f"{prompt}|{assistant}")
        return [-rng.random() for _ in encode(assistant)]

    def end(self, prompt: str, assistant: str) -> float:
        """Any function of them, but another one."""
        return -random.Random(f"end|{prompt}|{assistant}").random()

    def value(self, prompt: str, assistant: str) -> float:
        return 0.5

    def tell(self, task: ArcTask, problem: Problem, count: int, right: float, seed: int) -> None:
        """Decide what is said under each of ``count`` views: right, wrong, or no grid."""
        rng = random.Random(f"{problem.id} {seed}")
        assert problem.answer is not None
        for number, view in enumerate(task.views(problem, count)):
            wrong = random.Random(f"{problem.id} {number % 3}")
            draw = rng.random()
            answer = problem.answer if draw < right else spoilt(problem.answer, wrong)
            said = task.solution_in(problem, view, answer)
            if rng.random() < 0.25 * (1 - right):
                rows = said.split("\n")
                rows[-1] = rng.choice([rows[-1][:1] + "4444", "x" + rows[-1], ""])
                said = "\n".join(rows)
            self.texts[view.prompt.plain] = (said, -0.01 - 0.2 * rng.random())


def solver(
    puzzles: list[Puzzle], count: int, task: ArcTask | None = None, context: int = 0, seed: int = 0
) -> SimulatedEngine:
    """An engine that is right under some of each puzzle's views."""
    asked, knows = task or ArcTask(), Knows()
    rng = random.Random(seed)
    for puzzle in puzzles:
        right = rng.random() ** 0.7
        for problem in asked.problems_of(puzzle):
            knows.tell(asked, problem, count, right, seed)
    return SimulatedEngine(knows, context=context, parameters=1000)


def tiny_model(folder: Path, seed: int = 0, context: int = 512) -> Path:
    """A random checkpoint of one token a character: what it says is noise, and exact."""
    import torch

    from mull.training.model import Llama, Shape, save_model
    from mull.training.tokenizer import build_tokenizer, save_tokenizer

    tokenizer = build_tokenizer([CHARACTERS])
    shape = Shape(tokenizer.get_vocab_size(), width=16, layers=2, heads=2, hidden=32,
                  context=context)  # fmt: skip
    model = Llama(shape)
    model.initialise(seed)
    with torch.no_grad():  # sharper than an untrained one, so that texts differ in likelihood
        model.model.embed_tokens.weight.mul_(20.0)
    save_model(model, folder)
    save_tokenizer(tokenizer, folder, context)
    return folder
