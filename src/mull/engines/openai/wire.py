"""The protocol: a request to a JSON body, a JSON answer to choices. Strict in what it accepts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mull.engines.openai.endpoint import Endpoint
from mull.errors import ProtocolError, UnsupportedError
from mull.types import Prompt, Request, Sampling

CHAT, COMPLETIONS = "/chat/completions", "/completions"

_FINISHES = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "eos_token": "stop",
    "stop_sequence": "stop",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """What one HTTP request asks for: ``n`` samples, each at most ``tokens`` tokens."""

    request: Request
    assistant: str
    assistant_ids: tuple[int, ...] | None
    n: int
    tokens: int
    stops: tuple[str, ...]
    seed: int | None
    stream: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of an answer, checked. ``told`` is whether the endpoint said what stopped it."""

    index: int
    text: str
    finish: str
    told: bool = False
    stop_string: str | None = None
    logprobs: tuple[float, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    reasoned: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """Usage as the endpoint reported it."""

    prompt: int
    cached: int
    generated: int


def route(prompt: Prompt, endpoint: Endpoint) -> str:
    """The path that a prompt goes to; ``UnsupportedError`` where there is none."""
    if endpoint.api == "chat":
        if prompt.token_ids is not None:
            raise UnsupportedError("token ids as prompt need the completions route (api='auto')")
        return CHAT
    if endpoint.api == "completions":
        if len(prompt.messages) > 1 or (prompt.messages and prompt.messages[0].role != "user"):
            raise UnsupportedError(
                "several messages need the chat route: use api='auto' or api='chat'"
            )
        return COMPLETIONS
    return CHAT if prompt.messages else COMPLETIONS


def body_of(ask: Ask, endpoint: Endpoint) -> tuple[str, dict[str, Any]]:
    """The path and the JSON body of a request."""
    request = ask.request
    path = route(request.prompt, endpoint)
    body: dict[str, Any] = {"model": endpoint.model, "n": ask.n}
    if path == CHAT:
        _chat_prompt(body, ask, endpoint)
        if request.logprobs and endpoint.logprobs:
            body["logprobs"] = True
    else:
        body["prompt"] = _text_prompt(ask)
        if request.logprobs and endpoint.logprobs:
            body["logprobs"] = 1
    _sampling(body, request, endpoint)
    body[endpoint.max_tokens_field] = ask.tokens
    if ask.stops:
        body["stop"] = list(ask.stops)
    if ask.seed is not None:
        body["seed"] = ask.seed
    if endpoint.token_ids:
        body["return_token_ids"] = True
    if ask.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if endpoint.extras:
            # So that what a cancelled request has cost is known, and not guessed.
            body["stream_options"]["continuous_usage_stats"] = True
    return path, body


def _chat_prompt(body: dict[str, Any], ask: Ask, endpoint: Endpoint) -> None:
    prompt = ask.request.prompt
    messages: list[dict[str, Any]] = [
        {"role": message.role, "content": message.content} for message in prompt.messages
    ] or [{"role": "user", "content": prompt.plain}]
    if ask.assistant:
        how = endpoint.continues_chat
        if how == "none":
            raise UnsupportedError(
                "it is not known how this endpoint continues a chat turn that was begun; name its "
                "way by the engine's option dialect=vllm or continuation=prefix, or use text "
                "prompts"
            )
        last: dict[str, Any] = {"role": "assistant", "content": ask.assistant}
        if how == "prefix":
            last["prefix"] = True
        else:
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
        messages.append(last)
    body["messages"] = messages


def _text_prompt(ask: Ask) -> str | list[int]:
    prompt = ask.request.prompt
    if prompt.token_ids is None:
        return prompt.plain + ask.assistant
    if ask.assistant and ask.assistant_ids is None:
        raise UnsupportedError(
            "a prompt of token ids can only be continued by token ids (assistant_ids)"
        )
    return [*prompt.token_ids, *(ask.assistant_ids or ())]


def _sampling(body: dict[str, Any], request: Request, endpoint: Endpoint) -> None:
    how = request.decoding
    if not isinstance(how, Sampling):
        raise UnsupportedError("an endpoint samples; it searches no tokens (beam, threshold)")
    body["temperature"] = how.temperature
    body["top_p"] = how.top_p
    if how.top_k or how.min_p:
        if not endpoint.extras:
            raise UnsupportedError(
                "top_k and min_p are not part of the OpenAI protocol; if this endpoint is vLLM "
                "say so by the engine's option dialect=vllm, else leave them out"
            )
        body["top_k"] = how.top_k or -1
        body["min_p"] = how.min_p


def read_answer(payload: Any) -> tuple[list[Choice], Tokens | None]:
    """Choices and usage of a plain answer, in the order received."""
    row = _mapping(payload, "answer")
    choices = row.get("choices")
    if not isinstance(choices, list):
        raise ProtocolError("the answer has no list of choices")
    return [_plain_choice(_mapping(choice, "choice")) for choice in choices], read_usage(row)


def _plain_choice(row: Mapping[str, Any]) -> Choice:
    message = row.get("message")
    if message is None:
        text = row.get("text")
        reasoned = False
        if not isinstance(text, str):
            raise ProtocolError("a choice has neither message nor text")
    else:
        message = _mapping(message, "message")
        if "content" not in message:
            raise ProtocolError("a message has no content")
        text = _text(message["content"])
        reasoned = bool(message.get("reasoning") or message.get("reasoning_content"))
    return make_choice(
        index_of(row),
        text,
        finish_of(row.get("finish_reason")),
        row,
        logprobs_of(row.get("logprobs")),
        ids_of(row.get("token_ids")),
        reasoned,
    )


def make_choice(
    index: int,
    text: str,
    finish: str,
    row: Mapping[str, Any],
    logprobs: tuple[float, ...] | None,
    ids: tuple[int, ...] | None,
    reasoned: bool,
) -> Choice:
    """A checked choice; ``row`` is where vLLM says which stop string it met."""
    reason = row.get("stop_reason")
    return Choice(
        index,
        whole(text),
        finish,
        "stop_reason" in row,
        reason if isinstance(reason, str) else None,
        logprobs,
        ids,
        reasoned,
    )


def index_of(row: Mapping[str, Any]) -> int:
    """The index of a choice; some servers leave out the only one."""
    index = row.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ProtocolError(f"a choice has the index {index!r}")
    return index


def finish_of(reason: Any) -> str:
    """``stop``, ``length`` or ``content_filter``; anything else is an error, never ``stop``."""
    if not isinstance(reason, str) or reason not in _FINISHES:
        raise ProtocolError(
            f"a choice has the finish_reason {str(reason)[:40]!r}; "
            f"known are: {', '.join(_FINISHES)}"
        )
    return _FINISHES[reason]


def logprobs_of(raw: Any) -> tuple[float, ...] | None:
    """Log-probabilities of the chosen tokens, from either route's form; ``None`` if not given."""
    if raw is None:
        return None
    row = _mapping(raw, "logprobs")
    values: Sequence[Any]
    if isinstance(row.get("content"), list):
        values = [_mapping(token, "logprobs.content").get("logprob") for token in row["content"]]
    elif isinstance(row.get("token_logprobs"), list):
        values = row["token_logprobs"]
    else:
        return None
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProtocolError(f"a log-probability is {str(value)[:40]!r}, not a number")
        if not math.isfinite(value) or value > 1e-3:
            raise ProtocolError(f"a log-probability is {value}: expected a finite number <= 0")
    return tuple(min(0.0, float(value)) for value in values)


def ids_of(raw: Any) -> tuple[int, ...] | None:
    """Token ids of a choice (vLLM); ``None`` if not given."""
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(type(i) is int and i >= 0 for i in raw):
        raise ProtocolError("token_ids is not a list of token ids")
    return tuple(raw)


def read_usage(row: Mapping[str, Any]) -> Tokens | None:
    """The usage of an answer; ``None`` where it is missing (the caller estimates and says so)."""
    raw = row.get("usage")
    if raw is None:
        return None
    usage = _mapping(raw, "usage")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt, generated = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if prompt is None:
        return None
    numbers = (prompt, cached or 0, generated or 0)
    for number in numbers:
        if type(number) is not int or not 0 <= number < 2**53:
            raise ProtocolError(f"usage counts {str(number)[:40]!r} tokens")
    return Tokens(numbers[0], min(numbers[1], numbers[0]), numbers[2])


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is no JSON object")
    return value


def _text(content: Any) -> str:
    """A message's content: text, null (nothing said), or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise ProtocolError("a message's content is no text")


def whole(text: str) -> str:
    """``text`` with halves of surrogate pairs replaced: they could be stored nowhere."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
