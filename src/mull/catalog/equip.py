"""What strategies need → the engines and verifiers that stand behind the names they use.

A name is looked up in the caller's table; a name that is not there is itself a model or a spec.
``reviser``, ``prm`` and ``orm`` then mean the shipped one of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mull.catalog.models import (
    CARD,
    check_writes,
    load_engine,
    model_card,
    shipped_for,
    shipped_models,
    trained_for,
)
from mull.catalog.verifiers import KINDS, load_verifier
from mull.engines.base import Engine, notes_of
from mull.errors import SpecError
from mull.strategies.base import Strategy
from mull.strategies.needs import POLICY, check_needs, needs_of
from mull.tasks.base import Task
from mull.types import EngineInfo, Prompt
from mull.verifiers.base import Verifier, check_trained_for, close

REVISER = "reviser"
EngineSpec = str | Engine | Mapping[str, Any]
"""A model's name, an engine, or ``{"model": name, …}`` with the engine's options."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """Engines (the policy's among them) and verifiers by the names that strategies use.

    ``opened`` are those that were made here; ``aclose`` closes them and no others.
    """

    engines: Mapping[str, Engine]
    verifiers: Mapping[str, Verifier]
    opened: tuple[Engine | Verifier, ...] = ()

    @property
    def identities(self) -> dict[str, dict[str, list[str]]]:
        """Who answers and who scores, by name, the policy left out; tables that are not empty."""
        others = {name: each.info for name, each in self.engines.items() if name != POLICY}
        scoring = {name: each.info for name, each in self.verifiers.items()}
        tables = {"engine_identities": others, "verifier_identities": scoring}
        return {
            table: {name: list(info.identity) for name, info in sorted(infos.items())}
            for table, infos in tables.items()
            if infos
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engines have to tell of their work so far, those of verifiers too."""
        judges = (getattr(each, "engine", None) for each in self.verifiers.values())
        lines = (note for each in (*self.engines.values(), *judges) for note in notes_of(each))
        return tuple(dict.fromkeys(lines))  # one engine may stand under several names

    async def aclose(self) -> None:
        """Close what was made for this equipment."""
        for each in self.opened:
            if isinstance(each, Verifier):
                await close(each)
            else:
                await each.aclose()


def equip(
    strategies: Iterable[Strategy],
    policy: Engine,
    task: Task,
    *,
    engines: Mapping[str, EngineSpec] | None = None,
    verifiers: Mapping[str, str | Verifier] | None = None,
    prompt: Prompt | None = None,
) -> Equipment:
    """Load what the strategies need, and what else the tables name; check that it fits.

    ``prompt``: such as the problems have, where that is known already.

    Raises:
        SpecError: an unknown name or parameter, a verifier or reviser of another policy, or an
            entry of a table that no strategy uses.
        UsageError, UnsupportedError: a strategy lacks what it needs (``check_needs``).
        ModelLoadError: a model cannot be read.
    """
    chosen, info = list(strategies), policy.info
    roles, names = dict(engines or {}), dict(verifiers or {})
    _check_used(chosen, roles, names)
    asked = [needs_of(strategy) for strategy in chosen]
    for needs in asked:
        roles.update({role: role for role in needs.engines if role not in {*roles, POLICY}})
        names.update({name: name for name in needs.verifiers if name not in names})
    here: dict[str, Engine] = {POLICY: policy}
    here |= {role: _engine(role, roles[role], role in (engines or {}), info) for role in roles}
    # Steps of a reviser with another tokenizer would be read as the policy's: text is safe.
    mixed = {engine.info.tokenizer for engine in here.values()} != {info.tokenizer}
    judged = replace(info, tokenizer="") if mixed else info
    scoring = {
        name: _verifier(name, spec, name in (verifiers or {}), task, judged, policy)
        for name, spec in names.items()
    }
    for strategy in chosen:
        infos = {role: each.info for role, each in here.items()}
        check_needs(strategy, infos, scoring, prompt)
    opened = [here[role] for role, spec in roles.items() if not isinstance(spec, Engine)]
    made = [scoring[name] for name, spec in names.items() if isinstance(spec, str)]
    return Equipment(here, scoring, (*opened, *made))


def _check_used(
    strategies: list[Strategy], engines: Mapping[str, object], verifiers: Mapping[str, object]
) -> None:
    """A table's entry that no strategy uses is a name spelled wrong."""
    if POLICY in engines:
        raise SpecError(f"engines.{POLICY}: the policy is the model itself; leave it out")
    if any(not hasattr(s, "needs") and not _ours(s) for s in strategies):
        return  # a strategy of the user's own that does not say what it needs
    asked = [needs_of(strategy) for strategy in strategies]
    used = {name for needs in asked for name in (*needs.engines, *needs.verifiers)} - {POLICY}
    for kind, given in (("engine", engines), ("verifier", verifiers)):
        for name in given:
            if name not in used:
                raise SpecError(
                    f"{kind} {name!r} is used by no strategy; they use: "
                    f"{', '.join(sorted(used)) or 'the policy alone'}"
                )


def _ours(strategy: Strategy) -> bool:
    return type(strategy).__module__.partition(".")[0] == "mull"


def _engine(role: str, spec: EngineSpec, named: bool, policy: EngineInfo) -> Engine:
    """The engine of a role; ``named`` tells whether a table says so, or the role is the name."""
    if isinstance(spec, Engine):
        return spec
    options = dict(spec) if isinstance(spec, Mapping) else {"model": spec}
    model, any_policy = options.pop("model", None), options.pop("any_policy", False)
    if not isinstance(model, str) or not isinstance(any_policy, bool):
        raise SpecError(
            f"engines.{role}: expected a model's name, or a table with model = a name, "
            "any_policy = true or false, and the engine's own options"
        )
    if not named and role.isidentifier() and role not in (REVISER, *shipped_models()):
        raise SpecError(
            f"a strategy asks an engine {role!r}, and nothing says which model that is: "
            f"engines.{role} = a model (--engine {role}=…)"
        )
    try:
        if named:
            _check_one_meaning(model, REVISER)
        if model == REVISER:
            model = shipped_for(REVISER, policy.model)
        card = model_card(model)
        check_writes(model, card)
        if not any_policy:
            check_trained_for(model, trained_for(card), policy)
        return load_engine(model, **options)
    except SpecError as error:
        raise _unnamed("engine", role, named, "a model", error) from error


def _verifier(
    name: str, spec: str | Verifier, named: bool, task: Task, policy: EngineInfo, engine: Engine
) -> Verifier:
    try:
        if named and isinstance(spec, str):
            _check_one_meaning(spec.partition("(")[0].strip(), *KINDS)
        return load_verifier(spec, task=task, policy=policy, policy_engine=engine)
    except SpecError as error:
        raise _unnamed("verifier", name, named, "a verifier's spec", error) from error


def _check_one_meaning(name: str, *kinds: str) -> None:
    """``prm`` means the shipped one; who has just trained a directory of that name may mean it."""
    if name in kinds and Path(name, CARD).is_file():
        raise SpecError(
            f"{name!r} is the shipped {name} of the policy, and there is a model in the directory "
            f"{name}: write ./{name} for the directory, or the shipped model's own name"
        )


def _unnamed(kind: str, name: str, named: bool, what: str, error: SpecError) -> SpecError:
    """Says of a name that stands in no table how to give it a meaning."""
    if named:
        return SpecError(f"{kind}s.{name}: {error}")
    return SpecError(
        f"{kind} {name!r}: {str(error).rstrip('.')}. To say what {name!r} is: "
        f"{kind}s.{name} = {what} (--{kind} {name}=…)"
    )
