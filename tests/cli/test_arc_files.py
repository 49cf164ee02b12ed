"""`mull arc score`, `vote`, `combine`, `concatenate`: files in, files and scores out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Mull, refused

A, B, C = [[1]], [[2]], [[3]]
PUZZLES = {
    "p": {"train": [{"input": A, "output": B}], "test": [{"input": A, "output": B}] * 2},
    "q": {"train": [{"input": A, "output": B}], "test": [{"input": C, "output": C}]},
}


@pytest.fixture(autouse=True)
def puzzles(folder: Path) -> None:
    write("puzzles.json", PUZZLES)


def write(name: str, value: Any) -> str:
    Path(name).write_text(value if isinstance(value, str) else json.dumps(value))
    return name


def two(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"attempt_1": one, "attempt_2": other} for one, other in pairs]


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def test_a_submission_is_scored_both_ways(mull: Mull) -> None:
    write("s.json", {"p": two((A, B), (A, A)), "q": two((C, A))})
    said = mull("arc", "score", "s.json", "puzzles.json", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.json["score"]["value"] == 0.75
    assert said.json["all_pairs"]["value"] == 0.5
    assert said.json["solved"] == {"p": 0.5, "q": 1.0}
    assert "75.0 [" in mull("arc", "score", "s.json", "puzzles.json").out


def test_what_is_wrong_is_said_and_the_rest_is_scored(mull: Mull) -> None:
    write("s.json", {"p": two(([[1, 2], [3]], B), (A, [[10]])), "q": two((C, A)), "z": []})
    said = mull("arc", "score", "s.json", "puzzles.json", "--json")
    assert said.code == 3
    assert said.json["score"]["value"] == 0.75
    assert said.err.splitlines() == [f"mull: {line}" for line in said.json["problems"]]
    assert "s.json: p: test 0: attempt_1: rows of 2 and 1 cells" in said.err
    assert "s.json: p: test 1: attempt_2: expected colours 0..9, not 10" in said.err
    assert "s.json: 'z': no such puzzle" in said.err


def test_a_bad_puzzle_is_left_out(mull: Mull) -> None:
    bad = {**PUZZLES, "r": {"train": [], "test": []}}
    write("bad.json", bad)
    write("s.json", {"p": two((B, B), (B, B)), "q": two((C, A))})
    said = mull("arc", "score", "s.json", "bad.json", "--json")
    assert (said.code, said.json["score"]["value"]) == (3, 1.0)
    assert "r: expected a list of train pairs" in said.err


def test_many_problems_are_counted(mull: Mull) -> None:
    write("s.json", {"q": two((C, A)), **{f"x{i}": [] for i in range(50)}})
    said = mull("arc", "score", "s.json", "puzzles.json")
    assert said.err.count("\n") == 21
    assert "and 31 more" in said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"x": [{"attempt_1": [[1]], "attempt_2": [[1]]}]}', "a submission for other puzzles"),
        ('{"p": [', "malformed JSON"),
        ('{"p": [], "p": []}', "'p' is given twice"),
        ("[]", "expected an object of puzzles"),
        ("", "malformed JSON"),
    ],
)
def test_files_that_are_no_submission(folder: Path, mull: Mull, text: str, says: str) -> None:
    write("s.json", text)
    said = refused(folder, mull, "arc", "score", "s.json", "puzzles.json")
    assert "s.json" in said.err
    assert says in said.err


def test_without_solutions_there_is_no_score(folder: Path, mull: Mull) -> None:
    blind = {"q": {"train": PUZZLES["q"]["train"], "test": [{"input": C}]}}
    write("blind.json", blind)
    write("s.json", {"q": two((C, A))})
    said = refused(folder, mull, "arc", "score", "s.json", "blind.json")
    assert "q: test 0 has no output" in said.err
    assert "absent.json" in refused(folder, mull, "arc", "score", "absent.json", "puzzles.json").err
    assert "gone" in refused(folder, mull, "arc", "score", "s.json", "gone").err


def test_predictions_become_a_valid_submission(mull: Mull) -> None:
    write("one.json", {"p": [{"attempt_1": A, "attempt_2": B, "attempt_3": []}, {}]})
    write("two.json", {"p": [{"attempt_1": B, "attempt_2": C}]})
    said = mull("arc", "vote", "one.json", "two.json", "--out", "s.json", "--puzzles",
                "puzzles.json")  # fmt: skip
    assert said.code == 0, said.err
    assert said.out == "5 predictions, 2 puzzles, 3 test inputs, 2 without an answer\n"
    assert read("s.json") == {"p": two((B, A), ([[0]], [[0]])), "q": two(([[0]], [[0]]))}
    scored = mull("arc", "score", "s.json", "puzzles.json", "--json")
    assert (scored.code, scored.json["score"]["value"]) == (0, 0.25)


def test_task_results_vote_by_likelihood(mull: Mull) -> None:
    rows = [
        {"task_id": "q", "idx": 0, "grid": grid, "cumulative_logprob": p, "n_tokens": 10}
        for grid, p in ((A, -9.0), (A, -9.0), (B, -1.0), (C, -5.0))
    ]
    write("t.json", rows)
    mull("arc", "vote", "t.json", "--out", "s.json")
    assert read("s.json") == {"q": two((A, B))}
    mull("arc", "vote", "t.json", "--out", "s.json", "--rule", "max")
    assert read("s.json") == {"q": two((B, C))}


def test_copies_are_dropped_and_gaps_filled(mull: Mull) -> None:
    wide = [[[1, 1]], [[1, 2]], [[2, 1]]]
    write("t.json", {"q": [{f"attempt_{k}": g for k, g in enumerate([C, C, *wide], 1)}]})
    options = ("--puzzles", "puzzles.json", "--out", "s.json")
    mull("arc", "vote", "t.json", *options, "--drop-copies")
    assert read("s.json")["q"] == two(([[1, 1]], [[1, 2]]))
    write("t.json", {"q": [{"attempt_1": [[1, 2], [3, 4]]}]})
    mull("arc", "vote", "t.json", *options, "--fill")
    assert read("s.json")["q"] == two(([[1, 2], [3, 4]], [[0]]))


def test_the_vote_of_each_cell_leads_even_if_nobody_gave_it(mull: Mull) -> None:
    grids = [[[1, 1]], [[1, 2]], [[3, 2]], [[3, 1]], [[1, 2]]]
    write("t.json", {"q": [{f"attempt_{k}": g for k, g in enumerate([[[1, 1, 1]], *grids], 1)}]})
    mull("arc", "vote", "t.json", "--out", "s.json", "--rule", "cells")
    assert read("s.json")["q"] == two(([[1, 2]], [[1, 1, 1]]))
    apart = enumerate(([[1, 2, 3]], [[1, 5, 6]], [[4, 2, 6]]), 1)
    write("t.json", {"q": [{f"attempt_{k}": g for k, g in apart}], "p": [{"attempt_1": []}]})
    mull("arc", "vote", "t.json", "--out", "s.json", "--rule", "cells")
    assert read("s.json") == {"q": two(([[1, 2, 6]], [[1, 2, 3]])), "p": two(([[0]], [[0]]))}


def test_a_vote_by_views_needs_views(folder: Path, mull: Mull) -> None:
    write("t.json", {"q": [{"attempt_1": A, "attempt_2": B}]})
    said = refused(folder, mull, "arc", "vote", "t.json", "--out", "s.json", "--rule",
                   "hierarchical")  # fmt: skip
    assert "no prediction names its view" in said.err
    kwargs = {"hflip": False, "n_rot90": 0, "color_map": None}
    write("r.json", [{"task_id": "q", "idx": 0, "grid": B, "data_augmentation_kwargs": kwargs}])
    for files in (["r.json"], ["t.json", "r.json"]):
        said = mull("arc", "vote", *files, "--out", "s.json", "--rule", "hierarchical")
        assert (said.code, read("s.json")["q"][0]["attempt_1"]) == (0, B)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rule", "v3"), "'v3' is unknown; expected one of v1, v2"),
        (("--drop-copies",), "--drop-copies needs --puzzles"),
        (
            ("--puzzles", "puzzles.json"),
            "x: predictions for other puzzles: none is for one of the 2",
        ),
    ],
)
def test_votes_that_cannot_be(
    folder: Path, mull: Mull, arguments: tuple[str, ...], says: str
) -> None:
    write("x.json", {"x": [{"attempt_1": A}]})
    said = refused(folder, mull, "arc", "vote", "x.json", "--out", "s.json", *arguments)
    assert says in said.err


def test_predictions_for_a_puzzle_too_many_are_left_out(mull: Mull) -> None:
    write("x.json", {"q": [{"attempt_1": A}, {"attempt_1": A}], "x": [{"attempt_1": A}]})
    said = mull("arc", "vote", "x.json", "--out", "s.json", "--puzzles", "puzzles.json")
    assert said.code == 3
    assert [line.split()[1] for line in said.err.splitlines()] == ["q:", "x:"]
    assert read("s.json")["q"] == two((A, [[0]]))


def test_a_bad_prediction_is_named(folder: Path, mull: Mull) -> None:
    write("x.json", {"p": [{"attempt_1": [[1, 2], [3]]}]})
    said = refused(folder, mull, "arc", "vote", "x.json", "--out", "s.json")
    assert "x.json: p: test 0: attempt_1: rows of 2 and 1 cells" in said.err


def test_two_solvers_are_combined(mull: Mull) -> None:
    write("a.json", {"p": two((A, C), ([[0]], [[0]]))})
    write("b.json", {"p": two((B, [[0]]), (C, B)), "q": two((A, []))})
    assert mull("arc", "combine", "a.json", "b.json", "--out", "c.json").code == 0
    assert read("c.json") == {"p": two((A, B), (C, B)), "q": two((A, [[0]]))}
    mull("arc", "combine", "a.json", "b.json", "--out", "c.json", "--no-prefer-second")
    assert read("c.json")["p"] == two((A, C), (C, B))


def test_the_form_of_2020_is_read_and_written(mull: Mull) -> None:
    write("a.csv", "output_id,output\nq_0,|3| |1|\n")
    assert mull("arc", "score", "a.csv", "puzzles.json", "--json").json["solved"]["q"] == 1.0
    write("b.json", {"q": two((B, A))})
    mull("arc", "combine", "a.csv", "b.json", "--out", "c.csv")
    assert Path("c.csv").read_text() == "output_id,output\nq_0,|3| |2|\n"


def test_attempts_are_put_together(folder: Path, mull: Mull) -> None:
    write("a.json", {"q": [{"attempt_1": A, "attempt_2": []}]})
    write("b.json", {"q": [{"attempt_1": B}]})
    said = mull("arc", "concatenate", "a.json", "b.json", "--out", "c.json")
    assert said.code == 0
    assert read("c.json") == {"q": [{"attempt_1": A, "attempt_2": [], "attempt_3": B}]}
    assert "two files" in refused(folder, mull, "arc", "concatenate", "a.json", "--out", "d").err
    write("b.json", {"q": [{"attempt_1": B}, {}]})
    said = refused(folder, mull, "arc", "concatenate", "a.json", "b.json", "--out", "d.json")
    assert "q: 1 and 2 test pairs" in said.err


COPIES = """
import json, sys
tasks = json.load(open(sys.argv[1]))
assert not any("output" in pair for task in tasks.values() for pair in task["test"])
made = {id: [{"attempt_1": pair["input"], "attempt_2": []} for pair in task["test"]]
        for id, task in tasks.items()}
made["q"] = made["q"] if len(sys.argv) < 4 else [{"attempt_1": [[99]]}]
json.dump(made, open(sys.argv[2], "w"))
"""


def external(mull: Mull, *words: str, seconds: float = 20) -> Any:
    script = str(Path(write("solver.py", COPIES)).resolve())
    command = shlex.join([sys.executable, "-I", script, "{challenges}", "{attempts}", *words])
    return mull("arc", "external", "puzzles.json", "--command", command, "--seconds", seconds,
                "--out", "s.json")  # fmt: skip


def test_another_solver_writes_what_every_command_takes(mull: Mull) -> None:
    said = external(mull)
    assert (said.code, said.err) == (0, "")
    assert said.out == "2 puzzles, 3 test inputs, 0 without an answer: s.json\n"
    assert read("s.json") == {"p": two((A, []), (A, [])), "q": two((C, []))}
    assert mull("arc", "score", "s.json", "puzzles.json", "--json").json["solved"]["q"] == 1.0
    write("other.json", {"p": two((B, B), (B, B))})
    for command in (("combine", "s.json", "other.json"), ("concatenate", "s.json", "s.json"),
                    ("vote", "s.json", "other.json")):  # fmt: skip
        assert mull("arc", *command, "--out", "made.json").code == 0
        assert read("made.json")["q"][0]["attempt_1"] == C
    assert read("made.json")["p"][0] == {"attempt_1": B, "attempt_2": A}


def test_what_another_solver_does_wrong_is_said(folder: Path, mull: Mull) -> None:
    said = external(mull, "bad")
    assert said.code == 3
    assert "q: test 0: attempt_1: expected colours 0..9, not 99" in said.err
    assert read("s.json")["q"] == two(([], []))
    for command, why in (
        ("./absent {attempts}", "solver 'absent': ./absent: No such file"),
        ("./absent", "does not say where to write"),
        ("", "needs a name and a command"),
    ):
        said = refused(folder, mull, "arc", "external", "puzzles.json", "--command", command,
                       "--out", "t.json")  # fmt: skip
        assert why in said.err


def test_an_output_that_cannot_be_written(mull: Mull) -> None:
    write("a.json", {"q": two((A, B))})
    said = mull("arc", "combine", "a.json", "a.json", "--out", "none/c.json")
    assert said.code == 2
    assert said.err.startswith("mull: ")
