"""A model string to a simulated engine: what the catalog and the command line call."""

from __future__ import annotations

from mull.engines.base import check_price
from mull.engines.simulated.content import Content, Echo
from mull.engines.simulated.engine import SimulatedEngine
from mull.engines.simulated.latency import Latency
from mull.engines.simulated.steps import StepModel
from mull.errors import SpecError

MODELS = ("simulated", "simulated:steps", "simulated:echo")


def load_simulated(
    model: str = "simulated",
    *,
    slots: int = 64,
    token_ms: float = 0.0,
    prefill_ms: float = 0.0,
    parameters: int = 0,
    context: int = 0,
    price: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> SimulatedEngine:
    """The engine that a model string names.

    ``simulated`` (or ``simulated:steps``) answers the problems of ``levels()``, and anything
    else, with the step model; ``simulated:echo`` says ``answer: 1`` to everything. Raises
    ``SpecError`` otherwise. ``price`` is money per million (new prompt, cached prompt, generated)
    tokens.

    >>> load_simulated("simulated:echo").info.model
    'simulated:echo'
    """
    check_price(price)
    content: Content
    if model in ("simulated", "simulated:steps"):
        content = StepModel(closing="answer: ")
    elif model == "simulated:echo":
        content = Echo("answer: 1")
    else:
        raise SpecError(f"unknown simulated model {model!r}; known are: {', '.join(MODELS)}")
    return SimulatedEngine(
        content,
        latency=Latency(token_ms=token_ms, prefill_ms=prefill_ms),
        slots=slots,
        model=model,
        parameters=parameters,
        context=context,
        price=price,
    )
