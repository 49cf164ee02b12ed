"""What a recorded sample is found by: the whole request, the sample index, the engine's identity.

A key that lacks one field of these serves one model's text as another's, and does so in silence;
so the fields are found by reflection and only those named here are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from mull.store.rows import digest
from mull.types import EngineInfo, Request, ScoreRequest

INDEXED = frozenset({"n", "first"})
"""Fields of a request that the sample index replaces: sample i is the same in every split."""

SCHEDULING = frozenset({"priority", "deltas"})
"""Fields that say when and in what pieces text comes, never which text."""

LATER: Mapping[str, object] = {"adapter": None, "certainty": False}
"""Fields that texts to score gained later, with their defaults: at its default such a field is no
part of the key, so that what was recorded before it came is found again."""

_KEPT = tuple(field.name for field in fields(Request) if field.name not in INDEXED | SCHEDULING)


def request_key(request: Request, info: EngineInfo) -> bytes:
    """32 bytes for a request on an engine; with a sample index it names one completion."""
    kept = {name: getattr(request, name) for name in _KEPT}
    return digest(["generate", list(info.identity), kept])


def sample_key(request: Request, index: int, info: EngineInfo) -> tuple[bytes, int]:
    """The whole key of one completion: ``(request_key, sample index)``."""
    return request_key(request, info), index


def score_key(request: ScoreRequest, info: EngineInfo) -> bytes:
    """32 bytes for a text to score on an engine."""
    kept = {each.name: getattr(request, each.name) for each in fields(ScoreRequest)}
    for name, default in LATER.items():
        if kept[name] == default:
            del kept[name]
    return digest(["score", list(info.identity), {"type": "ScoreRequest", **kept}])


def adapt_key(adapter: str, info: EngineInfo) -> bytes:
    """32 bytes for a training on an engine; ``adapter`` names its texts and recipe."""
    return digest(["adapt", list(info.identity), adapter])
