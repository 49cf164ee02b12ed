"""Studies of trainings in the compact format: rates, checkpoints, sizes, augmentations, LoRA ranks.

    MULL_REARC=<folder of reasoning_gym> python recipes/arc/trainings.py    # two hours of one core

Puzzles are those of the encoder study. A finished cell is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from puzzles import NEW_GRIDS, NEW_ROWS, held_out, trained
from rows import ROWS, Row, measured, save, seen

from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.compact import CHARACTERS
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.stream import ArcStream
from mull.tasks.arc.writing import writing
from training import CONTEXT, Data, Plan, data, save_words, tokenizer_of, train

TASK = "arc(geometry=false, max_tokens=60)"
STRATEGY = "airv(n=4)"
SEEDS = (0, 1, 2)
RATES = (0.125, 0.5, 2.0)
"""Beside the size's own peak rates, which are 1."""
RANKS = (4, 16, 64)
LORA_STEPS = 100
PLAIN = Recipe(geometry=False, own=0.0)
AUGMENTED = {
    "all": PLAIN,
    "no colours": Recipe(geometry=False, colours=False, own=0.0),
    "no order": Recipe(geometry=False, order=False, swap=False, own=0.0),
    "no swap": Recipe(geometry=False, swap=False, own=0.0),
    "with turns": Recipe(own=0.0),
    "with own changes": Recipe(geometry=False, own=0.3),
}
"""What is left out of (or added to) the changes that make a text new on every visit."""


class Bench:
    """Puzzles and folders of all these studies; ``texts`` training texts a cell."""

    def __init__(self, work: Path, rows: Path, texts: int) -> None:
        self.work, self.rows, self.texts = work, rows, texts
        self.held = held_out()
        self.words = work / "words"
        save_words(tokenizer_of([CHARACTERS]), self.words)

    def data(
        self, recipe: Recipe = PLAIN, few: int = 0, sources: Sequence[Puzzle | Pool] = ()
    ) -> Data:
        """Texts of the recipe; ``few`` different ones where that is given."""
        found = sources or trained(self.held)
        return data("marked", found, self.held, few or self.texts, self.words, recipe)

    def cell(self, study: str, name: str, seed: int, plan: Plan, made: Data) -> None:
        """Train and measure, a row a checkpoint."""
        where = self.work / study / f"{name.replace(' ', '-')}-{seed}"
        checks = train(plan, made, where)
        known = seen(self.rows, study)
        for number, check in enumerate(checks, 1):
            own = name if plan.checkpoints == 1 else f"{name}, {number}"
            if (own, seed) in known:
                continue
            folder = where / str(number)
            [found] = measured(folder, TASK, self.held, [STRATEGY], [0.0], where / f"run-{number}")
            row = Row.of(found, study, own, seed, check)
            save(row, self.rows)
            print(f"{study}: {own} seed {seed}: {row.mean('accuracy'):.3f} {check}", flush=True)


def along(bench: Bench, checkpoints: int = 10, few: int = 1500, epochs: float = 10.0) -> None:
    """D7: few texts again and again, so that the validation loss passes its least."""
    made = bench.data(few=few)
    for seed in SEEDS:
        plan = Plan("s", seed, epochs, checkpoints)
        bench.cell("along", "training", seed, plan, made)


def sizes(bench: Bench) -> None:
    """D10: two sizes on the same texts."""
    made = bench.data()
    for seed in SEEDS:
        for size in ("s", "m"):
            bench.cell("sizes", size, seed, Plan(size, seed), made)


def rates(bench: Bench) -> None:
    """The small size at other peak rates; at its own it is the one of ``sizes``."""
    made = bench.data()
    for seed in SEEDS:
        for rate in RATES:
            bench.cell("rates", f"{rate:g} x", seed, Plan("s", seed, rate=rate), made)


def augmentations(bench: Bench) -> None:
    """Each augmentation of the training left out or added, one seed."""
    for name, recipe in AUGMENTED.items():
        if (name, 0) not in seen(bench.rows, "augmentations"):
            bench.cell("augmentations", name, 0, Plan("s", 0), bench.data(recipe))


def lora(bench: Bench) -> None:
    """D9: adapters of three ranks that teach the 0.8M model kinds it has not seen, two seeds."""
    from mull.training.dialogue import Encoder
    from mull.training.lora import LoraShape, TrainLora, merge, train_lora

    base = bench.work / "sizes" / "m-0" / "1"
    if not (base / "model.safetensors").exists():
        raise SystemExit("LoRA goes on from the larger model of the sizes: run --only sizes first")
    held = held_out(40, NEW_ROWS, NEW_GRIDS)
    sources = trained(held, NEW_ROWS, NEW_GRIDS)
    for seed in SEEDS[:2]:
        stream = ArcStream(sources, writing("marked"), "outputs", PLAIN, seed=seed)
        for rank in RANKS:
            if (f"rank {rank}", seed) in seen(bench.rows, "lora"):
                continue
            folder = bench.work / "lora" / f"rank-{rank}-{seed}"
            config = TrainLora(
                base,
                steps=LORA_STEPS,
                batch=16,
                micro=16,
                max_length=CONTEXT,
                rate=3e-3,
                shape=LoraShape(rank=rank, alpha=2.0 * rank, dropout=0.0, targets=("all-linear",)),
                every=LORA_STEPS,
                seed=seed,
                threads=1,
            )
            if not (folder / "trained.json").exists():
                train_lora(config, stream, folder, encoder=Encoder.of(base))
            if not (folder / "merged" / "model.safetensors").exists():
                merge(base, folder, folder / "merged")
            directory = folder / "run"
            [found] = measured(folder / "merged", TASK, held, [STRATEGY], [0.0], directory)
            row = Row.of(found, "lora", f"rank {rank}", seed, {"rank": rank})
            save(row, bench.rows)
            print(f"lora: rank {rank} seed {seed}: {row.mean('accuracy'):.3f}", flush=True)


STUDIES = {
    "sizes": sizes,
    "rates": rates,
    "along": along,
    "augmentations": augmentations,
    "lora": lora,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/arc/trainings"))
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--texts", type=int, default=8_000)
    parser.add_argument("--only", choices=list(STUDIES), nargs="+", default=list(STUDIES))
    given = parser.parse_args()
    bench = Bench(given.work, given.rows, given.texts)
    for name in given.only:
        STUDIES[name](bench)


if __name__ == "__main__":
    main()
