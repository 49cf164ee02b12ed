"""Values to bytes and back: canonical JSON, row hashes, completions as rows.

Fields are found by reflection, so a field that a dataclass gains later is stored and hashed
without a change here.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from mull.errors import CorruptRecordError
from mull.types import Completion, EngineInfo, Json, Scored, StopReason, Usage

Column = bytes | int | None
Packed = tuple[bytes, bytes | None, bytes | None]
"""(head: canonical JSON, token ids: int32, log-probabilities: float64; little-endian)."""

HASH_BYTES = 16
_ARRAYS = ("token_ids", "logprobs")
_SELDOM = ("certainty", "end")


def plain(value: Any) -> Json:
    """A value of ``types.py`` as JSON values; a dataclass names its type and all its fields.

    Whole floats become integers, because ``Sampling(temperature=1)`` equals ``1.0``.

    >>> from mull.types import TokenBeam
    >>> plain(TokenBeam(4))
    {'type': 'TokenBeam', 'width': 4, 'length_penalty': 0}
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value):
        named = {name: plain(getattr(value, name)) for name in _names(type(value))}
        return {"type": type(value).__name__, **named}
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


def recorded(info: EngineInfo) -> Json:
    """An engine's info as its record has it: a capability that came later only where it is not."""
    value = plain(info)
    for later in ("continue_chat", "shares_prompt"):
        if getattr(info.capabilities, later) and isinstance(value, dict):
            del value["capabilities"][later]
    return value


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, ASCII; equal values, equal bytes.

    >>> canonical({"b": 1.0, "a": (True, None)})
    b'{"a":[true,null],"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def digest(value: Any) -> bytes:
    """SHA-256 of the canonical JSON: 32 bytes."""
    return hashlib.sha256(canonical(value)).digest()


def row_hash(*columns: Column) -> bytes:
    """The hash that a row carries over its other columns; each is typed and has its length."""
    state = hashlib.blake2b(digest_size=HASH_BYTES)
    for column in columns:
        if isinstance(column, int):
            state.update(b"i%d;" % column)
        elif column is None:
            state.update(b"n;")
        else:
            state.update(b"b%d;" % len(column))
            state.update(column)
    return state.digest()


def pack(value: Completion | Scored) -> Packed:
    """A completion or scored text as row columns; token ids and log-probabilities as arrays."""
    names = (name for name in _names(type(value)) if name not in _ARRAYS)
    kept = {name: getattr(value, name) for name in names}
    for name in _SELDOM:  # most are not asked: a null a row says nothing
        if kept.get(name, ()) is None:
            del kept[name]
    head = canonical(kept)
    return head, _to_bytes("i", value.token_ids), _to_bytes("d", value.logprobs)


def unpack_completion(packed: Packed) -> Completion:
    """The completion that ``pack`` was given, equal to the last bit."""
    head = _head(packed[0], Completion)
    return Completion(
        **{**head, "stop": StopReason(head["stop"])},
        token_ids=_from_bytes("i", packed[1]),
        logprobs=_from_bytes("d", packed[2]),
    )


def unpack_scored(packed: Packed) -> Scored:
    """The scored text that ``pack`` was given, equal to the last bit."""
    head = _head(packed[0], Scored)
    certainty, end = head.get("certainty"), head.get("end")
    known = {
        "values": tuple(map(float, head["values"])),
        "certainty": None if certainty is None else tuple(map(float, certainty)),
        "end": None if end is None else float(end),
    }
    return Scored(
        **{**head, **known},
        token_ids=_from_bytes("i", packed[1]) or (),
        logprobs=_from_bytes("d", packed[2]) or (),
    )


def usage_of(data: Mapping[str, Any]) -> Usage:
    """A usage from its JSON; floats that were whole come back as floats."""
    known = {name: data[name] for name in _names(Usage)}
    for name in ("flops", "seconds", "cost"):
        known[name] = float(known[name])
    return Usage(**known)


def _head(raw: bytes, kind: type[Completion] | type[Scored]) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(raw)
    unknown = set(head) - set(_names(kind))
    if unknown:
        raise CorruptRecordError(
            f"a record has fields that this version does not know: {', '.join(sorted(unknown))}; "
            "it was written by a newer version of mull"
        )
    return {**head, "usage": usage_of(head["usage"])}


_NAMES: dict[type[Any], tuple[str, ...]] = {}


def _names(kind: type[Any]) -> tuple[str, ...]:
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(field.name for field in fields(kind))
    return names


def _to_bytes(code: str, values: tuple[Any, ...] | None) -> bytes | None:
    return None if values is None else _little(array(code, values)).tobytes()


def _from_bytes(code: str, raw: bytes | None) -> tuple[Any, ...] | None:
    if raw is None:
        return None
    values = array(code)
    values.frombytes(raw)
    return tuple(_little(values))


def _little(values: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
