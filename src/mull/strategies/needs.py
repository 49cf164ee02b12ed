"""What a strategy needs around it, and the check that it is there before any work is done."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from mull.errors import UnsupportedError, UsageError
from mull.strategies.base import POLICY as POLICY  # noqa: PLC0414  (passed on)
from mull.strategies.base import Strategy
from mull.types import EngineInfo, Prompt, Sampling

ABILITIES: Mapping[str, str] = {
    "logprobs": "tells log-probabilities",
    "continue_assistant": "goes on with a turn that was begun",
    "token_beam": "decodes by token beam",
    "threshold_dfs": "decodes by threshold",
    "adapts": "can be trained on at test time",
}
"""The capabilities that strategies rest on, in words."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Needs:
    """The engines and verifiers that a strategy asks, by the names it uses for them.

    ``capabilities`` are fields of ``Capabilities`` that the policy must have. ``sampled``: it draws
    samples, so that temperature and filters change what comes.
    """

    engines: tuple[str, ...] = (POLICY,)
    verifiers: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    sampled: bool = True


def needs_of(strategy: Strategy) -> Needs:
    """What a strategy says it needs in an attribute ``needs``; without one, the policy alone."""
    needs = getattr(strategy, "needs", None)
    return needs if isinstance(needs, Needs) else Needs()


def check_needs(
    strategy: Strategy,
    engines: Mapping[str, EngineInfo],
    verifiers: Collection[str],
    prompt: Prompt | None = None,
) -> None:
    """Raise where something that a strategy needs is not there.

    ``UsageError`` for an engine or verifier that was not given, ``UnsupportedError`` for a policy
    that cannot do what the strategy rests on: behind this ``prompt``, where one is given.

    >>> from mull.strategies.vote import Vote
    >>> check_needs(Vote(), {"policy": EngineInfo("simulated", "m")}, ())
    """
    needs = needs_of(strategy)
    for kind, wanted, given in (
        ("engine", needs.engines, engines),
        ("verifier", needs.verifiers, verifiers),
    ):
        for name in wanted:
            if name not in given:
                raise UsageError(
                    f"{spec_of(strategy)} needs {kind} {name!r}; "
                    f"given: {', '.join(sorted(given)) or 'none'}"
                )
    policy = engines.get(POLICY)
    if policy is None:
        return
    can, behind_chat = policy.capabilities, bool(prompt and prompt.messages)
    for capability in needs.capabilities:
        does = ABILITIES.get(capability, f"has {capability}")
        if not getattr(can, capability):
            raise UnsupportedError(
                f"{spec_of(strategy)} needs a policy that {does}, which "
                f"{policy.kind}:{policy.model} does not: use another engine or strategy"
            )
        if capability == "continue_assistant" and behind_chat and not can.continue_chat:
            raise UnsupportedError(
                f"{spec_of(strategy)} needs a policy that {does}, and it is not "
                f"known how {policy.kind}:{policy.model} does so behind chat messages: name its "
                "way by the engine's option dialect=vllm or continuation=prefix, or use another "
                "strategy"
            )


def check_sampled(strategies: Collection[Strategy], asked: Collection[Sampling]) -> None:
    """Raise ``UsageError`` where a way to sample is asked for and no strategy samples.

    Temperature 0 asks for no chance, and there is none.
    """
    if not any(how.temperature for how in asked) or any(needs_of(s).sampled for s in strategies):
        return
    raise UsageError(
        f"{', '.join(map(spec_of, strategies))}: draws no samples, so temperature, top-k, top-p "
        "and min-p would change nothing: leave them out, or use a strategy that samples, as vote"
    )


def spec_of(strategy: Strategy) -> str:
    """The spec that makes a strategy: its name as its class has it, and what is no default.

    >>> from mull.strategies.best_of_n import BestOfN
    >>> spec_of(BestOfN(n=8, verifier="prm"))
    'best-of-n(n=8, verifier=prm)'
    """
    config: Any = strategy
    name = _HUMP.sub("-", type(config).__name__).lower().removesuffix("-search")
    if not is_dataclass(config):
        return name
    values = [(field, getattr(config, field.name)) for field in fields(config)]
    said = [f"{field.name}={_shown(v)}" for field, v in values if v != field.default]
    return f"{name}({', '.join(said)})" if said else name


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else repr(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
