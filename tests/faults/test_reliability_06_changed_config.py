"""Reliability test 6: a run goes on with its own config alone; the fields that differ are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.runs.world import Steps, engine, exported, small

from mull.errors import ConfigChangedError
from mull.runs.config import Config
from mull.runs.run import run
from mull.types import Problem

OTHER: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(min_size=1).filter(lambda text: text != "small"),
    "task": st.sampled_from(["other", "words"]),
    "model": st.sampled_from(["other", "simulated:echo"]),
    "strategies": st.sampled_from([["vote"], ["vote", "sample"], ["sample", "vote", "greedy"]]),
    "problems": st.integers(1, 11),
    "skip": st.integers(1, 5),
    "samples": st.integers(1, 3) | st.just([2, 4]),
    "tokens": st.integers(100_000, 200_000),
    "total_tokens": st.integers(100_000, 200_000),
    "flops": st.floats(1e12, 1e15),
    "seconds": st.floats(1e4, 1e5),
    "cost": st.floats(1, 1e6),
    "temperatures": st.floats(0, 0.9) | st.just([0.5, 1.0]),
    "top_k": st.integers(1, 100),
    "top_p": st.floats(0.1, 0.99),
    "min_p": st.floats(0.01, 1),
    "max_tokens": st.integers(100, 399),
    "seeds": st.integers(1, 2**40) | st.just([0, 1]),
    "cost_model": st.just("2P"),
    "speculate": st.just(False),
    "engine": st.just({"slots": 3}),
    "engines": st.sampled_from([{"judge": "simulated"}, {"judge": {"model": "simulated"}}]),
    "verifiers": st.sampled_from([{"prm": "checker"}, {"prm": "nosuch"}]),
    "split": st.sampled_from(["train", "validation"]),
}
"""Another value for every field; ``file`` is tried apart."""


class _Files(Steps):
    def load(self, path: str) -> Iterator[Problem]:
        return self.problems("test", len(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    run(small(), directory, engine=engine(), task=Steps(), virtual=True)
    return directory


def test_every_field_is_tried() -> None:
    assert {*OTHER, "file"} == set(Config.model_fields)


@given(field=st.sampled_from(sorted(OTHER)), data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_a_changed_field_is_refused_by_name_and_writes_nothing(
    made: Path, field: str, data: st.DataObject
) -> None:
    before = exported(made)
    changed = small(**{field: data.draw(OTHER[field], label=field)})
    fresh = engine()
    with pytest.raises(ConfigChangedError, match=rf"another config \(.*\b{field}: .* -> "):
        run(changed, made, engine=fresh, task=Steps(), virtual=True)
    assert fresh.stats.generated == 0
    assert exported(made) == before


def test_several_changes_are_all_named(made: Path) -> None:
    with pytest.raises(ConfigChangedError, match=r"max_tokens: null -> 99; seeds: .* -> "):
        run(small(max_tokens=99, seeds=[4]), made, engine=engine(), task=Steps(), virtual=True)


def test_another_model_under_the_same_name_is_refused(made: Path) -> None:
    with pytest.raises(ConfigChangedError, match=r"\(engine_identity: "):
        other = engine(model="simulated-2")
        run(small(), made, engine=other, task=Steps(), virtual=True)


def test_other_problems_in_a_file_of_the_same_name_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "file", tmp_path / "bb" / "file"
    for path in (first, second):
        path.parent.mkdir()
        path.touch()
    out = tmp_path / "run"
    config = small(file=str(first), problems=None)
    run(config, out, engine=engine(), task=_Files(), virtual=True)
    with pytest.raises(ConfigChangedError, match=r"\(problems_digest: "):
        moved = small(file=str(second), problems=None)
        run(moved, out, engine=engine(), task=_Files(), virtual=True)
    summary = run(config, out, engine=engine(), task=_Files(), virtual=True)
    assert summary.exit_code == 0


def test_the_same_config_goes_on(made: Path) -> None:
    fresh = engine(slots=3, token_ms=2.0)  # how fast it answers is not what it answers
    summary = run(small(), made, engine=fresh, task=Steps(), virtual=True)
    assert (summary.done, fresh.stats.generated) == (24, 0)
