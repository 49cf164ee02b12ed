"""Laws of a training's figure: every curve that the log has, the same bytes for the same log."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mull.errors import InputError
from mull.report.training import read_log, training_svg, write_training_plot

LINES = [
    {"step": 1, "tokens": 10, "loss": 2.0, "rate": 0.1, "seconds": 1.0},
    {"step": 2, "tokens": 20, "loss": 1.5, "rate": 0.1, "seconds": 2.0},
    {"step": 2, "tokens": 20, "validation": 1.8, "measures": {"exact": 0.25, "a<b&c": 0.5}},
    {"step": 3, "tokens": 30, "validation": 1.7, "measures": {"exact": 0.5, "a<b&c": 0.75}},
]

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.timeout(30)  # whoever comes first lists the fonts


def test_losses_and_measures_are_in_one_figure(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    path = write_training_plot(tmp_path)
    drawn = path.read_text()
    words = "".join(ElementTree.fromstring(drawn).itertext())  # noqa: S314  (made here)
    for name in ("training loss", "validation loss", "exact", "a<b&c", "step", "nats"):
        assert name in words
    assert training_svg(read_log(tmp_path)) == drawn


def test_a_log_without_checks_is_a_curve_of_its_loss() -> None:
    assert "validation" not in training_svg(LINES[:2])


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl cannot be read"):
        write_training_plot(tmp_path)
    (tmp_path / "train.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match="a step in every line"):
        write_training_plot(tmp_path)
    with pytest.raises(InputError, match="holds no loss"):
        training_svg(LINES[2:])
