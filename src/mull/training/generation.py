"""What an adapter generates: greedy answers by the torch engine, held against those wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mull.budget import Ledger, Meter, Purpose
from mull.engines.torch import load_torch_engine
from mull.engines.torch.config import read_config
from mull.engines.torch.engine import TorchEngine
from mull.errors import ContextError, InputError
from mull.training.dialogue import Encoded, Encoder, TrainingText
from mull.types import GREEDY, Completion, Prompt, Request, Until


@dataclass(frozen=True)
class ExactAnswers:
    """A measure: the share of texts whose last answer greedy decoding gives token by token.

    ``exact`` counts whole answers, end token and all; ``tokens`` is the mean share of an answer
    that is right up to its first wrong token. A text too long for the engine counts as wrong.
    Must not be called in a running event loop.
    """

    base: Path
    texts: tuple[TrainingText, ...]
    encoder: Encoder
    device: str = "cpu"
    slots: int = 16

    def __post_init__(self) -> None:
        if not self.texts:
            raise InputError("generation is measured on validation texts; expected at least one")
        # A family that the engine does not know is better heard of before the training.
        read_config(self.base)

    def __call__(self, adapter: Path) -> Mapping[str, float]:
        """Measure an adapter; see the class."""
        return asyncio.run(self._measure(adapter))

    async def _measure(self, adapter: Path) -> Mapping[str, float]:
        engine = load_torch_engine(
            self.base,
            device="cuda" if self.device.startswith("cuda") else "cpu",
            slots=self.slots,
            adapter=adapter,
        )
        try:
            rows = [self.encoder(text) for text in self.texts]
            shares = await asyncio.gather(*(_share(engine, row) for row in rows))
        finally:
            await engine.aclose()
        count = len(shares)
        return {"exact": sum(s == 1.0 for s in shares) / count, "tokens": sum(shares) / count}


async def _share(engine: TorchEngine, row: Encoded) -> float:
    """The share of a text's last answer before the first token that is not the one wanted."""
    asked, wanted = row.question()
    request = Request(
        Prompt(token_ids=asked),
        until=Until(len(wanted)),
        decoding=GREEDY,
    )
    meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    try:
        [made] = [
            item async for item in engine.generate(request, meter) if isinstance(item, Completion)
        ]
    except ContextError:
        return 0.0
    got = made.token_ids or ()
    right = 0
    while right < min(len(got), len(wanted)) and got[right] == wanted[right]:
        right += 1
    return right / len(wanted)
