"""Configs: natural to write, frozen, and one line for whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mull.budget import Budget
from mull.errors import ConfigError
from mull.runs.config import Config, load_config, make_config

BASE: dict[str, Any] = {"name": "x", "task": "words", "model": "m", "strategies": ["vote"]}

EXAMPLE = """
name = "words-vote"
task = "words"
split = "test"
problems = 2000
model = "words-s"
strategies = ["sample", "vote"]
samples = 64
temperatures = [1.0]
seeds = [0]

[engine]
slots = 32
"""


def test_the_example_reads_as_it_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(EXAMPLE)
    config = load_config(path)
    assert config.budgets == (Budget(samples=64),)
    assert config.strategies == ("sample", "vote")
    assert config.engine == {"slots": 32}
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


def test_one_value_stands_for_a_list_of_one() -> None:
    one = make_config({**BASE, "strategies": "vote", "temperatures": 0.5, "samples": 8})
    many = make_config({**BASE, "strategies": ["vote"], "temperatures": [0.5], "samples": [8]})
    assert one == many


def test_one_unit_is_swept_and_the_others_hold() -> None:
    config = make_config({**BASE, "samples": [4, 8], "tokens": 1000})
    assert config.budgets == (Budget(samples=4, tokens=1000), Budget(samples=8, tokens=1000))
    assert make_config(BASE).budgets == (None,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stategies": 1}, "unknown field 'stategies'; did you mean 'strategies'? the fields are"),
        ({"samples": "x"}, "samples = 'x' is not valid; expected a whole number of samples"),
        ({"samples": 0}, "samples = 0 is not valid"),
        ({"samples": -3}, "samples = -3 is not valid"),
        ({"samples": []}, "samples = "),
        ({"samples": 1.5}, "samples = 1.5 is not valid"),
        ({"samples": True}, "samples = True is not valid"),
        ({"tokens": 10**400}, "tokens = 1000"),
        ({"flops": float("inf")}, "flops = inf is not valid"),
        ({"seconds": float("nan")}, "seconds = nan is not valid"),
        ({"samples": [1, 2], "tokens": [3, 4]}, "samples and tokens both list several values"),
        ({"temperatures": [float("nan")]}, "expected a list of numbers in 0..100"),
        ({"temperatures": -1}, "expected a list of numbers in 0..100"),
        ({"top_p": 0}, "top_p = 0 is not valid; expected a number in (0, 1]"),
        ({"seeds": [1, 1]}, "seeds lists a value twice"),
        ({"cost_model": "z"}, "cost_model = 'z' is not valid; expected one of 2P+4LWc, 2P"),
        ({"engine": {"slots": [1]}}, "engine.slots"),
        ({"strategies": []}, "expected a list of strategies"),
        ({"name": ""}, "name = '' is not valid; expected a name"),
        ({"problems": 0}, "problems = 0 is not valid; expected a number of problems, at least 1"),
        ({"max_tokens": 0}, "max_tokens = 0 is not valid"),
        ({"model": None}, "model = None is not valid; expected a model's name"),
    ],
)
def test_a_bad_field_is_named_with_what_was_expected(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({**BASE, **fields}, "run.toml")
    message = str(caught.value)
    assert message.startswith("run.toml: ") and said in message and "\n" not in message


@pytest.mark.parametrize("name", ["name", "task", "model", "strategies"])
def test_a_missing_field_is_named(name: str) -> None:
    fields = {key: value for key, value in BASE.items() if key != name}
    with pytest.raises(ConfigError, match=f"{name} is missing; expected"):
        make_config(fields)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "no TOML"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"", "name is missing"),
        (b"a = " + b"[" * 5000, "no TOML"),
    ],
)
def test_a_file_that_is_no_config_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_config(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml")


def test_paths_are_taken_from_the_configs_own_folder_and_do_not_identify_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.jsonl").touch()
    text = 'name = "x"\ntask = "gsm8k"\nmodel = "m"\nstrategies = "vote"\nfile = "data.jsonl"\n'
    (tmp_path / "run.toml").write_text(text)
    config = load_config(tmp_path / "run.toml")
    assert config.file is not None and Path(config.file).is_absolute()
    monkeypatch.chdir(tmp_path)
    assert load_config("run.toml").portable == config.portable
    assert config.portable["file"] == "data.jsonl"


def test_every_field_says_what_it_expects() -> None:
    assert all(field.description for field in Config.model_fields.values())
