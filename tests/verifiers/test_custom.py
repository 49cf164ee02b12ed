"""A user's own code as a verifier: whatever is wrong with it is an error that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from tests.strategies.common import problem
from tests.verifiers.common import branch, scores

from mull.errors import EngineError
from mull.verifiers.custom import FunctionVerifier

NO_NUMBERS = (np.array([0.5, 0.2]), 10**400, 10**5000, Decimal("sNaN"), "0.5", [0.5], 1j)


def test_a_number_of_any_type_is_a_score_and_none_is_nan() -> None:
    given = iter((1, True, np.float32(0.5), Decimal("0.25"), None))
    verifier = FunctionVerifier(lambda _: next(given), "own")  # type: ignore[arg-type,return-value]  # of any type
    found = scores(verifier, *(branch(problem(), "x") for _ in range(5)))
    assert found[:4] == [1.0, 1.0, 0.5, 0.25]
    assert math.isnan(found[4])


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_an_error_that_names_the_verifier(value: object) -> None:
    own: Callable[..., float] = lambda _: value  # type: ignore[assignment,return-value]  # noqa: E731
    with pytest.raises(EngineError, match=r"own\.py gave .*; expected a number or None"):
        scores(FunctionVerifier(own, "own.py"), branch(problem(), "x"))
