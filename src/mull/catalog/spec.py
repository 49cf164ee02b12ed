"""A spec string → a name and its parameters, parsed without evaluating anything.

``vote``, ``vote(stop=beta, n=16)``, ``token-beam(width=4)``: a name, and keyword parameters whose
values are numbers, booleans, none, quoted text or bare words.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mull.errors import SpecError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_LENGTH = 500


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
    name, bracket, rest = text.partition("(")
    name = name.strip()
    if not NAME.fullmatch(name):
        raise SpecError(f"{text!r} is no spec: expected name or name(parameter=value, …)")
    if not bracket:
        return Spec(name, {})
    if not rest.endswith(")"):
        raise SpecError(f"{text!r} is no spec: the bracket is not closed")
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(
            f"{text!r} is no spec: expected name(parameter=value, …) with numbers, true, false, "
            "none, words or quoted text"
        ) from error
    if not isinstance(call, ast.Call) or call.args:
        raise SpecError(f"{text!r} is no spec: parameters are given by name, as in vote(n=8)")
    parameters: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in parameters:
            raise SpecError(f"{text!r} is no spec: each parameter is named once")
        parameters[keyword.arg] = _value(text, keyword.arg, keyword.value)
    return Spec(name, parameters)


def unknown(kind: str, name: str, valid: Iterable[str]) -> SpecError:
    """The error for a name that is not among the valid ones, with the nearest guess."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, 1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return SpecError(f"unknown {kind} {name!r}; valid: {', '.join(names) or 'none'}.{guess}")


def _value(text: str, name: str, node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(text, name, node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    words = {"true": True, "false": False, "none": None, "nan": float("nan"), "inf": float("inf")}
    word = ast.unparse(node).replace(" - ", "-") if _bare(node) else None
    if word is not None:
        return words.get(word.lower(), word)
    raise SpecError(f"{text!r}: {name} must be a number, true, false, none, a word or quoted text")


def _bare(node: ast.expr) -> bool:
    """A bare word: a name, or names joined by hyphens (``mean_logprob``, ``words-s``)."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return _bare(node.left) and _bare(node.right)
    return isinstance(node, ast.Name) or (
        isinstance(node, ast.Constant) and node.value in (None, True, False)
    )
