"""Code: right programs pass, and no program does anything but compute and print."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE
from tests.verifiers.common import branch, meter, scores, whole

from mull.catalog import load_task, load_verifier
from mull.errors import EngineError, SandboxError, SandboxTimeoutError, SpecError, UnsupportedError
from mull.types import EngineInfo, Problem, Prompt
from mull.verifiers import code as code_module
from mull.verifiers import isolated
from mull.verifiers.code import CodeVerifier, Verdict, read_program
from mull.verifiers.isolated import Outcome, check_isolation, run_isolated


def isolation() -> str:
    """Why no code can be isolated here; empty where it can."""
    try:
        check_isolation()
    except SandboxError as error:
        return str(error)
    return ""


needs_walls = pytest.mark.skipif(bool(isolation()), reason=isolation())
TESTS = ["assert add(2, 3) == 5", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"]


def problem(*tests: Any) -> Problem:
    return Problem("p", Prompt.of("Add."), meta={"tests": list(tests or TESTS)})


def block(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


# Verdicts -----------------------------------------------------------------------------------


@needs_walls
def test_the_score_is_the_share_of_tests_that_pass() -> None:
    verifier = CodeVerifier()
    right = whole(problem(), block("def add(a, b):\n    return a + b"))
    partly = whole(problem(), block("def add(a, b):\n    return int(a) + int(b)"))
    gauge = meter(verifier)
    found = scores(verifier, right, partly, branch(problem(), "def"), gauge=gauge)
    assert found[:2] == [1.0, pytest.approx(2 / 3)]
    assert math.isnan(found[2])
    assert gauge.samples == (0, 1, 2) and gauge.total.tokens == 0


@needs_walls
def test_values_are_compared_as_python_has_them() -> None:
    cases = problem("assert f() == (1, [2.0, {'a': None}], {3})", "assert f()[1][1] == {'a': None}")
    given = whole(cases, "print('noise')\ndef f():\n    return (1, [2, {'a': None}], {3})\n")
    assert CodeVerifier().verdicts(given) == (Verdict.PASSED, Verdict.PASSED)


@needs_walls
def test_programs_that_read_and_print_are_compared_by_words() -> None:
    cases = problem({"stdin": "2 3\n", "stdout": "5"}, {"stdin": "1 1\n", "stdout": "3\n"})
    given = whole(cases, block("a, b = map(int, input().split())\nprint(a + b)"))
    assert CodeVerifier().verdicts(given) == (Verdict.PASSED, Verdict.WRONG)


@needs_walls
@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("def add(a, b): return 7", Verdict.WRONG),
        ("def add(a, b): 1 / 0", Verdict.FAILED),
        ("def add(a, b", Verdict.FAILED),
        ("x = 1", Verdict.FAILED),
        ("def add(a, b):\n    while True: pass", Verdict.TIMEOUT),
        ("import os\nos._exit(0)", Verdict.WRONG),
        ("raise SystemExit(0)", Verdict.WRONG),
        ("print('PASSED'); print(True); import os; os._exit(0)", Verdict.WRONG),
        (
            "class Any:\n    def __eq__(self, other): return True\n"
            "    def __repr__(self): return 'Any()'\n"
            "def add(a, b): return Any()",
            Verdict.WRONG,
        ),
        ("import builtins\nbuiltins.repr = lambda value: 'passed'", Verdict.FAILED),
        ("def add(a, b): return '(' * 100000", Verdict.WRONG),
    ],
)
def test_37_nothing_but_the_right_value_passes(code: str, verdict: Verdict) -> None:
    given = whole(problem(TESTS[0]), block(code))
    assert CodeVerifier(seconds=1.0).verdicts(given) == (verdict,)


def test_the_last_block_is_the_program() -> None:
    text = block("x = 1") + "No, better:\n```py\nx = 2\n```\n"
    assert read_program(text) == "x = 2\n"
    assert read_program("x = 3") == "x = 3"


@needs_walls
@pytest.mark.parametrize(
    "tests",
    [None, [], "assert f() == 1", ["f() == 1"], ["assert f()"], ["assert f() == g()"], [{}]],
)
def test_tests_that_cannot_be_read_are_said_and_nothing_is_run(tests: Any) -> None:
    given = Problem("p7", Prompt.of("?"), meta={"tests": tests} if tests is not None else {})
    with pytest.raises(UnsupportedError, match=r"problem 'p7'.* expected meta"):
        scores(CodeVerifier(), whole(given, "x = 1"))


# Walls --------------------------------------------------------------------------------------

CANARY = "MULL_CANARY_7f3a"
ESCAPES = {
    "read a file of the user": "print(open({canary!r}).read())",
    "read the environment": "import os; print(os.environ[{name!r}])",
    "read the environment of others": "print(open('/proc/1/environ').read())",
    "read the passwords": "print(open('/etc/passwd').read())",
    "look at a folder of the user": "import os; print(os.listdir({folder!r}))",
    "look for others": "import os; assert {{'etc', 'proc', 'home'}} & {{*os.listdir('/')}}",
    "leave by a link": "import os; os.symlink({canary!r}, 'x'); print(open('x').read())",
    "leave by the parent": "import os; os.chdir('../../..'); open('.' + {canary!r})",
    "leave by chroot": "import os; os.mkdir('/tmp/x'); os.chroot('/tmp/x')",
    "mount": "from ctypes import CDLL; assert not CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0)",
    "another namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "write where programs are": "open('/usr/x', 'w')",
    "write to the interpreter": "import os; open(os.__file__, 'a')",
    "connect": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "connect elsewhere": "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
    "ask for a name": "import socket; socket.getaddrinfo('example.com', 80)",
    "an abstract socket": "import socket as s; s.socket(s.AF_UNIX).connect(chr(0) + 'x')",
    "fork": "import os; os.fork()",
    "fork for ever": "import os\nwhile True: os.fork()",
    "vfork": "import ctypes; assert ctypes.CDLL(None).vfork() >= 0",
    "a shell": "import os; assert os.system('true') == 0",
    "a process": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "workers": "from multiprocessing import Process\nProcess(target=print).start()",
    "posix_spawn": "import os; os.posix_spawn('/bin/true', ['true'], {{}})",
    "daemonise": "import os\nif os.fork(): os._exit(0)\nos.setsid()",
    "10 GiB": "x = bytearray(10 << 30)",
    "10 GiB in pieces": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "a full disk": "open('/tmp/x', 'wb').write(bytes(1 << 30))",
    "a full disk in pieces": "for n in range(99): open(f'/tmp/{{n}}', 'wb').write(bytes(4 << 20))",
    "open files": "x = [open('/job/main.py') for _ in range(100)]",
    "more CPU": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "more memory": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "kill the parent": "import os; os.kill(os.getppid(), 9)",
    "kill the group": "import os; os.kill(0, 9)",
    "kill everybody": "import os; os.kill(-1, 9)",
    "kill the host": "import os; os.kill({pid}, 9)",
    "become another": "import os; os.setuid(1000)",
    "a device": "import os; os.mknod('/tmp/x', 0o60600, os.makedev(8, 0)); open('/tmp/x').read(1)",
    "trace": "import ctypes; assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "deep recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
}
SLOW = {
    "ignore signals": (
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(99)"
    ),
    "threads": (
        "import time\nfrom threading import Thread\n"
        "for _ in range(9): Thread(target=time.sleep, args=(99,)).start()"
    ),
    "1 GiB of output": "while True: print('x' * 100000)",
    "close and stay": "import os, time; os.close(1); os.close(2); time.sleep(99)",
}


@pytest.fixture(scope="module")
def port() -> Any:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@needs_walls
@pytest.mark.parametrize("name", ESCAPES)
def test_37_escapes_fail(
    name: str, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    canary.write_text(CANARY)
    monkeypatch.setenv("MULL_CANARY", CANARY)
    program = ESCAPES[name].format(
        canary=str(canary), folder=str(tmp_path), name="MULL_CANARY", port=port, pid=os.getpid()
    )
    started = time.monotonic()
    ended = run_isolated(f"{program}\nprint('ESCAPED')", seconds=3)
    assert ended.outcome in (Outcome.FAILED, Outcome.TIMEOUT), ended
    assert "ESCAPED" not in ended.output and CANARY not in ended.output
    assert time.monotonic() - started < PATIENCE


@needs_walls
@pytest.mark.parametrize("name", SLOW)
def test_37_what_does_not_end_is_ended(name: str) -> None:
    started = time.monotonic()
    ended = run_isolated(SLOW[name], seconds=1)
    assert ended.outcome in (Outcome.TIMEOUT, Outcome.FLOOD)
    assert time.monotonic() - started < PATIENCE
    assert len(ended.output) <= isolated.OUTPUT + (1 << 17)


STAYS = {
    "sleeps": "time.sleep(99)",
    "leaves its parent": "os.setsid(); libc.prctl(1, 0, 0, 0, 0); time.sleep(99)",
}


def alive(name: str) -> list[str]:
    """The processes that call themselves by a name."""
    found = []
    for process in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if process.read_text().strip() == name:
                found.append(process.parent.name)
    return found


@needs_walls
@pytest.mark.parametrize("how", STAYS)
def test_37_no_process_is_left(how: str) -> None:
    name = f"left{os.getpid()}"
    named = f"libc.prctl(15, {name.encode()!r}, 0, 0, 0); print('named', flush=True)"
    program = f"import ctypes, os, time\nlibc = ctypes.CDLL(None); {named}\n{STAYS[how]}"
    assert run_isolated(program, seconds=1) == isolated.Ended(Outcome.TIMEOUT, "named\n")
    until = time.monotonic() + PATIENCE
    while alive(name):
        assert time.monotonic() < until
        time.sleep(0.05)


MOUNTS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import jail
shown, root = Path(sys.argv[2], "shown"), Path(sys.argv[2], "root")
(shown / "in").mkdir(parents=True)
root.mkdir()
jail.mount("", "/", "", jail.MS_REC | jail.MS_PRIVATE)
jail.mount("tmpfs", str(shown / "in"), "tmpfs", 0)
jail.mount("tmpfs", str(root), "tmpfs", 0)
jail.show(str(shown), root)
for name in ("x", "in/x"):
    (shown / name).write_text("of the host")
    seen = root / str(shown)[1:] / name
    assert seen.read_text() == "of the host"
    try:
        seen.write_text("of the program")
    except OSError as error:
        print(error.strerror)
"""


@needs_walls
def test_37_what_is_mounted_in_a_folder_that_is_shown_cannot_be_written(tmp_path: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", MOUNTS]
    rooms = [str(isolated.JAIL.parent), str(tmp_path)]
    done = subprocess.run([*unshare, *rooms], capture_output=True, text=True, check=True)
    assert done.stdout == "Read-only file system\n" * 2


@needs_walls
def test_a_program_may_be_long_and_its_input_longer() -> None:
    assert run_isolated("#" * 200_000).outcome is Outcome.TOO_LONG
    ended = run_isolated("import sys; print(len(sys.stdin.read()))", "x" * 3_000_000)
    assert (ended.outcome, ended.output) == (Outcome.ENDED, "3000000\n")
    assert run_isolated("print(1)", "x" * 3_000_000) == isolated.Ended(Outcome.ENDED, "1\n")


@needs_walls
def test_any_text_of_the_length_that_is_run_is_run() -> None:
    program = "#" + "é" * 24_000 + "\\" * 50_000 + "\nprint(1)"
    assert run_isolated(program, seconds=20) == isolated.Ended(Outcome.ENDED, "1\n")


@needs_walls
def test_a_branch_whose_program_cannot_be_run_has_no_score_and_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(program: str, *rest: Any, **options: Any) -> isolated.Ended:
        if "broken" in program:
            raise SandboxError("no more processes")
        return run_isolated(program, *rest, **options)

    verifier = CodeVerifier()
    monkeypatch.setattr(code_module, "run_isolated", run)
    right = whole(problem(), block("def add(a, b):\n    return a + b"))
    broken = whole(problem(), "broken")
    found = scores(verifier, broken, right)
    assert math.isnan(found[0]) and found[1] == 1.0
    with pytest.raises(EngineError, match="no more processes"):
        scores(verifier, broken)


@needs_walls
def test_a_child_whose_walls_do_not_stand_in_time_is_no_fault_of_its_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "WALLS_S", 0.0)
    with pytest.raises(SandboxTimeoutError, match="did not stand within 0 s"):
        run_isolated("print(1)")
    monkeypatch.setattr(isolated, "WALLS_S", 20.0)
    found = run_isolated("import time; time.sleep(99)", seconds=0.01)
    assert found.outcome is Outcome.TIMEOUT


@needs_walls
def test_programs_that_nobody_waits_for_any_more_are_ended() -> None:
    endless = whole(problem(), block("def add(a, b):\n    while True: pass"))

    async def interrupted() -> None:
        verifier = CodeVerifier(seconds=30)
        async with asyncio.timeout(0.5):
            await verifier.score([endless] * 3, meter(verifier))

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())  # and waits for the thread
    assert time.monotonic() - started < PATIENCE


def test_37_without_isolation_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    check_isolation.cache_clear()
    try:
        monkeypatch.setattr(isolated.shutil, "which", lambda name: None)
        with pytest.raises(SandboxError, match="Linux namespaces alone"):
            CodeVerifier()
        monkeypatch.setattr(isolated.shutil, "which", lambda name: "/bin/false")
        with pytest.raises(SandboxError, match="code cannot be isolated here"):
            load_verifier("code", task=load_task("words"), policy=EngineInfo("test", "m"))
    finally:
        check_isolation.cache_clear()


@needs_walls
def test_it_is_named_by_spec() -> None:
    found = load_verifier(
        "code(seconds=2, memory_mib=256)", task=load_task("words"), policy=EngineInfo("test", "m")
    )
    assert isinstance(found, CodeVerifier)
    assert (found.seconds, found.memory_mib) == (2, 256)
    with pytest.raises(SpecError, match="seconds must be above 0"):
        CodeVerifier(seconds=0)
