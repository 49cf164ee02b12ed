"""Laws of external solvers: they see no answer, they end in time, what they write is checked."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest
from tests.patience import PATIENCE

from mull.errors import InputError, SandboxError, SandboxTimeoutError, UsageError
from mull.tasks.arc.external import External, solve
from mull.tasks.arc.grids import Pair, Puzzle
from mull.tasks.arc.submission import score

A, B = ((1, 2),), ((2, 1),)
PUZZLES = [Puzzle("p", (Pair(A, B),), (Pair(A, B), Pair(B, A)))]
START = "import json, os, sys, time; tasks = json.load(open(sys.argv[1])); "
MIRROR = (
    "made = {k: [{'attempt_1': [row[::-1] for row in t['input']], 'attempt_2': []}"
    " for t in v['test']] for k, v in tasks.items()}; "
)
WRITE = "json.dump(made, open(sys.argv[2], 'w'))"


def solver(code: str, seconds: float = 20) -> External:
    words = [sys.executable, "-I", "-S", "-c", code, "{challenges}", "{attempts}"]
    return External.of("mirror", shlex.join(words), seconds)


def test_attempts_join_an_ensemble() -> None:
    made = solver(START + MIRROR + WRITE)
    checked = solve(made, PUZZLES)
    assert checked.problems == ()
    assert score(checked.submission, PUZZLES).fractional.value == 1.0
    assert checked.submission == {"p": ((B, None), (A, None))}


def test_a_solver_sees_no_output_of_a_test_pair() -> None:
    peek = "assert all('output' not in t for v in tasks.values() for t in v['test']); "
    solve(solver(START + peek + MIRROR + WRITE), PUZZLES)


def test_a_solver_has_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULL_API_KEY", "secret")
    peek = "assert 'MULL_API_KEY' not in os.environ and not os.listdir('.'); "
    solve(solver(START + peek + MIRROR + WRITE), PUZZLES)


def test_a_bad_attempt_is_named_and_the_rest_counts() -> None:
    spoil = "made['p'][0]['attempt_1'] = [[1], [2, 3]]; "
    checked = solve(solver(START + MIRROR + spoil + WRITE), PUZZLES)
    assert len(checked.problems) == 1
    assert "p: test 0: attempt_1: rows of 1 and 2 cells" in checked.problems[0]
    assert checked.submission == {"p": ((None, None), (A, None))}


def test_a_solver_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "child"
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-I', '-S', '-c',"
        f" 'import time; time.sleep(60)']); open({str(note)!r}, 'w').write(str(child.pid));"
        " time.sleep(60)"
    )
    started = time.monotonic()
    with pytest.raises(SandboxTimeoutError, match="'mirror' did not end within 1 s"):
        solve(solver(code, seconds=1), PUZZLES)
    assert time.monotonic() - started < PATIENCE
    child = int(note.read_text())
    for _ in range(100):
        if not _alive(child):
            break
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.getpid() != pid


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('no idea')", "ended with code 1 after .* no idea"),
        ("pass", "ended without writing its attempts"),
    ],
)
def test_a_solver_that_fails(code: str, said: str) -> None:
    with pytest.raises(SandboxError, match=said):
        solve(solver(code), PUZZLES)


def test_a_solver_that_writes_something_else() -> None:
    with pytest.raises(InputError, match="malformed JSON"):
        solve(solver("import sys; open(sys.argv[2], 'w').write('{')"), PUZZLES)
    with pytest.raises(InputError, match="other puzzles"):
        solve(solver(START + "made = {'x': []}; " + WRITE), PUZZLES)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(SandboxError, match="No such file"):
        solve(External.of("gone", "./absent {attempts}", 1), PUZZLES)


@pytest.mark.parametrize(
    ("command", "seconds", "said"),
    [
        ("solve", 1, "does not say where to write"),
        ("", 1, "a name and a command"),
        ("solve '{attempts}", 1, "No closing quotation"),
        ("solve {attempts}", 0, "seconds must be positive"),
    ],
)
def test_a_solver_that_cannot_be(command: str, seconds: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        External.of("x", command, seconds)
