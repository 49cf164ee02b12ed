"""Model names → engines: shipped models, Hugging Face directories, endpoints, the simulator."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from mull.catalog.options import fits, hints_of, in_words, read
from mull.catalog.spec import unknown
from mull.engines.base import Engine
from mull.errors import ModelLoadError, MullError, SpecError

MODELS = Path(__file__).parent.parent / "models"
CARD = "card.json"
SCORING = ("prm", "orm")
"""Kinds of models that score and do not write."""
TRAINED = {"reviser": "revision"}
"""What `mull train` calls a kind of model, where it is another word."""
FORMS = (
    "a shipped model (mull models lists them), a directory with a Hugging Face checkpoint, "
    "http://host:port/v1#model, or simulated"
)


@lru_cache(maxsize=1)
def shipped_models() -> dict[str, dict[str, Any]]:
    """Cards of the models that come with the package, by name."""
    cards = sorted(MODELS.glob(f"*/{CARD}"))
    return {card.parent.name: json.loads(card.read_text(encoding="utf-8")) for card in cards}


def model_card(model: str) -> dict[str, Any] | None:
    """The card of a shipped model or of a directory that holds one; ``None`` without a card."""
    if model in shipped_models():
        return shipped_models()[model]
    path = _existing(model)
    if path is None or not (path / CARD).is_file():
        return None
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path / CARD} is no model card: {error}") from error
    if not isinstance(card, dict):
        raise ModelLoadError(f"{path / CARD} is no model card: expected a JSON object")
    return card


def trained_for(card: Mapping[str, Any] | None) -> tuple[str, ...]:
    """(model, revision) of the policy that a card's model belongs to; empty where it says none.

    >>> trained_for({"kind": "prm", "policy": {"model": "words-s", "revision": "1f"}})
    ('words-s', '1f')
    """
    policy = (card or {}).get("policy")
    if policy is None:
        return ()
    if not isinstance(policy, dict) or not isinstance(policy.get("model"), str):
        raise ModelLoadError(
            f'a card\'s policy is {{"model": name, "revision": digest}}, not {policy!r}'
        )
    return policy["model"], str(policy.get("revision") or "")


def shipped_for(kind: str, policy: str) -> str:
    """The shipped model of a kind (``prm``, ``orm``, ``reviser``) for a policy's name.

    Raises ``SpecError`` that lists the policies which have one.
    """
    found = {
        name: trained_for(card)[:1]
        for name, card in shipped_models().items()
        if card.get("kind") == kind
    }
    ours = [name for name, model in found.items() if model == (policy,)]
    if not ours:
        shipped = ", ".join(f"{name} (for {(*model, 'any')[0]})" for name, model in found.items())
        raise SpecError(
            f"no {kind} for policy {policy!r} comes with Mull; there are: {shipped or 'none'}. "
            f"Train one (mull train {TRAINED.get(kind, kind)}), or name another."
        )
    return f"{policy}-{kind}" if f"{policy}-{kind}" in ours else ours[0]


def load_engine(model: str | PathLike[str] | Engine, /, **options: Any) -> Engine:
    """An engine from a model's name; ``options`` go to the engine's loader (slots, dtype …).

    >>> load_engine("simulated").info.kind
    'simulated'
    """
    if isinstance(model, Engine):
        return model
    model = name_of(model)
    if model.startswith(("http://", "https://")):
        from mull.engines.openai import load_openai

        return _load(load_openai, model, options)
    if model == "simulated" or model.startswith("simulated:"):
        from mull.engines.simulated import load_simulated

        return _load(load_simulated, model, options)
    if model in shipped_models():
        return _torch(MODELS / model, options)
    path = _existing(model)
    if path is not None:
        return _torch(path, options)
    if "/" in model or model.startswith("."):
        raise SpecError(f"model {model[:200]!r}: no such directory; expected {FORMS}")
    raise SpecError(f"{unknown('model', model[:200], shipped_models())} A model is {FORMS}.")


def load_policy(model: str | PathLike[str] | Engine, /, **options: Any) -> Engine:
    """As ``load_engine``, for a model that writes; ``SpecError`` for one that only scores."""
    if not isinstance(model, Engine):
        model = name_of(model)
        check_writes(model, model_card(model))
    return load_engine(model, **options)


def name_of(model: str | PathLike[str]) -> str:
    """A model's name; ``SpecError`` for what is neither a text nor a path."""
    if isinstance(model, str | PathLike):
        return fspath(model)
    raise SpecError(f"model {model!r} is not valid; expected an engine, or {FORMS}")


def check_writes(model: str, card: Mapping[str, Any] | None) -> None:
    """Raise ``SpecError`` where a model's card says that it scores; what it writes is noise."""
    kind = (card or {}).get("kind")
    if kind in SCORING:
        raise SpecError(f"{model} is a {kind}: it scores what others write; name it as a verifier.")


def model_folder(model: str) -> Path:
    """The directory of a shipped model or of a checkpoint; ``SpecError`` for anything else."""
    if model in shipped_models():
        return MODELS / model
    path = _existing(model)
    if path is None or not path.is_dir():
        raise SpecError(f"{unknown('model', model[:200], shipped_models())} Or give a directory.")
    return path


def _existing(model: str) -> Path | None:
    """The path that a model's name is, if there is something at it."""
    try:
        return Path(model) if model.strip() and Path(model).exists() else None
    except (OSError, ValueError):  # too long, or not a path at all
        return None


def _torch(path: Path, options: dict[str, Any]) -> Engine:
    from mull.engines.torch import load_torch_engine

    return _load(load_torch_engine, path, options, trainer=_trainer(path))


def _trainer(path: Path) -> Callable[..., Any] | None:
    """What trains this model's weights on at test time, if anything here can."""
    try:
        from mull.training.adapt import adapted_weights, trainable
    except ImportError:  # the loader says what is missing
        return None
    return partial(adapted_weights, path) if trainable(path) else None


def _load(
    loader: Callable[..., Engine], model: str | Path, options: dict[str, Any], **given: Any
) -> Engine:
    """Call a loader with a user's options, checked, and with what Mull itself gives."""
    every = list(inspect.signature(loader).parameters.values())[1:]
    parameters = [each for each in every if each.name not in given]
    # A loader that takes more than it names (an endpoint's own options) checks those itself.
    known = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    hints = hints_of(loader, known)
    options = {name: read(value, hints.get(name)) for name, value in options.items()}
    for name, value in options.items():
        if name not in known and len(known) == len(parameters):
            raise unknown(f"option of the engine for {model}", name, known)
        if name in known and not fits(value, hints[name]):
            expected = in_words(hints[name])
            raise SpecError(f"engine.{name} = {value!r} is not valid; expected {expected}")
    try:
        return loader(model, **options, **given)
    except MullError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(f"the engine for {model} cannot be made: {error}") from error
