"""What commands print: tables that escape what a model wrote, JSON whose keys stay, exit codes."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, jsonl, parse, refused, toml

from mull import __version__
from mull.cli.main import app

ROW = {"id": "1", "problem": "2 + 2?", "answer": "4", "response": "The answer is 4."}
HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2028\r\x00[bold]"
COMMANDS = ["solve", "run", "report", "select", "grade", "models", "strategies", "verifiers"]
COMMANDS += ["tasks", "bench"]


def obeyed(text: str) -> list[str]:
    """Characters of a text that a terminal would act on."""
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in bad]


@pytest.fixture
def hostile(folder: Path) -> Path:
    """A task whose every answer is hostile text."""
    file = folder / "task.py"
    file.write_text(f"def extract(text):\n    return {HOSTILE!r}\n", encoding="utf-8")
    return file


class Refusing(BaseHTTPRequestHandler):
    """An endpoint that takes no request, and whose only model is ``m``."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with suppress(ConnectionError):  # whoever asked has given up
            self.send_response(400 if asked["model"] == "m" else 404)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "not this"}}')

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """A model at an endpoint that refuses every request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1#m"
        server.shutdown()
        thread.join()


# Help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [[], *([name] for name in COMMANDS), ["train", "policy"], ["arc", "symbols"]]
)
def test_help_is_readable(command: list[str], mull: Mull) -> None:
    said = mull(*command, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(" ".join(["Usage: mull", *command]))
    assert max(map(len, said.out.splitlines())) <= 100
    assert not re.search(r"``|:class:|None", said.out)
    for name in re.findall(r"^  (--[\w-]+)", said.out, re.M):
        assert re.search(rf"^  {name}[^\n]*?  +\S", said.out, re.M), f"{name} says nothing"


def test_without_a_command_there_is_help(mull: Mull) -> None:
    for command in ([], ["train"], ["arc"]):
        said = mull(*command)
        assert said.code == 0
        assert said.out == mull(*command, "--help").out
    listed = re.findall(r"^  (\w+)  ", mull().out.partition("Commands:")[2], re.M)
    assert listed == [*COMMANDS, "train", "arc"]


def test_every_command_says_what_it_does() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert (command.callback.__doc__ or "").count("\n") == 0


# JSON ---------------------------------------------------------------------------------------

SOLUTION = {
    "answer": str,
    "confidence": float,
    "ended": str,
    "samples": int,
    "seconds": float,
    "spent": dict,
    "failures": list,
}
SPENT = {
    "prompt_tokens": int,
    "cached_tokens": int,
    "generated_tokens": int,
    "flops": type(None),
    "slot_seconds": float,
    "cost": type(None),
    "estimated": bool,
}
CANDIDATE = {
    "answer": str,
    "unanswered": type(None),
    "stop": str,
    "tokens": int,
    "scores": dict,
    "text": str,
}


def shape(value: dict[str, Any]) -> dict[str, type]:
    return {name: type(each) for name, each in value.items()}


def test_solve_json_has_these_keys(mull: Mull) -> None:
    options = ["--model", "simulated:echo", "--samples", "3", "--json"]
    said = mull("solve", "2 + 2?", *options)
    assert (said.code, said.err) == (0, "")
    assert shape(said.json) == SOLUTION
    assert shape(said.json["spent"]) == SPENT
    assert (said.json["answer"], said.json["samples"]) == ("1", 3)
    sized = mull("solve", "2 + 2?", *options, "--option", "parameters=1000", "--price", "1,1,1")
    assert shape(sized.json["spent"]) == {**SPENT, "flops": float, "cost": float}
    traced = mull("solve", "2 + 2?", *options, "--trace")
    assert shape(traced.json) == {**SOLUTION, "candidates": list}
    assert [shape(each) for each in traced.json["candidates"]] == [CANDIDATE] * 3


def test_solve_reads_standard_input(mull: Mull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("zwölf?\n".encode())))
    said = mull("solve", "--file", "-", "--model", "simulated:echo", "--json")
    assert said.json["answer"] == "1"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    said = mull("solve", "--file", "-", "--model", "simulated:echo", "--json")
    assert said.code == 2
    assert "is empty" in said.err


def test_a_file_and_its_text_are_the_same_problem(folder: Path, mull: Mull) -> None:
    (folder / "problem.txt").write_text("2 + 2?\n", encoding="utf-8")
    options = ["--model", "simulated", "--samples", "4", "--trace", "--json"]

    def texts(*problem: object) -> list[str]:
        return [each["text"] for each in mull("solve", *problem, *options).json["candidates"]]

    assert texts("--file", folder / "problem.txt") == texts("2 + 2?")
    assert texts("2 + 2?", "--seed", "1") != texts("2 + 2?", "--seed", "2")


def test_a_long_answer_stays_on_its_line(folder: Path, mull: Mull) -> None:
    long = " ".join(["word"] * 60)
    (folder / "long.py").write_text(f"def extract(text):\n    return {long!r}\n")
    said = mull("solve", "say", "--model", "simulated", "--task", "long.py", "--price", "1,0.1,2")
    answer, status = said.out.splitlines()
    assert answer == long
    assert " · cost " in status


def test_a_longest_solution_still_ends_where_the_task_says(folder: Path, mull: Mull) -> None:
    (folder / "short.py").write_text("def extract(text): return text\nstop = [' 1']\n")
    asked = ("solve", "Hi.", "--model", "simulated:echo", "--task", "short.py", "--json", "--trace")
    for more in ((), ("--max-tokens", 30)):
        (candidate,) = mull(*asked, "--strategy", "greedy", *more).json["candidates"]
        assert (candidate["answer"], candidate["stop"]) == ("answer:", "stop"), more


def test_no_answer_has_its_reasons(mull: Mull) -> None:
    said = mull("solve", "2 + 2?", "--model", "simulated", "--task", "json", "--samples", 3)
    assert said.out.splitlines()[0] == "no answer"
    assert said.out.splitlines()[2].startswith("unanswered: 3 × ")


@pytest.mark.parametrize("command", ["models", "strategies", "verifiers", "tasks"])
def test_no_name_is_cut_off_in_a_narrow_terminal(
    command: str, mull: Mull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    names = mull(command, "--json").json
    said = mull(command).out
    assert "…" not in said.replace("attempt, …;", "")
    assert {line.split()[0] for line in said.splitlines() if line[1:2].strip()} >= set(names)


def test_listings_in_json(mull: Mull) -> None:
    strategies = mull("strategies", "--json").json
    assert {"greedy", "sample", "vote", "best-of-n", "token-beam"} <= set(strategies)
    assert all(set(each) == {"about", "parameters"} for each in strategies.values())
    assert strategies["vote"]["parameters"]["confidence"] == 0.95
    tasks = mull("tasks", "--json").json
    assert {"words", "countdown", "gsm8k", "math", "text", "choice", "json"} <= set(tasks)
    assert all(isinstance(each, dict) for each in mull("models", "--json").json.values())
    for command in ("strategies", "tasks", "models"):
        assert mull(command).code == 0


def test_grade_json_has_these_keys(folder: Path, mull: Mull) -> None:
    rows = [
        ROW,
        {**ROW, "id": "2", "response": "The answer is 5."},
        {**ROW, "id": "3", "response": " "},
        {"id": "4", "problem": "3 + 3?", "response": "The answer is 6."},
    ]
    said = mull("grade", jsonl(folder / "rows.jsonl", *rows), "--task", "gsm8k", "--json")
    assert said.code == 0
    assert said.rows == [
        {"id": "1", "correct": True, "answer": "4", "outcome": "correct"},
        {"id": "2", "correct": False, "answer": "5", "outcome": "wrong"},
        {
            "id": "3",
            "correct": False,
            "answer": None,
            "outcome": "unanswered",
            "unanswered": "empty",
        },
        {"id": "4", "correct": None, "answer": "6", "outcome": "ungraded"},
    ]
    table = mull("grade", folder / "rows.jsonl", "--task", "gsm8k").out
    assert "accuracy 33.3" in table
    assert "unanswered: empty" in table


def test_the_unit_of_an_accuracy_is_the_problem(folder: Path, mull: Mull) -> None:
    """Ten responses to one problem are no ten problems: they make nothing surer."""
    once = [ROW, {**ROW, "id": "2", "response": "The answer is 5."}]
    often = [{**row, "response": row["response"]} for row in once for _ in range(10)]
    unnamed = [{**row, "id": None, "problem": f"{row['id']}?"} for row in often]
    said = [
        mull("grade", jsonl(folder / "rows.jsonl", *rows), "--task", "gsm8k").out
        for rows in (once, often, unnamed)
    ]
    assert "accuracy 50.0 [9.5, 90.5] over 2 problems with 2 graded responses" in said[0]
    assert "accuracy 50.0 [9.5, 90.5] over 2 problems with 20 graded responses" in said[1]
    assert said[2] == said[1]


def test_select_json_has_these_keys(folder: Path, mull: Mull) -> None:
    rows = [{**ROW, "response": f"The answer is {n}."} for n in (5, 4, 4)]
    said = mull("select", jsonl(folder / "rows.jsonl", *rows), "--task", "gsm8k", "--json")
    assert said.json == {
        "id": "1",
        "answer": "4",
        "confidence": 0.6667,
        "votes": [["4", 2], ["5", 1]],
        "responses": 3,
        "correct": True,
    }
    assert "accuracy 100.0" in mull("select", folder / "rows.jsonl", "--task", "gsm8k").out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"answer": "5"}, "r.jsonl:2: answer (gold) '5' contradicts '4'"),
        ({"problem": "3 + 3?"}, "r.jsonl:2: id '1' was another problem before"),
    ],
)
def test_rows_of_one_problem_must_agree(
    folder: Path, mull: Mull, other: dict[str, str], message: str
) -> None:
    jsonl(folder / "r.jsonl", ROW, {**ROW, **other})
    said = refused(folder, mull, "select", "r.jsonl", "--task", "gsm8k")
    assert message in said.err


def test_any_row_may_bring_the_gold_of_its_problem(folder: Path, mull: Mull) -> None:
    jsonl(folder / "r.jsonl", {**ROW, "answer": None}, ROW)
    assert mull("select", "r.jsonl", "--task", "gsm8k", "--json").json["correct"] is True


def test_select_weighs_by_a_logit_about_a_neutral_score(folder: Path, mull: Mull) -> None:
    """Three scores of .4 lose to one of .6 unless .4 speaks for its answer as well."""
    given = [(5, 0.4), (5, 0.4), (5, 0.4), (4, 0.6)]
    rows = [{**ROW, "response": f"The answer is {n}.", "scores": {"prm": s}} for n, s in given]
    file = jsonl(folder / "rows.jsonl", *rows)
    logit = "score=prm, transform=logit"
    for how, answer in (("score=prm", "5"), (logit, "4"), (f"{logit}, neutral=0.2", "5")):
        said = mull("select", file, "--task", "gsm8k", "--select", f"weighted({how})", "--json")
        assert said.json["answer"] == answer
        assert 0 <= said.json["confidence"] <= 1


# Hostile text -------------------------------------------------------------------------------


def test_a_hostile_answer_is_shown_and_not_obeyed(hostile: Path, mull: Mull) -> None:
    command = ["solve", "x", "--model", "simulated:echo", "--task", hostile, "--samples", "2"]
    for options in ([], ["--trace"], ["--json"], ["--json", "--trace"]):
        said = mull(*command, *options)
        assert said.code == 0
        assert not obeyed(said.out + said.err)
        assert "[bold]" in said.out
    assert mull(*command, "--json").json["answer"] == HOSTILE


def test_hostile_rows_are_shown_and_not_obeyed(hostile: Path, folder: Path, mull: Mull) -> None:
    file = jsonl(folder / "rows.jsonl", {**ROW, "id": HOSTILE}, {**ROW, "id": "\ud800"})
    for command in ("grade", "select"):
        for options in ([], ["--json"]):
            said = mull(command, file, "--task", hostile, *options)
            assert said.code == 0
            assert not obeyed(said.out + said.err)
        assert [row["id"] for row in said.rows] == [HOSTILE, "\ud800"]


def test_json_has_no_word_for_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    from mull.cli.options import print_json

    print_json({"a": [float("inf"), {"b": float("nan")}], "c": (1.5, HOSTILE)})
    line = capsys.readouterr().out
    assert parse(line) == {"a": [None, {"b": None}], "c": [1.5, HOSTILE]}
    assert not obeyed(line)


# Exit codes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_run_and_its_report(folder: Path, mull: Mull) -> None:
    config = toml(folder / "run.toml")
    said = mull("run", config)
    assert said.code == 0
    assert "run: runs/small" in said.out
    assert mull("run", config).out == said.out  # resumed: nothing left to do, the same table
    changed = mull("run", toml(folder / "run.toml", samples=4))
    assert changed.code == 2
    assert "samples" in changed.err
    report = mull("report", "runs/small")
    assert (report.code, report.err) == (0, "")
    assert (folder / "runs/small/report/report.html").stat().st_size > 10_000


def test_a_dry_run_writes_nothing(folder: Path, mull: Mull) -> None:
    config = toml(folder / "run.toml", problems=20, strategies=["vote", "sample"])
    said = mull("run", config, "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"samples, shared ones once +40\b", said.out)
    assert list(folder.iterdir()) == [config]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_failed_samples_are_exit_code_3(folder: Path, mull: Mull, refusing: str) -> None:
    said = mull("run", toml(folder / "run.toml", model=refusing))
    assert said.code == 3
    # Why, and not only how often: a second run would meet the same.
    assert re.search(r"failed: 4 × EndpointError, as in: HTTP 400 from .*not this", said.out)
    assert "2 results have failures; mend their cause, or run again to retry" in said.out
    assert said.out.count("failed: ") == 1


def test_a_model_that_is_not_there_is_bad_usage(folder: Path, mull: Mull, refusing: str) -> None:
    """As a wrong key is: no sample of any problem could come, and the folder is left as it was."""
    config = toml(folder / "run.toml", model=f"{refusing}-typo")
    for command in (
        ["run", config, "--out", "runs/made"],
        ["solve", "x", "--model", f"{refusing}-typo"],
    ):
        said = refused(folder, mull, *command)
        assert "HTTP 404" in said.err
        assert "check the model's name" in said.err


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_graders_that_broke_are_exit_code_3(folder: Path, mull: Mull) -> None:
    said = mull("grade", _bomb(folder), "--task", "math", "--json")
    assert said.code == 3
    assert [row["outcome"] for row in said.rows] == ["correct", "grader_timeout"]
    assert said.rows[1]["correct"] is None


def test_a_run_whose_grader_broke_has_no_accuracy_and_says_why(folder: Path, mull: Mull) -> None:
    (folder / "odd.py").write_text("def grade(answer, gold):\n    raise ValueError('x')\n")
    jsonl(folder / "p.jsonl", *({"problem": f"{n}?", "answer": str(n)} for n in (1, 2)))
    config = toml(folder / "run.toml", task="./odd.py", file="p.jsonl", problems=None)
    said = mull("run", config)
    assert said.code == 3
    assert "0.0 [" not in said.out
    assert re.search(r"grader_error +2 +4 +0\b", said.out)
    broke = r"no verdict: 2 × grader_error, as in: .*odd\.py: grade: ValueError: x\n"
    assert re.search(broke, said.out)
    again = mull("run", config)
    assert (again.code, again.out) == (3, said.out)


def test_what_broke_a_grader_is_said_and_no_verdict_is_made_of_it(folder: Path, mull: Mull) -> None:
    (folder / "odd.py").write_text(
        "def grade(answer, gold):\n    return 'no' if answer == '5' else answer == gold\n"
    )
    rows = [{**ROW, "id": str(n), "response": str(n)} for n in (3, 4, 5)]
    command = ["grade", jsonl(folder / "rows.jsonl", *rows), "--task", "odd.py"]
    said = mull(*command)
    broke = (
        "no verdict: 1 × grader_error, as in: odd.py: grade must return a bool or None, not 'no'"
    )
    assert (said.code, said.err) == (3, f"mull: {broke}\n")
    assert "accuracy 50.0 [9.5, 90.5] over 2 problems with 2 graded" in said.out
    said = mull(*command, "--json")
    assert (said.code, said.err) == (3, f"mull: {broke}\n")
    assert [row["correct"] for row in said.rows] == [False, True, None]
    said = mull("select", folder / "rows.jsonl", "--task", "odd.py")
    assert (said.code, said.err) == (3, f"mull: {broke}\n")
    jsonl(folder / "rows.jsonl", rows[2])
    said = mull(*command)
    assert "no response could be graded: no verdict came" in said.out
    assert "gold" not in said.out
    jsonl(folder / "rows.jsonl", {**ROW, "answer": None})
    assert "the rows have no gold answers" in mull(*command).out


def test_equal_failures_are_said_once(mull: Mull, refusing: str) -> None:
    said = mull("solve", "x", "--model", refusing, "--strategy", "vote(n=4)")
    assert said.code == 3
    assert said.out.count("failed: ") == 1
    assert "failed: 4 × EndpointError" in said.out
    judged = ["solve", "x", "--model", "simulated", "--strategy", "filter-vote(n=4)"]
    said = mull(*judged, "--engine", "judge=simulated")
    assert said.code == 3
    assert said.out.count("failed: ") == 1, "of one type, in several words"
    assert "failed: 4 × NoVerdict" in said.out
    said = mull("solve", "x", "--model", refusing, "--strategy", "vote(n=4)", "--json")
    assert (said.code, said.json["answer"]) == (3, None)
    assert [each["error"] for each in said.json["failures"]] == ["EndpointError"] * 4


def _bomb(folder: Path) -> Path:
    pytest.importorskip("math_verify")
    rows = [
        {**ROW, "answer": "4", "response": "\\boxed{4}"},
        {**ROW, "id": "2", "answer": "7", "response": "\\boxed{9^{9^{9^{9}}}}"},
    ]
    return jsonl(folder / "rows.jsonl", *rows)


def test_json_on_one_line_is_all_that_is_on_stdout(folder: Path, mull: Mull) -> None:
    said = mull("solve", "x\ny", "--model", "simulated:echo", "--json")
    assert json.loads(said.out)["answer"] == "1"
    assert said.out.count("\n") == 1


def test_the_version_is_said(mull: Mull) -> None:
    assert mull("--version").out == f"mull {__version__}\n"


def test_a_budget_that_was_passed_is_said_with_the_amount(mull: Mull) -> None:
    ask = ("solve", "2 + 2?", "--model", "simulated", "--strategy", "vote(n=8)", "--json")
    within = mull(*ask, "--tokens", "100000")
    assert (within.code, within.err) == (0, "")
    passed = mull(*ask, "--tokens", "100")
    spent = json.loads(passed.out)["spent"]["generated_tokens"]
    assert passed.code == 0
    assert f"over the budget by {spent - 100:,} tokens" in passed.err
