"""Bad input is one line on stderr, exit code 2, and nothing written.

The line says what was wrong (the words that each case names), and what to do instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, jsonl, refused, toml

ROW = {"id": "1", "problem": "2 + 2?", "answer": "4", "response": "The answer is 4."}


COMMAND_LINES: list[tuple[list[str], list[str]]] = [
    (["nosuch"], ["nosuch", "--help"]),
    (["solve", "x"], ["--model", "mull solve --help"]),
    (["solve", "x", "--model", "simulated", "--nosuch", "3"], ["--nosuch", "mull solve --help"]),
    (["solve", "x", "--model", "simulated", "--samples", "few"], ["--samples", "integer"]),
    (["solve", "x", "--model", "simulated", "--samples", "1.5"], ["--samples", "integer"]),
    (["solve", "x", "--model", "simulated", "--temperature", "hot"], ["--temperature", "number"]),
    (["run"], ["config", "mull run --help"]),
    (["report"], ["directories", "mull report --help"]),
    (["grade", "x.jsonl"], ["--task", "mull grade --help"]),
    (["select", "x.jsonl"], ["--task", "mull select --help"]),
    (["train", "nosuch"], ["nosuch", "--help"]),
    (["train", "policy", "--task", "words"], ["--out"]),
]

SOLVES: list[tuple[list[str], list[str]]] = [
    (["--model", "nosuch"], ["unknown model 'nosuch'", "http://host:port/v1#model"]),
    (["--model", "./nosuch"], ["./nosuch", "no such directory", "shipped model"]),
    (["--model", "a" * 5000], ["unknown model", "shipped model"]),
    (["--model", ""], ["unknown model ''"]),
    (["--model", "simulated:nosuch"], ["simulated:nosuch", "simulated:echo"]),
    (["--model", "http://127.0.0.1:9/v1"], ["names no model", "http://host:port/v1#model"]),
    (["--model", "http://user:pass@host/v1#m"], ["password", "MULL_API_KEY"]),
    (["--strategy", "voet"], ["unknown strategy 'voet'", "best-of-n", "Did you mean 'vote'"]),
    (["--strategy", "vote(m=3)"], ["'m'", "quorum"]),
    (["--strategy", "vote(n=few)"], ["n='few'", "whole number"]),
    (["--strategy", "vote(n=0)"], ["at least 1"]),
    (["--strategy", "vote(n=-4)"], ["at least 1"]),
    (["--strategy", "vote(quorum=nan)"], ["quorum", "0..1"]),
    (["--strategy", "vote("], ["'vote('", "expected name"]),
    (["--strategy", "vote(n)"], ["vote(n)", "parameter=value"]),
    (["--strategy", "vote(n=1, n=2)"], ["n is given twice"]),
    (["--strategy", "v" * 5000], ["500 characters"]),
    (["--strategy", "nosuch.py"], ["nosuch.py", "no such file"]),
    (
        ["--strategy", "token-beam"],
        ["needs a policy that decodes by token beam", "use another engine"],
    ),
    (["--task", "nosuch"], ["unknown task 'nosuch'", "countdown", "words"]),
    (["--task", "nosuch.py"], ["nosuch.py"]),
    (["--strategy", "vote(n=4)", "--samples", "8"], ["contradicts", "give one of the two"]),
    (["--strategy", "greedy", "--samples", "8"], ["greedy takes one sample", "vote"]),
    (["--samples", "0"], ["budget.samples", "positive", "not 0"]),
    (["--samples", "-3"], ["budget.samples", "positive", "not -3"]),
    (["--tokens", "0"], ["budget.tokens", "positive"]),
    (["--flops", "nan"], ["budget.flops", "positive", "nan"]),
    (["--seconds", "-1"], ["budget.seconds", "positive"]),
    (["--seconds", "inf"], ["budget.seconds", "finite"]),
    (["--cost", "0"], ["budget.cost", "positive"]),
    (["--temperature", "nan"], ["temperature", "0..100", "nan"]),
    (["--temperature", "-1"], ["temperature", "0..100"]),
    (["--top-p", "2"], ["top_p", "(0, 1]"]),
    (["--top-k", "-1"], ["top_k"]),
    (["--min-p", "nan"], ["min_p", "nan"]),
    (["--max-tokens", "0"], ["--max-tokens", "at least 1"]),
    (["--strategy", "greedy", "--temperature", "2"], ["greedy", "draws no samples", "temperature"]),
    (["--strategy", "greedy", "--temperature", "1"], ["greedy", "draws no samples"]),
    (["--strategy", "token-beam", "--top-k", "5"], ["token-beam", "draws no samples", "top-k"]),
    (["--price", "1,2"], ["--price '1,2'", "three amounts, as in 1,0.1,2"]),
    (["--price", "1,2,3", "--option", "price=1,2,3"], ["--price and --option price", "one of the"]),
    (["--option", "price=1,2"], ["engine.price", "a list of 3 numbers"]),
    (["--option", "slotz=3"], ["'slotz'", "slots"]),
    (["--option", "slots"], ["--option 'slots'", "NAME=VALUE"]),
    (["--option", "slots=many"], ["slots", "'many'", "whole number"]),
    (["--option", "slots=1", "--option", "slots=2"], ["--option", "'slots' twice"]),
    (["--option", "model=x"], ["option of the engine", "'model'", "slots"]),
]

FIELDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"stategies": ["vote"]}, ["'stategies'", "did you mean 'strategies'"]),
    ({"name": 3}, ["name = 3", "expected a name"]),
    ({"model": None}, ["model is missing", "name, directory or URL"]),
    ({"strategies": []}, ["strategies", "list of strategies"]),
    ({"strategies": ["vote", "vote"]}, ["strategies", "twice"]),
    ({"strategies": ["nosuch"]}, ["unknown strategy 'nosuch'", "vote"]),
    ({"strategies": ["vote(m=1)"]}, ["'m'", "quorum"]),
    ({"strategies": ["vote(n=3)"]}, ["vote(n=3)", "contradicts", "give one of the two"]),
    ({"strategies": {"vote": 1}}, ["strategies"]),
    ({"samples": "many"}, ["samples = 'many'", "whole number"]),
    ({"samples": 0}, ["samples = 0", "1 or more"]),
    ({"samples": -2}, ["samples = -2", "1 or more"]),
    ({"samples": float("nan")}, ["samples = nan", "whole number"]),
    ({"samples": None, "flops": float("nan")}, ["flops = nan", "above 0"]),
    ({"samples": [1, 2], "tokens": [3, 4]}, ["samples and tokens", "one unit"]),
    ({"temperatures": [float("nan")]}, ["temperatures", "0..100"]),
    ({"temperatures": "hot"}, ["temperatures", "0..100"]),
    ({"top_p": 0.0}, ["top_p", "(0, 1]"]),
    (
        {"strategies": ["greedy"], "temperatures": [0.5, 1.0], "samples": None},
        ["greedy", "draws no samples", "temperature"],
    ),
    ({"seeds": [0.5]}, ["seeds", "whole numbers"]),
    ({"problems": 0}, ["problems = 0", "at least 1"]),
    ({"problems": None}, ["problems is missing"]),
    ({"cost_model": "3P"}, ["cost_model = '3P'", "2P+4LWc"]),
    ({"task": "nosuch"}, ["unknown task 'nosuch'", "words"]),
    ({"task": "text"}, ["text", 'file = "problems.jsonl"']),
    ({"task": "text", "problems": None, "file": "nosuch.jsonl"}, ["nosuch.jsonl"]),
    ({"file": "nosuch.jsonl"}, ["words", "leave out file"]),
    ({"split": "nosuch"}, ["nosuch", "test"]),
    ({"model": "nosuch"}, ["unknown model 'nosuch'"]),
    ({"engine": {"slotz": 3}}, ["'slotz'", "slots"]),
    ({"engine": {"slots": "many"}}, ["slots", "'many'", "whole number"]),
    ({"engine": {"slots": 0}}, ["slots", "at least 1"]),
    ({"engine": {"token_ms": float("nan")}}, ["token_ms", "nan"]),
    ({"model": "http://127.0.0.1:9/v1#m", "engine": {"deadline_s": "x"}}, ["deadline_s", "'x'"]),
    ({"model": "http://127.0.0.1:9/v1#m", "engine": {"nosuch": 1}}, ["nosuch", "deadline_s"]),
]


def case(value: Any) -> str:
    return json.dumps(value)[:60]


@pytest.mark.parametrize(("arguments", "words"), COMMAND_LINES, ids=case)
def test_a_command_line_that_cannot_be(
    arguments: list[str], words: list[str], folder: Path, mull: Mull
) -> None:
    said = refused(folder, mull, *arguments)
    assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize(("arguments", "words"), SOLVES, ids=case)
def test_solve(arguments: list[str], words: list[str], folder: Path, mull: Mull) -> None:
    model = [] if "--model" in arguments else ["--model", "simulated:echo"]
    said = refused(folder, mull, "solve", "2 + 2?", *model, *arguments)
    assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize(("fields", "words"), FIELDS, ids=case)
def test_run(fields: dict[str, Any], words: list[str], folder: Path, mull: Mull) -> None:
    config = toml(folder / "run.toml", **fields)
    said = refused(folder, mull, "run", config, "--out", "made")
    assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize(
    "command",
    [
        ["run", "run.toml"],
        ["report", "."],
        ["arc", "solve", "puzzles.json", "--model", "simulated:echo"],
        ["arc", "evaluate", "simulated:echo", "--puzzles", "puzzles.json"],
        ["train", "policy", "--task", "words"],
    ],
    ids=" ".join,
)
def test_an_empty_place_is_none(command: list[str], folder: Path, mull: Mull) -> None:
    """The shell variable that was not set: nothing goes into the folder where one stands."""
    toml(folder / "run.toml")
    assert "--out is empty" in refused(folder, mull, *command, "--out", "").err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file", "TOML"]),
        (b"x = [", ["no TOML", 'task = "words"']),
        (b"\xff\xfe", ["not UTF-8 at byte 0"]),
        (b'{"name": 1}', ["no TOML"]),
        (b"", ["name is missing"]),
        (b"a = " + b"[" * 5000, ["no TOML"]),
    ],
    ids=["missing", "broken", "not UTF-8", "json", "empty", "deep"],
)
def test_a_file_that_is_no_config(
    content: bytes | None, words: list[str], folder: Path, mull: Mull
) -> None:
    if content is not None:
        (folder / "run.toml").write_bytes(content)
    said = refused(folder, mull, "run", folder / "run.toml")
    assert all(word in said.err for word in words), said.err
    assert "run.toml" in said.err
    refused(folder, mull, "run", folder / "run.toml", "--dry-run")


def test_a_folder_is_no_config(folder: Path, mull: Mull) -> None:
    assert "directory" in refused(folder, mull, "run", folder).err


PROBLEM_FILES: list[tuple[bytes | None, list[str]]] = [
    (None, ["No such file", "readable file"]),
    (b"", ["is empty", "text of a problem"]),
    (b" \n\t\n", ["is empty"]),
    (b"\xff\xfeproblem", ["not UTF-8 at byte 0", "UTF-8 text"]),
    (b"x" * (2**20 + 1), ["1048577 bytes", "at most 1048576"]),
]


@pytest.mark.parametrize(("content", "words"), PROBLEM_FILES, ids=lambda v: case(str(v)[:20]))
def test_problem_files(content: bytes | None, words: list[str], folder: Path, mull: Mull) -> None:
    file = folder / "problem.txt"
    if content is not None:
        file.write_bytes(content)
    said = refused(folder, mull, "solve", "--file", file, "--model", "simulated:echo")
    assert all(word in said.err for word in ["problem.txt", *words]), said.err


@pytest.mark.parametrize("path", [".", "a\0b", "x" * 5000])
def test_a_path_that_is_no_file(path: str, folder: Path, mull: Mull) -> None:
    said = refused(folder, mull, "solve", "--file", path, "--model", "simulated:echo")
    assert "readable file" in said.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["x", "--file", "y"], [""], [" \n "], ["\udcff"]],
    ids=["none", "both", "empty", "blank", "not UTF-8"],
)
def test_a_problem_that_is_none(arguments: list[str], folder: Path, mull: Mull) -> None:
    refused(folder, mull, "solve", *arguments, "--model", "simulated:echo")


JSONL: list[tuple[bytes | None, str]] = [
    (None, "cannot be read"),
    (b"", "is empty"),
    (b"\xff\xfe\n", "UTF-8"),
    (b"[1]\n", "JSON object"),
    (b'{"id": \n', "JSON"),
    (b'{"problem": "' + b"x" * 2**20 + b'"}\n', "longer than"),
]


@pytest.mark.parametrize(("content", "words"), JSONL, ids=lambda value: case(str(value)[:20]))
def test_jsonl_files(content: bytes | None, words: str, folder: Path, mull: Mull) -> None:
    file = folder / "rows.jsonl"
    if content is not None:
        file.write_bytes(content)
    config = toml(folder / "run.toml", task="text", file="rows.jsonl", problems=None)
    commands: list[list[object]] = [
        ["grade", file, "--task", "text"],
        ["grade", file, "--task", "text", "--json"],
        ["select", file, "--task", "text"],
        ["run", config, "--out", "made"],
    ]
    for command in commands:
        if content is None and command[0] == "run":
            continue  # a test of its own names the field
        said = refused(folder, mull, *command)
        assert words in said.err
        assert "rows.jsonl" in said.err


@pytest.mark.parametrize("command", ["grade", "select"])
@pytest.mark.parametrize("missing", ["problem", "response"])
def test_a_missing_field_is_said_with_its_line_before_anything_is_printed(
    command: str, missing: str, folder: Path, mull: Mull
) -> None:
    broken = {name: value for name, value in ROW.items() if name != missing}
    file = jsonl(folder / "rows.jsonl", ROW, {**ROW, "id": "2"}, {**broken, "id": "3"})
    said = refused(folder, mull, command, file, "--task", "text", "--json")
    assert "rows.jsonl:3: " in said.err
    assert missing in said.err


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nosuch", ["nosuch", "majority", "weighted"]),
        ("weighted", ["weighted needs score", "weighted(score="]),
        ("weighted(score=orm)", ["orm", "at hand: prm"]),
        ("best(x=3)", ["'x'", "score"]),
        ("filter-vote(score=prm, threshold=high)", ["threshold"]),
        ("majority(", ["expected name"]),
    ],
)
def test_select_by_what_is_not_there(spec: str, words: list[str], folder: Path, mull: Mull) -> None:
    file = jsonl(folder / "rows.jsonl", {**ROW, "scores": {"prm": 0.5}})
    said = refused(folder, mull, "select", file, "--task", "text", "--select", spec)
    assert all(word in said.err for word in words), said.err


@pytest.mark.parametrize("scores", [3, {"prm": "high"}, {"prm": True}])
def test_scores_that_are_no_numbers(scores: Any, folder: Path, mull: Mull) -> None:
    file = jsonl(folder / "rows.jsonl", {**ROW, "scores": scores})
    assert "number" in refused(folder, mull, "select", file, "--task", "text").err


@pytest.mark.parametrize("command", ["grade", "select"])
def test_an_unknown_task(command: str, folder: Path, mull: Mull) -> None:
    file = jsonl(folder / "rows.jsonl", ROW)
    assert "gsm8k" in refused(folder, mull, command, file, "--task", "nosuch").err


def test_report_of_what_is_no_run(folder: Path, mull: Mull) -> None:
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "other").mkdir()
    (folder / "other" / "run.db").write_bytes(b"this is no database" * 100)
    for place in ("empty", "file", "nosuch", "other"):
        said = refused(folder, mull, "report", place)
        assert place in said.err
    refused(folder, mull, "report", "empty", "--out", "made")


def test_report_into_a_file(folder: Path, mull: Mull) -> None:
    assert mull("run", toml(folder / "run.toml"), "--out", "made").code == 0
    (folder / "file").write_text("x")
    said = refused(folder, mull, "report", "made", "--out", "file")
    assert "file" in said.err


def test_what_is_said_of_bad_input_is_escaped(folder: Path, mull: Mull) -> None:
    said = refused(folder, mull, "solve", "x", "--model", "\x1b]0;title\x07\u202e\nmodel")
    assert "\x1b" not in said.err
    assert "\x07" not in said.err
    assert "\u202e" not in said.err
