"""The studies on a trained ARC model: votes, temperature, beam, batching, fine-tuning, repeats.

    python recipes/arc/shipped.py arc-m --data <folder of the 1D-ARC kinds>    # 40 minutes

Puzzles are the first ten of each of the 18 kinds of 1D-ARC, five of which no shipped model was
trained on. A finished cell is not made again; ``--only`` picks studies.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from statistics import median

from rows import ROWS, Row, measured, save, seen

from mull.catalog import load_policy, load_task
from mull.catalog.models import model_folder
from mull.engines.adapt import AdaptRecipe
from mull.engines.torch.load import revision
from mull.errors import UsageError
from mull.tasks.arc.adapt import pooled
from mull.tasks.arc.data import load
from mull.tasks.arc.grids import Puzzle
from mull.tasks.arc.stream import texts_of
from mull.tasks.arc.task import ArcTask
from mull.tasks.arc.writing import writing

ROW_TASK = "arc(geometry=false, max_tokens=200)"
"""Rows are not turned: the models have seen them lying only."""
TEMPERATURES = (0.0, 0.5, 0.8, 1.1)
WIDTHS = (2, 4)
STEPS = (50, 100, 200, 400)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Bench:
    """A model, puzzles, where runs are kept and where rows go."""

    model: str
    data: Path
    puzzles: tuple[Puzzle, ...]
    work: Path
    rows: Path
    task: str

    @property
    def name(self) -> str:
        """The model and the digest of its weights."""
        folder = model_folder(self.model)
        return f"{folder.name}@{revision(folder)}"

    def cell(
        self,
        study: str,
        name: str,
        strategy: str,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        task: str = "",
        model: str | Path = "",
        **facts: float,
    ) -> None:
        """Run one cell, unless its row is there, and save the row."""
        if (name, seed) in seen(self.rows, study):
            return
        directory = self.work / study / f"{name.replace(' ', '-').replace('=', '')}-{seed}"
        fresh, began = not directory.exists(), time.process_time()
        [made] = measured(
            model or self.model, task or self.task, self.puzzles, [strategy], [temperature],
            directory, engine={"slots": 128},
        )  # fmt: skip
        if fresh:  # a resumed run's time is not that of the whole
            facts["seconds"] = round(time.process_time() - began, 1)
        row = Row.of(made, study, name, seed, facts, self.name)
        save(row, self.rows)
        print(f"{study}: {name}, seed {seed}: vote_2 {row.mean('vote_2'):.3f}", flush=True)


def temperature(bench: Bench) -> None:
    """D1, D2, D3: 32 views, at four temperatures."""
    for seed, t in product(SEEDS, TEMPERATURES):
        bench.cell("temperature", f"T={t:g}", f"airv(n=32, seed={seed})", temperature=t, seed=seed)


def repeats(bench: Bench) -> None:
    """Three whole submissions of other views: how much of a score is luck."""
    for seed in SEEDS:
        bench.cell("repeats", "airv of 8", f"airv(n=8, seed={seed})", seed=seed)


def views(bench: Bench) -> None:
    """What each part of the views is worth when the model is asked: each one left out."""
    options = {"all": {}, "no colours": {"colours": False}, "no order": {"order": False}}
    for seed in SEEDS:
        for name, off in options.items():
            bench.cell(
                "views", name, f"airv(n=16, seed={seed})", seed=seed, task=_with(bench.task, off)
            )


def fit(bench: Bench) -> None:
    """Demonstrations left out to fit: the median prompt's length cuts every second puzzle."""
    task = _task(bench)
    sizes = [len(each.prompt.plain) for p in bench.puzzles for each in task.problems_of(p)]
    middle = int(median(sizes))
    limits = {"whole": max(sizes), "median": middle, "half the median": middle // 2}
    for seed, (name, characters) in product(SEEDS, limits.items()):
        cut = sum(size > characters for size in sizes) / len(sizes)
        bench.cell(
            "fit", name, f"airv(n=8, seed={seed})", seed=seed,
            task=_with(bench.task, {"characters": characters}), characters=characters, cut=cut,
        )  # fmt: skip


def beam(bench: Bench) -> None:
    """D5: the likelihood of the best that beams find, how often it is right, and what they cost;
    nothing is drawn, so there are no seeds.
    """
    bench.cell("beam", "greedy", "greedy")
    for width in WIDTHS:
        bench.cell("beam", f"beam of {width}", f"token-beam(width={width}, best_of=1)")


def batching(bench: Bench) -> None:
    """D4: one prompt at a time, per puzzle, all at once."""
    from mull.bench.arc import arc_batching

    if ("batching", 0) in seen(bench.rows, "batching"):
        return
    found = arc_batching(
        bench.puzzles, bench.model, task=_task(bench), count=100, repeats=3, share=0.1
    )
    facts = {row.mode: round(row.rate.median, 1) for row in found}
    nothing = ((),) * 6
    save(Row("batching", "batching", 0, bench.name, "", 0, *nothing, facts), bench.rows)
    print(facts, flush=True)


def ttft(bench: Bench) -> None:
    """D8: one model fine-tuned on all puzzles' demonstrations, step by step, two seeds.

    Under the views that it is asked under: rows are trained on lying, where they lie.
    """
    from mull.training.adapt import adapt_model

    bench.cell("ttft", "0 steps", "airv(n=8)", steps=0, validation=_validation(bench, None))
    for seed in SEEDS[:2]:
        for steps in STEPS:
            name = f"{steps} steps"
            if (name, seed) in seen(bench.rows, "ttft"):
                continue
            folder = bench.work / "ttft" / f"model-{steps}-{seed}"
            if not (folder / "model.safetensors").exists():
                [group] = pooled(bench.puzzles, _task(bench), 16, seed)
                recipe = AdaptRecipe(steps, 2048, 5e-4, 2.5e-4, seed)
                adapt_model(model_folder(bench.model), group.texts, recipe, folder)
            bench.cell(
                "ttft", name, "airv(n=8)", seed=seed, model=folder,
                steps=steps, validation=_validation(bench, folder),
            )  # fmt: skip


def _task(bench: Bench) -> ArcTask:
    task = load_task(bench.task)
    if not isinstance(task, ArcTask):
        raise UsageError(f"--task {bench.task}: expected the task arc with options")
    return task


def _validation(bench: Bench, folder: Path | None) -> float:
    """Nats a token of the true test outputs; nothing is ever trained on them."""
    from mull.training.dialogue import Encoder
    from mull.training.loop import held_out_loss
    from mull.training.model import load_model
    from training import encoded

    where = folder or model_folder(bench.model)
    texts = texts_of(bench.puzzles, writing(_task(bench).format))
    return round(held_out_loss(load_model(where), encoded(texts, Encoder.of(where))), 5)


def _with(task: str, options: Mapping[str, object]) -> str:
    """A task's spec with more options.

    >>> _with("arc(geometry=false)", {"colours": False})
    'arc(geometry=false, colours=false)'
    """
    more = [f"{name}={str(value).lower()}" for name, value in options.items()]
    return f"{task.removesuffix(')')}{''.join(f', {each}' for each in more)})"


STUDIES: dict[str, Callable[[Bench], None]] = {
    "temperature": temperature,
    "beam": beam,
    "repeats": repeats,
    "views": views,
    "fit": fit,
    "ttft": ttft,
    "batching": batching,
}


def first_of_each(data: Path, count: int) -> tuple[Puzzle, ...]:
    """The first ``count`` puzzles of every kind, a folder each."""
    kinds = sorted(path for path in data.glob("1d_*") if path.is_dir())
    if not kinds:
        raise UsageError(f"--data {data} holds no folder 1d_...: name the one of the 1D-ARC kinds")
    return tuple(p for kind in kinds for p in islice(load(str(kind)), count))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "model", help="a model of mull train that solves puzzles, by name or folder"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the 1D-ARC kinds")
    parser.add_argument("--work", type=Path, default=Path("build/arc/shipped"))
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--each", type=int, default=10, help="puzzles of each kind")
    parser.add_argument("--task", default=ROW_TASK)
    parser.add_argument("--only", choices=list(STUDIES), nargs="+", default=list(STUDIES))
    given = parser.parse_args(arguments)
    puzzles = first_of_each(given.data, given.each)
    bench = Bench(given.model, given.data, puzzles, given.work, given.rows, given.task)
    # What is loaded once is in nobody's seconds.
    asyncio.run(load_policy(given.model).aclose())
    for name in given.only:
        began = time.perf_counter()
        STUDIES[name](bench)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
