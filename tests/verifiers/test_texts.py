"""A branch's own tokens are given to an engine only where they are exactly its text."""

from __future__ import annotations

import pytest
from tests.strategies.common import problem

from mull.types import Branch, Step, StopReason
from mull.verifiers.texts import text_ids


@pytest.mark.parametrize(
    ("stop", "known"),
    [
        (StopReason.END, (1, 2)),
        (StopReason.STEP, (1, 2, 3)),
        (StopReason.LENGTH, (1, 2, 3)),
        (StopReason.STOP, None),
    ],
)
def test_neither_the_end_token_nor_a_stop_string_is_text(
    stop: StopReason, known: tuple[int, ...] | None
) -> None:
    root = Branch.root(problem())
    steps = (Step("a\n", StopReason.STEP, (1,)), Step("b", stop, (2, 3)))
    assert text_ids(Branch(root.problem, root.view, steps=steps)) == known


def test_what_has_no_tokens_has_none() -> None:
    root = Branch.root(problem())
    assert text_ids(root) is None
    steps = (Step("a\n", StopReason.STEP, (1,)), Step("b", StopReason.END, None))
    assert text_ids(Branch(root.problem, root.view, steps=steps)) is None
