"""What the fakes of adapting engines share: who holds which weights."""

from __future__ import annotations


class Holds:
    """Counts holds as an adapting engine does: one a training, until the last is given back."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def hold(self, weights: str) -> str:
        self.held[weights] = self.held.get(weights, 0) + 1
        return weights

    async def ready(self, weights: str) -> None:
        assert weights in self.held

    def release(self, weights: str) -> None:
        self.held[weights] -= 1
        if not self.held[weights]:
            del self.held[weights]
