"""Laws of the learning-rate schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mull.training.schedule import linear


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
