"""Studies of trainings in the compact format: rates, checkpoints, sizes, augmentations, LoRA ranks.

    MULL_REARC=<folder of reasoning_gym> python recipes/arc/trainings.py  # three hours of one core

Puzzles are those of the encoder study. A finished cell is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from puzzles import NEW_GRIDS, NEW_ROWS, held_out, trained
from rows import ROWS, Row, measured, save, seen

from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.compact import CHARACTERS
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.stream import ArcStream, texts_of
from mull.tasks.arc.writing import writing
from training import CONTEXT, Data, Plan, data, save_words, tokenizer_of, train

TASK = "arc(geometry=false, max_tokens=60)"
STRATEGY = "airv(n=4)"
SEEDS = (0, 1, 2)
RATES = (0.125, 0.5, 2.0)
"""Beside the size's own peak rates, which are 1."""
RANKS = (4, 16, 64)
LORA_RATES = (3e-3, 1e-3, 3e-4)
"""Every rank with every rate: what one rank learns best with makes a larger one fall apart."""
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
    """Each augmentation of the training left out or added."""
    for name, recipe in AUGMENTED.items():
        known = seen(bench.rows, "augmentations")
        left = [seed for seed in SEEDS if (name, seed) not in known]
        made = bench.data(recipe) if left else None
        for seed in left:
            bench.cell("augmentations", name, seed, Plan("s", seed), made)


def lora(bench: Bench) -> None:
    """D9: adapters of three ranks, each with three rates, teach the 0.8M model new kinds."""
    base = bench.work / "sizes" / "m-0" / "1"
    if not (base / "model.safetensors").exists():
        raise SystemExit("LoRA goes on from the larger model of the sizes: run --only sizes first")
    held = held_out(40, NEW_ROWS, NEW_GRIDS)
    sources = trained(held, NEW_ROWS, NEW_GRIDS)
    for seed, rank, rate in product(SEEDS, RANKS, LORA_RATES):
        name = f"rank {rank}, rate {rate:g}"
        if (name, seed) in seen(bench.rows, "lora"):
            continue
        folder = bench.work / "lora" / f"{rank}-{rate:g}-{seed}"
        loss = adapt(base, folder, sources, held, rank, rate, seed)
        [found] = measured(folder / "merged", TASK, held, [STRATEGY], [0.0], folder / "run")
        facts = {"rank": rank, "rate": rate, "validation": loss}
        row = Row.of(found, "lora", name, seed, facts)
        save(row, bench.rows)
        print(f"lora: {name} seed {seed}: {row.mean('accuracy'):.3f} {facts}", flush=True)


def adapt(
    base: Path,
    folder: Path,
    sources: Sequence[Puzzle | Pool],
    held: Sequence[Puzzle],
    rank: int,
    rate: float,
    seed: int,
) -> float:
    """Train an adapter and merge it into ``folder/merged``; its last validation loss."""
    from mull.training.dialogue import Encoder
    from mull.training.lora import LoraShape, TrainLora, merge, train_lora

    form = writing("marked")
    config = TrainLora(
        base,
        steps=LORA_STEPS,
        batch=16,
        micro=16,
        max_length=CONTEXT,
        rate=rate,
        shape=LoraShape(rank=rank, alpha=2.0 * rank, dropout=0.0, targets=("all-linear",)),
        every=LORA_STEPS,
        seed=seed,
        threads=1,
    )
    done = train_lora(
        config,
        ArcStream(sources, form, "outputs", PLAIN, seed=seed),
        folder,
        validation=list(texts_of(held, form)),
        encoder=Encoder.of(base),
    )
    merge(base, folder, folder / "merged")
    return float(done.checks[-1]["validation"])


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
