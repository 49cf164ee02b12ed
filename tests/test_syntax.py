"""Texts are parsed in threads, whatever collects garbage in between."""

from __future__ import annotations

import ast
import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from mull.syntax import parse, parse_expression

TEXT = "(1+2)*(3+4)-5*(6+7)"


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can, in the middle of collections too."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def turn(phase: str, info: dict[str, int]) -> None:
        sum(range(50))

    gc.callbacks.append(turn)
    gc.set_threshold(5)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.callbacks.remove(turn)


def test_threads_parse_side_by_side(restless: None) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                assert ast.unparse(parse_expression(TEXT)) == ast.unparse(parse(TEXT)[0])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
