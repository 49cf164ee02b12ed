"""A training's log → one figure: its losses on the left scale, what it generates on the right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mull.errors import InputError
from mull.fileio import write_atomic
from mull.report.plots import COLOURS, INK, MUTED, OTHERS, style, svg

LOG = "train.jsonl"
PLOT = "training.svg"


def write_training_plot(folder: Path) -> Path:
    """Draw ``training.svg`` beside a training's ``train.jsonl``; its path.

    Raises:
        InputError: there is no log, or it holds no loss.
        MissingExtraError: matplotlib is not installed.
    """
    out = folder / PLOT
    write_atomic(out, training_svg(read_log(folder)))
    return out


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's log: ``step`` in each, with ``loss``, or with a check's numbers."""
    log = folder / LOG
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{log} cannot be read as a training's log: {error}") from error
    if not all(isinstance(line, dict) and "step" in line for line in lines):
        raise InputError(f"{log}: expected a JSON object with a step in every line")
    return lines


def training_svg(lines: Sequence[Mapping[str, Any]]) -> str:
    """The figure as SVG: training and validation loss (nats a token), and measures (0..1)."""
    curves = {
        name: [(line["step"], line[key]) for line in lines if key in line]
        for key, name in (("loss", "training loss"), ("validation", "validation loss"))
    }
    if not curves["training loss"]:
        raise InputError("the training's log holds no loss; expected at least one line of it")
    measured: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.get("measures", {}).items():
            measured.setdefault(str(name), []).append((line["step"], value))
    with style("training"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.4, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats a token")
        for (name, points), colour in zip(curves.items(), (MUTED, COLOURS["vote"]), strict=True):
            if points:
                _draw(axes, points, colour, name, "o" if name == "validation loss" else "")
        axes.set_ylim(bottom=0)
        handles, names = axes.get_legend_handles_labels()
        if measured:
            right = axes.twinx()
            right.set_ylim(0, 1.02)
            right.set_ylabel("share")
            right.grid(False)
            for number, (name, points) in enumerate(sorted(measured.items())):
                colour = (COLOURS["pass_n"], *OTHERS)[number % (1 + len(OTHERS))]
                _draw(right, points, colour, name, "^")
            more, labels = right.get_legend_handles_labels()
            handles, names = [*handles, *more], [*names, *labels]
        figure.legend(
            handles, names, loc="outside lower left", ncols=3, frameon=False, labelcolor=INK
        )
        return svg(figure)


def _draw(
    axes: Any, points: Sequence[tuple[int, float]], colour: str, name: str, marker: str
) -> None:
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=colour, label=name[:60], marker=marker, markersize=4)
