"""The OpenAI protocol from the server's side: a JSON body to a request, completions to JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mull.budget import Meter
from mull.engines.simulated.text import END_ID, decode
from mull.rng import derive
from mull.types import (
    Completion,
    Delta,
    Message,
    Prompt,
    Request,
    Sampling,
    StopReason,
    Until,
)

_FINISH = {
    StopReason.END: "stop",
    StopReason.STOP: "stop",
    StopReason.LENGTH: "length",
    StopReason.CONTEXT: "length",
    StopReason.FILTERED: "content_filter",
}


def read_request(body: dict[str, Any], chat: bool) -> Request:
    """The request in a body; raises ``ValueError``, ``KeyError`` or ``TypeError`` for a bad one."""
    assistant = ""
    if chat:
        messages = [Message(row["role"], row["content"]) for row in body["messages"]]
        begun = body.get("continue_final_message") or body["messages"][-1].get("prefix")
        if begun and messages[-1].role == "assistant":
            assistant = messages.pop().content
        prompt = Prompt.chat(*messages)
    elif isinstance(body["prompt"], list):
        prompt = Prompt(token_ids=tuple(body["prompt"]))
    else:
        prompt = Prompt.of(body["prompt"])
    stop = body.get("stop") or ()
    seed = body.get("seed")
    if seed is None:
        # Without a seed a server draws another answer every time; here: by what was asked.
        seed = derive(0, json.dumps(body, sort_keys=True))
    return Request(
        prompt,
        Until(
            body.get("max_tokens") or body.get("max_completion_tokens") or 4096,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ),
        assistant,
        n=body.get("n") or 1,
        decoding=Sampling(
            body.get("temperature", 1.0),
            max(0, body.get("top_k", 0)),
            body.get("top_p", 1.0),
            body.get("min_p", 0.0),
        ),
        seed=seed,
        deltas=bool(body.get("stream")),
        logprobs=body.get("logprobs") not in (None, False),
    )


def answer_of(
    request: Request, done: Sequence[Completion], model: str, chat: bool, vllm: bool
) -> dict[str, Any]:
    """The plain answer."""
    choices = []
    for item in sorted(done, key=lambda completion: completion.index):
        choice: dict[str, Any] = {"index": item.index, "finish_reason": _FINISH[item.stop]}
        if chat:
            choice["message"] = {"role": "assistant", "content": item.text}
        else:
            choice["text"] = item.text
        choice["logprobs"] = _logprobs(item.token_ids or (), item.logprobs, chat)
        if vllm:
            choice["stop_reason"] = item.stop_string
        choices.append(choice)
    prompt = sum(item.usage.prompt for item in done)
    generated = sum(item.usage.generated for item in done)
    return {
        "id": f"sim-{request.seed}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
        },
    }


def piece_event(
    item: Delta | Completion,
    request: Request,
    model: str,
    chat: bool,
    vllm: bool,
    gauge: Meter | None = None,
) -> bytes:
    """One event of a stream: a piece of text, or the finish of a choice.

    With a ``gauge`` it says what the prompt and this choice have cost so far, as vLLM does.
    """
    choice: dict[str, Any] = {"index": item.index, "finish_reason": None}
    if isinstance(item, Completion):
        choice["finish_reason"] = _FINISH[item.stop]
        if vllm:
            choice["stop_reason"] = item.stop_string
        text = ""
    else:
        text = item.text
        scores = item.logprobs if request.logprobs else None
        choice["logprobs"] = _logprobs(item.token_ids, scores, chat)
    if chat:
        choice["delta"] = {"content": text}
    else:
        choice["text"] = text
    event: dict[str, Any] = {"id": f"sim-{request.seed}", "model": model, "choices": [choice]}
    if gauge is not None:
        generated = gauge.usage(item.index).generated
        event["usage"] = {"prompt_tokens": gauge.total.prompt, "completion_tokens": generated}
    return f"data: {json.dumps(event)}\n\n".encode()


def events_of(payload: dict[str, Any], chat: bool, usage: bool) -> list[bytes]:
    """A plain answer as the events of a stream: for answers that were broken on purpose."""
    events = []
    for choice in payload.get("choices", ()):
        message = choice.get("message", {})
        text = message.get("content", "") if chat else choice.get("text", "")
        first = {key: value for key, value in message.items() if key != "content"}
        size = max(16, len(text or "") // 64)
        for start in range(0, max(len(text or ""), 1), size):
            piece = (text or "")[start : start + size]
            row: dict[str, Any] = {"index": choice["index"], "finish_reason": None}
            row.update({"delta": {**first, "content": piece}} if chat else {"text": piece})
            if start + size >= len(text or ""):
                row["logprobs"] = choice.get("logprobs")
            events.append({"choices": [row]})
            first = {}
        keys = ("index", "finish_reason", "stop_reason")
        last = {key: choice[key] for key in keys if key in choice}
        last["delta" if chat else "text"] = {} if chat else ""
        events.append({"choices": [last]})
    if "error" in payload:
        events.append({"error": payload["error"]})
    if usage and "usage" in payload:
        events.append({"choices": [], "usage": payload["usage"]})
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


def _logprobs(
    ids: Sequence[int], logprobs: Sequence[float] | None, chat: bool
) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    tokens = ["" if i == END_ID else decode(bytes([i])) for i in ids]
    if chat:
        pairs = zip(tokens, logprobs, strict=True)
        return {"content": [{"token": token, "logprob": value} for token, value in pairs]}
    return {"tokens": tokens, "token_logprobs": list(logprobs)}
