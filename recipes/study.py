"""The study of search, verification and revision: runs → rows → tables, a plot and verdicts.

    mull run recipes/study/words.toml --out build/study/words       # hours; stop and go on at will
    python recipes/study.py rows build/study/words                  # its finished cells
    python recipes/study.py tables                                  # docs/study.md and its plot

Rows and comparisons are ``mull.report.cells`` and ``mull.report.compare``; the claims stand in
``study_claims.py``, the rules that decide them in ``study_rules.py`` and ``study_chains.py``, the
verifiers that are compared in ``study_judges.py``.
``make study-quick`` does all three steps on few problems in at most half an hour.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study_claims import claims_table
from study_judges import HEAD, ladder, with_heads_alone
from study_rules import SESOI, SESOI_BIN, at_its_cost, cells

from mull.fileio import write_atomic
from mull.report.cells import CellRow, load, rows_of, save
from mull.report.compare import accuracy, agreeing, balanced, per_problem

ROWS = Path(__file__).parent.parent / "docs" / "study" / "rows"
PAGE = Path(__file__).parent.parent / "docs" / "study.md"
PLOTS = Path(__file__).parent.parent / "docs" / "images"
MARK = "<!-- tables -->"
DRAWN = (
    ("vote", "vote", "#7f7f7f", "-"),
    ("weighted-vote", "weighted vote", "#0072b2", "-"),
    ("rebase", "REBASE", "#009e73", "-"),
    ("rebase(balance=1.0)", "REBASE, balance 1", "#009e73", "--"),
    ("beam", "beam", "#d55e00", "-"),
    ("weighted-vote(verifier=head)", "weighted vote, hidden state alone", "#0072b2", "-."),
    ("beam(verifier=head)", "beam, hidden state alone", "#d55e00", "-."),
    ("beam(verifier=likelihood)", "beam, likelihood alone", "#d55e00", ":"),
    ("beam(verifier=checker)", "beam, exact checker", "#d55e00", "--"),
)
"""Strategies in the plot: spec, label, colour (told apart by the colour-blind too), line."""

Rows = Sequence[CellRow]


def families(rows: Rows) -> dict[str, list[CellRow]]:
    """Rows by policy, seeds of training together; the one with most rows first."""
    found: dict[str, list[CellRow]] = {}
    for row in rows:
        found.setdefault(re.sub(r"-seed\d+$", "", row.policy), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def tables(rows: Rows) -> list[str]:
    """The page's tables, task by task."""
    lines: list[str] = []
    for task in sorted({row.task for row in rows}):
        known, older = agreeing([row for row in rows if row.task == task])
        by_family = families(known)
        for number, (family, own) in enumerate(by_family.items()):
            lines += ["", *_family(task, family, own, first=number == 0)]
        lines += ["", *_verdicts(by_family)]
        if any(HEAD in row.models for row in known):
            lines += ["", *_by_head_alone(by_family)]
        if older:
            lines += ["", f"Left out: {len(older)} cells of other weights than these."]
    return [*lines[1:], ""]


def _family(task: str, family: str, rows: Rows, first: bool) -> list[str]:
    counts = sorted({row.n for row in rows})
    strategies = sorted({row.strategy for row in rows})
    policies = ", ".join(sorted({row.policy for row in rows}))
    problems = sum({row.digest: row.problems for row in rows}.values())
    solved = _solved(rows)
    weights = {who for row in rows for who in row.models.values()}
    scored = sorted(who for who in weights if not who.startswith("checker:"))
    apart = f", {solved:,} with each policy's counted apart" if solved > problems else ""
    named = f" Weights: {', '.join(f'`{who}`' for who in scored)}." if scored else ""
    lines = [
        f"## {task}" if first else f"### {task}, {family}",
        "",
        f"Policies {policies}; {problems:,} problems{apart}; accuracy in percent, 95 % intervals "
        f"over problems.{named}",
        "",
        *_table(strategies, counts, lambda s, n: accuracy(cells(rows, s, n)).percent(), rows),
        "",
        "FLOPs a problem in millions, verifier's share in parentheses:",
        "",
        *_table(strategies, counts, lambda s, n: _cost(cells(rows, s, n)), rows),
    ]
    lines += [*_by_policy(rows), *ladder(rows)]
    base = "weighted-vote" if "weighted-vote" in strategies else "vote"
    others = [s for s in strategies if s != base]
    sizes = [n for n in counts if n > 1]
    if not sizes or not others or base not in strategies:
        return lines
    return [
        *lines,
        "",
        f"Difference in points to `{base}` at the FLOPs of each strategy (verifiers included), "
        f"paired. Empty where `{base}` was never so cheap or so dear; *of n*: where that left "
        f"fewer than the {problems:,} problems.",
        "",
        *_cost_table(others, sizes, rows, base, problems),
    ]


def _table(strategies: Sequence[str], counts: Sequence[int], cell: Any, rows: Rows) -> list[str]:
    """A line a strategy, a column an N; empty where there are no rows."""
    lines = _head(counts)
    for strategy in strategies:
        texts = [cell(strategy, n) if cells(rows, strategy, n) else "" for n in counts]
        notes = _fewer([_solved(cells(rows, strategy, n)) for n in counts], _solved(rows))
        lines.append(_line(strategy, texts, notes))
    return lines


def _cost_table(
    strategies: Sequence[str], counts: Sequence[int], rows: Rows, base: str, problems: int
) -> list[str]:
    """Differences to ``base`` at each strategy's own FLOPs."""
    lines = _head(counts)
    for strategy in strategies:
        found = [at_its_cost(rows, strategy, base, n) for n in counts]
        if any(found):
            texts = ["" if gap is None else gap.percent() for gap in found]
            notes = _fewer([0 if gap is None else gap.n for gap in found], problems)
            lines.append(_line(strategy, texts, notes))
    return lines


def _head(counts: Sequence[int]) -> list[str]:
    names = " | ".join(f"N = {n}" for n in counts)
    return [f"| strategy | {names} |", "|---" * (len(counts) + 1) + "|"]


def _line(strategy: str, texts: Sequence[str], notes: Sequence[str]) -> str:
    shown = [text + note for text, note in zip(texts, notes[1:], strict=True)]
    return f"| `{strategy}`{notes[0]} | " + " | ".join(shown) + " |"


def _by_policy(rows: Rows) -> list[str]:
    """Accuracy by policy at the two largest N; nothing where there is one policy."""
    policies = sorted({row.policy for row in rows})
    if len(policies) < 2:
        return []
    places = [(p, n) for p in policies for n in sorted({row.n for row in rows})[-2:]]
    lines = [
        "",
        "Policy by policy; the verifiers are those of the first:",
        "",
        "| strategy | " + " | ".join(f"{policy}, N = {n}" for policy, n in places) + " |",
        "|---" * (len(places) + 1) + "|",
    ]
    for strategy in sorted({row.strategy for row in rows}):
        found = [
            [row for row in cells(rows, strategy, n) if row.policy == policy]
            for policy, n in places
        ]
        if all(found):
            shown = " | ".join(accuracy(own).percent() for own in found)
            lines.append(f"| `{strategy}` | {shown} |")
    return lines


def _fewer(own: Sequence[int], whole: int) -> list[str]:
    """Notes of a strategy, then of its cells: on how many problems each rests, where others rest on
    more.
    """
    most = max(own)
    return [
        "" if count in (0, among) else f" (of {count:,})"
        for count, among in ((most, whole), *((count, most) for count in own))
    ]


def _solved(rows: Rows) -> int:
    """Problems that rows rest on; one counts once for each policy."""
    even = balanced([row.unit for row in rows])
    return sum({row.unit: row.problems for row in rows if row.unit in even}.values())


def _cost(rows: Rows) -> str:
    total = per_problem(rows, lambda row: row.flops)
    verifier = per_problem(rows, lambda row: row.verifier_flops)
    return f"{total / 1e6:.0f} ({verifier / total:.0%})" if total else "unknown"


def _verdicts(by_family: Mapping[str, Rows]) -> list[str]:
    return [
        "Claims, by the numbers of the protocol; differences in points, paired. *Reproduced*: the "
        f"interval excludes 0 and the point is at least {100 * SESOI:g} ({100 * SESOI_BIN:g} in a "
        "bin of difficulty, for slopes over the whole range; any at all for an AUC or a ratio of "
        "costs); *mixed over policies*: not all have the sign of their mean; *not for …*: not on "
        "the policy that the verifiers were trained for; *not by Holm*: no longer once the number "
        "of tests in the table is counted. C1 to C5, C8, C21, C26 and C27 are not decided here.",
        "",
        *claims_table(by_family),
    ]


def _by_head_alone(by_family: Mapping[str, Rows]) -> list[str]:
    return [
        "The same claims by ordinary reward models, whose value heads read the hidden state alone "
        "(`-prm-head`, and `-orm-head`, not shipped: the same trunk, solutions and labels):",
        "",
        *claims_table({family: with_heads_alone(rows) for family, rows in by_family.items()}),
    ]


def plot(rows: Rows, path: Path) -> None:
    """Accuracy against FLOPs a problem, a panel a task, a line a strategy."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "study"  # equal rows give equal bytes
    import matplotlib.pyplot as plt

    tasks = sorted({row.task for row in rows})
    figure, axes = plt.subplots(1, len(tasks), figsize=(7.6 * len(tasks), 4.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        known, _ = agreeing([row for row in rows if row.task == task])
        family, own = next(iter(families(known).items()))
        _panel(axis, own)
        several = len({row.policy for row in own}) > 1
        axis.set_title(f"{task}, {family}{' and its sisters' if several else ''}", loc="left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _panel(axis: Any, rows: Rows) -> None:
    ends: list[tuple[float, float, str, str]] = []
    for strategy, label, colour, line in DRAWN:
        points = []
        for n in sorted({row.n for row in rows}):
            found = cells(rows, strategy, n)
            if found:
                mean = accuracy(found)
                flops = per_problem(found, lambda row: row.flops)
                points.append((flops, mean.value, mean.low, mean.high))
        if not points:
            continue
        x, y, low, high = (np.array(each) for each in zip(*points, strict=True))
        axis.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.10, lw=0)
        axis.plot(x, 100 * y, line, color=colour, lw=1.8, marker="o", ms=3.5)
        ends.append((100 * y[-1], x[-1], label, colour))
    axis.set_xscale("log")
    axis.set_xlabel("FLOPs a problem, verifier included")
    axis.set_ylabel("accuracy, %")
    axis.grid(axis="y", color="0.92", lw=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    low, high = axis.get_ylim()
    gap, below = (high - low) / 19, -np.inf
    for y, x, label, colour in sorted(ends):
        below = max(y, below + gap)  # labels that would lie on each other move up
        axis.annotate(
            label, (x, y), (1.02, below), textcoords=("axes fraction", "data"), va="center",
            color=colour, fontsize=9,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5},
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows", help="save the finished cells of runs")
    rows.add_argument("runs", nargs="+", type=Path)
    rows.add_argument("--into", type=Path, default=ROWS)
    page = commands.add_parser("tables", help="write the page and its plot")
    page.add_argument("--rows", type=Path, default=ROWS)
    page.add_argument("--page", type=Path, default=PAGE)
    page.add_argument("--plot", type=Path, default=PLOTS / "study.svg")
    given: Any = parser.parse_args()
    if given.command == "rows":
        for directory in given.runs:
            found = list(rows_of(directory))
            places = ", ".join(map(str, save(found, given.into))) or "no finished cell yet"
            print(f"{directory}: {len(found)} cells: {places}")
        return
    known = load(given.rows)
    if not known:
        raise SystemExit(f"{given.rows} holds no rows: run the study first")
    plot(known, given.plot)
    text = given.page.read_text() if given.page.exists() else "# Study\n"
    head = text.split(MARK)[0].rstrip()
    write_atomic(given.page, "\n".join([head, "", MARK, "", *tables(known)]))
    print(given.page)


if __name__ == "__main__":
    main()
