"""The searches' figures on the virtual clock: guesses win time and slots, and change no result."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from rich.console import Console

from mull.bench.search import SEARCHES, alone, flights, fly, most, search_table

pytestmark = pytest.mark.timeout(30)  # hundreds of searches a test; no clock is asserted


@pytest.mark.parametrize("spec", SEARCHES)
def test_guesses_make_one_problem_faster_and_change_nothing(spec: str) -> None:
    figure = alone(spec, repeats=2)
    assert figure.identical
    assert figure.speedup.median > 1.1
    assert 0.0 < figure.wasted < 0.4
    json.dumps(asdict(figure))


@pytest.mark.parametrize("spec", SEARCHES)
def test_guesses_fill_slots_with_what_counts(spec: str) -> None:
    """A quarter of the tokens at most is wasted; always right guesses would waste none."""
    barriers, expected = fly(spec, 12, 4, speculate=False)
    guessed, results = fly(spec, 12, 4)
    assert results == expected
    assert barriers.wasted == 0.0
    assert barriers.busy == pytest.approx(barriers.committed)
    assert guessed.committed > barriers.committed + 0.04
    assert guessed.wasted <= 0.25
    assert guessed.seconds < barriers.seconds


def test_nothing_does_better_than_to_know() -> None:
    bound = most("beam(branch=4)", 12)
    guessed, _ = fly("beam(branch=4, merge=false)", 12, 4)
    assert bound.wasted == 0.0
    assert guessed.committed < bound.committed < 0.9


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("spec", SEARCHES)
def test_sixteen_problems_keep_the_slots_at_work(spec: str) -> None:
    guessed, _ = fly(spec, 160, 16)
    assert guessed.committed >= 0.95
    assert guessed.wasted <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("spec", SEARCHES)
def test_a_fifth_problem_takes_what_four_cannot(spec: str) -> None:
    """Four open problems leave slots idle even where every guess is right; five need not."""
    assert most(spec, 64, 4).committed < 0.85
    five, _ = fly(spec, 64, 5)
    assert five.committed >= 0.85
    assert five.wasted <= 0.15


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("spec", SEARCHES)
def test_one_problem_alone_is_a_fifth_faster(spec: str) -> None:
    assert alone(spec).speedup.median >= 1.2


def test_the_table_has_a_line_for_every_flight() -> None:
    flown = list(flights(4, SEARCHES[:1]))
    table = search_table(flown, [alone(SEARCHES[0], 1)])
    assert table.row_count == len(flown) + 1
    console = Console(width=200, record=True)
    console.print(table)
    assert "clairvoyant" in console.export_text()
