"""Measure a trained ARC model: what each step adds, on rows and on the benchmark's puzzles.

    python recipes/measure_arc_model.py arc-m --rows <1D-ARC kinds> --puzzles <ARC-AGI-1>

Each set is solved by ``mull arc solve`` (a submission and a report each, resumed if stopped): one
greedy answer, the vote of eight views, their product of experts, all likely answers ranked by it;
then, on a sample of the set, test-time fine-tuning before the same. The card and its page are
written beside the weights.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mull.fileio import write_atomic
from mull.metrics import Interval, paired_difference
from mull.report.arc import SolvedCell, solved_of
from mull.report.load import Runs
from mull.tasks.arc.data import load
from mull.tasks.arc.grids import Puzzle, as_json
from mull.tasks.arc.one_d import KINDS

SHIPPED = Path(__file__).parent.parent / "src" / "mull" / "models"
STEPS = ("greedy", "vote", "product of experts", "threshold search")
TUNED = "test-time fine-tuning"
TTFT = "ttft(n=8, rank=views, steps=32, matrix_rate=0.003, rate=0.0015)"
BEFORE = "airv(n=8, rank=views)"


@dataclass(frozen=True)
class Set:
    """Puzzles, and how they may be seen: rows must lie."""

    name: str
    says: str
    options: tuple[str, ...]
    tuned: tuple[str, ...]


LYING = ("--no-geometry",)
FITTED = ("--characters", "1700")
SETS = (
    Set("rows", "1D-ARC, kinds it was trained on", LYING, LYING),
    Set("other-rows", "1D-ARC, kinds it was not", LYING, (*LYING, "--no-colours")),
    Set("evaluation", "ARC-AGI-1, evaluation", FITTED, FITTED),
    Set("training", "ARC-AGI-1, training (their rules were seen)", FITTED, FITTED),
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


def measure(model: str, each: Set, given: list[Puzzle], few: int, work: Path) -> dict[str, Any]:
    """The scores of a set: [value, low, high] of each step, and of fine-tuning on a sample."""
    cells = solve(model, given, work / each.name, ("--compare", *each.options))
    scores = dict(zip(STEPS, (cell.score for cell in cells), strict=True))
    found: dict[str, Any] = {"puzzles": len(given), "too_long": len(cells[0].too_long)}
    found["steps"] = {name: _triple(score.fractional) for name, score in scores.items()}
    found["added"] = {
        f"{new} - {old}": _difference(scores[new].solved, scores[old].solved)
        for old, new in pairwise(STEPS)
    }
    sample = random.Random(0).sample(given, min(few, len(given)))
    options = ("--strategy", BEFORE, "--strategy", TTFT, *each.tuned)
    before, after = solve(model, sample, work / f"{each.name}-tuned", options)
    found["tuned"] = {
        "puzzles": len(sample),
        "options": " ".join(each.tuned),
        "before": _triple(before.score.fractional),
        "after": _triple(after.score.fractional),
        "added": _difference(after.score.solved, before.score.solved),
    }
    return found


def _difference(new: Any, old: Any) -> list[float]:
    ids = sorted(old)
    return _triple(paired_difference([new[id] for id in ids], [old[id] for id in ids]))


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
        shown = " | ".join(_shown(found["steps"][step]) for step in STEPS)
        lines.append(f"| {sets[name].says} | {found['puzzles']} | {shown} |")
    lines += [
        "",
        f"With {TUNED} (`{TTFT}`), on a sample:",
        "",
        "| puzzles | n | product of experts | after fine-tuning | difference |",
        "|---|---|---|---|---|",
    ]
    for name, found in card["measured"].items():
        tuned = found["tuned"]
        shown = " | ".join(_shown(tuned[key]) for key in ("before", "after", "added"))
        lines.append(f"| {sets[name].says} | {tuned['puzzles']} | {shown} |")
    unfit = {sets[n].says: f["too_long"] for n, f in card["measured"].items() if f["too_long"]}
    if unfit:
        said = "; ".join(f"{name}: {count}" for name, count in unfit.items())
        lines += ["", f"Test pairs that do not fit the context count as failed ({said})."]
    return "\n".join([*lines, ""])


def write_card(folder: Path, card: dict[str, Any], found: dict[str, Any] | None = None) -> None:
    """Add a set to the card; what was measured before, or meanwhile, stays."""
    file = folder / "card.json"
    before = json.loads(file.read_text())["measured"] if file.exists() else {}
    measured = {**before, **(found or {})}
    card["measured"] = {each.name: measured[each.name] for each in SETS if each.name in measured}
    write_atomic(file, json.dumps(card, indent=1) + "\n")
    write_atomic(folder / "README.md", readme(card))


def _triple(interval: Interval) -> list[float]:
    return [round(value, 5) for value in (interval.value, interval.low, interval.high)]


def _shown(triple: list[float]) -> str:
    value, low, high = (100 * number for number in triple)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--models", type=Path, default=SHIPPED)
    parser.add_argument("--rows", type=Path, required=True, help="folder of the 1D-ARC kinds")
    parser.add_argument("--puzzles", type=Path, required=True, help="folder of ARC-AGI-1")
    parser.add_argument("--few", type=int, default=40, help="puzzles of a set that are tuned on")
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
            found = measure(str(folder), each, loaded[each.name], given.few, work)
            write_card(folder, card, {each.name: found})
    print((folder / "README.md").read_text())


if __name__ == "__main__":
    main()
