"""An address to an engine: what the catalog and the command line call."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from mull.engines.base import check_price
from mull.engines.openai.endpoint import Endpoint, find_key, parse_address
from mull.engines.openai.engine import OpenAIEngine, information
from mull.engines.spread import SpreadEngine
from mull.errors import SpecError


def load_openai(
    address: str,
    *,
    key_env: str | None = None,
    key_file: str | Path | None = None,
    revision: str = "",
    parameters: int = 0,
    layers: int = 0,
    width: int = 0,
    context: int = 0,
    slots: int = 64,
    price: tuple[float, float, float] = (0.0, 0.0, 0.0),
    **options: Any,
) -> OpenAIEngine | SpreadEngine:
    """The engine for ``http://host:port/v1#model``. Nothing is sent until it is asked.

    Several addresses of one model, ``http://a:8000/v1,http://b:8000/v1#model``, make one engine
    that sends each request to the least loaded; ``slots`` then counts for each of them.

    The key comes from ``key_env`` (the name of an environment variable), from ``key_file``, or
    from ``MULL_API_KEY``; never from an argument. ``slots`` is the most requests in flight;
    ``parameters``, ``layers``, ``width`` describe the model for FLOPs (unknown: none reported),
    ``context`` its longest sequence, ``price`` money per million (new prompt, cached prompt,
    generated) tokens. ``options`` are the fields of ``Endpoint``: api, dialect, continuation,
    seeds, deadline_s and so on. Raises ``SpecError`` for what cannot be.

    >>> engine = load_openai("http://127.0.0.1:8000/v1#tiny", dialect="vllm", deadline_s=30.0)
    >>> engine.info.model, engine.info.url
    ('tiny', 'http://127.0.0.1:8000/v1')
    """
    places, hash, model = address.partition("#")
    addresses = [f"{place.strip()}{hash}{model}" for place in places.split(",")]
    valid = [field.name for field in fields(Endpoint) if field.name not in ("url", "model")]
    unknown = sorted(set(options) - set(valid))
    if unknown:
        raise SpecError(
            f"unknown endpoint option {', '.join(unknown)}; valid options: {', '.join(valid)}"
        )
    numbers = {"parameters": parameters, "layers": layers, "width": width, "context": context}
    for name, value in numbers.items():
        if type(value) is not int or value < 0:
            raise SpecError(f"{name} must be a whole number, 0 if unknown, not {value!r}")
    if type(slots) is not int or slots < 1:
        raise SpecError(f"slots must be at least 1, not {slots!r}")
    check_price(price)
    engines = []
    for one in addresses:
        endpoint = Endpoint(*parse_address(one), **options)
        info = information(endpoint, revision=revision, slots=slots, price=price, **numbers)
        engines.append(OpenAIEngine(endpoint, info, find_key(endpoint.url, key_env, key_file)))
    return engines[0] if len(engines) == 1 else SpreadEngine(engines)
