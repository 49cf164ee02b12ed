"""The study of search, verification and revision: runs → rows → tables, plots and verdicts.

    mull run recipes/study/words.toml --out build/study/words       # hours; stop and go on at will
    python recipes/study.py rows build/study/words                  # its finished cells
    python recipes/study.py tables                                  # docs/study.md and its plots

A row keeps which problems were right (a bit each), so that cells from different sittings are still
compared problem by problem; the raw samples stay with whoever ran them. ``make study-quick`` does
all three on few problems in at most half an hour.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mull.budget import Purpose
from mull.fileio import write_atomic
from mull.metrics import Interval, mean_interval, paired_difference
from mull.runs.records import Records

ROWS = Path(__file__).parent.parent / "docs" / "study" / "rows"
PAGE = Path(__file__).parent.parent / "docs" / "study.md"
PLOTS = Path(__file__).parent.parent / "docs" / "images"
BEST = "best-of-n(verifier=prm)"
MIXED = "mixed(ratio=1, verifier=prm)"
CHECKED = "beam(verifier=checker)"
GUESSES = Purpose.SPECULATIVE.value
VERIFYING = (Purpose.VERIFIER.value, Purpose.JUDGE.value)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One finished cell: a strategy at a number of samples on the problems of a task."""

    task: str
    policy: str
    strategy: str
    n: int
    seed: int
    problems: int
    digest: str
    verifiers: dict[str, str]
    right: str
    levels: str
    policy_flops: float
    verifier_flops: float
    guesses_flops: float
    tokens: float
    unanswered: float
    config_hash: str

    @property
    def correct(self) -> Floats:
        """One 0 or 1 a problem, in the problems' order."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.right), np.uint8))
        return bits[: self.problems].astype(np.float64)

    @property
    def flops(self) -> float:
        """FLOPs a problem, the verifier's included.

        Without wrong guesses ahead: idle slots made them, how many depends on timing, and no result
        does; ``guesses_flops`` has them apart.
        """
        return self.policy_flops + self.verifier_flops

    @property
    def key(self) -> tuple[str, str, str, int, int, str]:
        return self.task, self.policy, self.strategy, self.n, self.seed, self.digest


def rows_of(directory: Path) -> Iterator[Row]:
    """The finished cells of a run."""
    with Records(directory) as records:
        config = records.config
        problems = list(records.problems())
        for cell in records.cells:
            results = list(records.results(cell))
            if len(results) < len(problems) or cell.budget is None or cell.budget.samples is None:
                continue
            spent = [row for result in results for row in result.spent]
            flops = {"policy": 0.0, "verifier": 0.0, "guesses": 0.0}
            for row in spent:
                kind = "verifier" if row.purpose in VERIFYING else "policy"
                kind = "guesses" if row.purpose == GUESSES else kind
                flops[kind] += row.usage.flops
            right = np.array([result.correct is True for result in results], dtype=np.uint8)
            levels = ",".join(str(problem.level) for problem in problems)
            count = len(problems)
            yield Row(
                task=str(config["task"]),
                policy=str(config["model"]),
                strategy=cell.strategy,
                n=cell.budget.samples,
                seed=cell.seed,
                problems=count,
                digest=str(config["problems_digest"])[:16],
                verifiers=dict(config.get("verifiers") or {}),
                right=np.packbits(right).tobytes().hex(),
                levels=levels,
                policy_flops=flops["policy"] / count,
                verifier_flops=flops["verifier"] / count,
                guesses_flops=flops["guesses"] / count,
                tokens=sum(r.usage.generated for r in spent if r.purpose != GUESSES) / count,
                unanswered=sum(result.answer is None for result in results) / count,
                config_hash=records.config_hash[:16],
            )


def save(rows: Sequence[Row], folder: Path = ROWS) -> Path:
    """Add rows to the file of their task and policy; a row that is there already is replaced."""
    path = folder / f"{rows[0].task}-{rows[0].policy}.jsonl"
    known = {row.key: row for row in load(path)}
    known.update({row.key: row for row in rows})
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(known.values(), key=lambda row: row.key)
    write_atomic(path, "".join(json.dumps(asdict(row)) + "\n" for row in ordered))
    return path


def load(path: Path) -> list[Row]:
    """The rows of a file, none where there is none."""
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()]


# --- comparisons ---------------------------------------------------------------------------------


def at_flops(rows: Sequence[Row], flops: float) -> Floats | None:
    """A strategy's chance of being right on each problem at so many FLOPs a problem.

    Between two measured budgets the chance is interpolated in the logarithm of the FLOPs; outside
    the measured range nothing is said.
    """
    ordered = sorted(rows, key=lambda row: row.flops)
    for low, high in pairwise(ordered):
        if low.flops <= flops <= high.flops:
            share = math.log(flops / low.flops) / max(1e-12, math.log(high.flops / low.flops))
            return (1 - share) * low.correct + share * high.correct
    return None


def by_shard(rows: Sequence[Row]) -> dict[str, Floats]:
    """Chance of being right on each problem of each shard, policies and seeds averaged."""
    shards: dict[str, list[Floats]] = {}
    for row in rows:
        shards.setdefault(row.digest, []).append(row.correct)
    return {digest: np.mean(found, axis=0) for digest, found in shards.items()}


def difference(a: Sequence[Row], b: Sequence[Row]) -> Interval | None:
    """a - b on the shards that both have, paired by problem."""
    left, right = by_shard(a), by_shard(b)
    both = sorted(left.keys() & right.keys())
    if not both:
        return None
    return paired_difference(
        np.concatenate([left[k] for k in both]), np.concatenate([right[k] for k in both])
    )


def accuracy(rows: Sequence[Row]) -> Interval:
    """Accuracy over the problems of all shards."""
    return mean_interval(np.concatenate(list(by_shard(rows).values())))


# --- claims --------------------------------------------------------------------------------------

SESOI = 0.015
"""The smallest difference of interest, as a share of the problems."""


@dataclass(frozen=True)
class Claim:
    """One claim of the literature as a paired difference ``left - right`` at some N.

    With ``same_flops`` the left side is read at the right side's FLOPs instead of its N.
    """

    id: str
    says: str
    left: str
    right: str
    at: tuple[int, ...]
    same_flops: bool = False


CLAIMS = (
    Claim("C7", "REBASE beats the weighted vote", "rebase", "weighted-vote", (16, 64), True),
    Claim("C11", "the weighted vote beats the vote", "weighted-vote", "vote", (4, 16, 64)),
    Claim("C14", "weighted beats the single best", "weighted-vote", BEST, (4, 16, 64)),
    Claim("C16", "beam is best at small N", "beam", "weighted-vote", (4, 16)),
    Claim("C16", "the same at equal FLOPs", "beam", "weighted-vote", (16, 64), True),
    Claim("C17", "sampling catches up at large N", "weighted-vote", "beam", (64,)),
    Claim("C24", "revising beats sampling", MIXED, "weighted-vote", (4, 16, 64)),
    Claim("C28", "best-of-n beats one sample", BEST, "sample", (4, 16, 64)),
    Claim("control", "an exact checker lifts the search", CHECKED, "beam", (4, 16, 64)),
)


def verdict(found: Interval) -> str:
    """What an interval says of a claim that something is larger."""
    if found.low > 0:
        return "reproduced" if found.value >= SESOI else "direction only"
    return "contradicted" if found.high < 0 else "not detected"


def claims_table(rows: Sequence[Row]) -> list[str]:
    """Each claim at each of its N, with the difference in points and the verdict."""
    lines = ["| claim | | N | difference | verdict |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        for n in claim.at:
            right = [row for row in rows if (row.strategy, row.n) == (claim.right, n)]
            left = [row for row in rows if row.strategy == claim.left]
            if claim.same_flops:
                found = flops_difference(left, right)
            else:
                found = difference([row for row in left if row.n == n], right)
            if found is not None:
                where = f"FLOPs of {n}" if claim.same_flops else str(n)
                lines.append(
                    f"| {claim.id} | {claim.says} | {where} | {found.percent()} | "
                    f"{verdict(found)} |"
                )
    return lines


def flops_difference(rows: Sequence[Row], anchors: Sequence[Row]) -> Interval | None:
    """A strategy against anchor cells at the anchors' own FLOPs, paired by problem."""
    lefts, rights = [], []
    for anchor in anchors:
        own = (anchor.policy, anchor.seed, anchor.digest)
        found = at_flops(
            [row for row in rows if (row.policy, row.seed, row.digest) == own], anchor.flops
        )
        if found is not None:
            lefts.append(found)
            rights.append(anchor.correct)
    return paired_difference(np.concatenate(lefts), np.concatenate(rights)) if lefts else None


# --- page ----------------------------------------------------------------------------------------


def tables(rows: Sequence[Row]) -> list[str]:
    """The page's tables, task by task."""
    lines: list[str] = []
    for task in sorted({row.task for row in rows}):
        own = [row for row in rows if row.task == task]
        counts = sorted({row.n for row in own})
        policies = sorted({row.policy for row in own})
        problems = sum({row.digest: row.problems for row in own}.values())
        lines += [f"## {task}", ""]
        lines += [
            f"Policies {', '.join(policies)}; {problems:,} problems; accuracy in percent, 95 % "
            "intervals over problems.",
            "",
            "| strategy | " + " | ".join(f"N = {n}" for n in counts) + " |",
            "|---" * (len(counts) + 1) + "|",
        ]
        strategies = sorted({row.strategy for row in own})
        for strategy in strategies:
            cells = []
            for n in counts:
                found = [row for row in own if (row.strategy, row.n) == (strategy, n)]
                cells.append(accuracy(found).percent() if found else "")
            lines.append(f"| `{strategy}` | " + " | ".join(cells) + " |")
        lines += ["", *_costs(own, strategies, counts), "", *_equal_flops(own, strategies), ""]
        lines += [
            "Claims (numbers as in the literature's check list), differences in points, paired; "
            f"reproduced: the interval excludes 0 and the point is at least {100 * SESOI:g}.",
            "",
            *claims_table(own),
            "",
        ]
    return lines


def _costs(rows: Sequence[Row], strategies: Sequence[str], counts: Sequence[int]) -> list[str]:
    lines = [
        "FLOPs a problem in millions, verifier's share in parentheses:",
        "",
        "| strategy | " + " | ".join(f"N = {n}" for n in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for strategy in strategies:
        cells = []
        for n in counts:
            found = [row for row in rows if (row.strategy, row.n) == (strategy, n)]
            total = sum(row.flops for row in found) / max(1, len(found))
            verifier = sum(row.verifier_flops for row in found) / max(1, len(found))
            cells.append(f"{total / 1e6:.0f} ({verifier / total:.0%})" if found else "")
        lines.append(f"| `{strategy}` | " + " | ".join(cells) + " |")
    return lines


def _equal_flops(rows: Sequence[Row], strategies: Sequence[str]) -> list[str]:
    """Against the weighted vote (else the vote) at its own FLOPs, verifier included."""
    base = "weighted-vote" if "weighted-vote" in strategies else "vote"
    anchors = sorted((r for r in rows if r.strategy == base and r.n > 1), key=lambda r: r.n)
    counts = sorted({row.n for row in anchors})
    lines = [
        f"Difference in points to `{base}` at equal FLOPs (verifier included), paired:",
        "",
        "| strategy | " + " | ".join(f"FLOPs of N = {n}" for n in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for strategy in strategies:
        if strategy == base:
            continue
        cells = []
        for n in counts:
            own = [row for row in rows if row.strategy == strategy]
            found = flops_difference(own, [row for row in anchors if row.n == n])
            cells.append("" if found is None else found.percent())
        lines.append(f"| `{strategy}` | " + " | ".join(cells) + " |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against FLOPs a problem, a line a strategy."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    tasks = sorted({row.task for row in rows})
    figure, axes = plt.subplots(1, len(tasks), figsize=(7.6 * len(tasks), 4.4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        own = [row for row in rows if row.task == task]
        for number, strategy in enumerate(sorted({row.strategy for row in own})):
            points = []
            for n in sorted({row.n for row in own}):
                found = [row for row in own if (row.strategy, row.n) == (strategy, n)]
                if found:
                    mean = accuracy(found)
                    flops = sum(row.flops for row in found) / len(found)
                    points.append((flops, mean.value, mean.low, mean.high))
            x, y, low, high = (np.array(each) for each in zip(*points, strict=True))
            if strategy == "sample":
                axis.axhline(100 * y[0], color="0.6", lw=1, ls=":", label="one sample")
                continue
            axis.errorbar(
                x,
                100 * y,
                yerr=100 * np.array([y - low, high - y]),
                fmt="--o" if "checker" in strategy else "-o",
                ms=3.5,
                lw=1.5,
                elinewidth=0.7,
                alpha=0.9,
                color=f"C{number % 10}",
                label=strategy,
            )
        axis.set_xscale("log")
        axis.set_xlabel("FLOPs a problem, verifier included")
        axis.set_ylabel("accuracy, %")
        axis.set_title(task)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


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
            if found:
                print(f"{len(found)} cells: {save(found, given.into)}")
            else:
                print(f"{directory}: no finished cell yet")
        return
    known = [row for path in sorted(given.rows.glob("*.jsonl")) for row in load(path)]
    if not known:
        raise SystemExit(f"{given.rows} holds no rows: run the study first")
    plot(known, given.plot)
    text = given.page.read_text() if given.page.exists() else "# Study\n"
    head = text.split("<!-- tables -->")[0].rstrip()
    body = "\n".join(tables(known))
    write_atomic(given.page, f"{head}\n\n<!-- tables -->\n\n{body}")
    print(given.page)


if __name__ == "__main__":
    main()
