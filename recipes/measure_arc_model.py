"""Measure a trained ARC model: what each step adds, on rows and on the benchmark's puzzles.

    python recipes/measure_arc_model.py arc-m --rows <1D-ARC kinds> --puzzles <ARC-AGI-1>

Each set is solved by ``mull arc solve`` (a submission and a report each, resumed if stopped): one
greedy answer, the vote of eight views, their product of experts, all likely answers ranked by it;
then test-time fine-tuning before the same. Puzzles that are too long for the model count as failed.
The card and its page are written beside the weights.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure_shipped_models import SHIPPED, percent, triple

from mull.fileio import write_atomic
from mull.metrics import mean_interval, paired_difference
from mull.report.arc import SolvedCell, solved_of
from mull.report.load import Runs
from mull.tasks.arc.data import load
from mull.tasks.arc.grids import Grid, Puzzle, as_json
from mull.tasks.arc.one_d import KINDS

STEPS = {
    "greedy": "greedy",
    "vote": "airv(n=8)",
    "product of experts": "airv(n=8, rank=views)",
    "threshold search": "airv(n=80, rank=views, threshold=0.1)",
}
BEFORE = "product of experts"
TTFT = "ttft(n=8, rank=views, steps=32, matrix_rate=0.003, rate=0.0015)"


@dataclass(frozen=True)
class Set:
    """Puzzles and how they may be seen; ``longest`` is how many characters one may have.

    ``few`` of them are fine-tuned on, all where it is ``None``, seen by the options ``tuned``.
    """

    name: str
    says: str
    options: tuple[str, ...]
    tuned: tuple[str, ...]
    steps: tuple[str, ...] = tuple(STEPS)
    longest: int | None = None
    few: int | None = 40


LYING = ("--no-geometry",)
"""Rows must lie."""
FITTED = ("--characters", "1700")
LADDER = ("greedy", "vote", "product of experts")
SETS = (
    Set("rows", "1D-ARC, kinds it was trained on", LYING, LYING),
    Set("other-rows", "1D-ARC, kinds it was not", LYING, (*LYING, "--no-colours")),
    Set("evaluation", "ARC-AGI-1, evaluation", FITTED, FITTED, LADDER, 2000, None),
    Set("training", "ARC-AGI-1, training (rules that were seen)", FITTED, FITTED, LADDER, 2000),
)


def puzzles(rows: Path, arc: Path) -> dict[str, list[Puzzle]]:
    """The puzzles of each set."""
    kinds = sorted(rows.iterdir())
    return {
        "rows": [p for kind in kinds if kind.name in KINDS for p in load(kind)],
        "other-rows": [p for kind in kinds if kind.name not in KINDS for p in load(kind)],
        "evaluation": list(load(arc / "arc-agi_evaluation_challenges.json")),
        "training": list(load(arc / "arc-agi_training_challenges.json")),
    }


def solve(model: str, given: list[Puzzle], out: Path, options: tuple[str, ...]) -> list[SolvedCell]:
    """Run the command; its cells."""
    file = out.with_suffix(".json")
    write_atomic(file, json.dumps({puzzle.id: as_json(puzzle) for puzzle in given}))
    command = Path(sys.executable).with_name("mull")
    words = ["arc", "solve", str(file), "--model", model, "--out", str(out), *options]
    done = subprocess.run([command, *words], check=False)  # noqa: S603  (our own command)
    if done.returncode not in (0, 3):  # 3: some do not fit the context and count as failed
        raise SystemExit(done.returncode)
    with Runs([out]) as loaded:
        return solved_of(loaded.runs[0])


def measure(model: str, each: Set, given: list[Puzzle], work: Path) -> dict[str, Any]:
    """The scores of a set: [value, low, high] of each step, and of fine-tuning."""
    fits = sorted((_length(p), p.id, p) for p in given)
    known = [p for length, _, p in fits if each.longest is None or length <= each.longest]
    known = known if each.longest is not None else given
    asked = [word for step in each.steps for word in ("--strategy", STEPS[step])]
    cells = solve(model, known, work / each.name, (*asked, *each.options))
    scores = {s: dict(cell.score.solved) for s, cell in zip(each.steps, cells, strict=True)}
    ids = [puzzle.id for puzzle in given]
    found: dict[str, Any] = {"puzzles": len(given), "too_long": len(given) - len(known)}
    found["steps"] = {step: _score(solved, ids) for step, solved in scores.items()}
    found["added"] = {
        f"{new} - {old}": _difference(scores[new], scores[old], ids)
        for old, new in pairwise(each.steps)
    }
    few, sample = each.few, known
    if few is not None:
        sample = random.Random(0).sample(given, min(few, len(given)))
    anew = each.tuned != each.options or few is not None
    asked = [*(("--strategy", STEPS[BEFORE]) if anew else ()), "--strategy", TTFT]
    tuned = solve(model, sample, work / f"{each.name}-tuned", (*asked, *each.tuned))
    before = dict(tuned[0].score.solved) if anew else scores[BEFORE]
    after = dict(tuned[-1].score.solved)
    ids = [puzzle.id for puzzle in sample] if few is not None else ids
    found["tuned"] = {
        "puzzles": len(ids),
        "options": " ".join(each.tuned),
        "before": _score(before, ids),
        "after": _score(after, ids),
        "added": _difference(after, before, ids),
    }
    return found


def _length(puzzle: Puzzle) -> int:
    """Characters of a puzzle's demonstrations, its first test input, and the longest output."""
    shown = [size(pair.input) + size(pair.output or ()) for pair in puzzle.train]
    longest = max(size(pair.output or ()) for pair in puzzle.train)
    return sum(shown) + size(puzzle.test[0].input) + longest


def size(grid: Grid) -> int:
    """Characters of a grid, line breaks counted."""
    return sum(len(row) + 1 for row in grid)


def _score(solved: Mapping[str, float], ids: Sequence[str]) -> list[float]:
    return triple(mean_interval([solved.get(id, 0.0) for id in ids]))


def _difference(
    new: Mapping[str, float], old: Mapping[str, float], ids: Sequence[str]
) -> list[float]:
    pairs = [(new.get(id, 0.0), old.get(id, 0.0)) for id in ids]
    return triple(paired_difference([a for a, _ in pairs], [b for _, b in pairs]))


def readme(card: dict[str, Any]) -> str:
    """The page beside the weights."""
    sets = {each.name: each for each in SETS}
    lines = [
        f"# {card['name']}",
        "",
        f"A solver of grid puzzles of {card['parameters']:,} parameters, trained from nothing on "
        f"{card['tokens']:,} tokens of generated",
        "puzzles: re-arc pairs of the 400 training puzzles of ARC-AGI-1, and one-row puzzles of 13",
        "kinds of 1D-ARC. It knows the row and column of every cell (`mull_grid`; the torch engine",
        "runs it, other engines do not), writes puzzles in the format `marked`, and knows nothing "
        "else.",
        "",
        f"Recipe: `python recipes/train_arc_model.py {card['name']}`. Puzzles equal to one of the "
        "data and those that show",
        "one of its test pairs were left out; evaluation puzzles were never read.",
        "",
        "Two attempts a puzzle (one for `greedy`); percent of solved test pairs, 95 % intervals "
        "over puzzles.",
        f"Eight views. Measured by `python recipes/measure_arc_model.py {card['name']}`.",
        "",
        "| puzzles | n | " + " | ".join(STEPS) + " |",
        "|---|---|" + "---|" * len(STEPS),
    ]
    for name, found in card["measured"].items():
        steps = found["steps"]
        shown = " | ".join(percent(steps[step]) if step in steps else "" for step in STEPS)
        lines.append(f"| {sets[name].says} | {found['puzzles']} | {shown} |")
    lines += [
        "",
        f"With test-time fine-tuning (`{TTFT}`), on a sample of the rows:",
        "",
        "| puzzles | n | product of experts | after fine-tuning | difference |",
        "|---|---|---|---|---|",
    ]
    for name, found in card["measured"].items():
        tuned = found["tuned"]
        shown = " | ".join(percent(tuned[key]) for key in ("before", "after", "added"))
        lines.append(f"| {sets[name].says} | {tuned['puzzles']} | {shown} |")
    unfit = {sets[n].says: f["too_long"] for n, f in card["measured"].items() if f["too_long"]}
    if unfit:
        said = "; ".join(f"{name}: {count}" for name, count in unfit.items())
        lines += ["", f"Puzzles of more than 2,000 characters count as failed ({said})."]
    return "\n".join([*lines, ""])


def write_card(folder: Path, card: dict[str, Any], found: dict[str, Any] | None = None) -> None:
    """Add a set to the card; what was measured before, or meanwhile, stays."""
    file = folder / "card.json"
    before = json.loads(file.read_text())["measured"] if file.exists() else {}
    measured = {**before, **(found or {})}
    card["measured"] = {each.name: measured[each.name] for each in SETS if each.name in measured}
    write_atomic(file, json.dumps(card, indent=1) + "\n")
    write_atomic(folder / "README.md", readme(card))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--models", type=Path, default=SHIPPED)
    parser.add_argument("--rows", type=Path, required=True, help="folder of the 1D-ARC kinds")
    parser.add_argument("--puzzles", type=Path, required=True, help="folder of ARC-AGI-1")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in SETS])
    parser.add_argument("--work", type=Path, default=Path("build/measured"))
    given = parser.parse_args()
    folder, work = given.models / given.name, given.work / given.name
    work.mkdir(parents=True, exist_ok=True)
    trained = json.loads((folder / "trained.json").read_text())
    card = {
        "name": given.name,
        "task": "arc(format=marked)",
        "parameters": trained["parameters"],
        "architecture": "Mull grid Llama",
        "tokens": trained["tokens"],
        "examples": trained["examples"],
        "epochs": trained["epochs"],
        "minutes": round(trained["seconds"] / 60, 1),
        "final_loss": trained["loss"],
        "recipe": trained["config"],
        "measured": {},
    }
    write_card(folder, card)
    loaded = puzzles(given.rows, given.puzzles)
    for each in SETS:
        if given.only is None or each.name in given.only:
            found = measure(given.name, each, loaded[each.name], work)
            write_card(folder, card, {each.name: found})
    print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
