"""What strategies need is loaded under the names they use, and what cannot be is said at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.strategies.common import TASK
from tests.verifiers.common import Pick

from mull.catalog import Equipment, equip
from mull.engines.simulated import Script, SimulatedEngine, StepModel
from mull.errors import EngineError, SpecError, UsageError
from mull.strategies.base import Search, Start, Strategy
from mull.strategies.needs import Needs
from mull.strategies.vote import Vote
from mull.types import EngineInfo, Prompt, Request, Until
from mull.verifiers.checker import CheckerVerifier
from mull.verifiers.reward import RewardVerifier

POLICY = SimulatedEngine(StepModel())


@dataclass(frozen=True)
class Asks:
    """A strategy that asks for engines and verifiers by name."""

    engines: tuple[str, ...] = ("policy",)
    verifiers: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        return Needs(self.engines, self.verifiers)

    def start(self, start: Start) -> Search:
        return Vote(n=1).start(start)


@dataclass(frozen=True)
class Silent:
    """A user's strategy that does not say what it needs."""

    def start(self, start: Start) -> Search:
        return Vote(n=1).start(start)


def found(*strategies: Strategy, **tables: Mapping[str, Any]) -> Equipment:
    return equip(strategies, POLICY, TASK, **tables)


def test_the_policy_alone_is_enough_for_a_vote() -> None:
    given = found(Vote())
    assert dict(given.engines) == {"policy": POLICY}
    assert (dict(given.verifiers), given.opened, given.identities) == ({}, (), {})


def test_a_name_in_the_table_is_what_the_table_says() -> None:
    mine = CheckerVerifier(TASK)
    given = found(Pick(), Asks(verifiers=("other",)), verifiers={"prm": "checker", "other": mine})
    assert isinstance(given.verifiers["prm"], CheckerVerifier)
    assert given.verifiers["other"] is mine
    assert given.opened == (given.verifiers["prm"],)
    assert set(given.identities) == {"verifier_identities"}


def test_a_name_in_no_table_is_itself_a_spec() -> None:
    given = found(Asks(("policy", "simulated:echo"), ("checker",)))
    assert given.engines["simulated:echo"].info.model == "simulated:echo"
    assert isinstance(given.verifiers["checker"], CheckerVerifier)
    assert given.identities["engine_identities"]["simulated:echo"][1] == "simulated:echo"


@pytest.mark.parametrize(
    ("name", "table"), [("prm", "verifiers"), ("orm", "verifiers"), ("reviser", "engines")]
)
def test_a_trained_directory_is_not_mistaken_for_the_shipped_model(
    name: str, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Path(name, "card.json").write_text(json.dumps({"kind": name}))
    asks = Asks(("policy", name)) if table == "engines" else Asks(verifiers=(name,))
    with pytest.raises(SpecError, match=rf"write \./{name} for the directory"):
        found(asks, **{table: {name: name}})


def test_a_reward_model_is_no_reviser(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"kind": "prm"}')
    with pytest.raises(SpecError, match=r"engines\.reviser: .* is a prm: it scores"):
        found(Asks(("policy", "reviser")), engines={"reviser": str(tmp_path)})


def test_an_engine_may_have_options_and_what_is_made_here_is_closed() -> None:
    mine = SimulatedEngine(Script(["mine"]))
    tables = {"judge": {"model": "simulated:echo", "slots": 3}, "helper": mine}
    given = found(Asks(("policy", "judge", "helper")), engines=tables)
    assert given.engines["judge"].info.slots == 3
    asyncio.run(given.aclose())
    for name, closed in {"judge": True, "helper": False, "policy": False}.items():
        assert _is_closed(given.engines[name]) is closed  # type: ignore[arg-type]


def _is_closed(engine: SimulatedEngine) -> bool:
    from mull.budget import Ledger, Meter, Purpose

    async def ask() -> None:
        request = Request(Prompt.of("p"), Until(9))
        async for _ in engine.generate(request, Meter(Ledger(), Purpose.POLICY, engine.info)):
            pass

    try:
        asyncio.run(ask())
    except EngineError:
        return True
    return False


@pytest.mark.parametrize(
    ("strategy", "tables", "said"),
    [
        (Asks(verifiers=("prm",)), {}, "verifier 'prm': no prm for policy .* verifiers.prm ="),
        (Asks(("policy", "judge")), {}, "an engine 'judge', and nothing says.* engines.judge ="),
        (Asks(("policy", "reviser")), {}, "engine 'reviser': no reviser for policy"),
        (Pick(), {"verifiers": {"prm": "chek"}}, "verifiers.prm: unknown verifier 'chek'"),
        (
            Pick(),
            {"verifiers": {"prn": "checker"}},
            "verifier 'prn' is used by no strategy; .* prm",
        ),
        (Vote(), {"verifiers": {"prm": "checker"}}, "used by no strategy; they use: the policy"),
        (Vote(), {"engines": {"policy": "simulated"}}, "engines.policy: the policy is the model"),
        (
            Asks(("policy", "judge")),
            {"engines": {"judge": {"slots": 3}}},
            "engines.judge: expected a model's name, or a table with model",
        ),
        (
            Asks(("policy", "judge")),
            {"engines": {"judge": {"model": "simulated", "slot": 3}}},
            "engines.judge: unknown option of the engine for simulated 'slot'",
        ),
    ],
)
def test_what_cannot_be_is_said(strategy: Strategy, tables: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        found(strategy, **tables)


def test_a_strategy_that_says_nothing_of_its_needs_gets_what_it_is_given() -> None:
    given = found(Silent(), verifiers={"mine": "checker"})
    assert set(given.verifiers) == {"mine"}
    with pytest.raises(UsageError):
        found(Silent(), verifiers={"mine": "no"})


class Valued(SimulatedEngine):
    """An engine with a tokenizer of its own choice."""

    def __init__(self, tokenizer: str) -> None:
        super().__init__(StepModel())
        self.tokenizer = tokenizer

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, tokenizer=self.tokenizer)


def test_token_ids_are_trusted_where_all_engines_share_the_tokenizer() -> None:
    """Checked on the reward model that a verifier of a model's name would become."""
    assert RewardVerifier(Valued("a"), tokenizer="a").exact
    assert not RewardVerifier(Valued("a"), tokenizer="b").exact
    assert not RewardVerifier(Valued("a")).exact
