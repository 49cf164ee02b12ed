"""Learning-rate schedules: pure functions of progress.

Each gives a factor on the peak rate. ``progress`` is the share of the whole training, 0..1;
``warmup`` the share of it (of each cycle, for the cyclic one) in which the rate rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

from mull.errors import ConfigError

Schedule = Literal["linear", "constant", "cosine", "cosine-restarts", "cyclic"]
CYCLED: Final = ("cosine-restarts", "cyclic")
"""Schedules that have cycles."""
_LEAST: Final = 0.01


def linear(progress: float, warmup: float = 0.03, floor: float = 0.0) -> float:
    """Factor on the peak rate: linear warm-up, then linear decay to ``floor``.

    ``progress`` is the share of all training tokens seen, 0..1; ``warmup`` the share spent warming
    up.  Decay to zero rather than a constant tail: most of a short run's gain comes at its end.

    >>> [round(linear(p, warmup=0.1), 2) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return _warmed(progress, warmup, lambda after, rest: 1.0 - (1.0 - floor) * after / rest)


def constant(progress: float, warmup: float = 0.03) -> float:
    """Linear warm-up, then the peak rate to the end.

    >>> [constant(p, warmup=0.1) for p in (0.0, 0.05, 0.1, 1.0)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return _warmed(progress, warmup, lambda after, rest: 1.0)


def cosine(progress: float, warmup: float = 0.03) -> float:
    """Linear warm-up, then half a cosine down to zero.

    >>> [round(cosine(p, warmup=0.1), 2) for p in (0.0, 0.1, 0.55, 1.0)]
    [0.0, 1.0, 0.5, 0.0]
    """
    return _warmed(progress, warmup, lambda after, rest: _half_cosine(after / rest))


def cosine_restarts(progress: float, warmup: float = 0.03, cycles: int = 4) -> float:
    """One linear warm-up, then ``cycles`` halves of a cosine, each from the peak down to zero.

    >>> [round(cosine_restarts(p, warmup=0.0, cycles=2), 2) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """

    def fall(after: float, rest: float) -> float:
        return _half_cosine(1.0 if after >= rest else (after / rest * cycles) % 1.0)

    return _warmed(progress, warmup, fall)


def cyclic(progress: float, warmup: float = 0.03, cycles: int = 4) -> float:
    """``cycles`` triangles, each lower than the one before, over a hundredth of the peak rate.

    A cycle rises for its share ``warmup`` and falls for the rest of it; cycle c of n has the
    amplitude ``1 - (c - 1) / n`` (reference arc.md 4).

    >>> [round(cyclic(p, warmup=0.5, cycles=2), 3) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.01, 1.0, 0.01, 0.505, 0.01]
    """
    progress = min(max(progress, 0.0), 1.0)
    number = min(int(progress * cycles), cycles - 1)
    height = _warmed(progress * cycles - number, warmup, lambda after, rest: 1.0 - after / rest)
    return _LEAST + (1.0 - _LEAST) * (1.0 - number / cycles) * height


_PLAIN: Final[Mapping[str, Callable[[float, float], float]]] = MappingProxyType(
    {"linear": linear, "constant": constant, "cosine": cosine}
)


def schedule(name: str, warmup: float, cycles: int) -> Callable[[float], float]:
    """The schedule of a name, a function of progress alone; ``ConfigError`` for no such one.

    ``cycles`` matters to ``cosine-restarts`` and ``cyclic`` and must be 1 for the others.

    >>> schedule("cosine", warmup=0.0, cycles=1)(0.5)
    0.5
    """
    if name not in get_args(Schedule):
        raise ConfigError(
            f"train: unknown schedule {name!r}: expected one of {', '.join(get_args(Schedule))}"
        )
    if not 0.0 <= warmup < 1.0:
        raise ConfigError(f"train: warmup must lie in [0, 1), not {warmup}")
    if name in CYCLED:
        if cycles < 1:
            raise ConfigError(f"train: cycles must be at least 1, not {cycles}")
        cycled = cyclic if name == "cyclic" else cosine_restarts
        return lambda progress: cycled(progress, warmup, cycles)
    if cycles != 1:
        raise ConfigError(f"train: schedule {name} has no cycles: leave cycles out, not {cycles}")
    plain = _PLAIN[name]
    return lambda progress: plain(progress, warmup)


def _half_cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _warmed(progress: float, warmup: float, fall: Callable[[float, float], float]) -> float:
    """A rise from 0 to 1; then ``fall`` of what is done since, out of what there is after it."""
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup must lie in [0, 1), not {warmup}")
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return progress / warmup
    return fall(progress - warmup, 1.0 - warmup)
