"""A chat endpoint in this process, for commands that are run in it too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 9, "completion_tokens": 12}


@dataclass
class Endpoint:
    """What it answers with, and what it was asked; ``body`` stands in for the whole answer."""

    text: str = "answer: 4"
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    body: bytes | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    model: str = ""

    def answer(self, request: dict[str, Any]) -> bytes:
        self.asked.append(request)
        if self.body is not None:
            return self.body
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {} if self.usage is None else {"usage": self.usage}
        return json.dumps({"choices": [choice], **usage}).encode()


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint at ``endpoint.model``; it sends no log-probabilities."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = endpoint.answer(request)
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint.model = f"http://127.0.0.1:{server.server_port}/v1#m"
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
