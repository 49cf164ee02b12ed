"""A user's options → arguments of a config or loader: known names, and values of their types."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mull.catalog.spec import listed, unknown
from mull.errors import MullError, SpecError


def build(name: str, config: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """An instance of a frozen config with checked parameter names and types."""
    if dataclasses.is_dataclass(config):
        _check(name, config, parameters)
    try:
        return config(**parameters)
    except MullError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name}: {error}") from error


def _check(name: str, config: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ``SpecError`` for unknown, missing and ill-typed parameters of a dataclass."""
    known = {field.name: field for field in dataclasses.fields(config) if field.init}
    hints = get_type_hints(config)
    for parameter, value in parameters.items():
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, known)
        if not fits(value, hints[parameter]):
            raise SpecError(f"{name}({parameter}={value!r}): expected {in_words(hints[parameter])}")
    for parameter, field in known.items():
        given = parameter in parameters or field.default is not dataclasses.MISSING
        if not given and field.default_factory is dataclasses.MISSING:
            raise SpecError(
                f"{name} needs {parameter}: {name}({parameter}=…), {in_words(hints[parameter])}"
            )


def fits(value: Any, hint: Any) -> bool:
    """Whether a spec value fits a field's type; ranges are the config's own business."""
    if hint is Any:
        return True
    if get_origin(hint) is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        return type(value) is tuple and len(value) == len(parts) and all(map(fits, value, parts))
    return type(value) is hint or (hint is float and type(value) is int)


def read(value: Any, hint: Any) -> Any:
    """A spec value as its field's type has it: for a tuple, quoted numbers are a list.

    >>> read("1,0.1,2", tuple[float, float, float]), read("1,2", str)
    ((1.0, 0.1, 2.0), '1,2')
    """
    if get_origin(hint) is tuple and isinstance(value, str):
        return listed(value) or value
    return value


def in_words(hint: Any) -> str:
    """A type as a user reads it."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(in_words, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {len(get_args(hint))} numbers"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return "none" if hint is type(None) else names.get(hint, str(hint))


def hints_of(loader: Callable[..., Any], names: Iterable[str]) -> dict[str, Any]:
    """The types of a loader's options; its result may be a type that is not imported."""
    annotations = inspect.get_annotations(loader)
    holder = type("Options", (), {"__annotations__": {name: annotations[name] for name in names}})
    return get_type_hints(holder, globalns=inspect.unwrap(loader).__globals__)
