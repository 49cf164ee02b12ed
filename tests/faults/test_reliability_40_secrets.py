"""Reliability test 40: a key is sent to its endpoint and is nowhere else to be found.

A canary key goes through solve, run, report and their tracebacks, over every fault of the fault
server that ends at once, and an endpoint that says the key back. Then everything that was printed,
logged and written, unpacked, is searched for it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import traceback
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.cli.command import Mull, caller, toml

import mull as package
from mull.catalog import load_engine
from mull.engines.simulated import SimulatedEngine, StepModel
from mull.engines.simulated.server import FaultServer
from mull.engines.simulated.weather import WireFault
from mull.errors import MullError
from mull.runs import Records, load_config, run

KEY = "sk-canary-4f9d1c7e8b2a6035"
HANGS = {WireFault.SILENCE, WireFault.HEADERS_SILENCE, WireFault.SLOW}
HEAVY = {WireFault.BIG_BODY, WireFault.GZIP_BOMB}
WAITS = {WireFault.LIMITED_SECONDS, WireFault.LIMITED_DATE, WireFault.LIMITED_ABSURD}
CHEAP = [fault for fault in WireFault if fault not in HANGS | HEAVY | WAITS]
ENGINE = {"deadline_s": 1.0, "retries": 1, "backoff_s": 0.01, "slots": 4}


@contextmanager
def serving(server: FaultServer) -> Iterator[FaultServer]:
    """The fault server in a thread of its own, so that commands can be called here."""
    loop = asyncio.new_event_loop()

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield server
        finally:
            ended = server.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(ended, loop).result()
            loop.call_soon_threadsafe(loop.stop)
            running.result()
            loop.close()


class Echo(BaseHTTPRequestHandler):
    """Says the key back, in a status line, a header and a body."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        said = self.headers["Authorization"]
        body = f'{{"error": {{"message": "no model for {said}", "code": "{said}"}}}}'.encode()
        self.send_response(400, f"Bad {said}")
        self.send_header("X-Request-Key", said)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1#m"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULL_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mull(capsys: pytest.CaptureFixture[str]) -> Mull:
    return caller(capsys)


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it lies there; of databases every value too, unpacked."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if path.suffix == ".db":
            connection = sqlite3.connect(path)
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608
                    for value in row:
                        yield f"{path}:{table}", unpacked(value)
            connection.close()


def unpacked(value: object) -> bytes:
    raw = value if isinstance(value, bytes) else str(value).encode()
    try:
        return zlib.decompress(raw)
    except zlib.error:
        return raw


def hits(folder: Path, *said: str) -> list[str]:
    """Where the key is found; also in part, since half a key is a leak."""
    needle = KEY[3:19].encode()
    found = [name for name, raw in written(folder) if needle in raw]
    return found + [text[:200] for text in said if needle in text.encode()]


def test_the_search_finds_a_key_where_there_is_one(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "run.db")
    connection.execute("CREATE TABLE results (raw BLOB)")
    packed = zlib.compress(f"{'x' * 500} {KEY}".encode())
    connection.execute("INSERT INTO results VALUES (?)", (packed,))
    connection.commit()
    connection.close()
    assert KEY.encode() not in (tmp_path / "run.db").read_bytes()
    assert hits(tmp_path, f"a {KEY} b") == [f"{tmp_path}/run.db:results", f"a {KEY} b"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_command_and_no_fault_shows_the_key(
    tmp_path: Path, mull: Mull, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    codes = set()
    with serving(FaultServer(SimulatedEngine(StepModel()), key=KEY)) as server:
        for fault in ["", *CHEAP]:
            config = toml(
                tmp_path / f"{fault or 'fair'}.toml",
                model=server.url(fault),
                engine=ENGINE,
                problems=1,
            )
            said = mull("run", config, "--out", tmp_path / f"run-{fault}")
            codes.add(said.code)
            # The key was sent: without it the server says 401 to everything.
            assert fault or said.code == 0, said.out
            assert hits(tmp_path, said.out, said.err) == []
        said = mull("solve", "2 + 2?", "--model", server.url(), "--json", "--trace")
        assert said.code == 0
        assert hits(tmp_path, said.out, said.err) == []
        said = mull("run", tmp_path / "fair.toml", "--dry-run")
        assert hits(tmp_path, said.out, said.err) == []
        assert not (tmp_path / "run-401").exists()
        said = mull("report", tmp_path / "run-", tmp_path / "run-400-context")
        assert said.code == 0
        assert hits(tmp_path, said.out, said.err) == []
    assert codes == {0, 2, 3}  # a wrong key ends its run at once
    for directory in tmp_path.glob("run-*"):
        with Records(directory) as records:
            assert KEY not in b"".join(records.export()).decode()
    assert hits(tmp_path, caplog.text) == []


def test_an_endpoint_that_says_the_key_back_does_not_get_it_into_anything(
    tmp_path: Path, mull: Mull, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = mull("run", toml(tmp_path / "run.toml", model=echo, engine=ENGINE), "--out", "run")
    assert said.code == 3
    solved = mull("solve", "2 + 2?", "--model", echo, "--json")
    assert solved.code == 3
    assert "***" in solved.out  # the body is shown, the key in it is not
    texts = (said.out, said.err, solved.out, solved.err, caplog.text)
    assert hits(tmp_path, *texts) == []
    with Records("run") as records:
        assert hits(tmp_path, *(line.decode() for line in records.export())) == []


def test_tracebacks_and_reprs_do_not_show_the_key(tmp_path: Path, echo: str) -> None:
    shown = []
    for source in (None, "MULL_API_KEY"):
        engine = load_engine(echo, **({"key_env": source} if source else {}))
        shown += [repr(engine), str(engine), repr(engine.info), repr(vars(engine))]
        asyncio.run(engine.aclose())
    solution = package.solve("2 + 2?", echo, strategy="vote(n=2)")
    shown += [repr(solution), *(failure.message for failure in solution.failures)]
    bad = toml(tmp_path / "bad.toml", model=echo, engine={"key_env": "MULL_NO_SUCH_KEY"})
    try:
        run(load_config(bad), tmp_path / "bad")
    except MullError as error:
        shown += traceback.format_exception(error)
    assert len(shown) > 12
    assert hits(tmp_path, *shown) == []


@pytest.mark.parametrize("place", ["user:{}@", "{}@"])
def test_a_key_in_an_address_is_refused_and_not_repeated(
    place: str, tmp_path: Path, mull: Mull
) -> None:
    model = f"http://{place.format(KEY)}127.0.0.1:9/v1#m"
    for said in (
        mull("solve", "x", "--model", model),
        mull("solve", "x", "--model", f"http://127.0.0.1:9/v1?api_key={KEY}#m"),
    ):
        assert said.code == 2
        assert "MULL_API_KEY" in said.err
        assert hits(tmp_path, said.out, said.err) == []


def test_a_key_among_the_engines_options_is_refused_and_not_repeated(
    tmp_path: Path, mull: Mull
) -> None:
    model = "http://127.0.0.1:9/v1#m"
    config = toml(tmp_path / "run.toml", model=model, engine={"api_key": KEY})
    said = mull("run", config, "--out", "made")
    assert said.code == 2
    assert hits(tmp_path / "made", said.out, said.err) == []
