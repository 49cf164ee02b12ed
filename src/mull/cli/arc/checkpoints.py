"""The path of a checkpoint → the models that answer for it, and the puzzles that each is asked.

A checkpoint is a model, an adapter on its base, or a folder of groups: models that `mull arc adapt`
trained, each on puzzles of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from mull.catalog import model_card
from mull.catalog.models import CARD, model_folder
from mull.errors import InputError, MissingExtraError, SpecError, UsageError
from mull.report.arc_checkpoints import Training

REST: Final = "base"
"""The name of the part that answers for puzzles of no group."""


@dataclass(frozen=True, slots=True)
class Part:
    """A model, with the ``adapter`` that is merged into it.

    ``puzzles`` are the ids that are asked of it; ``None`` for all that no other part is asked.
    """

    name: str
    model: str
    adapter: str | None
    card: Mapping[str, Any] | None
    puzzles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is evaluated under one name; ``trained`` at test time, where its cards say so."""

    name: str
    parts: tuple[Part, ...]
    trained: Training | None


def checkpoints(paths: Sequence[str], model: str | None) -> list[Checkpoint]:
    """The checkpoints of some paths, each by a name of its own.

    ``model`` is the base of adapters and groups; by default what they say of it themselves.

    Raises:
        SpecError: no such model.
        InputError: an adapter or a group that does not say what is needed, or says it wrongly.
        UsageError: a path twice, or a ``model`` that no path needs.
    """
    if len({_where(path) for path in paths}) < len(paths):
        raise UsageError("a checkpoint stands twice: name each once")
    parts = [_parts(path, model) for path in paths]
    if model is not None and not any(_with_base(path) for path in paths):
        raise UsageError(
            f"--model {model} is the base of adapters and groups, and no checkpoint is one: leave "
            "it out"
        )
    return [
        Checkpoint(name, of, _trained(of)) for name, of in zip(_names(paths), parts, strict=True)
    ]


def _parts(path: str, model: str | None) -> tuple[Part, ...]:
    folder = Path(path)
    if _groups(folder):
        return _of_groups(folder, model)
    if _is_adapter(folder):
        base = model or _base_of(folder)
        return (Part("", base, path, _card_of(folder) or model_card(base)),)
    if not path.startswith(("http://", "https://", "simulated")):
        model_folder(path)  # that there is none is the first thing to hear of
    return (Part("", path, None, model_card(path)),)


def _with_base(path: str) -> bool:
    return bool(_groups(Path(path))) or _is_adapter(Path(path))


def _is_adapter(folder: Path) -> bool:
    try:
        from mull.engines.torch.adapter import is_adapter
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("an adapter", "torch") from error
    return is_adapter(folder)


def _base_of(folder: Path) -> str:
    """The model that an adapter says it belongs to, where it is here."""
    from mull.engines.torch.adapter import adapter_config

    base = str(adapter_config(folder).get("base_model_name_or_path") or "")
    try:
        model_folder(base)
    except SpecError as error:
        raise InputError(
            f"{folder}: its base {base[:200]!r} is not here; name the model with --model"
        ) from error
    return base


def _card_of(folder: Path) -> dict[str, Any] | None:
    """An adapter's card; an adapter that was kept on the way has that of the training's folder."""
    own = model_card(str(folder))
    if own is None and re.fullmatch(r"step-\d+", folder.resolve().name):
        return model_card(str(folder.resolve().parent))
    return own


def _groups(folder: Path) -> list[Path]:
    """The groups of a folder, by number; none for a folder that holds a model itself."""
    if (folder / "config.json").exists():
        return []
    found = {
        int(number[1]): path.parent
        for path in folder.glob(f"group-*/{CARD}")
        if (number := re.fullmatch(r"group-(\d+)", path.parent.name))
    }
    return [found[number] for number in sorted(found)]


def _of_groups(folder: Path, model: str | None) -> tuple[Part, ...]:
    made: list[Part] = []
    owner: dict[str, str] = {}
    for group in _groups(folder):
        card = model_card(str(group)) or {}
        ids = _adapted(card).get("puzzles")
        if not isinstance(ids, list) or not isinstance(card.get("base"), str):
            raise InputError(
                f"{group / CARD} does not say base and puzzles; expected a group as mull arc adapt "
                "writes it: adapt again"
            )
        for id in ids:
            if id in owner:
                raise InputError(
                    f"{folder}: puzzle {id} is in {owner[id]} and in {group.name}; expected groups "
                    "of one training: remove those of another"
                )
            owner[id] = group.name
        made.append(Part(group.name, str(group), None, card, frozenset(ids)))
    bases = {model} if model else {str((part.card or {}).get("base")) for part in made}
    if len(bases) > 1:
        raise InputError(f"{folder}: groups of several bases ({', '.join(sorted(bases))})")
    base = bases.pop()
    return (*made, Part(REST, base, None, made[0].card))


def _adapted(card: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (card or {}).get("adapted")
    return found if isinstance(found, Mapping) else {}


def _trained(parts: Sequence[Part]) -> Training | None:
    found = [facts for part in parts if (facts := _adapted(part.card)) and part.name != REST]
    if not found or not all(isinstance(facts.get("flops"), int | float) for facts in found):
        return None
    return Training(
        sum(int(facts.get("tokens", 0)) for facts in found),
        sum(float(facts["flops"]) for facts in found),
    )


def _where(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def _names(paths: Sequence[str]) -> list[str]:
    """The end of each path, as long as it takes to tell them apart.

    >>> _names(["a/step-5", "a/step-10"]), _names(["a/step-5", "b/step-5"])
    (['step-5', 'step-10'], ['a/step-5', 'b/step-5'])
    """
    parts = [Path(path.rstrip("/")).parts or (path,) for path in paths]
    for length in count(1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names) or length > max(map(len, parts)):
            return names
    raise AssertionError
