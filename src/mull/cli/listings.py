"""`mull models`, `strategies`, `verifiers`, `tasks`: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from mull.catalog import (
    load_task,
    shipped_models,
    strategy_class,
    strategy_names,
    task_names,
    verifier_class,
    verifier_names,
    verifier_parameters,
)
from mull.catalog.models import trained_for
from mull.catalog.verifiers import KINDS
from mull.cli import options


def models(as_json: options.AsJson = False) -> None:
    """List the shipped models."""
    cards = shipped_models()
    if as_json:
        options.print_json(cards)
        return
    heads = ("model", "kind", "task", "parameters", "pass@1", "tokens", "for policy")
    table = Table(*heads, box=None)
    for name, card in cards.items():
        table.add_row(name, *_card_cells(card))
    _show(table)


def strategies(as_json: options.AsJson = False) -> None:
    """List the strategies and their parameters."""
    found = {name: _parameters(strategy_class(name)) for name in strategy_names()}
    if as_json:
        options.print_json(
            {n: {"about": _about(strategy_class(n)), "parameters": p} for n, p in found.items()}
        )
        return
    table = Table("strategy", "what it does", "parameters", box=None)
    for name, parameters in found.items():
        given = ", ".join(f"{key}={value}" for key, value in parameters.items())
        table.add_row(name, _about(strategy_class(name)), given)
    _show(table)


def verifiers(as_json: options.AsJson = False) -> None:
    """List the verifiers and their parameters."""
    found = {name: _verifier(name) for name in verifier_names()}
    if as_json:
        options.print_json({n: {"about": a, "parameters": p} for n, (a, p) in found.items()})
        return
    table = Table("verifier", "what it does", "parameters", box=None)
    for name, (about, parameters) in found.items():
        given = ", ".join(f"{key}={value}" for key, value in parameters.items())
        table.add_row(name, about, given)
    _show(table)


def tasks(as_json: options.AsJson = False) -> None:
    """List the tasks."""
    found = {name: _about(type(load_task(name))) for name in task_names()}
    if as_json:
        options.print_json(found)
        return
    table = Table("task", "what it is", box=None)
    for name, about in found.items():
        table.add_row(name, about)
    _show(table)


def _verifier(name: str) -> tuple[str, dict[str, Any]]:
    """What a verifier does, and its parameters with their defaults."""
    card = shipped_models().get(name)
    if card is not None:
        owner = (*trained_for(card), "any policy")[0]
        alone = ", the hidden state alone" if card["recipe"].get("logprobs") is False else ""
        return f"The {card['kind']} of {owner}{alone}.", verifier_parameters(name)
    if name in KINDS:
        return f"The shipped {name} of the policy.", verifier_parameters(name)
    return _about(verifier_class(name)), verifier_parameters(name)


def _card_cells(card: dict[str, Any]) -> tuple[str, ...]:
    pass_1 = card.get("pass_at_1")
    shown = f"{pass_1:.3f}" if isinstance(pass_1, float) else ""
    tokens = card.get("tokens")
    return (
        str(card.get("kind", "policy")),
        str(card.get("task", "")),
        f"{card.get('parameters', 0):,}",
        shown,
        f"{tokens / 1e6:.1f}M" if isinstance(tokens, int) else "",
        (*trained_for(card), "")[0],
    )


def _parameters(config: type[Any]) -> dict[str, Any]:
    """A strategy's parameters with their defaults, those that it shares with others last."""
    known = sorted(dataclasses.fields(config), key=lambda field: bool(field.kw_only))
    return {field.name: field.default for field in known}


def _about(thing: type[Any]) -> str:
    return (thing.__doc__ or "").strip().split("\n")[0].replace("``", "")


def _show(table: Table) -> None:
    """Print a table: names, which are to be typed again, in one piece, the rest as it fits."""
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    Console(highlight=False, markup=False).print(table)
