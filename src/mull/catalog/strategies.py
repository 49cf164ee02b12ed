"""Spec strings → strategies: the built-in ones, entry points, and users' own files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast, get_type_hints

from mull.catalog.plugins import entry_points, from_file, is_file
from mull.catalog.spec import parse, unknown
from mull.errors import SpecError
from mull.strategies.base import Strategy

GROUP = "mull.strategies"
BUILTIN: Mapping[str, str] = {
    "best-of-n": "mull.strategies.best_of_n:BestOfN",
    "greedy": "mull.strategies.single:Greedy",
    "sample": "mull.strategies.single:Sample",
    "token-beam": "mull.strategies.best_of_n:TokenBeamSearch",
    "vote": "mull.strategies.vote:Vote",
}


def strategy_names() -> list[str]:
    """Names that ``load_strategy`` knows, entry points included."""
    return sorted({*BUILTIN, *entry_points(GROUP)})


def strategy_class(name: str) -> type[Any]:
    """The frozen config class behind a name."""
    if name in BUILTIN:
        module, _, attribute = BUILTIN[name].partition(":")
        return cast(type[Any], getattr(import_module(module), attribute))
    found = entry_points(GROUP)
    if name in found:
        return cast(type[Any], found[name].load())
    raise unknown("strategy", name, strategy_names())


def load_strategy(spec: str | Strategy) -> Strategy:
    """A strategy from its spec string, a ``file.py`` that defines ``strategy``, or itself.

    >>> load_strategy("vote(n=8, stop=beta)")
    Vote(n=8, stop='beta', confidence=0.95, window=8, quorum=0.5)
    """
    if not isinstance(spec, str):
        return spec
    if is_file(spec):
        return cast(Strategy, from_file(spec, "strategy"))
    parsed = parse(spec)
    return cast(Strategy, build(parsed.name, strategy_class(parsed.name), parsed.parameters))


def build(name: str, config: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """An instance of a frozen config with checked parameter names and types."""
    if not dataclasses.is_dataclass(config):
        try:
            return config(**parameters)
        except TypeError as error:
            raise SpecError(f"{name}: {error}") from error
    known = {field.name: field for field in dataclasses.fields(config)}
    hints = get_type_hints(config)
    for parameter, value in parameters.items():
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, known)
        if not _fits(value, str(hints[parameter])):
            raise SpecError(f"{name}({parameter}={value!r}): expected {_plain(hints[parameter])}")
    return config(**parameters)


def _fits(value: Any, hint: str) -> bool:
    """Whether a spec value fits a field's type; ranges are the config's own business."""
    if value is None:
        return "None" in hint
    if isinstance(value, bool):
        return "bool" in hint
    if isinstance(value, int):
        return "int" in hint or "float" in hint
    if isinstance(value, float):
        return "float" in hint
    return "str" in hint or "Literal" in hint


def _plain(hint: Any) -> str:
    text = getattr(hint, "__name__", None) if isinstance(hint, type) else None
    text = text or str(hint).replace("typing.", "").replace("NoneType", "none")
    return {"int": "a whole number", "float": "a number", "str": "text"}.get(text, text)
