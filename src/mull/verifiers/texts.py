"""What verifiers share that have an engine score a branch's text: its tokens, and one by one."""

from __future__ import annotations

from collections.abc import Sequence

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import ContextError
from mull.types import Branch, Scored, ScoreRequest, StopReason


def text_ids(branch: Branch) -> tuple[int, ...] | None:
    """The branch's own tokens where they are the text's: no stop string, no end token.

    ``None`` where they are not known, or hold a stop string.

    >>> from mull.types import Problem, Prompt, Step
    >>> root = Branch.root(Problem("p", Prompt.of("?")))
    >>> text_ids(Branch(root.problem, root.view, steps=(Step("7", StopReason.END, (4, 2)),)))
    (4,)
    """
    ids = branch.token_ids if branch.steps else None
    if ids is None or branch.steps[-1].stop is StopReason.STOP:
        return None
    return ids[:-1] if branch.steps[-1].stop is StopReason.END else ids


async def score_each(
    engine: Engine,
    requests: Sequence[ScoreRequest],
    meter: Meter,
    places: Sequence[int] | None = None,
) -> list[Scored | None]:
    """All texts in one batch, in order; ``None`` for one that is longer than the context.

    What text i costs is charged to sample ``places[i]`` (default: i), even if the engine fails.
    """
    places = range(len(requests)) if places is None else places
    try:
        return [*await _score(engine, requests, meter, places)]
    except ContextError:  # nothing was encoded yet: which one it is shows one by one
        pairs = zip(requests, places, strict=True)
        return [await _alone(engine, request, meter, place) for request, place in pairs]


async def _alone(engine: Engine, request: ScoreRequest, meter: Meter, place: int) -> Scored | None:
    try:
        (found,) = await _score(engine, [request], meter, [place])
    except ContextError:
        meter.charge(place)
        return None
    return found


async def _score(
    engine: Engine, requests: Sequence[ScoreRequest], meter: Meter, places: Sequence[int]
) -> list[Scored]:
    gauge = meter.aside()
    try:
        return await engine.score(requests, gauge) if requests else []
    finally:
        for at in gauge.samples:
            meter.restore(places[at], gauge.usage(at))
