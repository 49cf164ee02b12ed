"""`mull train prm | orm | revision`: a run's records to a model on disk, from the command line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.command import Mull, refused, toml

from mull.catalog import load_engine, load_task, load_verifier
from mull.verifiers.reward import RewardVerifier

pytestmark = pytest.mark.timeout(120)

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SHOWN = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0]
CONFIG = re.sub(r"problems = \d+", "problems = 24", SHOWN)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mull.runs import load_config, run

    folder = tmp_path_factory.mktemp("run")
    (folder / "samples.toml").write_text(CONFIG)
    run(load_config(folder / "samples.toml"), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def chains_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mull.runs import load_config, run

    folder = tmp_path_factory.mktemp("chains")
    config = CONFIG.replace('"sample"', '"revise(chains=2, select=majority)"')
    (folder / "chains.toml").write_text(config.replace("samples = 4", "samples = 8"))
    run(load_config(folder / "chains.toml"), folder / "out")
    return folder / "out"


@pytest.mark.slow
def test_recorded_chains_become_a_reviser_that_revises(mull: Mull, chains_folder: Path) -> None:
    where = ("--run", str(chains_folder), "--out", "m", "--tokens", "3000")
    said = mull("train", "revision", "--source", "turns", "--most", "2", *where)
    assert said.code == 0, said.err
    made = json.loads(Path("m/trained.json").read_text())
    assert (made["source"], made["most"]) == ("turns", 2)
    assert made["examples"] > 10
    solve = ("--model", "words-s", "--engine", "reviser=./m", "--samples", "3", "--json")
    said = mull(
        "solve",
        "In stock: cups 3, pens are 2 more than cups. How many pens are there?",
        *solve,
        "--strategy",
        "revise(select=majority)",
    )
    assert said.code == 0, said.err


@pytest.mark.slow
def test_an_orm_of_chains_sees_the_attempts_before_and_its_card_says_so(
    mull: Mull, chains_folder: Path
) -> None:
    where = ("--run", str(chains_folder), "--out", "m", "--tokens", "3000")
    said = mull("train", "orm", "--history", *where)
    assert said.code == 0, said.err
    assert json.loads(Path("m/card.json").read_text())["history"] is True
    policy = replace(load_engine("words-s").info, revision="")
    for spec, sees in (("./m", True), ("./m(history=false)", False), ("words-s-orm", False)):
        verifier = load_verifier(spec, task=load_task("words"), policy=policy, any_policy=True)
        assert isinstance(verifier, RewardVerifier)
        assert verifier.history is sees
    engine = load_engine("./m")
    assert engine.info.context == 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("prm", "--labels", "exact"), "prm"),
        (("prm", "--rollouts", "2"), "prm"),
        (("orm",), "orm"),
        (("revision", "--pairing", "random"), "reviser"),
    ],
)
def test_a_run_becomes_a_model_which_no_other_overwrites(
    mull: Mull, folder: Path, run_folder: Path, command: tuple[str, ...], kind: str
) -> None:
    said = mull("train", *command, "--run", str(run_folder), "--out", "m", "--tokens", "3000")
    assert said.code == 0, said.err
    assert "parameters" in said.out
    assert json.loads(Path("m/card.json").read_text())["kind"] == kind
    said = refused(folder, mull, "train", "orm", "--run", str(run_folder), "--out", "m")
    assert "--out m holds a finished model (model.safetensors)" in said.err


@pytest.mark.slow
def test_the_record_has_what_was_asked_for_and_the_base_s_size(
    mull: Mull, run_folder: Path
) -> None:
    given = {
        "batch_tokens": 512,
        "matrix_rate": 2e-4,
        "precision": "bfloat16",
        "checks": 2,
        "patience": 1,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    where = ("--run", str(run_folder), "--base", "words-l", "--out", "m", "--tokens", "1000")
    said = mull("train", "orm", *where, *options)
    assert said.code == 0, said.err
    recipe = json.loads(Path("m/card.json").read_text())["recipe"]
    assert given.items() <= recipe.items()
    assert (recipe["base"], recipe["size"], recipe["rate"]) == ("words-l", "l", 1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prm", "--labels", "vague"), "expected soft, hard, search or exact"),
        (("prm", "--labels", "search", "--share", "0.5"), "share=0.5: labels=search takes all"),
        (("prm", "--labels", "exact", "--share", "0.5"), "share=0.5: labels=exact takes all"),
        (("prm", "--labels", "exact", "--rollouts", "4"), "rollouts=4: labels=exact makes none"),
        (("revision", "--source", "air"), "expected one of samples, turns"),
        (("revision", "--source", "turns", "--keep", "0.5"), "keep=0.5: source=turns takes"),
        (("revision", "--source", "turns", "--pairing", "random"), "pairing=random: source=turns"),
        (("revision", "--pairing", "far"), "expected nearest or random"),
        (("orm", "--run", "nowhere"), "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(mull: Mull, arguments: tuple[str, ...], message: str) -> None:
    given = arguments if "--run" in arguments else (*arguments, "--run", "r")
    said = mull("train", *given, "--out", "m")
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not Path("m").exists()


@pytest.mark.parametrize("command", ["prm", "orm", "revision"])
def test_a_policy_without_weights_is_named_as_that_of_the_run(
    command: str, mull: Mull, folder: Path
) -> None:
    config = toml(folder / "run.toml", model="simulated", strategies=["sample"])
    assert mull("run", config, "--out", "made").code == 0
    said = refused(folder, mull, "train", command, "--run", "made", "--out", "m")
    assert "made: the policy of this run, simulated:simulated, has no weights here" in said.err
