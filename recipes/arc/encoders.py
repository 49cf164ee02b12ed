"""The encoder study: does it help a model to be told the shape of grids and the numbers of rows?

    MULL_REARC=<folder of reasoning_gym> python recipes/arc/encoders.py       # an hour of one core

Four ways to write the same grids, each learned from scratch by a policy of 0.2M parameters on the
same texts in as many steps, three seeds each, and measured greedily on held-out puzzles of the
same kinds. A finished cell is not made again; a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from puzzles import held_out, trained
from rows import ROWS, Row, measured, save, seen

from mull.tasks.arc.augment import Recipe
from mull.tasks.arc.data import Pool
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.stream import ArcStream
from mull.tasks.arc.writing import writing
from mull.training.dialogue import Dialogue
from training import Plan, data, save_words, tokenizer_of, train

MINIMAL = "MinimalGridEncoder()"
VARIANTS = {
    "minimal": f"GridCodeBlockEncoder({MINIMAL})",
    "+ shape": f"GridShapeEncoder({MINIMAL})",
    "+ row numbers": f"GridCodeBlockEncoder(RowNumberEncoder({MINIMAL}))",
    "+ both": f"GridShapeEncoder(RowNumberEncoder({MINIMAL}))",
}
STUDY = "encoders"
STRATEGY = "airv(n=4)"
"""Four greedy answers a puzzle, under other colours and orders: four times the measurements."""


def words(folder: Path, held: tuple[Puzzle, ...], sources: tuple[Puzzle | Pool, ...]) -> Path:
    """The folder of the one tokenizer that all variants share."""
    if not (folder / "tokenizer.json").exists():
        texts = list[str]()
        for format in VARIANTS.values():
            stream = ArcStream(sources, writing(format), "answer", Recipe(geometry=False, own=0.0))
            for text in islice(stream(), 100):
                turns = text.turns if isinstance(text, Dialogue) else ()
                texts += [turn.message.content + "\n\n" for turn in turns]
        save_words(tokenizer_of(texts), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/arc/encoders"))
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--texts", type=int, default=20_000, help="training texts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", choices=("s", "m"), default="s")
    parser.add_argument("--only", choices=list(VARIANTS), nargs="+", default=list(VARIANTS))
    given = parser.parse_args()
    held = held_out()
    sources = trained(held)
    folder = words(given.work / "words", held, sources)
    known = seen(given.rows, STUDY)
    for name in given.only:
        left = [seed for seed in given.seeds if (name, seed) not in known]
        if not left:
            continue
        made = data(VARIANTS[name], sources, held, given.texts, folder)
        for seed in left:
            where = given.work / f"{name.replace(' ', '')}-{seed}"
            *_, last = train(Plan(given.size, seed), made, where)
            task = f'arc(format="{VARIANTS[name]}", geometry=false, max_tokens=100)'
            [cell] = measured(where / "1", task, held, [STRATEGY], [0.0], where / "run")
            row = Row.of(cell, STUDY, name, seed, last)
            save(row, given.rows)
            print(f"{name} seed {seed}: {row.mean('accuracy'):.3f} {last}", flush=True)


if __name__ == "__main__":
    main()
