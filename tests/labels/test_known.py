"""Rollouts are paid for once, whatever is killed in between."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from tests.labels.test_steps import ENGINE, TASK, sampled

from mull.engines.simulated import Fault, Faults, SimulatedEngine, StepModel
from mull.errors import ConfigChangedError, CorruptRecordError
from mull.labels.known import FILE
from mull.labels.steps import Kind, Labeller
from mull.training.data import Labelled
from mull.types import EngineInfo

SAMPLES = sampled(20)


class PowerCut(Exception):
    """Stands for whatever ends a process."""


class Weather(SimulatedEngine):
    """The policy itself on a bad day: a share of its samples fails."""

    def __init__(self, share: float) -> None:
        super().__init__(StepModel(closing="answer "), faults=Faults(rates={Fault.ENDPOINT: share}))

    @property
    def info(self) -> EngineInfo:
        return ENGINE.info


def labelled(labeller: Labeller) -> list[Labelled]:
    return asyncio.run(labeller.label(SAMPLES))


@pytest.mark.parametrize("kind", ["soft", "hard", "search"])
def test_a_killed_labelling_goes_on_where_it_was(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Labeller(kind, TASK, ENGINE, 4)
    expected = labelled(whole)
    torn = Labeller(kind, TASK, ENGINE, 4, folder=tmp_path)
    note, left = torn._known.note, iter(range(5))

    def cut(value: object) -> None:
        if next(left, None) is None:
            raise PowerCut
        note(value)  # type: ignore[arg-type]

    monkeypatch.setattr(torn._known, "note", cut)
    with pytest.raises(PowerCut):
        labelled(torn)
    paid = torn.usage.generated
    again = Labeller(kind, TASK, ENGINE, 4, folder=tmp_path)
    assert 0 < paid == again.usage.generated < whole.usage.generated
    assert labelled(again) == expected
    assert again.usage == whole.usage
    assert labelled(Labeller(kind, TASK, ENGINE, 4, folder=tmp_path)) == expected
    again.forget()
    assert not list(tmp_path.iterdir())


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    """An engine that is away is not missed where everything is known."""
    first = Labeller("soft", TASK, ENGINE, 4, folder=tmp_path)
    expected = labelled(first)
    assert labelled(Labeller("soft", TASK, Weather(1.0), 4, folder=tmp_path)) == expected


def test_what_did_not_come_back_is_asked_again(tmp_path: Path) -> None:
    torn = labelled(Labeller("soft", TASK, Weather(0.6), 1, folder=tmp_path))
    assert any(math.isnan(label) for each in torn for label in each.labels)
    mended = labelled(Labeller("soft", TASK, ENGINE, 1, folder=tmp_path))
    assert mended == labelled(Labeller("soft", TASK, ENGINE, 1))


def test_values_of_other_rollouts_are_refused_by_name(tmp_path: Path) -> None:
    labelled(Labeller("soft", TASK, ENGINE, 4, folder=tmp_path))
    with pytest.raises(ConfigChangedError, match="rollouts 4 -> 5; remove it"):
        Labeller("soft", TASK, ENGINE, 5, folder=tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CorruptRecordError, match="remove it to make them anew"):
        Labeller("soft", TASK, ENGINE, 4, folder=tmp_path)


def test_rules_without_rollouts_write_nothing(tmp_path: Path) -> None:
    labelled(Labeller("outcome", TASK, folder=tmp_path))
    assert not list(tmp_path.iterdir())
