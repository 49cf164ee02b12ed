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
    engine: Engine, requests: Sequence[ScoreRequest], meter: Meter
) -> list[Scored | None]:
    """All texts in one batch, in order; ``None`` for one that is longer than the context."""
    try:
        return list(await engine.score(requests, meter))
    except ContextError:  # nothing was encoded yet: which one it is shows one by one
        return [await _alone(engine, at, request, meter) for at, request in enumerate(requests)]


async def _alone(engine: Engine, at: int, request: ScoreRequest, meter: Meter) -> Scored | None:
    gauge = meter.aside()
    try:
        (found,) = await engine.score([request], gauge)
    except ContextError:
        meter.charge(at)
        return None
    meter.restore(at, gauge.usage(0))
    return found
