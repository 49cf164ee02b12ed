"""What a recorded sample is found by: the whole request, the sample index, the engine's identity.

A key that lacks one field of these serves one model's text as another's, and does so in silence;
so the fields are found by reflection and only those named here are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from mull.store.rows import digest
from mull.types import EngineInfo, Request, Sampling, ScoreRequest

INDEXED = frozenset({"n", "first"})
"""Fields of a request that the sample index replaces where each sample is drawn for itself: sample
i is then the same in every split. In a search (``searches``) they are part of the key."""

SCHEDULING = frozenset({"priority", "deltas"})
"""Fields that say when and in what pieces text comes, never which text."""

LATER: Mapping[str, object] = {"weights": None, "certainty": False, "end": False, "pieces": ()}
"""Fields that texts to score gained later, with their defaults: at its default such a field is no
part of the key, so that what was recorded before it came is found again."""

RECORDED_AS: Mapping[str, str] = {"weights": "adapter"}
"""Fields that were renamed, with the names that keys were made with before and are made with
still."""

_KEPT = tuple(field.name for field in fields(Request) if field.name not in INDEXED | SCHEDULING)


def searches(request: Request) -> bool:
    """Whether the completions are ranks of one search, whose tokens are charged among all of them.

    What one rank costs then depends on which ranks were asked for with it: ``n`` and ``first`` are
    part of its key, and ranks of different searches are never served together.

    >>> from dataclasses import replace
    >>> from mull.types import Prompt, TokenBeam, Until
    >>> asked = Request(Prompt.of("2 + 2 ="), Until(max_tokens=4), n=2)
    >>> searches(asked), searches(replace(asked, decoding=TokenBeam(2)))
    (False, True)
    """
    return not isinstance(request.decoding, Sampling)


def request_key(request: Request, info: EngineInfo) -> bytes:
    """32 bytes for a request on an engine; with a sample index it names one completion."""
    kept = {RECORDED_AS.get(name, name): getattr(request, name) for name in _KEPT}
    if searches(request):
        kept |= {name: getattr(request, name) for name in INDEXED}
    return digest(["generate", list(info.identity), kept])


def score_key(request: ScoreRequest, info: EngineInfo) -> bytes:
    """32 bytes for a text to score on an engine."""
    kept = {each.name: getattr(request, each.name) for each in fields(ScoreRequest)}
    for name, default in LATER.items():
        if kept[name] == default:
            del kept[name]
    named = {RECORDED_AS.get(name, name): value for name, value in kept.items()}
    return digest(["score", list(info.identity), {"type": "ScoreRequest", **named}])


def refusal_key(key: bytes) -> bytes:
    """32 bytes for the word that what a request's or text's key names is longer than the context.

    The word is recorded as a completion: its text is the engine's reason.
    """
    return digest(["too long", key.hex()])


def adapt_key(weights: str, info: EngineInfo) -> bytes:
    """32 bytes for a training on an engine; ``weights`` names its texts and recipe."""
    return digest(["adapt", list(info.identity), weights])
