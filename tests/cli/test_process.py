"""Commands as processes of their own: Ctrl-C, pipes, start-up, exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command import toml

from mull import __version__

MULL = [sys.executable, "-c", "from mull.cli.main import main; main()"]
HEAVY = ("torch", "transformers", "matplotlib", "jinja2", "math_verify", "sympy", "aiohttp")


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*MULL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_an_error_is_one_line_and_exit_code_2() -> None:
    done = process("solve", "x", "--model", "simulated:echo", "--samples", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mull: budget.samples must be a positive finite number, not 0\n"
    assert process("nosuch").returncode == 2
    assert process().returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_the_package_run_as_a_module_is_the_command() -> None:
    command = [sys.executable, "-m", "mull", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mull {__version__}\n", "")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_problem_comes_through_a_pipe_and_json_goes_through_one() -> None:
    done = process("solve", "--file", "-", "--model", "simulated:echo", "--json", input="2 + 2?")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["answer"] == "1"
    done = process("solve", "--file", "-", "--model", "simulated:echo", input="")
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_listing_strategies_loads_nothing_heavy() -> None:
    script = (
        "import sys; from mull.cli.main import call; call(['strategies']); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("rows", [0, 1, 20_000])
def test_a_reader_that_goes_away_is_no_error(rows: int, folder: Path) -> None:
    command = ["grade", "rows.jsonl", "--task", "text", "--json"] if rows else ["strategies"]
    row = json.dumps({"problem": "2 + 2?", "answer": "4", "response": "4"})
    (folder / "rows.jsonl").write_text(f"{row}\n" * rows, encoding="utf-8")
    with subprocess.Popen(
        [*MULL, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_keeps_everything_and_the_run_goes_on(folder: Path) -> None:
    config = toml(folder / "run.toml", problems=40, engine={"token_ms": 5.0, "slots": 4})
    with subprocess.Popen(
        [*MULL, "run", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            deadline = time.monotonic() + 60
            while not (folder / "runs/small/run.db-wal").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "of 40 kept; run again to go on" in out
    resumed = process("run", config)
    assert resumed.returncode == 0, resumed.stderr
    whole = process("run", config, "--out", "whole")
    assert whole.returncode == 0
    assert exported(folder / "runs/small") == exported(folder / "whole")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ctrl_c_ends_a_solve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = f"http://127.0.0.1:{silent.getsockname()[1]}/v1#m"
        # A background process may have been started with Ctrl-C ignored.
        script = (
            "import signal; from mull.cli.main import main; "
            "signal.signal(signal.SIGINT, signal.default_int_handler); "
            f"main(['solve', 'x', '--model', '{model}'])"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                silent.settimeout(30)
                silent.accept()[0].close()
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=20)
            finally:
                running.kill()
    assert (running.returncode, out) == (130, "")
    assert "mull: spent 0 tokens generated, " in err
    assert err.endswith("; nothing is kept\nmull: interrupted\n")


def exported(directory: Path) -> bytes:
    from mull.runs import Records

    with Records(directory) as records:
        return b"".join(line for line in records.export() if b'"config"' not in line[:20])
