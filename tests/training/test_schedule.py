"""Laws of the learning-rate schedules."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.errors import ConfigError
from mull.training.schedule import CYCLED, linear, schedule


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.2))
def test_factor_stays_between_zero_and_one(progress: float, warmup: float, floor: float) -> None:
    assert 0.0 <= linear(progress, warmup, floor) <= 1.0


@given(st.floats(0.1, 1), st.floats(0.1, 1))
def test_after_warm_up_it_only_falls(one: float, two: float) -> None:
    early, late = sorted((one, two))
    assert linear(early, warmup=0.1) >= linear(late, warmup=0.1)


def test_peak_is_at_the_end_of_warm_up_and_the_end_is_the_floor() -> None:
    assert linear(0.1, warmup=0.1) == 1.0
    assert linear(1.0, warmup=0.1, floor=0.05) == pytest.approx(0.05)
    assert linear(7.0) == linear(1.0)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert linear(0.0, warmup=0.0) == 1.0


def test_warm_up_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup"):
        linear(0.5, warmup=1.0)


RATES = ("linear", "constant", "cosine", "cosine-restarts", "cyclic")


def named(name: str, warmup: float, cycles: int = 4) -> Callable[[float], float]:
    return schedule(name, warmup, cycles if name in CYCLED else 1)


@pytest.mark.parametrize("name", RATES)
@given(st.floats(-1, 2), st.floats(0, 0.9), st.integers(1, 9))
def test_every_schedule_stays_between_zero_and_the_peak(
    name: str, progress: float, warmup: float, cycles: int
) -> None:
    assert 0.0 <= named(name, warmup, cycles)(progress) <= 1.0


@pytest.mark.parametrize(
    ("name", "end"),
    [("linear", 0.0), ("constant", 1.0), ("cosine", 0.0), ("cosine-restarts", 0.0)],
)
def test_one_warm_up_rises_from_zero_and_the_end_is_its_own(name: str, end: float) -> None:
    factor = named(name, 0.2)
    assert [factor(p) for p in (0.0, 0.1, 0.2)] == pytest.approx([0.0, 0.5, 1.0])
    assert factor(1.0) == pytest.approx(end, abs=1e-12)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert named("cosine", 0.2)(0.6) == pytest.approx(0.5)


def test_restarts_begin_at_the_peak_again() -> None:
    factor = named("cosine-restarts", 0.2, 2)
    assert factor(0.6 + 1e-9) == pytest.approx(1.0)
    assert factor(0.6 - 1e-9) == pytest.approx(0.0, abs=1e-6)
    assert [factor(0.4), factor(0.8)] == pytest.approx([0.5, 0.5])


def test_the_peaks_of_the_cycles_decay_over_a_hundredth_of_the_rate() -> None:
    factor = named("cyclic", 0.2, 4)
    peaks = [factor((cycle + 0.2) / 4) for cycle in range(4)]
    assert peaks == pytest.approx([0.01 + 0.99 * height for height in (1.0, 0.75, 0.5, 0.25)])
    valleys = [factor(cycle / 4) for cycle in range(5)]
    assert valleys == pytest.approx([0.01] * 5)
    # Half of the fall: 0.2 of a cycle rises, 0.8 of it falls.
    assert factor((1 + 0.6) / 4) == pytest.approx(0.01 + 0.99 * 0.75 * 0.5)


@pytest.mark.parametrize(
    ("name", "warmup", "cycles", "said"),
    [
        ("square", 0.1, 1, "one of linear, constant, cosine, cosine-restarts, cyclic"),
        ("linear", 1.0, 1, "warmup"),
        ("cosine", 0.1, 4, "no cycles"),
        ("cyclic", 0.1, 0, "at least 1"),
    ],
)
def test_what_is_no_schedule_is_refused(name: str, warmup: float, cycles: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        schedule(name, warmup, cycles)
