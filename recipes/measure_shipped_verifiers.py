"""Measure trained verifiers and revision models on unseen problems and complete their cards.

    python recipes/measure_shipped_verifiers.py words-s-prm words-s-reviser --problems 400
    python recipes/measure_shipped_verifiers.py words-s --spec "likelihood(model=words-m)"
    python recipes/measure_shipped_verifiers.py words-s-reviser words-s-reviser-random --paired

A verifier ranks 16 samples of its policy on problems of the validation split: AUC within problems
and over all, best-of-16, weighted vote and plain vote on the same samples, paired. A revision model
writes chains of 8: accuracy by turn, and how often a turn made right wrong and wrong right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure_shipped_models import SHIPPED, percent, triple

from mull.fileio import safe_name, write_atomic
from mull.metrics import mean_interval, paired_difference
from mull.runs import make_config, run
from mull.runs.records import Records
from mull.runs.result import GradedCandidate
from mull.verifiers.calibration import Labelled, auc_pooled, auc_within, errors_at

SAMPLES, TURNS = 16, 8
HEAD_ALONE = (
    "Its head reads the hidden state alone, not how likely a solution is: an ordinary reward "
    "model, kept for comparison."
)


def records_of(name: str, fields: dict[str, Any], cache: Path) -> Records:
    """A run of the card's policy on the validation split; resumed if it was stopped."""
    given = {"name": name, "split": "validation", "seeds": [2], "engine": {"slots": 256}}
    run(make_config({**given, **fields}), cache / name)
    return Records(cache / name)


def verifier(card: dict[str, Any], folder: Path, problems: int, cache: Path) -> dict[str, Any]:
    """What a reward model is worth on 16 samples of each problem."""
    return judged(card["task"], card["policy"]["model"], str(folder), folder.name, problems, cache)


def judged(
    task: str, policy: str, spec: str, name: str, problems: int, cache: Path
) -> dict[str, Any]:
    """What the verifier of a spec is worth on 16 samples of the policy on each problem."""
    fields = {
        "task": task,
        "model": policy,
        "problems": problems,
        "samples": SAMPLES,
        "strategies": ["sample", "vote", "weighted-vote", "best-of-n(verifier=prm)"],
        "verifiers": {"prm": spec},
    }
    with records_of(name, fields, cache) as records:
        right: dict[str, list[float]] = {}
        rated: list[tuple[float, bool, str]] = []
        single: list[float] = []
        for cell in records.cells:
            for result in records.results(cell):
                right.setdefault(cell.strategy, []).append(float(result.correct is True))
                if cell.strategy == "weighted-vote":
                    rated += [
                        (c.scores.get("prm", 0.0), c.correct is True, result.problem)
                        for c in result.candidates
                    ]
                if cell.strategy == "vote":
                    single.append(float(np.mean([c.correct is True for c in result.candidates])))
    labelled = Labelled.of(*(list(column) for column in zip(*rated, strict=True)))
    rates = errors_at(labelled, 0.5)
    weighted, best, vote = (
        right[name] for name in ("weighted-vote", "best-of-n(verifier=prm)", "vote")
    )
    return {
        "split": "validation",
        "problems": problems,
        "samples": SAMPLES,
        "auc_within": triple(auc_within(labelled)),
        "problems_with_both": auc_within(labelled).n,
        "auc_pooled": round(auc_pooled(labelled).value, 4),
        "false_positive": triple(rates.false_positive),
        "false_negative": triple(rates.false_negative),
        "single": triple(mean_interval(single)),
        "vote": triple(mean_interval(vote)),
        "weighted_vote": triple(mean_interval(weighted)),
        "best_of_n": triple(mean_interval(best)),
        "weighted_vote_minus_vote": triple(paired_difference(weighted, vote)),
        "best_of_n_minus_single": triple(paired_difference(best, single)),
        "best_of_n_minus_vote": triple(paired_difference(best, vote)),
    }


def chains(
    card: dict[str, Any], folder: Path, problems: int, cache: Path
) -> dict[str, list[float]]:
    """Which attempts of a problem's chain are right, of whole chains."""
    fields = {
        "task": card["task"],
        "model": card["policy"]["model"],
        "problems": problems,
        "samples": TURNS,
        "strategies": ["revise(select=majority)"],
        "engines": {"reviser": str(folder)},
    }
    with records_of(folder.name, fields, cache) as records:
        (cell,) = records.cells
        turns = {result.problem: _turns(result.candidates) for result in records.results(cell)}
    return {problem: chain for problem, chain in turns.items() if len(chain) == TURNS}


def revised(card: dict[str, Any], folder: Path, problems: int, cache: Path) -> dict[str, Any]:
    """Accuracy by turn over chains, and what a turn does to right and wrong answers."""
    whole = np.array(list(chains(card, folder, problems, cache).values()), dtype=np.float64)
    before, after = whole[:, :-1], whole[:, 1:]
    return {
        "split": "validation",
        "problems": problems,
        "chains": len(whole),
        "by_turn": [triple(mean_interval(whole[:, turn])) for turn in range(TURNS)],
        "last_minus_first": triple(paired_difference(whole[:, -1], whole[:, 0])),
        "right_to_wrong": round(float((before * (1 - after)).sum() / max(1, before.sum())), 4),
        "wrong_to_right": round(
            float(((1 - before) * after).sum() / max(1, (1 - before).sum())), 4
        ),
    }


def paired(folders: Sequence[Path], problems: int, cache: Path) -> str:
    """How much oftener the first model's attempts behind the first are right than the second's."""
    a, b = (chains(_card(folder), folder, problems, cache) for folder in folders)
    both = [(np.mean(a[id][1:]), np.mean(b[id][1:])) for id in a if id in b]
    found = paired_difference([x for x, _ in both], [y for _, y in both])
    names = " - ".join(folder.name for folder in folders)
    return f"turns 2 to {TURNS}, {names}: {found.percent()} points ({len(both)} problems)"


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def _turns(candidates: tuple[GradedCandidate, ...]) -> list[float]:
    """Right or wrong, first attempt first: later attempts have longer keys."""
    ordered = sorted(candidates, key=lambda c: (len(c.key), c.key))
    return [float(c.correct is True) for c in ordered]


def readme(card: dict[str, Any]) -> str:
    """The card for a human reader."""
    what = {"prm": "process reward model", "orm": "outcome reward model"}
    kind = what.get(card["kind"], "revision model")
    m = card["measured"]
    lines = [
        f"# {card['name']}",
        "",
        f"A {kind} of {card['parameters']:,} parameters for the policy "
        f"`{card['policy']['model']}` on the task `{card['task']}`, started from "
        f"`{card['base']}`. It is refused for other policies unless told.",
        *([HEAD_ALONE] if card["recipe"].get("logprobs") is False else []),
        "",
        f"Recipe: `python recipes/train_shipped_verifiers.py {card['name']}` "
        f"({card['tokens']:,} tokens). Measured on {m['problems']} problems of the "
        f"{m['split']} split; percent, 95 % intervals over problems.",
        "",
        *table(m),
    ]
    return "\n".join(lines) + "\n"


def table(measured: dict[str, Any]) -> list[str]:
    """What was measured, in Markdown."""
    lines = ["| measure | |", "|---|---|"]
    for name, value in measured.items():
        if name == "by_turn":
            lines += [f"| turn {at} | {percent(v)} |" for at, v in enumerate(value, 1)]
        elif isinstance(value, list):
            lines.append(f"| {name.replace('_', ' ')} | {percent(value)} |")
        elif isinstance(value, float):
            lines.append(f"| {name.replace('_', ' ')} | {100 * value:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", help="models to measure")
    parser.add_argument("--spec", help="print what this verifier is worth to the named policies")
    parser.add_argument("--paired", action="store_true", help="two revision models side by side")
    parser.add_argument("--models", type=Path, default=SHIPPED)
    parser.add_argument("--cards", type=Path, help="folder that keeps the verifiers' cards, too")
    parser.add_argument("--cache", type=Path, default=Path("build/measured"))
    parser.add_argument("--problems", type=int, default=400)
    given = parser.parse_args()
    if given.paired:
        folders = [given.models / name for name in given.names]
        print(paired(folders, given.problems, given.cache))
        return
    for name in given.names:
        folder = given.models / name
        card = _card(folder)
        if given.spec:
            run_name = safe_name(f"{name}-{given.spec}")
            found = judged(card["task"], name, given.spec, run_name, given.problems, given.cache)
            print("\n".join([f"# {given.spec} for {name}", "", *table(found)]))
            continue
        measure = revised if card["kind"] == "reviser" else verifier
        card["measured"] = measure(card, folder, given.problems, given.cache)
        write_atomic(folder / "card.json", json.dumps(card, indent=1) + "\n")
        write_atomic(folder / "README.md", readme(card))
        if given.cards is not None:
            labels = json.loads((folder / "trained.json").read_text())
            kept = card | {key: labels[key] for key in ("labels", "labelling")}
            write_atomic(given.cards / f"{name}.json", json.dumps(kept, indent=1) + "\n")
        print(readme(card))


if __name__ == "__main__":
    main()
