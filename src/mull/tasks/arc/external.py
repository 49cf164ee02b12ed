"""An external solver: a command that reads a challenges file and writes attempts.

It runs as a process of its own user's trust, in an empty folder, without this process's
environment and within a time limit; what it wrote is checked like any submission. It never sees
an output of a test pair. Its attempts join an ensemble as a submission.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mull.errors import SandboxError, SandboxTimeoutError, UsageError
from mull.tasks.arc.grids import Puzzle, as_json
from mull.tasks.arc.submission import Checked, check

MAX_OUTPUT: Final = 256 << 20
"""Bytes of attempts that are read."""
PLACES: Final = ("{challenges}", "{attempts}")
_KEPT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True)
class External:
    """A solver: its ``name`` in messages, its ``command``, and ``seconds`` of wall clock.

    The command's words may hold ``{challenges}`` (the file to read) and must hold ``{attempts}``
    (the file to write, in the schema of a submission).

    >>> External.of("search", "./solve --in {challenges} --out {attempts}", 60).command[0]
    './solve'
    """

    name: str
    command: tuple[str, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.name or not self.command:
            raise UsageError("an external solver needs a name and a command")
        if not any("{attempts}" in word for word in self.command):
            raise UsageError(
                f"the command of solver {self.name!r} does not say where to write: expected "
                "{attempts} in it, and {challenges} for the file to read"
            )
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"seconds must be positive, not {self.seconds}")

    @classmethod
    def of(cls, name: str | None, command: str, seconds: float) -> External:
        """A solver from a command line, split into words as a shell would; no shell runs it.

        Without a ``name`` its program's.
        """
        try:
            words = tuple(shlex.split(command))
            called = Path(words[0]).name if name is None and words else name
            return cls(called or "", words, seconds)
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"the command of solver {name!r}: {error}") from error


def solve(solver: External, puzzles: Sequence[Puzzle]) -> Checked:
    """Run the solver on the puzzles; its attempts, and what is wrong with them.

    ``SandboxTimeoutError`` at the time limit, ``SandboxError`` where it could not start, failed or
    wrote nothing, ``InputError`` where what it wrote is no submission for these puzzles.
    """
    with tempfile.TemporaryDirectory(prefix="mull-solver-") as folder:
        work = Path(folder, "work")
        work.mkdir()
        places = {place: str(Path(folder, place[1:-1] + ".json")) for place in PLACES}
        challenges, attempts = (Path(places[place]) for place in PLACES)
        challenges.write_text(json.dumps(_challenges(puzzles)), encoding="utf-8")
        words = [_filled(word, places) for word in solver.command]
        _run(solver, words, str(work))
        if not attempts.is_file():
            raise SandboxError(f"solver {solver.name!r} ended without writing its attempts")
        size = attempts.stat().st_size
        if size > MAX_OUTPUT:
            raise SandboxError(
                f"solver {solver.name!r} wrote {size} bytes of attempts; at most {MAX_OUTPUT}"
            )
        return check(str(attempts), puzzles)


def _challenges(puzzles: Sequence[Puzzle]) -> dict[str, object]:
    blind = [
        replace(puzzle, test=tuple(replace(pair, output=None) for pair in puzzle.test))
        for puzzle in puzzles
    ]
    return {puzzle.id: as_json(puzzle) for puzzle in blind}


def _filled(word: str, places: dict[str, str]) -> str:
    for place, path in places.items():
        word = word.replace(place, path)
    return word


def _run(solver: External, words: Sequence[str], folder: str) -> None:
    # Relative programs are the caller's, not the empty folder's.
    program = str(Path(words[0]).resolve()) if os.sep in words[0] else words[0]
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: S603 (the user's own command, no shell)
                [program, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=folder,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SandboxError(f"solver {solver.name!r}: {words[0]}: {reason}") from error
        try:
            ended = _ends(process.pid, started + solver.seconds)
        finally:
            # The whole group goes, before its leader is reaped: until then its number is its own.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        if not ended:
            raise SandboxTimeoutError(
                f"solver {solver.name!r} did not end within {solver.seconds:g} s: it was killed"
            )
        if code:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - 500))
            tail = " ".join(said.read().decode(errors="replace").split())
            raise SandboxError(
                f"solver {solver.name!r} ended with code {code} after "
                f"{time.monotonic() - started:.1f} s: {tail or 'it said nothing'}"
            )


def _ends(pid: int, deadline: float) -> bool:
    """Whether a child ends before the deadline; it is left for its parent to reap."""
    pause = 0.002
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True
