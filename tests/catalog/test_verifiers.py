"""Specs of verifiers: what each form means, whose it is, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.catalog import load_task, load_verifier, models, verifier_names, verifier_parameters
from mull.catalog.models import shipped_for, shipped_models, trained_for
from mull.engines.simulated import SimulatedEngine, StepModel, run_virtual
from mull.errors import EngineError, ModelLoadError, SpecError, UsageError
from mull.types import Branch, EngineInfo, Problem, Prompt, Step, StopReason
from mull.verifiers.base import Verifier, check_policy
from mull.verifiers.checker import CheckerVerifier
from mull.verifiers.simulated import SimulatedVerifier

TASK = load_task("words")
POLICY = EngineInfo("torch", "words-s", "abc")
BRANCH = Branch(
    Problem("p", Prompt.of("?")), Prompt.of("?"), (0,), (), (Step("1", StopReason.END),)
)


def load(spec: str | Verifier, **more: bool) -> Verifier:
    return load_verifier(spec, task=TASK, policy=POLICY, **more)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of shipped models, for a while."""
    monkeypatch.setattr(models, "MODELS", tmp_path)
    shipped_models.cache_clear()
    yield tmp_path
    shipped_models.cache_clear()


def card(folder: Path, name: str, **fields: object) -> None:
    (folder / name).mkdir()
    (folder / name / "card.json").write_text(json.dumps({"name": name, **fields}))


def test_a_built_in_one_with_its_parameters() -> None:
    found = load("checker(false_positive=0.1, exploit=.05, seed=3)")
    assert isinstance(found, CheckerVerifier)
    assert (found.task, found.false_positive, found.exploit, found.seed) == (TASK, 0.1, 0.05, 3)
    assert isinstance(load("simulated(noise=0)"), SimulatedVerifier)
    given = CheckerVerifier(TASK)
    assert load(given) is given


@pytest.mark.parametrize("name", sorted({"checker", "simulated"}))
def test_two_that_score_otherwise_have_two_identities(name: str) -> None:
    assert load(f"{name}(seed=1)").info.identity != load(f"{name}(seed=2)").info.identity


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("chekcer", "unknown verifier 'chekcer'; valid: .*checker.* Did you mean 'checker'"),
        ("checker(rate=1)", "unknown parameter of checker 'rate'; valid: any_policy, exploit"),
        ("checker(seed=x)", r"checker\(seed='x'\): expected a whole number"),
        ("checker(exploit=2)", r"checker: exploit must lie in 0\.\.1"),
        ("checker(any_policy=3)", "any_policy is true or false"),
        ("checker(", "is no spec"),
        ("", "is no spec"),
        ("no/such/folder", "unknown verifier 'no/such/folder'.* a directory with a value head"),
        ("./none(aggregate=min)", "unknown verifier './none'"),
        ("words-s", "words-s is a policy, no verifier"),
        ("nosuch.py", "no such file"),
    ],
)
def test_what_is_wrong_is_said(spec: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load(spec)


def test_every_name_has_parameters_to_list() -> None:
    for name in verifier_names():
        assert not {"task", "policy", "engine", "separator"} & set(verifier_parameters(name))


# Whose it is --------------------------------------------------------------------------------


def trained(*policy: str) -> Verifier:
    verifier = SimulatedVerifier()
    return type("Trained", (SimulatedVerifier,), {"policy": policy, "info": verifier.info})()


def test_a_verifier_of_another_policy_is_refused_and_says_how_to_insist() -> None:
    with pytest.raises(SpecError, match=r"trained for policy 'words-m', not for .*any_policy=true"):
        load(trained("words-m", ""))
    assert load(trained("words-m", ""), any_policy=True)
    with pytest.raises(SpecError, match=r"\(revision xyz\)"):
        load(trained("words-s", "xyz"))


@pytest.mark.parametrize("policy", [(), ("words-s",), ("words-s", ""), ("copy", "abc")])
def test_weights_are_known_by_revision_and_else_by_name(policy: tuple[str, ...]) -> None:
    check_policy(trained(*policy), POLICY)


def test_prm_is_the_shipped_one_whose_card_names_the_policy(shelf: Path) -> None:
    card(shelf, "words-s", task="words")
    card(shelf, "a-judge", kind="prm", policy={"model": "words-s"})
    card(shelf, "words-s-prm", kind="prm", policy={"model": "words-s", "revision": "abc"})
    card(shelf, "words-s-orm", kind="orm", policy={"model": "words-s"})
    card(shelf, "words-m-prm", kind="prm", policy={"model": "words-m"})
    assert shipped_for("prm", "words-s") == "words-s-prm"
    assert shipped_for("orm", "words-s") == "words-s-orm"
    with pytest.raises(SpecError, match=r"no reviser for policy 'words-s' .* are: none"):
        shipped_for("reviser", "words-s")
    with pytest.raises(SpecError, match=r"no prm for policy 'mine' .*words-s-prm \(for words-s\)"):
        shipped_for("prm", "mine")
    assert {"a-judge", "words-s-prm", "prm", "orm"} <= set(verifier_names())
    with pytest.raises(SpecError, match="was trained for policy 'words-m'"):
        load("words-m-prm")  # before its weights, which are not there, are looked for
    with pytest.raises(ModelLoadError):
        load("words-m-prm(any_policy=true)")
    with pytest.raises(SpecError, match="unknown parameter of words-s-prm 'agregate'"):
        load("words-s-prm(agregate=min)")


@pytest.mark.parametrize("policy", ["words-s", 3, {"revision": "a"}, []])
def test_a_card_whose_policy_cannot_be_read_is_a_model_error(policy: object) -> None:
    with pytest.raises(ModelLoadError, match="a card's policy is"):
        trained_for({"policy": policy})


# A user's own -------------------------------------------------------------------------------


def test_a_file_with_a_function_is_a_verifier(tmp_path: Path) -> None:
    file = tmp_path / "short.py"
    file.write_text(
        "def verifier(branch):\n    return -len(branch.text) if branch.text else None\n"
    )
    found = load(str(file))
    meter = Meter(Ledger(), Purpose.VERIFIER, found.info)
    assert run_virtual(found.score([BRANCH, BRANCH], meter)) == [-1.0, -1.0]
    before = found.info.identity
    file.write_text("def verifier(branch):\n    return 1\n")
    assert load(str(file)).info.identity != before


def test_a_function_that_breaks_is_an_engine_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for body, said in (("1 / 0", "ZeroDivisionError"), ("'high'", "expected a number")):
        file.write_text(f"def verifier(branch):\n    return {body}\n")
        found = load(str(file))
        with pytest.raises(EngineError, match=said):
            run_virtual(found.score([BRANCH], Meter(Ledger(), Purpose.VERIFIER, found.info)))


def test_a_file_with_a_verifier_is_that_verifier(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from mull.verifiers.simulated import SimulatedVerifier\n"
        "verifier = SimulatedVerifier(seed=7)\n"
    )
    assert isinstance(load(str(file)), SimulatedVerifier)
    file.write_text("verifier = 7\n")
    with pytest.raises(SpecError, match="is no verifier: expected info, policy and an async score"):
        load(str(file))
    file.write_text("async def verifier(branch):\n    return 1\n")
    with pytest.raises(UsageError, match="a plain one"):
        load(str(file))


@pytest.mark.parametrize("bases", ["SimulatedVerifier", ""])
def test_a_class_is_no_verifier(tmp_path: Path, bases: str) -> None:
    file = tmp_path / "mine.py"
    head = "from mull.verifiers.simulated import SimulatedVerifier\n"
    file.write_text(f"{head}class Mine({bases}): ...\nverifier = Mine\n")
    said = r"verifier is the class Mine; name an instance: verifier = Mine\(\)"
    with pytest.raises(SpecError, match=rf"mine\.py: {said}"):
        load(str(file))
    with pytest.raises(SpecError, match=r"^verifier is the class SimulatedVerifier"):
        load(SimulatedVerifier)  # type: ignore[arg-type]


def test_an_engine_is_no_verifier() -> None:
    with pytest.raises(SpecError, match="is no verifier"):
        load(SimulatedEngine(StepModel()))  # type: ignore[arg-type]
