"""Commands on an endpoint that gives little: said, refused before work, or done without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, jsonl, refused, toml
from tests.cli.endpoint import Endpoint, serving

ROWS = [{"id": "1", "problem": "2 + 2?", "answer": "4"}]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as there:
        yield there


def config(folder: Path, endpoint: Endpoint, *strategies: str, **fields: Any) -> Path:
    """A run of one text problem on the endpoint."""
    file = jsonl(folder / "problems.jsonl", *ROWS)
    given = {"task": "text", "file": str(file), "problems": None, "strategies": [*strategies]}
    return toml(folder / "run.toml", model=endpoint.model, **{**given, **fields})


def test_without_log_probabilities_the_majority_answers_and_each_is_a_failure(
    folder: Path, mull: Mull, endpoint: Endpoint
) -> None:
    command = ["solve", "2 + 2?", "--model", endpoint.model, "--strategy", "best-of-n"]
    said = mull(*command, "--samples", "3", "--json")
    assert (said.code, said.json["answer"], said.json["samples"]) == (3, "4", 3)
    assert [each["error"] for each in said.json["failures"]] == ["ScoreError"] * 3
    assert "without log-probabilities" in said.json["failures"][0]["message"]
    both = config(folder, endpoint, "vote", "best-of-n", samples=2)
    said = mull("run", both, "--out", "both")
    assert said.code == 3
    assert "best-of-n" in said.out


@pytest.mark.parametrize(
    "strategy",
    [
        "beam(verifier=mean-logprob)",
        "tot(verifier=mean-logprob)",
        "speculative-rejection(verifier=mean-logprob)",
        "budget-forcing",
    ],
)
def test_what_goes_on_with_a_turn_is_refused_where_nobody_knows_how(
    strategy: str, folder: Path, mull: Mull, endpoint: Endpoint
) -> None:
    path = config(folder, endpoint, strategy, samples=4)
    for command in (
        ["solve", "2 + 2?", "--model", endpoint.model, "--strategy", strategy, "--samples", "4"],
        ["run", path, "--out", "made", "--dry-run"],
        ["run", path, "--out", "made"],
    ):
        said = refused(folder, mull, *command)
        assert strategy.partition("(")[0] in said.err
        assert "dialect=vllm or continuation=prefix" in said.err
    assert endpoint.asked == []


def test_what_nobody_counted_is_called_estimated_and_what_nobody_knows_unknown(
    mull: Mull, endpoint: Endpoint
) -> None:
    command = ["solve", "2 + 2?", "--model", endpoint.model, "--samples", "2"]
    counted = mull(*command)
    assert "24 tokens generated, 18 read · FLOPs unknown · " in counted.out
    endpoint.usage = None
    guessed = mull(*command, "--option", "parameters=1000")
    assert "read (partly estimated: the endpoint did not say) · " in guessed.out
    assert "FLOPs unknown" not in guessed.out


def test_what_an_endpoint_did_besides_answering_is_told(
    folder: Path, mull: Mull, endpoint: Endpoint
) -> None:
    endpoint.usage = None
    said = "answers without usage, whose tokens are estimates: 2"
    ended = mull("solve", "2 + 2?", "--model", endpoint.model, "--samples", "2")
    assert f"mull: {endpoint.model}: {said}" in ended.err
    ran = mull("run", str(config(folder, endpoint, "vote", samples=2)), "--out", "made")
    assert f"{endpoint.model}: {said}" in ran.out


def test_a_dry_run_says_nothing_of_flops_and_money_that_nobody_knows(
    folder: Path, mull: Mull, endpoint: Endpoint
) -> None:
    path = config(folder, endpoint, "vote", samples=2)
    said = mull("run", path, "--dry-run")
    assert re.search(r"FLOPs \(2P\+4LWc\) +unknown", said.out)
    assert re.search(r"cost +unknown", said.out)


@pytest.mark.parametrize("option", ["dialect=vllm", "continuation=prefix"])
def test_options_of_the_engine_reach_it(option: str, mull: Mull, endpoint: Endpoint) -> None:
    beam = "beam(verifier=mean-logprob, select=majority)"
    command = ["solve", "2 + 2?", "--model", endpoint.model, "--strategy", beam, "--samples", "4"]
    said = mull(*command, "--option", option, "--option", "slots=2")
    assert "needs a policy" not in said.err
    assert endpoint.asked


def test_an_answer_that_is_no_json_is_called_that(mull: Mull, endpoint: Endpoint) -> None:
    endpoint.body = b"<html>\n"
    said = mull("solve", "x", "--model", endpoint.model, "--samples", "1")
    assert said.code == 3
    assert "is no JSON" in said.out
    assert len(endpoint.asked) == 1, "it was whole: to ask again is in vain"


def test_the_problem_that_lacks_a_score_is_named(folder: Path, mull: Mull) -> None:
    row = {"problem": "2 + 2?", "response": "4"}
    scored = {**row, "scores": {"prm": 0.5}}
    file = jsonl(folder / "rows.jsonl", {**scored, "id": "a"}, {**row, "id": "b"})
    said = refused(folder, mull, "select", file, "--task", "text", "--select", "best(score=prm)")
    assert "rows.jsonl: problem 'b': " in said.err
