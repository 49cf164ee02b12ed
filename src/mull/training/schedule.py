"""Learning-rate schedules: pure functions of progress."""

from __future__ import annotations


def linear(progress: float, warmup: float = 0.03, floor: float = 0.0) -> float:
    """Factor on the peak rate: linear warm-up, then linear decay to ``floor``.

    ``progress`` is the share of all training tokens seen, 0..1; ``warmup`` the share spent warming
    up.  Decay to zero rather than a constant tail: most of a short run's gain comes at its end.

    >>> [round(linear(p, warmup=0.1), 2) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"warmup must lie in [0, 1), not {warmup}")
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return progress / warmup
    return 1.0 - (1.0 - floor) * (progress - warmup) / (1.0 - warmup)
