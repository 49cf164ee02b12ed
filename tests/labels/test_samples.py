"""Recorded samples come back once, in order, with their tokens and the task's verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.labels.conftest import PROBLEMS, SAMPLES

from mull.catalog import load_task
from mull.errors import InputError, StoreError
from mull.labels.samples import Recorded, read_run
from mull.runs import make_config, run
from mull.runs.records import Records

pytestmark = pytest.mark.timeout(60)  # whoever comes first loads torch and samples


def test_every_recorded_sample_is_there_once(recorded: Recorded, run_directory: Path) -> None:
    groups = list(recorded.problems())
    assert [len(group) for group in groups] == [SAMPLES] * PROBLEMS
    assert all([s.index for s in group] == list(range(SAMPLES)) for group in groups)
    with Records(run_directory) as records:
        most = max(records.cells, key=lambda cell: cell.budget.samples if cell.budget else 0)
        results = list(records.results(most))
    for group, result in zip(groups, results, strict=True):
        assert [s.text for s in group] == [c.text for c in result.candidates]
        assert [s.correct for s in group] == [c.correct is True for c in result.candidates]
        assert [s.answer for s in group] == [c.answer for c in result.candidates]


def test_the_problems_are_those_of_the_task(recorded: Recorded) -> None:
    problems = [group[0].problem for group in recorded.problems()]
    assert problems == list(load_task("words").problems("train", PROBLEMS))  # type: ignore[attr-defined]


def test_tokens_are_those_that_the_policy_made(recorded: Recorded) -> None:
    made = [sample for group in recorded.problems() for sample in group]
    assert all(sample.ids and len(sample.ids) > 2 for sample in made)
    assert recorded.policy.model == "words-s"


def test_a_run_without_plain_samples_is_refused(tmp_path: Path) -> None:
    config = make_config(
        {"name": "g", "task": "words", "model": "simulated", "strategies": "greedy", "problems": 2}
    )
    run(config, tmp_path)
    with pytest.raises(InputError, match="holds no plain samples"):
        read_run(tmp_path)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        read_run(tmp_path)
