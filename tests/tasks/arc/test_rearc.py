"""Laws of RE-ARC pairs: seeded, distinct, within bounds, from training puzzles alone.

Most run on a small package of the same layout; those on the real one need it installed, or its
folder named by MULL_REARC.
"""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from mull.errors import ConfigError, InputError, MissingExtraError
from mull.tasks.arc import rearc
from mull.tasks.arc.data import load
from mull.tasks.arc.grids import shape

REAL = os.environ.get(rearc.ENV)

GENERATORS = """
import random
from .dsl import row

def generate_few(rng, lower, upper):
    return {"input": row(rng.randint(1, 3)), "output": row(0)}

def generate_many(rng, lower, upper):
    return {"input": row(*(rng.randint(1, 9) for _ in range(8))), "output": row(0)}

def generate_wide(rng, lower, upper):
    return {"input": row(*[rng.randint(0, 9)] * rng.choice([3, 31])), "output": row(0)}

def generate_rough(rng, lower, upper):
    number = rng.randint(1, 9)
    if number < 4:
        raise RuntimeError("drew a bad lot")
    return {"input": row(number), "output": row(10 if number == 4 else 5)}

def generate_hard(rng, lower, upper):
    return {"input": row(round(9 * rng.uniform(lower, upper))), "output": row(0, 0)}
"""
VERIFIERS = """
from .dsl import row

def verify_few(grid):
    return row(0)

def verify_rough(grid):
    if grid == row(9):
        raise ValueError("no")
    return row(5)

verify_many = verify_wide = verify_few

def verify_hard(grid):
    return row(0, 0)
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    rearc._modules.cache_clear()
    for name in [name for name in sys.modules if name.startswith(rearc._NAME)]:
        del sys.modules[name]
    yield
    rearc._modules.cache_clear()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reasoning_gym" / "arc" / "rearc_utils"
    folder.mkdir(parents=True)
    (tmp_path / "reasoning_gym" / "__init__.py").write_text("import nothing_that_is_there\n")
    (folder / "__init__.py").write_text("")
    (folder / "dsl.py").write_text("def row(*cells):\n    return (tuple(cells),)\n")
    (folder / "generators.py").write_text(GENERATORS)
    (folder / "verifiers.py").write_text(VERIFIERS)
    monkeypatch.setenv(rearc.ENV, str(tmp_path))


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    if REAL:
        monkeypatch.setenv(rearc.ENV, REAL)
    try:
        rearc.ids()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("small")
def test_the_packages_other_dependencies_are_not_imported() -> None:
    assert rearc.ids() == ("few", "hard", "many", "rough", "wide")


@pytest.mark.usefixtures("small")
def test_pairs_are_distinct_and_end_when_there_are_no_more() -> None:
    assert sorted(pair.input[0][0] for pair in rearc.pairs("few", 0)) == [1, 2, 3]
    many = list(rearc.pairs("many", 0, 50))
    assert len(set(many)) == 50


@pytest.mark.usefixtures("small")
def test_equal_seeds_give_equal_pairs() -> None:
    first = list(rearc.pairs("many", 0, 20))
    assert first == list(islice(rearc.pairs("many", 0), 20))
    assert first != list(rearc.pairs("many", 1, 20))


@pytest.mark.usefixtures("small")
def test_large_grids_failed_draws_and_unverified_pairs_are_left_out() -> None:
    assert {shape(pair.input)[1] for pair in rearc.pairs("wide", 0)} == {3}
    assert {pair.input[0][0] for pair in rearc.pairs("rough", 0)} == {6, 7, 8}
    assert {p.input[0][0] for p in rearc.pairs("rough", 0, verified=False)} == {6, 7, 8, 9}


@pytest.mark.usefixtures("small")
def test_difficulty_bounds_reach_the_generator() -> None:
    cells = {p.input[0][0] for p in rearc.pairs("hard", 0, difficulty=(0.5, 0.7))}
    assert cells <= {4, 5, 6}
    for bad in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="difficulty must be"):
            list(rearc.pairs("hard", 0, difficulty=bad))


@pytest.mark.usefixtures("small")
def test_only_the_packages_own_puzzles_are_made() -> None:
    with pytest.raises(InputError, match="training puzzles of ARC-AGI-1 only"):
        rearc.pairs("00576224", 0)


@pytest.mark.parametrize("broken", [False, True])
def test_without_the_package_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        (tmp_path / "reasoning_gym" / "arc" / "rearc_utils").mkdir(parents=True)
    monkeypatch.setenv(rearc.ENV, str(tmp_path))
    with pytest.raises(MissingExtraError, match="pip install --no-deps reasoning-gym"):
        rearc.ids()


@pytest.mark.usefixtures("real")
def test_the_real_generators_are_those_of_the_training_puzzles(shared_data: Path) -> None:
    arc = shared_data / "arc" / "ARC-AGI-1"
    assert set(rearc.ids()) == {puzzle.id for puzzle in load(arc / "training")}
    assert not set(rearc.ids()) & {puzzle.id for puzzle in load(arc / "evaluation")}


@pytest.mark.usefixtures("real")
def test_the_real_generators_give_equal_pairs_for_equal_seeds() -> None:
    for id in rearc.ids()[::40]:
        one, two = (list(rearc.pairs(id, 5, 2, difficulty=(0.0, 0.3))) for _ in range(2))
        assert one == two
        assert len(one) == 2
