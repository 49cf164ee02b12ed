"""The verifier contract: branches in, one score a branch out; whose branches it may judge; and what
verifiers over an engine have in common.
"""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol, SupportsFloat, runtime_checkable

from mull.budget import Meter
from mull.engines.base import Engine
from mull.errors import EngineError, MullError, SpecError
from mull.types import Branch, EngineInfo


@runtime_checkable
class Verifier(Protocol):
    """Scores branches, batched across problems; higher is better, 0..1 unless it says otherwise.

    ``policy`` is (model, revision) of the policy it was trained for, empty where it fits any. A
    score is NaN where the verifier has no verdict on a branch. One that holds an engine or workers
    has ``aclose`` as well (``close``).
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def policy(self) -> tuple[str, ...]: ...

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        """One score a branch, in order; charges sample index = position."""
        ...


async def scores_of(verifier: Verifier, branches: Sequence[Branch], meter: Meter) -> list[float]:
    """The scores that a verifier gives, which may be a user's own and as wrong as any code.

    NaN stands for ``None``; how many there are is not checked. ``EngineError`` where the verifier
    raises an ordinary exception, or gives no list or a score that is no number; errors of Mull's
    own pass as they are.
    """
    name = verifier.info.model
    try:
        given: object = await verifier.score(branches, meter)
        if not isinstance(given, Collection):
            raise EngineError(f"{name} gave {type(given).__name__}; expected a list of scores")
        return [as_score(name, each) for each in given]
    except MullError:
        raise
    except Exception as error:
        raise EngineError(f"{name}: {type(error).__name__}: {error}") from error


def as_score(name: str, value: object) -> float:
    """What the verifier ``name`` gave for a branch, as a float; ``EngineError`` for no number.

    >>> as_score("prm", 1), as_score("prm", None)
    (1.0, nan)
    """
    if type(value) is float:
        return value  # nearly all are, and to look whether a value has ``__float__`` is slow
    if value is None:
        return math.nan
    if not isinstance(value, SupportsFloat) or isinstance(value, str):
        raise EngineError(f"{name} gave {reprlib.repr(value)}; expected a number or None")
    try:
        return float(value)
    except Exception as error:
        kind = type(value).__name__
        raise EngineError(f"{name} gave {kind}; expected a number or None ({error})") from error


def check_policy(verifier: Verifier, policy: EngineInfo) -> None:
    """Raise ``SpecError`` where a verifier was trained for another policy than this one.

    >>> from mull.verifiers.simulated import SimulatedVerifier
    >>> check_policy(SimulatedVerifier(), EngineInfo("simulated", "m"))
    """
    check_trained_for(verifier.info.model, verifier.policy, policy)


def check_trained_for(name: str, trained_for: tuple[str, ...], policy: EngineInfo) -> None:
    """Raise ``SpecError`` where ``name`` belongs to another policy: (model, revision), or ().

    Weights are compared by revision where both are known, else by name.
    """
    if not trained_for:
        return
    model, revision = (*trained_for, "")[:2]
    by_weights = bool(revision and policy.revision)
    if not (revision == policy.revision if by_weights else model == policy.model):
        ours, theirs = _named(policy.model, policy.revision), _named(model, revision)
        raise SpecError(
            f"{name} was trained for policy {theirs}, not for {ours}: how good it is on another "
            "policy's solutions was never measured; use one of this policy, or say "
            "any_policy=true to use it all the same"
        )


async def close(verifier: Verifier) -> None:
    """Close what a verifier holds: an engine, workers; nothing where it holds nothing."""
    aclose = getattr(verifier, "aclose", None)
    if aclose is not None:
        await aclose()


class EngineVerifier(ABC):
    """What verifiers over an engine have in common; ``how`` is all that decides the score besides
    the engine, and ``owned`` says that closing the verifier closes the engine.
    """

    engine: Engine
    owned = True

    @property
    @abstractmethod
    def how(self) -> str:
        """In a few letters, for the revision."""

    @property
    def info(self) -> EngineInfo:
        """The engine's, with what decides the score in its revision."""
        given = self.engine.info
        return replace(given, revision=f"{given.revision}/{self.how}")

    def forget(self) -> None:
        """Empty the engine's prefix cache, if it has one."""
        forget_prefixes(self.engine)

    async def aclose(self) -> None:
        """Close the engine, if it is this verifier's own."""
        if self.owned:
            await self.engine.aclose()


def forget_prefixes(thing: object) -> None:
    """Empty the prefix cache of an engine or verifier that keeps one, so that what comes next pays
    for what it reads.
    """
    forget = getattr(thing, "forget", None)
    if forget is not None:
        forget()


def _named(model: str, revision: str) -> str:
    return f"{model!r} (revision {revision})" if revision else repr(model)
