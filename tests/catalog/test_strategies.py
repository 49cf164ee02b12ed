"""Names and parameters of strategies: built in, installed, or a user's file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest

from mull.catalog import load_strategy, plugins, strategy_class, strategy_names
from mull.catalog.options import build
from mull.catalog.strategies import BUILTIN
from mull.errors import BudgetError, MullError, SpecError
from mull.strategies.best_of_n import BestOfN
from mull.strategies.needs import spec_of
from mull.strategies.single import Greedy, Sample
from mull.strategies.token_beam import TokenBeamSearch
from mull.strategies.token_dfs import TokenDfs
from mull.strategies.vote import Vote


def test_the_built_in_names() -> None:
    assert strategy_names() == sorted(BUILTIN)
    some = {"greedy": Greedy, "sample": Sample, "vote": Vote, "best-of-n": BestOfN}
    assert {name: strategy_class(name) for name in some} == some
    assert len({strategy_class(name) for name in BUILTIN}) == len(BUILTIN)


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_config_is_a_documented_frozen_value_with_defaults(name: str) -> None:
    config = strategy_class(name)
    assert config.__dataclass_params__.frozen
    assert config.__doc__
    assert load_strategy(name) == load_strategy(f"{name}()") == config()
    given = config()
    assert load_strategy(given) is given


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("vote(n=8, stop=beta)", Vote(8, "beta")),
        ("vote(n=none)", Vote()),
        ("vote(confidence=0.9, stop='dirichlet')", Vote(None, "dirichlet", 0.9)),
        ("vote(quorum=1)", Vote(quorum=1)),
        ("best-of-n(score=logprob)", BestOfN(score="logprob")),
        ("token-beam(width=6, length_penalty=1)", TokenBeamSearch(6, None, 1)),
        ("token-dfs(threshold=0.2)", TokenDfs(0.2)),
    ],
)
def test_specs_become_values(spec: str, expected: object) -> None:
    assert load_strategy(spec) == expected


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_a_strategy_is_called_by_its_spec(name: str) -> None:
    assert spec_of(load_strategy(name)) == name


@pytest.mark.parametrize(
    "spec",
    [
        "vote(n=8, stop=beta)",
        "best-of-n(verifier='lowest-group(size=4)')",
        "token-beam(width=6, length_penalty=0.5)",
        "ttft(steps=8, temperature=0.5)",
    ],
)
def test_the_spec_of_a_strategy_makes_it_again(spec: str) -> None:
    assert spec_of(load_strategy(spec)) == spec
    assert load_strategy(spec_of(load_strategy(spec))) == load_strategy(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "votes",
            r"unknown strategy 'votes'; valid: ab-mcts, .*, weighted-vote\. Did you mean 'vote'",
        ),
        ("vote(m=8)", "unknown parameter of vote 'm'; valid: confidence, flight, n, quorum, stop"),
        ("greedy(n=8)", "unknown parameter of greedy 'n'; valid: none"),
        ("vote(n=8.5)", r"vote\(n=8.5\): expected a whole number or none"),
        ("vote(n=true)", r"vote\(n=True\): expected a whole number or none"),
        ("vote(n='8')", r"vote\(n='8'\): expected a whole number or none"),
        ("vote(n=nan)", r"vote\(n=nan\): expected a whole number or none"),
        ("vote(stop=gamma)", r"vote\(stop='gamma'\): expected beta or dirichlet or none"),
        ("vote(stop=1)", r"vote\(stop=1\): expected beta or dirichlet or none"),
        ("vote(confidence=high)", r"vote\(confidence='high'\): expected a number"),
        ("vote(confidence=nan)", "must lie between 0.5 and 1"),
        ("vote(confidence=none)", "expected a number"),
        ("vote(confidence=0.99)", "add stop=beta or stop=dirichlet"),
        ("tot(verifier=prm, judge=policy)", "asks no judge: leave out judge"),
        ("beam(verifier=lowest-group(size=4))", "is quoted, as in verifier='lowest-group"),
        ("best-of-n(score=prm)", "expected mean_logprob or logprob"),
        ("token-beam(width=0)", "width must be at least 1"),
        ("token-dfs(threshold=0.0)", "threshold is a probability"),
        ("token-dfs(threshold=0.5, best_of=3)", "best_of lies in 1..2"),
    ],
)
def test_what_is_wrong_is_said(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_strategy(spec)


@dataclasses.dataclass(frozen=True)
class Config:
    """A config with every kind of field."""

    needed: str
    kind: Literal["int8", 4] = 4
    flag: bool = False
    share: float | None = None
    anything: Any = None
    made: list[int] = dataclasses.field(default_factory=list)
    inner: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.needed == "budget":
            raise BudgetError("mine")
        if self.needed == "value":
            raise ValueError("must be something else")


def test_fields_are_checked_by_their_types() -> None:
    made = build("c", Config, {"needed": "a", "kind": "int8", "share": 1, "anything": "x"})
    assert made == Config("a", "int8", share=1, anything="x")
    for bad in ({"kind": "int"}, {"kind": 4.0}, {"flag": 1}, {"share": True}, {"made": "x"}):
        with pytest.raises(SpecError, match="expected"):
            build("c", Config, {"needed": "a", **bad})
    with pytest.raises(SpecError, match=r"c needs needed: c\(needed=…\), text"):
        build("c", Config, {})
    with pytest.raises(SpecError, match="unknown parameter of c 'inner'"):
        build("c", Config, {"needed": "a", "inner": 1})
    with pytest.raises(SpecError, match="c: must be something else"):
        build("c", Config, {"needed": "value"})
    with pytest.raises(BudgetError, match="mine"):
        build("c", Config, {"needed": "budget"})


def test_a_plain_factory_says_what_it_does_not_take() -> None:
    def factory(size: int = 1) -> int:
        return size

    assert build("f", factory, {"size": 3}) == 3
    with pytest.raises(SpecError, match=r"f: .*unexpected keyword argument 'width'"):
        build("f", factory, {"width": 3})


FILE = """
from dataclasses import dataclass
from mull.strategies.vote import Vote
strategy = Vote(n=3)
"""


def test_a_users_file_brings_its_own_strategy(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(FILE))
    assert load_strategy(str(path)) == Vote(n=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no 'strategy'"),
        ("def f(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "ModuleNotFoundError"),
        (
            "from mull.strategies.vote import Vote as strategy\n",
            r"strategy is the class Vote; name an instance: strategy = Vote\(\)",
        ),
        ("strategy = 5\n", r"strategy = 5 is not valid; .* as in strategy = Vote\(n=8\)"),
        ("strategy = 'vote(n=3)'\n", r"'vote\(n=3\)' is not valid; expected an object"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        load_strategy(str(path))
    assert "mine.py" in str(caught.value)
    with pytest.raises(SpecError, match="no such file; expected a Python file that defines"):
        load_strategy(str(tmp_path / "none.py"))


def test_a_class_is_no_strategy() -> None:
    with pytest.raises(SpecError, match=r"^strategy is the class Vote; name an instance"):
        load_strategy(Vote)  # type: ignore[arg-type]


def test_an_installed_package_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("my_vote", "mull.strategies.vote:Vote", "mull.strategies")
    plugins.entry_points.cache_clear()
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if "strateg" in group else []
    )
    try:
        assert "my_vote" in strategy_names()
        assert load_strategy("my_vote(n=5)") == Vote(n=5)
        with pytest.raises(MullError, match="my_vote"):
            load_strategy("my_vot")
    finally:
        plugins.entry_points.cache_clear()
