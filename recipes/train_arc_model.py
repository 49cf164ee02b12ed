"""Train the ARC model that ships with Mull, from nothing, on generated puzzles alone.

    MULL_REARC=<folder of reasoning_gym> python recipes/train_arc_model.py arc-m --data <1D-ARC>

Two fifths of the texts are re-arc puzzles (the 400 training puzzles of ARC-AGI-1, pairs made
anew), three fifths one-row puzzles of thirteen 1D-ARC kinds. Puzzles equal to one of the 901 in the
data, and those that show one of its test pairs, are left out; evaluation puzzles are never read. A
stopped training goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from mull.fileio import write_atomic
from mull.rng import derive
from mull.tasks.arc import rearc
from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.compact import CHARACTERS, MARKED
from mull.tasks.arc.data import Pool, load
from mull.tasks.arc.grids import Pair, Puzzle
from mull.tasks.arc.one_d import KINDS, fingerprint, puzzles
from mull.tasks.arc.stream import ArcStream
from mull.tasks.arc.writing import writing
from mull.training.data import Corpus, Parts, encode_parts, load_corpus, save_corpus
from mull.training.loop import Progress
from mull.training.policy import TrainPolicy, train_policy
from mull.training.tokenizer import build_tokenizer

SHIPPED = Path(__file__).parent.parent / "src" / "mull" / "models"
LONGEST = 1024
"""Tokens of a training text at most."""
FEWEST = 2
"""Demonstrations of a training text at least."""
PAIRS, PUZZLES = 60, 1500
"""Pairs of each re-arc puzzle, puzzles of each 1D kind, made before any augmentation."""
ROWS = 0.6
"""The share of one-row puzzles among the texts: they are shorter, so it is less of the tokens."""
EASY = (0.0, 0.6)
"""The difficulty of re-arc pairs: smaller grids, of which several fit."""


@dataclass(frozen=True)
class Plan:
    """One model: its size, the training texts it sees."""

    size: str
    tokens: int
    matrix_rate: float
    rate: float
    batch_tokens: int = 2048
    seed: int = 0


PLANS = {
    "arc-m": Plan("m", 45_000_000, 2e-3, 1e-3),
    "arc-l": Plan("l", 45_000_000, 1.5e-3, 7e-4),
}


def rows(data: Path, seed: int) -> tuple[Puzzle, ...]:
    """One-row puzzles that show nothing of the data's."""
    known = [puzzle for kind in sorted(data.iterdir()) for puzzle in load(str(kind))]
    exclude = {fingerprint(puzzle) for puzzle in known}
    avoid = {pair for puzzle in known for pair in puzzle.test}
    return tuple(p for kind in KINDS for p in puzzles(kind, seed, PUZZLES, exclude, avoid))


def grids(seed: int) -> tuple[Pool, ...]:
    """Pools of pairs of the re-arc puzzles, those with too few small pairs left out."""
    pools = []
    for id in rearc.ids():
        pairs = rearc.pairs(id, seed, PAIRS, difficulty=EASY)
        made = [pair for pair in pairs if _cells(pair) <= LONGEST // 3]
        if len(made) > FEWEST + 2:
            pools.append(Pool(id, tuple(made), FEWEST + 1))
    return tuple(pools)


def _cells(pair: Pair) -> int:
    return sum(len(grid) * (len(grid[0]) + 1) for grid in (pair.input, pair.output or ()) if grid)


def texts(data: Path, seed: int) -> Iterator[Parts]:
    """Training texts without end.

    The first output of a text is not to be said: nothing before it tells the rule.
    """
    form = writing("marked")
    fits = _fits
    one = ArcStream(rows(data, seed), form, "outputs", Recipe(geometry=False, own=0.0), fits, seed)
    two = ArcStream(grids(seed), form, "outputs", Recipe(own=0.3), fits, seed)
    sources = (one(), two())
    rng = random.Random(derive(seed, "mixture"))
    while True:
        text = next(sources[0 if rng.random() < ROWS else 1])
        if isinstance(text, Parts) and _fits(text) and sum(s for _, s in text.parts) > FEWEST:
            first = next(i for i, (_, said) in enumerate(text.parts) if said)
            yield Parts(tuple((t, said and i != first) for i, (t, said) in enumerate(text.parts)))


def _fits(text: object) -> bool:
    return isinstance(text, Parts) and len(text.text) < LONGEST


def corpus(plan: Plan, data: Path, cache: Path) -> Corpus:
    """The encoded texts, from the cache if they are there."""
    path = cache / f"arc-{plan.tokens}-{plan.seed}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        tokenizer = build_tokenizer([CHARACTERS])
        save_corpus(encode_parts(texts(data, plan.seed), tokenizer, plan.tokens), path)
    return load_corpus(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(PLANS), help="models to train")
    parser.add_argument("--data", type=Path, required=True, help="folder of the 1D-ARC kinds")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--cache", type=Path, default=Path("build/corpora"))
    parser.add_argument("--threads", type=int, default=1, help="torch threads a training")
    parser.add_argument("--show", type=int, default=0, help="print so many texts and stop")
    given = parser.parse_args()
    if given.show:
        for text in islice(texts(given.data, 0), given.show):
            print(len(text.text), "".join(f"[{t}]" if said else t for t, said in text.parts), "\n")
        return
    for name in given.names:
        plan, folder = PLANS[name], given.out / name
        if (folder / "model.safetensors").exists():
            print(f"{folder} is there already")
            continue

        def show(progress: Progress, name: str = name, plan: Plan = plan) -> None:
            share, speed = progress.tokens / plan.tokens, progress.tokens_per_second
            print(f"{name} {share:4.0%} loss {progress.loss:.4f} {speed:.0f} tok/s", flush=True)

        config = TrainPolicy(
            size=plan.size,
            context=2 * LONGEST,
            tokens=plan.tokens,
            seed=plan.seed,
            batch_tokens=plan.batch_tokens,
            matrix_rate=plan.matrix_rate,
            rate=plan.rate,
            precision="bfloat16",
            threads=given.threads,
            grids={"begin": MARKED.begin, "turn": MARKED.turn, "close": MARKED.close, "line": "\n"},
        )
        made = corpus(plan, given.data, given.cache)
        trained = train_policy(config, (), [CHARACTERS], folder, corpus=made, on_progress=show)
        record = {**trained.__dict__, "folder": name, "task": "arc", "plan": asdict(plan)}
        write_atomic(folder / "trained.json", json.dumps(record, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
