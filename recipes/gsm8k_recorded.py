"""GSM8K's recorded model outputs, judged by Mull's grader: accuracy of four sources, agreement.

3,600 outputs of Cobbe et al. 2021 (arXiv 2110.14168): models of 6B and 175B parameters, fine-tuned
and picked by a verifier, on the first 900 test problems, each with its published verdict.

    python recipes/gsm8k_recorded.py [FOLDER]

FOLDER holds ``gsm8k/recorded_solutions.jsonl``; default: MULL_DATA, else ../shared/data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mull.metrics.intervals import mean_interval, paired_difference
from mull.tasks.files import Row, read_rows
from mull.tasks.gsm8k import Gsm8k
from mull.types import Problem

SOURCES = {
    "6b_finetuning": "6B, fine-tuned",
    "6b_verification": "6B, picked by a verifier",
    "175b_finetuning": "175B, fine-tuned",
    "175b_verification": "175B, picked by a verifier",
}


def problem_in(task: Gsm8k, row: Row) -> Problem:
    """The problem of a recorded row, whose gold answer stands in ``ground_truth``."""
    value = {"question": row.value["question"], "answer": row.value["ground_truth"]}
    return task.from_row(Row(row.path, row.line, row.index, value))


def judge(path: Path) -> dict[str, list[tuple[bool, bool]]]:
    """Our verdict and the published one on every output, by source."""
    task = Gsm8k()
    verdicts: dict[str, list[tuple[bool, bool]]] = {source: [] for source in SOURCES}
    for row in read_rows(str(path)):
        problem = problem_in(task, row)
        for source, pairs in verdicts.items():
            recorded: Any = row.value[source]
            answer = task.extract(problem, recorded["solution"]).answer
            ours = task.grade(problem, answer).correct is True
            pairs.append((ours, recorded["is_correct"]))
    return verdicts


def main(folder: str | None = None) -> None:
    """Print the table."""
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    root = Path(folder or os.environ.get("MULL_DATA", default))
    verdicts = judge(root / "gsm8k" / "recorded_solutions.jsonl")
    pairs = [pair for source in verdicts.values() for pair in source]
    agreed = sum(ours == published for ours, published in pairs)
    n = len(verdicts["6b_finetuning"])
    print(f"| source | accuracy in %, 95 % interval over {n} problems | published verdicts |")
    print("|---|---|---|")
    for source, name in SOURCES.items():
        accuracy = mean_interval([ours for ours, _ in verdicts[source]])
        published = sum(right for _, right in verdicts[source]) / n
        print(f"| {name} | {accuracy.percent()} | {100 * published:.1f} |")
    difference = paired_difference(
        [ours for ours, _ in verdicts["6b_verification"]],
        [ours for ours, _ in verdicts["175b_finetuning"]],
    )
    print(f"\n6B with a verifier minus 175B without: {difference.percent()} points (paired)")
    print(f"agreement with the published verdicts: {agreed} of {len(pairs)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
