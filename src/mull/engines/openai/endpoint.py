"""What is known about an endpoint before it is asked: address, key, dialect, limits."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mull.errors import SpecError

Api = Literal["auto", "chat", "completions"]
Dialect = Literal["openai", "vllm"]
Continuation = Literal["none", "vllm", "prefix"]

DEFAULT_KEY = "MULL_API_KEY"
"""Environment variable of the key, where no other is named."""


class Secret:
    """A key that does not print: ``repr`` and ``str`` show ``***``; ``reveal`` gives it away.

    >>> Secret("sk-123")
    ***
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header of a request and for nothing else."""
        return self._value

    def redact(self, text: str) -> str:
        """``text`` without the key."""
        return text.replace(self._value, "***") if self._value else text

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        # A key must not end in a pickle: the copy has none, and its endpoint will say 401.
        return Secret, ("",)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and what the endpoint can be asked.

    ``api``           ``chat`` or ``completions`` for everything; ``auto`` sends messages to chat
                      and text or token ids to completions
    ``dialect``       ``vllm`` adds what vLLM understands: top_k, min_p, continue_final_message, a
                      stop_reason that tells a stop string from the end; ``openai`` refuses those
    ``continuation``  how a chat turn that was begun is continued: vLLM's flags, the
                      ``"prefix": true`` message of DeepSeek and Mistral, or not at all
    ``seeds``         each sample is a request of its own with a derived seed; without, one request
                      asks for up to ``max_n`` samples and no seed is sent
    ``token_ids``     ask for and send exact token ids (vLLM, completions)
    ``stream``        stream always, not only when deltas are wanted
    ``start``         requests in flight at first; from there on it adapts, up to the slots
    ``deadline_s``    seconds that one request may take, its retries included
    ``attempt_s``     seconds that one attempt may take before it is tried again
    ``retries``       attempts after the first, for errors that may pass; refusals by rate (429) are
                      retried until the deadline
    ``max_body``      bytes of an answer, at most
    """

    url: str
    model: str
    api: Api = "auto"
    dialect: Dialect = "openai"
    continuation: Continuation | None = None
    seeds: bool = True
    logprobs: bool = True
    token_ids: bool = False
    stream: bool = False
    start: int = 20
    max_n: int = 64
    max_tokens_field: str = "max_tokens"
    deadline_s: float = 600.0
    attempt_s: float | None = None
    retries: int = 3
    backoff_s: float = 0.5
    max_body: int = 32 * 2**20

    def __post_init__(self) -> None:
        self._check_types()
        choices = {
            "api": (self.api, ("auto", "chat", "completions")),
            "dialect": (self.dialect, ("openai", "vllm")),
            "continuation": (self.continuation, (None, "none", "vllm", "prefix")),
        }
        for name, (value, valid) in choices.items():
            if value not in valid:
                raise SpecError(f"endpoint.{name} must be one of {valid}, not {value!r}")
        limits = {"deadline_s": self.deadline_s, "backoff_s": self.backoff_s}
        if self.attempt_s is not None:
            limits["attempt_s"] = self.attempt_s
        for name, seconds in limits.items():
            if not (seconds > 0 and math.isfinite(seconds)):
                raise SpecError(f"endpoint.{name} must be a positive number, not {seconds}")
        if min(self.start, self.max_n, self.max_body) < 1 or self.retries < 0:
            raise SpecError("endpoint needs start, max_n and max_body >= 1, and retries >= 0")
        if self.token_ids and self.dialect != "vllm":
            raise SpecError("endpoint.token_ids needs dialect='vllm'; others return no token ids")

    def _check_types(self) -> None:
        """Options may come from a config file: each must have the type it is declared with."""
        kinds: dict[str, tuple[type, ...]] = {
            "seeds logprobs token_ids stream": (bool,),
            "start max_n retries max_body": (int,),
            "deadline_s backoff_s": (int, float),
            "max_tokens_field": (str,),
        }
        for names, types in kinds.items():
            for name in names.split():
                value = getattr(self, name)
                if type(value) not in types:
                    wanted = " or ".join(kind.__name__ for kind in types)
                    raise SpecError(f"endpoint.{name} must be {wanted}, not {value!r}")
        if self.attempt_s is not None and type(self.attempt_s) not in (int, float):
            raise SpecError(f"endpoint.attempt_s must be a number or None, not {self.attempt_s!r}")

    @property
    def continues_chat(self) -> Continuation:
        """How a chat turn is continued."""
        if self.continuation is not None:
            return self.continuation
        return "vllm" if self.dialect == "vllm" else "none"

    @property
    def extras(self) -> bool:
        """Whether vLLM's own parameters may be sent."""
        return self.dialect == "vllm"


def parse_address(spec: str) -> tuple[str, str]:
    """``http://host:8000/v1#model`` → (base URL without a slash at its end, model).

    Keys belong in an environment variable or a file: a URL with user, password or query is refused
    with ``SpecError``, unread.

    >>> parse_address("http://127.0.0.1:8000/v1/#org/model-7b")
    ('http://127.0.0.1:8000/v1', 'org/model-7b')
    """
    hint = "expected http://host:port/v1#model"
    try:
        parts = urlsplit(spec)
        port = parts.port
    except ValueError:
        raise SpecError(f"the endpoint's address is no URL; {hint}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"the endpoint's address needs http or https and a host; {hint}")
    if parts.username or parts.password or parts.query or "@" in parts.netloc:
        raise SpecError(
            "the endpoint's address must hold no user, password or query; put the key into "
            f"{DEFAULT_KEY}, or name a variable with key_env or a file with key_file"
        )
    if not parts.fragment:
        raise SpecError(f"the endpoint's address names no model; {hint}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", parts.fragment


def find_key(url: str, key_env: str | None, key_file: str | Path | None) -> Secret | None:
    """The key from a named variable, a file, or ``MULL_API_KEY``; ``None`` sends no key.

    ``OPENAI_API_KEY`` is sent to api.openai.com alone: a key goes where its owner meant it to go.
    """
    if key_env is not None and key_file is not None:
        raise SpecError("give key_env or key_file, not both")
    if key_file is not None:
        try:
            value = Path(key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"key_file {key_file} cannot be read: {type(error).__name__}") from None
        source = f"key_file {key_file}"
    elif key_env is not None:
        value = os.environ.get(key_env, "").strip()
        source = f"environment variable {key_env}"
    else:
        names = [DEFAULT_KEY]
        if urlsplit(url).hostname == "api.openai.com":
            names.append("OPENAI_API_KEY")
        value = next((os.environ[name].strip() for name in names if os.environ.get(name)), "")
        if not value:
            return None
        source = "environment"
    if not value:
        raise SpecError(f"{source} holds no key")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise SpecError(f"{source} holds something that is no key: printable ASCII, one word")
    return Secret(value)
