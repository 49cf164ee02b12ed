"""`speculate = false`: every search of the run is told that it must not guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from mull.runs import Records, make_config, run

PROBE = """
from mull.strategies.vote import Vote


class Probe:
    def start(self, start):
        return Vote(n=2 if start.speculate else 1).start(start)


strategy = Probe()
"""


@pytest.mark.parametrize("speculate", [True, False])
def test_searches_learn_whether_they_may_guess(tmp_path: Path, speculate: bool) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    fields = {
        "name": "probe",
        "task": "words",
        "model": "simulated",
        "strategies": [str(tmp_path / "probe.py")],
        "problems": 1,
        "speculate": speculate,
    }
    run(make_config(fields), tmp_path / "out")
    with Records(tmp_path / "out") as records:
        (cell,) = records.cells
        (result,) = records.results(cell)
    assert result.samples == (2 if speculate else 1)
