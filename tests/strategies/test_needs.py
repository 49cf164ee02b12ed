"""What a strategy needs is looked for before any work, and named where it is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from mull.errors import UnsupportedError, UsageError
from mull.strategies.base import Search, Start
from mull.strategies.best_of_n import BestOfN
from mull.strategies.budget_forcing import BudgetForcing
from mull.strategies.needs import ABILITIES, Needs, check_needs, check_sampled, needs_of, spec_of
from mull.strategies.single import Greedy
from mull.strategies.vote import Vote
from mull.types import Capabilities, EngineInfo, Message, Prompt, Sampling

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
    with pytest.raises(UnsupportedError, match=r"^best-of-n\(n=2\) needs a policy that tells "):
        check_needs(BestOfN(n=2), {"policy": POLICY}, ())
    check_needs(BestOfN(n=2), {"policy": ABLE}, ())


@pytest.mark.parametrize("capability", sorted(ABILITIES))
def test_what_a_policy_cannot_do_is_said_in_words(capability: str) -> None:
    @dataclass(frozen=True)
    class Able(Judged):
        @property
        def needs(self) -> Needs:
            return Needs(capabilities=(capability,))

    cannot = replace(POLICY, capabilities=Capabilities(continue_assistant=False))
    with pytest.raises(
        UnsupportedError, match=f"^able needs a policy that {ABILITIES[capability]}"
    ):
        check_needs(Able(), {"policy": cannot}, ())


def test_behind_chat_messages_a_turn_goes_on_only_where_it_is_known_how() -> None:
    chat, text = Prompt.chat(Message("user", "x")), Prompt.of("x")
    unknown = {"policy": replace(POLICY, capabilities=Capabilities(continue_chat=False))}
    with pytest.raises(UnsupportedError, match="dialect=vllm or continuation=prefix"):
        check_needs(BudgetForcing(), unknown, (), chat)
    check_needs(BudgetForcing(), unknown, (), text)
    check_needs(BudgetForcing(), unknown, ())
    check_needs(BudgetForcing(), {"policy": POLICY}, (), chat)
    check_needs(Vote(), unknown, (), chat)


def test_a_way_to_sample_is_refused_where_nothing_is_drawn() -> None:
    hot = Sampling(temperature=0.7)
    with pytest.raises(UsageError, match=r"^greedy: draws no samples"):
        check_sampled([Greedy()], [hot])
    check_sampled([Greedy(), Vote()], [hot])
    check_sampled([Greedy()], [Sampling(temperature=0.0)])
    check_sampled([Greedy()], [])


def test_a_strategy_of_the_users_own_is_called_as_its_class() -> None:
    class TwoStep:
        def start(self, start: Start) -> Search:
            return Vote(n=1).start(start)

    assert (spec_of(Judged()), spec_of(TwoStep())) == ("judged", "two-step")
