"""A spec string → a name and its parameters, read without evaluating anything.

``vote``, ``vote(stop=beta, n=16)``, ``token-beam(width=4)``: a name, and named parameters whose
values are numbers, booleans, none, quoted text or bare words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mull.errors import SpecError

MAX_LENGTH = 500
_SPEC = re.compile(r"([\w.-]+)\s*(?:\((.*)\))?", re.DOTALL)
_PARAMETER = re.compile(
    r"""\s* ([A-Za-z_]\w*) \s*=\s* ( "[^"]*" | '[^']*' | [^\s,='"()\[\]{}]+ ) \s* (?:,|$)""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, slots=True)
class Spec:
    """A parsed spec string.

    >>> parse("vote(stop=beta, n=16)")
    Spec(name='vote', parameters={'stop': 'beta', 'n': 16})
    """

    name: str
    parameters: Mapping[str, Any]


def parse(text: str) -> Spec:
    """Parse a spec string; ``SpecError`` says what is wrong and what was expected."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise SpecError(f"a spec has at most {MAX_LENGTH} characters, not {len(text)}")
    whole = _SPEC.fullmatch(text)
    if whole is None:
        raise SpecError(f"{text!r} is no spec: expected name or name(parameter=value, …)")
    name, inside = whole[1], (whole[2] or "").rstrip()
    parameters: dict[str, Any] = {}
    at = 0
    while at < len(inside):
        found = _PARAMETER.match(inside, at)
        if found is None:
            raise SpecError(
                f"{text!r} is no spec: cannot read {inside[at:].strip()!r}; expected "
                "parameter=value, …, where a value is a number, true, false, none, a word or "
                "quoted text: what has brackets of its own is quoted, as in "
                "verifier='lowest-group(size=4)'"
            )
        if found[1] in parameters:
            raise SpecError(f"{text!r} is no spec: {found[1]} is given twice")
        parameters[found[1]] = value_of(found[2])
        at = found.end()
    return Spec(name, parameters)


def unknown(kind: str, name: str, valid: Iterable[str]) -> SpecError:
    """The error for a name that is not among the valid ones, with the nearest guess."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, 1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return SpecError(f"unknown {kind} {name!r}; valid: {', '.join(names) or 'none'}.{guess}")


def listed(text: str) -> tuple[float, ...] | None:
    """Two or more numbers with commas between, ``None`` for any other text.

    >>> listed("1,0.1,2"), listed("1")
    ((1.0, 0.1, 2.0), None)
    """
    try:
        amounts = tuple(float(each) for each in text.split(","))
    except ValueError:
        return None
    return amounts if len(amounts) > 1 else None


def value_of(text: str) -> Any:
    """A parameter's value: a number, true, false, none, quoted text, else the word itself."""
    if text[0] in "\"'":
        return text[1:-1]
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
