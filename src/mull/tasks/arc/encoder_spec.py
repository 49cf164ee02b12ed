"""A grid encoder's spec string → the encoder, read without evaluating anything.

``GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))``: calls of known names inside one
another, with text and whole numbers as the only other values.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Final

from mull.errors import SpecError
from mull.tasks.arc.encode import (
    Block,
    Encoder,
    Minimal,
    Repeated,
    Replaced,
    RowNumbered,
    Separated,
    Shaped,
)

MAX_LENGTH: Final = 500
MAX_DEPTH: Final = 10
DEFAULT: Final = "GridShapeEncoder(RowNumberEncoder(MinimalGridEncoder()))"
"""The encoder that did best in the field: shape and row numbers."""
EXAMPLE: Final = "GridCodeBlockEncoder(MinimalGridEncoder())"

ENCODERS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "MinimalGridEncoder": Minimal,
        "GridWithSeparationEncoder": Separated,
        "RepeatNumberEncoder": Repeated,
        "GridCodeBlockEncoder": Block,
        "GridShapeEncoder": Shaped,
        "RowNumberEncoder": RowNumbered,
        "ReplaceNumberEncoder": Replaced,
    }
)
"""The field's names, and what each makes."""
_NAMES = {kind: name for name, kind in ENCODERS.items()}


def parse_encoder(spec: str) -> Encoder:
    """The encoder of a spec string; ``SpecError`` says what is wrong and what is valid.

    >>> parse_encoder("RowNumberEncoder(MinimalGridEncoder())").to_text(((7,),))
    '1 7'
    >>> parse_encoder("GridEncoder()")
    Traceback (most recent call last):
    mull.errors.SpecError: unknown grid encoder 'GridEncoder'; valid: GridCodeBlockEncoder, \
GridShapeEncoder, GridWithSeparationEncoder, MinimalGridEncoder, RepeatNumberEncoder, \
ReplaceNumberEncoder, RowNumberEncoder. Did you mean 'GridShapeEncoder'?
    """
    spec = spec.strip()
    if len(spec) > MAX_LENGTH:
        raise SpecError(f"a grid encoder has at most {MAX_LENGTH} characters, not {len(spec)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape such as "\\|" stands for itself
            tree = ast.parse(spec, mode="eval").body
    # A NUL is a ValueError to some versions; deep nesting a RecursionError or a MemoryError.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{_short(spec)} is no grid encoder; expected as in {EXAMPLE}") from error
    return _encoder(tree, spec, MAX_DEPTH)


def encoder_spec(encoder: Encoder) -> str:
    """The spec string of an encoder: ``parse_encoder`` gives the same encoder back.

    >>> encoder_spec(Replaced(Minimal()))
    'ReplaceNumberEncoder(MinimalGridEncoder())'
    """
    if type(encoder) not in _NAMES:
        raise SpecError(f"{encoder!r:.80} has no spec string; valid: {', '.join(sorted(ENCODERS))}")
    given = []
    for each in fields(encoder):  # type: ignore[arg-type]  # every kind in _NAMES is a dataclass
        value = getattr(encoder, each.name)
        if isinstance(value, Encoder):
            given.append(encoder_spec(value))
        # The field's own strings come back as they were: with the repeats, without its symbols.
        elif each.init and (value != each.default or each.name == "n"):
            given.append(repr(value))
    return f"{_NAMES[type(encoder)]}({', '.join(given)})"


def _encoder(node: ast.expr, spec: str, depth: int) -> Encoder:
    if depth == 0:
        raise SpecError(f"{_short(spec)} nests more than {MAX_DEPTH} encoders")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise SpecError(
            f"{_short(spec)} is no grid encoder: {_short(_source(spec, node))} stands where an "
            f"encoder is expected, as in {EXAMPLE}; valid: {', '.join(sorted(ENCODERS))}"
        )
    name = node.func.id
    if name not in ENCODERS:
        raise _unknown(name)
    kind = ENCODERS[name]
    values = [_value(argument, spec, depth) for argument in node.args]
    named: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in named:
            raise SpecError(f"{_short(spec)}: {name} is given {_short(_source(spec, keyword))}")
        named[keyword.arg] = _value(keyword.value, spec, depth)
    signature = inspect.signature(kind)
    try:
        arguments = signature.bind(*values, **named).arguments
    except TypeError as error:
        raise SpecError(f"{_short(spec)}: {name}: {error}; expected {_usage(name)}") from error
    for parameter, value in arguments.items():
        wanted = {"inner": Encoder, "n": int}.get(parameter, str)
        if not isinstance(value, wanted):
            raise SpecError(
                f"{_short(spec)}: {name} cannot take {_short(repr(value))} as its {parameter}; "
                f"expected {_usage(name)}"
            )
    made: Encoder = kind(*values, **named)
    return made


def _value(node: ast.expr, spec: str, depth: int) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (str, int):
        return node.value
    return _encoder(node, spec, depth - 1)


def _source(spec: str, node: ast.expr | ast.keyword) -> str:
    """A part of the spec as it was written; unparsing it could recurse too deep."""
    return ast.get_source_segment(spec, node) or ""


def _usage(name: str) -> str:
    """How an encoder is written, for messages."""
    shown = {"inner": "ENCODER", "n": "3", "separator": "'|'", "symbols": "'TEN SYMBOLS'"}
    kind = ENCODERS[name]
    return f"{name}({', '.join(shown[each] for each in inspect.signature(kind).parameters)})"


def _unknown(name: str) -> SpecError:
    names = sorted(ENCODERS)
    close = difflib.get_close_matches(name, names, 1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return SpecError(f"unknown grid encoder {_short(name)}; valid: {', '.join(names)}.{guess}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
