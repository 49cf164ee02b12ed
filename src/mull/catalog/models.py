"""Model names → engines: shipped models, Hugging Face directories, endpoints, the simulator."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from mull.catalog.spec import unknown
from mull.engines.base import Engine
from mull.errors import ModelLoadError, SpecError

MODELS = Path(__file__).parent.parent / "models"
CARD = "card.json"
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
    path = Path(model) / CARD
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no model card: {error}") from error
    return card if isinstance(card, dict) else None


def load_engine(model: str | Engine, **options: Any) -> Engine:
    """An engine from a model's name; ``options`` go to the engine's loader (slots, dtype …).

    >>> load_engine("simulated").info.kind
    'simulated'
    """
    if not isinstance(model, str):
        return model
    if model.startswith(("http://", "https://")):
        from mull.engines.openai import load_openai

        return load_openai(model, **options)
    if model == "simulated" or model.startswith("simulated:"):
        from mull.engines.simulated import load_simulated

        return load_simulated(model, **options)
    if model in shipped_models():
        return _torch(MODELS / model, options)
    if Path(model).exists():
        return _torch(Path(model), options)
    if "/" in model or model.startswith("."):
        raise SpecError(f"model {model!r}: no such directory; expected {FORMS}")
    error = unknown("model", model, shipped_models())
    raise SpecError(f"{error} A model is {FORMS}.")


def _torch(path: Path, options: dict[str, Any]) -> Engine:
    from mull.engines.torch import load_torch_engine

    return load_torch_engine(path, **options)
