"""Rows of the ARC studies → the tables and verdicts of docs/arc_study.md.

python recipes/arc/page.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from claims import averaged, compared, findings, of
from rows import ROWS, Row, load

from mull.fileio import write_atomic
from mull.metrics import Interval, mean_interval

PAGE = Path(__file__).parents[2] / "docs" / "arc_study.md"
MARK = "<!-- tables -->"
METRICS = {
    "accuracy": "accuracy", "pass_n": "pass_n", "vote_2": "vote_2", "size": "right size",
    "cells": "right cells", "unanswered": "unanswered",
}  # fmt: skip


def tables(rows: Sequence[Row]) -> list[str]:
    """The page's tables: verdicts first, then a section a study."""
    lines = verdicts(rows)
    for title, study, base, note in (
        ("Encoders", "encoders", "minimal", "trainings from scratch, 0.2M parameters"),
        ("Learning rate", "rates", "1 x", "peak rates of Muon and AdamW, 0.2M parameters"),
        ("Sizes", "sizes", "s", "trainings from scratch, 0.2M (s) and 0.8M (m)"),
        ("Augmentations of the training", "augmentations", "all", "0.2M parameters each"),
        ("Along a training", "along", "", "few texts again and again"),
        ("Temperature", "temperature", "T=0", "32 views a puzzle"),
        ("Beam", "beam", "greedy", "one answer a puzzle: of a beam the likeliest"),
        ("Views left out", "views", "all", "16 views a puzzle, greedy"),
        ("Fit to length", "fit", "whole", "8 views; longest prompt in characters"),
        ("Fine-tuning at test time, pooled", "ttft", "0 steps", "8 views"),
        (
            "LoRA rank",
            "lora",
            "rank 4, rate 0.003",
            "the larger model of the sizes learns new kinds",
        ),
    ):
        own = of(rows, study)
        if own and study == "rates":  # the size's own rates are those of the sizes
            own += [replace(row, cell=base) for row in of(rows, "sizes", "s")]
        if own:
            lines += ["", f"## {title}", "", *_section(own, base, note)]
    return [*lines, *_repeats(of(rows, "repeats")), ""]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """The table of claims."""
    lines = [
        "Claims of the write-ups; differences in points, paired by test pair, seeds averaged. "
        "*Reproduced*: the intervals exclude 0 (over test pairs, and where trainings are compared "
        "over trainings too) and the point is at least 1.5 where it is an accuracy.",
        "",
        "| claim | | where | found | verdict |",
        "|---|---|---|---|---|",
    ]
    before = ("", "")
    for each in findings(rows):
        number = each.claim if each.claim != before[0] else ""
        says = each.says if (each.claim, each.says) != before else ""
        before = (each.claim, each.says)
        lines.append(f"| {number} | {says} | {each.where} | {each.shown} | {each.verdict} |")
    return lines


def _section(rows: Sequence[Row], base: str, note: str) -> list[str]:
    """A line a cell: metrics with intervals, cost, and vote_2's or accuracy's gain on ``base``."""
    cells = sorted({row.cell for row in rows}, key=lambda cell: _place(rows, cell, base))
    first = rows[0]
    facts = [n for n in ("tokens", "validation", "loss", "seconds") if n in rows[-1].facts]
    seeds = sorted({row.seed for row in rows})
    models = ", ".join(sorted({f"`{row.model}`" for row in rows if row.model}))
    heads = ["cell", *(f"{title} %" for title in METRICS.values()), *facts]
    heads += [f"accuracy against {base}, points"] if base else []
    lines = [
        f"{note[0].upper()}{note[1:]}; {len(first.right):,} test pairs, {first.n} predictions "
        f"each; seeds {', '.join(map(str, seeds))}" + (f"; {models}." if models else "."),
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for cell in cells:
        own = [row for row in rows if row.cell == cell]
        shown = [cell, *(mean(own, metric).percent() for metric in METRICS)]
        shown += [_fact(own, name) for name in facts]
        if base:
            gap = compared(own, [row for row in rows if row.cell == base], "accuracy")
            shown.append("" if cell == base or gap is None else str(gap))
        lines.append("| " + " | ".join(shown) + " |")
    return lines


def mean(rows: Sequence[Row], metric: str) -> Interval:
    """A metric's mean over test pairs, the seeds of a cell averaged first."""
    return mean_interval(averaged(rows, metric))


def _place(rows: Sequence[Row], cell: str, base: str) -> tuple[bool, list[float], str]:
    """The base first, then by what is swept."""
    row = next(row for row in rows if row.cell == cell)
    swept = [row.facts[name] for name in ("steps", "rank", "rate", "share") if name in row.facts]
    swept += [-row.facts["characters"]] if "characters" in row.facts else []
    return cell != base, swept, cell


def _fact(rows: Sequence[Row], name: str) -> str:
    known = [row.facts[name] for row in rows if name in row.facts]
    if not known:
        return ""
    value = sum(known) / len(known)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"


def _repeats(rows: Sequence[Row]) -> list[str]:
    """Whole submissions again with other views: score of each, and their spread."""
    if not rows:
        return []
    scores = [100 * row.mean("vote_2") for row in rows]
    listed = ", ".join(mean([row], "vote_2").percent() for row in rows)
    return [
        "",
        "## A whole submission again",
        "",
        f"{len(rows)} submissions of 8 views drawn by other seeds, {len(rows[0].right):,} test "
        f"pairs each, score (vote_2) in percent: {listed}; standard deviation "
        f"{np.std(scores, ddof=1 if len(scores) > 1 else 0):.2f} points.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    known = load(given.rows)
    text = given.page.read_text() if given.page.exists() else "# ARC studies\n"
    head = text.split(MARK)[0].rstrip()
    write_atomic(given.page, "\n".join([head, "", MARK, "", *tables(known)]))
    print(given.page)


if __name__ == "__main__":
    main()
