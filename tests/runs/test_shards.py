"""Shards: `skip` parts one evaluation into runs that share no problem and lose none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runs.world import Steps, small

from mull.catalog import load_task
from mull.errors import ConfigError
from mull.runs.config import Config
from mull.runs.prepare import load_problems


def ids(config: Config, task: object) -> list[str]:
    return [problem.id for problem in load_problems(config, task)]  # type: ignore[arg-type]


def test_shards_are_disjoint_and_whole() -> None:
    whole = ids(small(problems=12), Steps())
    parts = [ids(small(problems=4, skip=skip), Steps()) for skip in (0, 4, 8)]
    assert [each for part in parts for each in part] == whole


def test_a_file_is_sharded_alike(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [json.dumps({"id": f"p{n}", "problem": f"{n}?"}) for n in range(5)]
    path.write_text("\n".join(rows) + "\n")
    fields = {"name": "x", "task": "text", "model": "simulated", "strategies": ("vote",)}
    task = load_task("text")
    assert ids(Config(**fields, file=str(path), skip=3), task) == ["p3", "p4"]
    assert ids(Config(**fields, file=str(path), skip=1, problems=2), task) == ["p1", "p2"]
    with pytest.raises(ConfigError, match="has only 2 behind the first 3"):
        ids(Config(**fields, file=str(path), skip=3, problems=3), task)
    with pytest.raises(ConfigError, match=r"skip = 5: .*p\.jsonl has no problem behind the first"):
        ids(Config(**fields, file=str(path), skip=5), task)


def test_far_behind_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match="skip = 1000000000: expected together at most"):
        ids(small(problems=4, skip=10**9), Steps())


def test_a_run_without_newer_fields_is_recognised_as_before() -> None:
    assert not {"skip", "speculate"} & set(small().portable)
    assert small(skip=2).portable["skip"] == 2
    assert small(speculate=False).portable["speculate"] is False
