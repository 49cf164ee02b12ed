"""What a strategy needs is looked for before any work, and named where it is missing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mull.errors import UnsupportedError, UsageError
from mull.strategies.base import Search, Start
from mull.strategies.best_of_n import BestOfN
from mull.strategies.needs import Needs, check_needs, needs_of
from mull.strategies.vote import Vote
from mull.types import Capabilities, EngineInfo

POLICY = EngineInfo("simulated", "m")
ABLE = EngineInfo("simulated", "m", capabilities=Capabilities(logprobs=True))


@dataclass(frozen=True)
class Judged:
    """A strategy with needs of its own."""

    @property
    def needs(self) -> Needs:
        return Needs(engines=("policy", "judge"), verifiers=("prm",))

    def start(self, start: Start) -> Search:
        return Vote(n=1).start(start)


def test_a_strategy_that_says_nothing_needs_the_policy_alone() -> None:
    assert needs_of(Vote()) == Needs(engines=("policy",))
    check_needs(Vote(), {"policy": POLICY}, ())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="needs engine 'judge'; given: policy"):
        check_needs(Judged(), {"policy": POLICY}, ("prm",))
    with pytest.raises(UsageError, match="needs verifier 'prm'; given: none"):
        check_needs(Judged(), {"policy": POLICY, "judge": POLICY}, ())
    check_needs(Judged(), {"policy": POLICY, "judge": POLICY}, ("prm",))


def test_a_policy_that_cannot_do_it_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"logprobs, which simulated:m does not have"):
        check_needs(BestOfN(n=2), {"policy": POLICY}, ())
    check_needs(BestOfN(n=2), {"policy": ABLE}, ())
