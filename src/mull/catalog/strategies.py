"""Spec strings → strategies: the built-in ones, entry points, and users' own files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from mull.catalog.plugins import entry_points, from_file, is_file
from mull.catalog.spec import parse, unknown
from mull.errors import MullError, SpecError
from mull.strategies.base import Strategy

GROUP = "mull.strategies"
BUILTIN: Mapping[str, str] = {
    "ab-mcts": "mull.strategies.ab_mcts:AbMcts",
    "airv": "mull.strategies.airv:Airv",
    "beam": "mull.strategies.beam:Beam",
    "best-of-n": "mull.strategies.best_of_n:BestOfN",
    "budget-forcing": "mull.strategies.budget_forcing:BudgetForcing",
    "confident-vote": "mull.strategies.confident_vote:ConfidentVote",
    "dvts": "mull.strategies.dvts:Dvts",
    "filter-vote": "mull.strategies.filter_vote:FilterVote",
    "greedy": "mull.strategies.single:Greedy",
    "lookahead": "mull.strategies.beam:Lookahead",
    "mcts": "mull.strategies.mcts:Mcts",
    "mixed": "mull.strategies.revise:Mixed",
    "particles": "mull.strategies.particles:Particles",
    "rebase": "mull.strategies.rebase:Rebase",
    "revise": "mull.strategies.revise:Revise",
    "sample": "mull.strategies.single:Sample",
    "self-refine": "mull.strategies.self_refine:SelfRefine",
    "speculative-rejection": "mull.strategies.speculative_rejection:SpeculativeRejection",
    "synthesis": "mull.strategies.synthesis:Synthesis",
    "token-beam": "mull.strategies.token_beam:TokenBeamSearch",
    "token-dfs": "mull.strategies.token_dfs:TokenDfs",
    "tot": "mull.strategies.tot:Tot",
    "ttft": "mull.strategies.ttft:Ttft",
    "vote": "mull.strategies.vote:Vote",
    "weighted-vote": "mull.strategies.weighted_vote:WeightedVote",
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
        if not callable(getattr(spec, "start", None)):
            raise SpecError(
                f"strategy = {spec!r} is not valid; expected a spec, as in 'vote(n=8)', or an "
                "object that starts searches"
            )
        return spec
    if is_file(spec):
        return cast(Strategy, from_file(spec, "strategy"))
    parsed = parse(spec)
    return cast(Strategy, build(parsed.name, strategy_class(parsed.name), parsed.parameters))


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
