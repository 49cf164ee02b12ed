"""What a strategy needs around it, and the check that it is there before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mull.errors import UnsupportedError, UsageError
from mull.strategies.base import Strategy
from mull.types import EngineInfo

POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Needs:
    """The engines and verifiers that a strategy asks, by the names it uses for them.

    ``capabilities`` are fields of ``Capabilities`` that the policy must have.
    """

    engines: tuple[str, ...] = (POLICY,)
    verifiers: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


def needs_of(strategy: Strategy) -> Needs:
    """What a strategy says it needs in an attribute ``needs``; without one, the policy alone."""
    needs = getattr(strategy, "needs", None)
    return needs if isinstance(needs, Needs) else Needs()


def check_needs(
    strategy: Strategy, engines: Mapping[str, EngineInfo], verifiers: Collection[str]
) -> None:
    """Raise where something that a strategy needs is not there.

    ``UsageError`` for an engine or verifier that was not given, ``UnsupportedError`` for a policy
    that cannot do what the strategy rests on.

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
                    f"{strategy} needs {kind} {name!r}; given: {', '.join(sorted(given)) or 'none'}"
                )
    policy = engines.get(POLICY)
    for capability in needs.capabilities if policy else ():
        if policy and not getattr(policy.capabilities, capability):
            raise UnsupportedError(
                f"{strategy} needs a policy with {capability.replace('_', ' ')}, which "
                f"{policy.kind}:{policy.model} does not have: use another engine or strategy"
            )
