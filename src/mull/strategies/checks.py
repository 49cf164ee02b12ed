"""What options of strategies must be, and the error that says which one is not."""

from __future__ import annotations

from mull.errors import SpecError


def check_positive(name: str, **options: int | None) -> None:
    """Raise ``SpecError`` for the first option that is given and is not at least 1."""
    for option, value in options.items():
        if value is not None and value < 1:
            raise SpecError(f"{name}({option}={value}): must be at least 1")


def check_options(name: str, flight: int, quorum: float = 0.0) -> None:
    """Raise ``SpecError`` for a flight or a quorum out of range."""
    check_positive(name, flight=flight)
    if not 0.0 <= quorum <= 1.0:
        raise SpecError(f"{name}(quorum={quorum}): quorum must lie in 0..1")
