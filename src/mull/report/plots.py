"""Points and panels → figures. Knows matplotlib; knows no records.

Colours are the colour-blind safe set of Okabe and Ito; every curve also has its own marker and a
label at its end. Bytes are deterministic: no date, a fixed salt, no mathematics read from labels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.errors import MissingExtraError
from mull.metrics import Interval
from mull.report.contents import Study
from mull.report.curves import STRATEGIES, Panel
from mull.report.tables import safe_terminal
from mull.verifiers.calibration import Bin

INK, MUTED, GRID, PAPER = "#1b1f27", "#5c6471", "#e3e6eb", "#ffffff"
COLOURS = {"pass_n": "#00875f", "vote": "#0066b3", "best": "#c8550a", "accuracy": "#6b6f7b"}
MARKERS = {"pass_n": "^", "vote": "o", "best": "s", "accuracy": ""}
OTHERS = ("#a8478f", "#8a6d00", "#3f6f8f", "#7a3fb0", "#2f7a2f", "#b03a48", "#555555", "#0b7f8a")
"""Colours of further series: cells compared with each other."""

SHORT = {"samples": "samples", "tokens": "tokens", "flops": "FLOPs", "seconds": "slot seconds"}
UNITS = {
    "samples": "samples a problem",
    "tokens": "tokens computed a problem",
    "flops": "FLOPs a problem",
    "seconds": "slot seconds a problem",
}

_STYLE: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """The house style, with ids in the SVG salted by the figure's name."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError.of("mull report", "report") from None
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def against_compute(study: Study, others: Sequence[Study], unit: str) -> Any | None:
    """Accuracy against one unit of compute: curves of the pool, single points of other cells.

    ``None`` where the unit is not known for this series.
    """
    points, ticks = study.points, _costs(study, unit)
    if not ticks:
        return None
    figure, axes = _figure(10.4, 4.7)
    xs = ticks
    ends = []
    for key, name in STRATEGIES.items():
        if all(key in point.scores for point in points):
            values = [point.scores[key] for point in points]
            _curve(axes, xs, values, COLOURS[key], MARKERS[key], dashed=key == "accuracy")
            ends.append((name, values[-1].value, COLOURS[key]))
    handles: list[Any] = []
    names: list[str] = []
    for i, other in enumerate(others):
        cost = other.line.cost()
        if unit in cost and other.line.graded.any():
            handles.append(_single(axes, cost[unit], other.accuracy, OTHERS[i % len(OTHERS)]))
            names.append(_label(other.line.label))
            xs = [*xs, cost[unit]]
    if names:
        _legend(figure, "lower left", handles, names)
    _log_axis(axes, xs, counts=unit == "samples", ticks=ticks)
    axes.set_xlabel(UNITS[unit])
    _percent_axis(axes, "problems right")
    _end_labels(axes, max(xs), ends)
    return figure


def _costs(study: Study, unit: str) -> list[float]:
    """What each point of a study costs; nothing where the unit is not known for this series."""
    costs = [study.line.cost(point.n) for point in study.points]
    return [cost[unit] for cost in costs] if all(unit in cost for cost in costs) else []


def vote_against_coverage(study: Study) -> Any:
    """Left: vote and coverage with the gap between them. Right: the share that selection finds."""
    points = study.points
    figure, (left, right) = _figure(10.4, 4.0, columns=2, ratios=(1.5, 1.0))
    xs = [point.n for point in points]
    covered = [point.scores["pass_n"] for point in points]
    vote = [point.scores["vote"] for point in points]
    left.fill_between(
        xs,
        [100 * v.value for v in vote],
        [100 * c.value for c in covered],
        color=COLOURS["pass_n"],
        alpha=0.10,
        linewidth=0,
    )
    _curve(left, xs, covered, COLOURS["pass_n"], MARKERS["pass_n"], band=False)
    _curve(left, xs, vote, COLOURS["vote"], MARKERS["vote"], band=False)
    _log_axis(left, xs, counts=True, ticks=xs)
    left.set_xlabel("samples a problem")
    _percent_axis(left, "problems right")
    last = points[-1]
    ends = [
        ("coverage", covered[-1].value, COLOURS["pass_n"]),
        ("vote", vote[-1].value, COLOURS["vote"]),
    ]
    _end_labels(left, xs[-1], ends)
    middle = 50 * (covered[-1].value + vote[-1].value)
    if last.gap.value > 0.06 and len(xs) > 2:
        text = f"{100 * last.gap.value:.1f} points left"
        left.annotate(
            text, (xs[-1], middle), (-8, 0), textcoords="offset points", ha="right", va="center",
            color=MUTED, fontsize=9,
        )  # fmt: skip
    _curve(right, xs, [p.selection for p in points], INK, "D")
    _log_axis(right, xs, counts=True, ticks=xs)
    right.set_xlabel("samples a problem")
    _percent_axis(right, "vote / coverage")
    return figure


def difficulty(panels: Sequence[Panel]) -> Any:
    """Small multiples, one a difficulty, on one scale."""
    figure, drawn = _multiples(len(panels), 5, (2.08, 2.5), "", "samples a problem")
    for axes, panel in zip(drawn, panels, strict=True):
        xs = [point.n for point in panel.points]
        for key in STRATEGIES:
            if key != "best":
                values = [point.scores[key] for point in panel.points]
                _curve(
                    axes, xs, values, COLOURS[key], MARKERS[key], dashed=key == "accuracy", size=3.5
                )
        _head(axes, _label(panel.title), f"{panel.problems:,} problems")
        _log_axis(axes, xs, counts=True, ticks=[x for j, x in enumerate(xs) if j % 2 == 0])
    handles = [
        _handle(COLOURS[key], MARKERS[key], dashed=key == "accuracy")
        for key in ("pass_n", "vote", "accuracy")
    ]
    names = [STRATEGIES[key] for key in ("pass_n", "vote", "accuracy")]
    _legend(figure, "upper right", handles, names)
    return figure


@dataclass(frozen=True, slots=True)
class Reliability:
    """One panel of ``reliability``: its curve, and the scores of right and of wrong candidates."""

    score: str
    label: str
    curve: tuple[Bin, ...]
    right: NDArray[np.float64]
    wrong: NDArray[np.float64]


def reliability(panels: Sequence[Reliability]) -> Any:
    """Share right against the score, a panel each, on one scale; below it, where scores lie."""
    figure, drawn = _multiples(len(panels), 4, (2.6, 2.9), "candidates right", "score")
    for axes, panel in zip(drawn, panels, strict=True):
        axes.plot([0, 1], [0, 100], color=MUTED, linewidth=1.0, dashes=(4, 3), zorder=1)
        _heaps(axes, panel)
        xs = [each.score for each in panel.curve]
        _curve(axes, xs, [each.right for each in panel.curve], COLOURS["vote"], "o", size=4)
        title = f"{_label(panel.score, 18)} · {len(panel.right) + len(panel.wrong):,} candidates"
        _head(axes, title, _label(panel.label, 36 if len(panels) > 1 else 48))
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    return figure


def _heaps(axes: Any, panel: Reliability) -> None:
    """How many candidates have which score, right ones on wrong ones, in the lowest fifth."""
    edges = np.linspace(0, 1, 21)
    wrong, right = (np.histogram(scores, edges)[0] for scores in (panel.wrong, panel.right))
    unit = 20 / max(1, int((wrong + right).max()))
    middles = edges[:-1] + 0.025
    for heap, under, colour in (
        (wrong, np.zeros(20), COLOURS["accuracy"]),
        (right, wrong, COLOURS["pass_n"]),
    ):
        some = heap > 0
        axes.bar(
            middles[some], heap[some] * unit, 0.04, under[some] * unit,
            color=colour, alpha=0.38, linewidth=0, zorder=1,
        )  # fmt: skip


def compare(studies: Sequence[Study], unit: str) -> Any | None:
    """The votes of several pooled series against one unit of compute."""
    lines = [study for study in studies if _costs(study, unit)]
    if len(lines) < 2:
        return None
    figure, axes = _figure(10.4, 4.7)
    every: list[float] = []
    ends = []
    for i, study in enumerate(lines):
        xs = _costs(study, unit)
        values = [point.scores["vote"] for point in study.points]
        _curve(axes, xs, values, OTHERS[i % len(OTHERS)], "osD^vP*X"[i % 8])
        ends.append((study.line.label, values[-1].value, OTHERS[i % len(OTHERS)]))
        every += xs
    _log_axis(axes, every, counts=unit == "samples", ticks=sorted(set(every)))
    axes.set_xlabel(UNITS[unit])
    _percent_axis(axes, "vote: problems right")
    _end_labels(axes, max(every), ends)
    return figure


def sweep(studies: Sequence[Study], parameter: str = "temperature") -> Any | None:
    """Accuracy against a parameter that series of one run differ in; ``None`` with fewer than two
    values.
    """
    lines = [s for s in studies if s.points and _value(s, parameter) is not None]
    if len({_value(study, parameter) for study in lines}) < 2:
        return None
    lines.sort(key=lambda study: _value(study, parameter) or 0.0)
    figure, axes = _figure(10.4, 4.0)
    xs = [_value(study, parameter) or 0.0 for study in lines]
    ends = []
    for key in ("pass_n", "vote", "accuracy"):
        values = [study.points[-1].scores[key] for study in lines]
        _curve(axes, xs, values, COLOURS[key], MARKERS[key], dashed=key == "accuracy")
        ends.append((STRATEGIES[key], values[-1].value, COLOURS[key]))
    axes.set_xlabel(_label(parameter))
    _percent_axis(axes, "problems right")
    _end_labels(axes, max(xs), ends)
    return figure


def _value(study: Study, parameter: str) -> float | None:
    value = study.line.first.parameters.get(parameter)
    return float(value) if isinstance(value, int | float) else None


def svg(figure: Any) -> str:
    """The figure as SVG text. Deterministic."""
    return _saved(figure, format="svg", metadata={"Date": None, "Creator": None}).decode()


def png(figure: Any) -> bytes:
    """The figure as PNG on white, 160 dots an inch. Deterministic for one matplotlib."""
    return _saved(figure, format="png", dpi=160, facecolor=PAPER, metadata={"Software": None})


def _saved(figure: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A user's label may hold characters that the font lacks: boxes, not a failed report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(out, **options)
    return out.getvalue()


def _figure(
    width: float,
    height: float,
    columns: int = 1,
    rows: int = 1,
    ratios: Sequence[float] | None = None,
    shared: bool = False,
) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(
        rows, columns, squeeze=False, sharey=shared, gridspec_kw={"width_ratios": ratios}
    )
    if rows == columns == 1 and not shared:
        return figure, grid[0][0]
    return figure, grid if shared else grid[0]


def _multiples(
    count: int, most: int, size: tuple[float, float], left: str, below: str
) -> tuple[Any, list[Any]]:
    """A figure of small multiples in percent, at most ``most`` a row, and their ``count`` axes."""
    columns = min(count, most)
    rows = -(-count // columns)
    width, height = max(size[0] * columns, 5.2), size[1] * rows + 0.6
    figure, grid = _figure(width, height, columns=columns, rows=rows, shared=True)
    flat = [axes for row in grid for axes in row]
    for i, axes in enumerate(flat):
        axes.set_visible(i < count)
        axes.set_ylim(-3, 103)
        if i % columns == 0:
            _percent_axis(axes, left)
    figure.supxlabel(below, fontsize=9, color=MUTED)
    return figure, flat[:count]


def _head(axes: Any, title: str, under: str) -> None:
    """A small multiple's title and the line below it."""
    axes.set_title(title, fontsize=9, color=INK, loc="left", pad=14)
    axes.text(0, 1.02, under, transform=axes.transAxes, fontsize=8, color=MUTED, va="bottom")


def _legend(figure: Any, place: str, handles: Sequence[Any], names: Sequence[str]) -> None:
    look = {"ncols": 3, "frameon": False, "fontsize": 9, "labelcolor": INK}
    figure.legend(handles, names, loc=f"outside {place}", **look)


def _curve(
    axes: Any,
    xs: Sequence[float],
    values: Sequence[Interval],
    colour: str,
    marker: str,
    dashed: bool = False,
    band: bool = True,
    size: float = 5.0,
) -> None:
    """A line in percent with its interval as a band."""
    line = axes.plot(
        xs,
        [100 * value.value for value in values],
        color=colour,
        marker=marker or None,
        markersize=size,
        markeredgecolor=PAPER,
        markeredgewidth=0.7,
        linewidth=1.9,
        zorder=3,
        clip_on=False,
    )[0]
    if dashed:
        line.set_dashes((4, 2))
        line.set_linewidth(1.4)
    if band:
        low, high = ([100 * getattr(v, end) for v in values] for end in ("low", "high"))
        axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)


def _single(axes: Any, x: float, value: Interval, colour: str) -> Any:
    """One cell as a point with its interval; the handle for a legend."""
    y = 100 * value.value
    low, high = y - 100 * value.low, 100 * value.high - y
    return axes.errorbar(
        [x], [y], yerr=[[max(low, 0)], [max(high, 0)]], color=colour, marker="D", markersize=6,
        capsize=3, linewidth=1.4, linestyle="", zorder=4, clip_on=False,
    )  # fmt: skip


def _log_axis(axes: Any, xs: Sequence[float], counts: bool, ticks: Sequence[float]) -> None:
    """A base-2 axis for counts, base-10 otherwise; ticks at round numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    positive = [x for x in xs if x > 0]
    axes.set_xscale("log", base=2 if counts else 10)
    if counts:
        axes.set_xticks(list(ticks), [f"{x:g}" for x in ticks])
    else:
        wide = max(positive) / min(positive) > 300
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(positive), max(positive)
    pad = (high / low) ** 0.025 if high > low else 1.5
    axes.set_xlim(low / pad, high * pad)


def short(x: float) -> str:
    """A number for an axis.

    >>> short(1500), short(2e6), short(5e11), short(0.02)
    ('1.5k', '2M', '500G', '0.02')
    """
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size * 0.9995:
            return f"{x / size:.3g}{letter}"
    return f"{x:.3g}"


def _percent_axis(axes: Any, label: str) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
    axes.set_ylabel(label)


def _end_labels(axes: Any, x: float, ends: Sequence[tuple[str, float, str]]) -> None:
    """Names at the curves' ends, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    height = axes.get_figure().get_size_inches()[1] * 72 * 0.8
    apart = 13.0 * (high - low) / height
    placed: list[float] = []
    for name, value, colour in sorted(ends, key=lambda end: end[1]):
        y = 100 * value
        if placed and y < placed[-1] + apart:
            y = placed[-1] + apart
        placed.append(y)
        axes.annotate(
            _label(name), (x, y), (9, 0), textcoords="offset points", color=colour, fontsize=9.5,
            va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(low, high)


def _handle(colour: str, marker: str, dashed: bool) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=colour, marker=marker or None, markersize=5, linestyle="--" if dashed else "-"
    )


def _label(text: str, most: int = 48) -> str:
    """A label that may come from a user: visible characters, one line, not too long."""
    line = safe_terminal(text).replace("\n", " ").replace("\t", " ")
    return line if len(line) <= most else f"{line[: most - 1]}…"


__all__ = [
    "Reliability",
    "against_compute",
    "compare",
    "difficulty",
    "png",
    "reliability",
    "style",
    "svg",
    "sweep",
]
