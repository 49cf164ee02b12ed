"""From a choice to the text and stop reason of a completion, and how tokens are shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mull.engines.openai.wire import Choice, Tokens
from mull.errors import UnsupportedError
from mull.types import StopReason, Until


@dataclass(frozen=True, slots=True)
class Ending:
    """How a text ends. ``cut`` is whether we had to cut it where the endpoint should have."""

    text: str
    stop: StopReason
    stop_string: str | None = None
    cut: bool = False


def stops_of(until: Until) -> tuple[str, ...]:
    """Stop strings to send: the request's own, and the separator where steps are asked for."""
    if until.steps is None or until.separator in until.stop:
        return until.stop
    return (*until.stop, until.separator)


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the first stop string to be completed begins, and which it is."""
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1:] if found else None


def ending(choice: Choice, until: Until, limit: int, generated: int | None) -> Ending:
    """The ending of one generation of at most ``limit`` tokens, of which ``generated`` were made.

    A separator is put back. Where the endpoint does not tell a stop string from the model's own
    end (only vLLM does), a stop under ``steps`` counts as a finished step, and as the end where
    nothing was said; with stop strings of the request besides, the two cannot be told apart and
    the request is refused.
    """
    stops = stops_of(until)
    met = first_stop(choice.text, stops)
    if met is not None:
        # Endpoints that ignore a stop string, or leave it in the text, must not leak it.
        return _stopped(choice.text[: met[0]], met[1], until, cut=True)
    if choice.finish == "content_filter":
        return Ending(choice.text, StopReason.FILTERED)
    if choice.finish == "length":
        return Ending(choice.text, _length(until, limit, generated))
    if choice.told:
        if choice.stop_string is None:
            return Ending(choice.text, StopReason.END)
        return _stopped(choice.text, choice.stop_string, until)
    if until.steps is None or not choice.text:
        return Ending(choice.text, StopReason.END)
    if until.stop:
        raise UnsupportedError(
            "this endpoint does not say whether a separator or a stop string ended the text; ask "
            "for steps without stop strings, or use an endpoint with dialect='vllm'"
        )
    return _stopped(choice.text, until.separator, until)


def _stopped(text: str, string: str, until: Until, cut: bool = False) -> Ending:
    if until.steps is not None and string == until.separator and string not in until.stop:
        return Ending(text + string, StopReason.STEP, None, cut)
    return Ending(text, StopReason.STOP, string, cut)


def _length(until: Until, limit: int, generated: int | None) -> StopReason:
    if generated is not None and generated < limit:
        # Less than asked for and yet a length: what was full is the context.
        return StopReason.CONTEXT
    if until.tokens is not None and until.tokens <= until.max_tokens:
        return StopReason.TOKENS
    return StopReason.LENGTH


class Gate:
    """Holds back what may become a stop string, so that no part of one leaks into a delta.

    >>> gate = Gate(("END",))
    >>> gate.push("one E"), gate.push("N"), gate.push("T"), gate.flush()
    ('one ', '', 'ENT', '')
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self._shut = False

    def push(self, text: str) -> str:
        """What of the text so far can be shown."""
        if self._shut:
            return ""
        self._held += text
        met = first_stop(self._held, self._stops)
        if met is not None:
            self._shut = True
            shown, self._held = self._held[: met[0]], ""
            return shown
        begun = (
            size
            for stop in self._stops
            for size in range(1, len(stop))
            if self._held.endswith(stop[:size])
        )
        ready = len(self._held) - max(begun, default=0)
        shown, self._held = self._held[:ready], self._held[ready:]
        return shown

    def flush(self) -> str:
        """The rest: nothing more will come."""
        shown, self._held = self._held, ""
        return shown


def estimate(text: str) -> int:
    """Tokens of a text that nobody counted: a quarter of its UTF-8 bytes, rounded up."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


def share_out(choices: Sequence[Choice], tokens: Tokens | None) -> tuple[list[int], bool]:
    """Generated tokens of each choice, and whether they are estimates.

    The endpoint counts them together; token ids or log-probabilities count them apart. Where those
    are missing or disagree with the total (hidden reasoning), the total is shared by length.
    """
    exact = [len(c.token_ids or c.logprobs or ()) for c in choices]
    known = all(c.token_ids is not None or c.logprobs is not None for c in choices)
    if tokens is None or (tokens.generated == 0 and any(c.text for c in choices)):
        if known:
            return exact, False
        guesses = [estimate(choice.text) + 1 for choice in choices]
        return [e or g for e, g in zip(exact, guesses, strict=True)], True
    if len(choices) == 1:
        return [tokens.generated], False
    if known and sum(exact) == tokens.generated:
        return exact, False
    weights = exact if known and any(exact) else [len(choice.text) + 1 for choice in choices]
    whole = sum(weights)
    quotas = [tokens.generated * weight / whole for weight in weights]
    shares = [int(quota) for quota in quotas]
    order = sorted(range(len(quotas)), key=lambda i: (shares[i] - quotas[i], i))
    for i in order[: tokens.generated - sum(shares)]:
        shares[i] += 1
    return shares, True
