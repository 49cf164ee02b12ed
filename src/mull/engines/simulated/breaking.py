"""How each wire fault changes an answer: its status, its payload, or its bytes."""

from __future__ import annotations

import copy
import json
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mull.engines.simulated.weather import WireFault

if TYPE_CHECKING:
    from aiohttp import web

STATUS = {
    WireFault.LIMITED: 429,
    WireFault.LIMITED_SECONDS: 429,
    WireFault.LIMITED_DATE: 429,
    WireFault.LIMITED_ABSURD: 429,
    WireFault.ERROR_500: 500,
    WireFault.ERROR_502: 502,
    WireFault.ERROR_503: 503,
    WireFault.UNAUTHORISED: 401,
    WireFault.NO_MODEL: 404,
    WireFault.CONTEXT: 400,
    WireFault.REDIRECT: 307,
}
_MESSAGES = {
    401: "Incorrect API key provided.",
    404: "The model does not exist.",
    400: "This model's maximum context length is 12 tokens.",
    429: "Rate limit reached.",
}


def refusal(fault: WireFault) -> web.Response:
    """The answer of a fault that is a status (one of ``STATUS``)."""
    from aiohttp import web

    status = STATUS[fault]
    headers = {}
    if fault is WireFault.REDIRECT:
        headers["Location"] = "http://169.254.169.254/latest/meta-data/"
    elif fault is WireFault.LIMITED_DATE:
        headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=1), True)
    elif fault is WireFault.LIMITED_ABSURD:
        headers["Retry-After"] = "1000000000"
    elif fault is WireFault.LIMITED_SECONDS:
        headers["Retry-After"] = "1"
    error = {"message": _MESSAGES.get(status, "Something broke."), "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


def break_payload(payload: dict[str, Any], fault: WireFault | None) -> dict[str, Any]:
    """The answer's JSON as the fault has it."""
    if fault is None:
        return payload
    payload = copy.deepcopy(payload)
    choices = payload["choices"]
    if fault is WireFault.N_IGNORED:
        del choices[1:]
    elif fault is WireFault.N_PLUS_ONE:
        choices.append({**copy.deepcopy(choices[-1]), "index": len(choices)})
    elif fault is WireFault.DUPLICATE:
        for choice in choices:
            choice["index"] = choice["index"] // 2
    elif fault is WireFault.SHUFFLED:
        choices.reverse()
    elif fault is WireFault.ERROR_BODY:
        return {"error": {"message": "the model fell over", "type": "server", "code": 500}}
    elif fault is WireFault.NO_USAGE:
        del payload["usage"]
    for choice in choices:
        if fault is WireFault.NO_FINISH:
            del choice["finish_reason"]
        elif fault is WireFault.FINISH_NULL:
            choice["finish_reason"] = None
        elif fault is WireFault.FILTERED:
            choice["finish_reason"] = "content_filter"
            _say(choice, "")
        elif fault is WireFault.REASONING:
            _say(choice, "", reasoning="Let me think about that for a while.")
        elif fault is WireFault.BIG_BODY:
            _say(choice, "a" * (50_000_000 // len(choices)))
        elif fault is WireFault.NAN and choice["logprobs"] is not None:
            _spoil(choice["logprobs"])
    return payload


def broken_body(payload: dict[str, Any], fault: WireFault) -> bytes:
    """The bytes of a plain answer as the fault has them."""
    body = json.dumps(payload, ensure_ascii=False).encode()
    return _spoiled(body, fault)


def serve_events(events: list[bytes], fault: WireFault | None) -> bytes:
    """The bytes of a stream as the fault has them."""
    if fault is WireFault.NO_DONE:
        events = events[:-1]
    elif fault is WireFault.SSE_CUT:
        events = events[: len(events) // 2]
    body = b"".join(events)
    return body if fault is None else _spoiled(body, fault)


def _spoiled(body: bytes, fault: WireFault) -> bytes:
    if fault in (WireFault.TRUNCATED, WireFault.SSE_CUT):
        return body[: len(body) // 2]
    if fault is WireFault.HTML:
        return b"<!doctype html><title>502 Bad Gateway</title><h1>nginx</h1>"
    if fault is WireFault.BAD_UTF8:
        return body.replace(b"answer", b"answ\xff\xfe", 1)
    if fault is WireFault.GZIP_BOMB:
        return _bomb()
    return body


def _say(choice: dict[str, Any], text: str, **more: str) -> None:
    if "message" in choice:
        choice["message"].update({"content": text, **more})
    else:
        choice.update({"text": text, **more})
    if choice.get("logprobs") is not None:
        choice["logprobs"] = None


def _spoil(logprobs: dict[str, Any]) -> None:
    if "content" in logprobs:
        logprobs["content"][0]["logprob"] = float("nan")
    else:
        logprobs["token_logprobs"][0] = float("nan")


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    blanks = b" " * 2**20
    return b"".join(packer.compress(blanks) for _ in range(64)) + packer.flush()
