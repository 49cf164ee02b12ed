"""Verifiers, further engines and prices on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.command import Mull, refused, toml

from mull.catalog import verifier_names

PROBLEM = "In stock: cups 3, pens are 2 more than cups. How many pens are there?"


@pytest.fixture
def pick(folder: Path) -> str:
    """A user's strategy that needs a verifier."""
    file = folder / "pick.py"
    file.write_text("from tests.verifiers.common import Pick\nstrategy = Pick(4)\n")
    return str(file)


def test_a_verifier_is_named_by_option(mull: Mull, pick: str) -> None:
    given = ["solve", PROBLEM, "--model", "simulated", "--task", "words", "--strategy", pick]
    said = mull(*given, "--verifier", "prm=checker(false_positive=0.1)", "--json", "--trace")
    assert said.code == 0
    assert [set(each["scores"]) >= {"prm"} for each in said.json["candidates"]] == [True] * 4
    shown = mull(*given, "--verifier", "prm=checker", "--trace").out
    assert re.search(r"answer +. log-prob a token . prm", shown)
    assert re.search(r"0\.000|1\.000", shown)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["verifier 'prm'", "no prm for policy 'simulated'"]),
        (["--verifier", "prm"], ["--verifier 'prm' is not valid", "NAME=VALUE"]),
        (["--verifier", "=checker"], ["NAME=VALUE"]),
        (["--verifier", "prm=a", "--verifier", "prm=b"], ["gives 'prm' twice"]),
        (["--verifier", "prm=chekcer"], ["verifiers.prm", "Did you mean 'checker'"]),
        (["--verifier", "prm=checker", "--verifier", "x=checker"], ["'x' is used by no strategy"]),
        (["--verifier", "prm=checker", "--engine", "judge=simulated"], ["'judge' is used by no"]),
        (["--verifier", "prm=checker", "--price", "1,2"], ["--price '1,2'", "three amounts"]),
        (["--verifier", "prm=checker", "--price", "a,b,c"], ["three amounts"]),
        (["--verifier", "prm=checker", "--price", "1,2,-3"], ["price = [1.0, 2.0, -3.0]"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, mull: Mull, pick: str, options: list[str], words: list[str]
) -> None:
    given = ["solve", PROBLEM, "--model", "simulated", "--task", "words", "--strategy", pick]
    said = refused(folder, mull, *given, *options)
    assert all(word in said.err for word in words), said.err


def test_a_budget_in_money_needs_a_price_and_has_one(folder: Path, mull: Mull) -> None:
    given = ["solve", "x", "--model", "simulated:echo", "--cost", "0.0001"]
    assert "price" in refused(folder, mull, *given).err
    said = mull(*given, "--price", "0,0,1", "--json")
    assert said.code == 0
    assert said.json["ended"] == "budget"
    assert said.json["spent"]["cost"] >= 0.0001


def test_the_verifiers_are_listed_with_their_parameters(mull: Mull) -> None:
    said = mull("verifiers", "--json")
    assert sorted(said.json) == verifier_names()
    assert said.json["checker"]["parameters"]["false_positive"] == 0.0
    assert all(each["about"] for each in said.json.values())
    assert "checker" in mull("verifiers").out


def test_a_dry_run_says_what_it_does_not_count_and_finds_what_is_wrong(
    folder: Path, mull: Mull, pick: str
) -> None:
    config = toml(
        folder / "run.toml", strategies=[pick], samples=None, verifiers={"prm": "checker"}
    )
    said = mull("run", config, "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"not counted +verifier prm", said.out)
    toml(folder / "run.toml", strategies=[pick], samples=None, verifiers={"prm": "chekcer"})
    assert "verifiers.prm" in refused(folder, mull, "run", config, "--dry-run").err
    plain = mull("run", toml(folder / "run.toml"), "--dry-run")
    assert re.search(r"not counted +nothing", plain.out)
