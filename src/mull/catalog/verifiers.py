"""Spec strings → verifiers: the built-in ones, models with a value head, users' own."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from mull.catalog.models import (
    SCORING,
    load_engine,
    load_policy,
    model_card,
    shipped_for,
    shipped_models,
    trained_for,
)
from mull.catalog.options import fits, hints_of, in_words
from mull.catalog.plugins import attribute, check_instance, entry_points, from_file, is_file
from mull.catalog.spec import Spec, parse, unknown
from mull.engines.base import Engine
from mull.errors import MullError, SpecError
from mull.tasks.base import Task
from mull.types import EngineInfo
from mull.verifiers.base import Verifier, check_policy, check_trained_for

GROUP = "mull.verifiers"
BUILTIN: Mapping[str, str] = {
    "checker": "mull.verifiers.checker:CheckerVerifier",
    "code": "mull.verifiers.code:CodeVerifier",
    "generative": "mull.verifiers.generative:GenerativeVerifier",
    "likelihood": "mull.verifiers.likelihood:LikelihoodVerifier",
    "lowest-group": "mull.verifiers.confidence:LowestGroup",
    "mean-logprob": "mull.verifiers.confidence:MeanLogprob",
    "self-certainty": "mull.verifiers.confidence:SelfCertainty",
    "simulated": "mull.verifiers.simulated:SimulatedVerifier",
    "views": "mull.verifiers.views:own_views",
}
VALUES = "value-head"
LAYOUTS: Mapping[str, str] = {
    VALUES: "mull.verifiers.reward:RewardVerifier",
    "step-tag": "mull.verifiers.tokens:TokenVerifier",
    "chat-turns": "mull.verifiers.tokens:TokenVerifier",
    "trl-prm": "mull.verifiers.classes:ClassVerifier",
    "qwen-prm": "mull.verifiers.classes:ClassVerifier",
}
"""How a reward model is asked, and says its values; ``format`` names one."""
GIVEN = frozenset(
    {"task", "policy", "policy_engine", "engine", "trained_for", "tokenizer", "separator"}
)
"""Parameters that Mull itself gives to what names them."""
KINDS = SCORING
"""Kinds of models that score; also the specs of the shipped ones that belong to the policy."""


def verifier_names() -> list[str]:
    """Names that ``load_verifier`` knows besides directories and files, entry points included."""
    models = [name for name, card in shipped_models().items() if card.get("kind") in KINDS]
    return sorted({*BUILTIN, *KINDS, *models, *entry_points(GROUP)})


def verifier_class(name: str) -> Any:
    """The class or function behind a built-in name or an entry point."""
    return attribute(BUILTIN[name]) if name in BUILTIN else entry_points(GROUP)[name].load()


def verifier_parameters(name: str) -> dict[str, Any]:
    """The parameters that a verifier's spec takes, with their defaults."""
    from mull.verifiers.reward import RewardVerifier

    named = name in BUILTIN or name in entry_points(GROUP)
    made = verifier_class(name) if named else RewardVerifier
    layout = {} if named else {"format": VALUES}
    found = inspect.signature(made).parameters.values()
    asks: dict[str, Any] = {"model": None} if named and "engine" in _options(made) else {}
    return (
        asks
        | layout
        | {
            each.name: None if each.default is each.empty else each.default
            for each in found
            if each.name not in GIVEN
            and each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
        }
    )


def load_verifier(
    spec: str | Verifier,
    *,
    task: Task,
    policy: EngineInfo,
    policy_engine: Engine | None = None,
    any_policy: bool = False,
) -> Verifier:
    """A verifier for a policy's solutions of a task.

    ``spec`` is a built-in name (``checker``), ``prm`` or ``orm`` (the shipped one of this policy),
    a shipped model's name, a directory with a value head, all with parameters in brackets, or a
    ``file.py`` that defines ``verifier``: an object that meets the contract, or a function from a
    branch to a number. A verifier that was trained for another policy is refused with
    ``SpecError`` unless ``any_policy``, which may stand among the parameters too. Verifiers that
    ask the policy itself (``views``, ``self-certainty``) need its ``policy_engine``.

    >>> from mull.catalog import load_task
    >>> load_verifier("checker", task=load_task("words"), policy=EngineInfo("test", "m")).info.model
    'checker:words'
    """
    if not isinstance(spec, str):
        check_instance("verifier", spec)
        verifier, allowed = spec, any_policy
    elif is_file(spec):
        verifier, allowed = _from_file(spec), any_policy
    else:
        parsed = _parse(spec)
        parameters = dict(parsed.parameters)
        allowed = parameters.pop("any_policy", any_policy)
        if not isinstance(allowed, bool):
            raise SpecError(f"{spec}: any_policy is true or false, not {allowed!r}")
        given: dict[str, Any] = {"task": task, "policy": policy, "separator": task.until.separator}
        if parsed.name in BUILTIN or parsed.name in entry_points(GROUP):
            found = verifier_class(parsed.name)
            if "engine" in _options(found):
                given["engine"] = _judge(parsed.name, parameters)
            if "policy_engine" in _options(found):
                if policy_engine is None:
                    raise SpecError(f"{parsed.name} asks the policy itself, which is not at hand")
                given["policy_engine"] = policy_engine
            verifier = cast(Verifier, _call(parsed.name, found, parameters, given))
        else:
            verifier = _from_model(parsed.name, parameters, task, policy, allowed)
    if not isinstance(verifier, Verifier):
        raise SpecError(
            f"{spec!r} is no verifier: expected info, policy and an async score(branches, meter)"
        )
    if not allowed:
        check_policy(verifier, policy)
    return verifier


def _parse(spec: str) -> Spec:
    """As ``parse``, for names that may be paths too."""
    head, bracket, inside = spec.strip().partition("(")
    path = head.strip()
    if "/" not in path and not path.startswith("."):
        return parse(spec)
    return Spec(path, parse(f"x{bracket}{inside}").parameters)


def _from_model(
    name: str, parameters: Mapping[str, Any], task: Task, policy: EngineInfo, any_policy: bool
) -> Verifier:
    """A model with a value head, by its name, its directory, or ``prm`` and ``orm``."""
    if name in KINDS:
        name = shipped_for(name, policy.model)
    elif name not in shipped_models() and not Path(name).is_dir():
        raise SpecError(
            f"{unknown('verifier', name[:200], verifier_names())} A verifier is one of these, a "
            "directory with a value head, or a file.py that defines verifier."
        )
    card = model_card(name) or {}
    kind = card.get("kind", "policy" if card else None)
    if kind not in (*KINDS, None):
        raise SpecError(
            f"{name} is a {kind}, no verifier; verifiers: {', '.join(verifier_names())}"
        )
    if not any_policy:  # before gigabytes are read
        check_trained_for(name, trained_for(card), policy)
    from mull.engines.torch import load_torch_engine

    given: dict[str, Any] = {
        "engine": None,
        "trained_for": () if any_policy else trained_for(card),
        "tokenizer": policy.tokenizer,
        "separator": task.until.separator,
    }
    shipped = name in shipped_models()
    layout = parameters.get("format", VALUES if shipped else _layout_of(name))
    if layout not in LAYOUTS:
        raise SpecError(f"{name}(format={layout!r}): expected {' or '.join(LAYOUTS)}")
    made = attribute(LAYOUTS[layout])
    own = [option for option in _options(made) if option not in given]
    ours = ("path", "name", "adapted", "trainer")
    loading = [option for option in _options(load_torch_engine) if option not in ours]
    for parameter in parameters:
        if parameter not in {*own, *loading, "format"}:
            valid = [*own, *loading, "any_policy", "format"]
            raise unknown(f"parameter of {name}", parameter, valid)
    given["engine"] = load_engine(name, **{p: v for p, v in parameters.items() if p in loading})
    options = {p: v for p, v in parameters.items() if p in own}
    if layout == VALUES and card.get("history") is True:  # it learned attempts behind others
        options.setdefault("history", True)
    if "format" in own:
        options["format"] = layout
    return cast(Verifier, _call(name, made, options, given))


def _layout_of(name: str) -> str:
    """The layout that a checkpoint's own config names by its architecture; else a value head."""
    try:
        raw = json.loads(Path(name, "config.json").read_text(encoding="utf-8"))
        (architecture,) = raw["architectures"]
    except (OSError, ValueError, TypeError, KeyError):
        return VALUES  # what is wrong with it is said when it is loaded
    from mull.engines.torch.config import PROCESS_REWARD

    if architecture == PROCESS_REWARD:
        return "qwen-prm"
    return "trl-prm" if str(architecture).endswith("ForTokenClassification") else VALUES


def _judge(name: str, parameters: dict[str, Any]) -> Engine:
    """The engine of a verifier that asks a model, taken out of its parameters."""
    model = parameters.pop("model", None)
    if not isinstance(model, str):
        raise SpecError(f"{name} needs model: {name}(model=…), the name of a model that judges")
    return load_policy(model)


def _from_file(path: str) -> Verifier:
    from mull.verifiers.custom import FunctionVerifier

    found = from_file(path, "verifier")
    check_instance("verifier", found, path)
    if isinstance(found, Verifier) or not callable(found):
        return cast(Verifier, found)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    return FunctionVerifier(found, Path(path).name, digest)


def _options(factory: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a class or function by name, with their types."""
    made = vars(factory).get("__init__", factory) if inspect.isclass(factory) else factory
    found = inspect.signature(factory).parameters.values()
    names = [
        parameter.name
        for parameter in found
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    typed = [name for name in names if name in inspect.get_annotations(made)]
    return {**dict.fromkeys(names, Any), **hints_of(made, typed)}


def _call(
    name: str, factory: Callable[..., Any], parameters: Mapping[str, Any], given: Mapping[str, Any]
) -> Any:
    """Call with checked parameters and with those of ``given`` that the factory names."""
    options = _options(factory)
    known = {option: hint for option, hint in options.items() if option not in given}
    for parameter, value in parameters.items():
        if parameter not in known:
            raise unknown(f"parameter of {name}", parameter, [*known, "any_policy"])
        if not fits(value, known[parameter]):
            raise SpecError(f"{name}({parameter}={value!r}): expected {in_words(known[parameter])}")
    ours = {option: given[option] for option in options if option in given}
    try:
        return factory(**ours, **parameters)
    except MullError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(f"{name}: {error}") from error
