"""The engine without a model: serves what a store has recorded, and nothing else.

Any selection over recorded samples is recomputed with no new token. Needs no weights: the store
knows who answered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from mull.budget import Meter
from mull.engines.adapt import AdaptRecipe, Parts, cannot_adapt, weights_name
from mull.engines.cache import missing, served
from mull.errors import ContextError, ReplayMissError
from mull.store.keys import adapt_key, refusal_key, request_key, score_key
from mull.store.reader import Reader
from mull.types import Completion, Delta, EngineInfo, Request, Scored, ScoreRequest


class ReplayEngine:
    """Recorded completions of one engine, charged as they were when they were made.

    ``info`` must have the identity of the engine that was recorded; by default it is read from the
    store. A sample that was never recorded is a ``ReplayMissError``.
    """

    def __init__(self, reader: Reader, info: EngineInfo | None = None) -> None:
        self.reader = reader
        self._info = info or reader.engine()

    @classmethod
    def open(cls, directory: str | Path, model: str | None = None) -> ReplayEngine:
        """Replay a run directory; ``model`` chooses where several answered."""
        reader = Reader(directory)
        try:
            return cls(reader, reader.engine(model))
        except BaseException:
            reader.close()
            raise

    @property
    def info(self) -> EngineInfo:
        """The recorded engine's."""
        return self._info

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """The recorded samples in index order; ``ReplayMissError`` before any if one is missing,
        ``ContextError`` behind them where the request was too long.
        """
        wanted = range(request.first, request.first + request.n)
        key = request_key(request, self._info)
        recorded = self.reader.samples(key, wanted)
        lacking = missing(wanted, recorded)
        refused = self._refused(key) if lacking else None
        if lacking and refused is None:
            spans = ", ".join(
                f"{part.start}" if len(part) == 1 else f"{part.start}-{part.stop - 1}"
                for part in lacking
            )
            raise ReplayMissError(
                f"{self.reader.directory} has no sample {spans} of this request to "
                f"{self._info.model}: record it by a run with the model, or ask for fewer samples"
            )
        for index in sorted(recorded):
            meter.restore(index, recorded[index].usage)
            for item in served(request, recorded[index]):
                yield item
        if refused is not None:
            raise refused

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """The recorded scorings in order; ``ReplayMissError`` if one is missing, ``ContextError``
        where one was too long.
        """
        found: list[Scored] = []
        for request in requests:
            key = score_key(request, self._info)
            scored = self.reader.scored(key)
            if scored is None and (refused := self._refused(key)) is not None:
                raise refused
            if scored is None:
                raise ReplayMissError(
                    f"{self.reader.directory} has no scoring of {request.assistant[:40]!r} by "
                    f"{self._info.model}: record it by a run with the model"
                )
            found.append(scored)
        for at, scored in enumerate(found):
            meter.restore(at, scored.usage)
        return found

    def _refused(self, key: bytes) -> ContextError | None:
        """What the engine said of a request or text that is longer than its context."""
        found = self.reader.samples(refusal_key(key), range(1)).get(0)
        return None if found is None else ContextError(found.text)

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """Charge a recorded training; ``ReplayMissError`` for one that was never done."""
        if not self._info.capabilities.adapts:
            raise cannot_adapt(self._info)
        name = weights_name(examples, recipe)
        found = self.reader.samples(adapt_key(name, self._info), range(1)).get(0)
        if found is None:
            raise ReplayMissError(
                f"{self.reader.directory} has no training {name} of {self._info.model}: record it "
                "by a run with the model"
            )
        meter.restore(0, found.usage)
        return name

    async def ready(self, weights: str) -> None:
        """Recorded completions need no weights."""

    def release(self, weights: str) -> None:
        """No weights are held."""

    async def aclose(self) -> None:
        """Free the file."""
        self.reader.close()
