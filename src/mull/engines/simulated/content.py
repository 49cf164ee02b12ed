"""What the simulator says: the contract of a content model, and the two that only repeat.

A content model writes the rest of a turn piece by piece, from the request and the sample's own
seed alone: never from the time, the slots or what else is running. The engine stops reading when
the request's end is reached, so a model that writes step by step draws no step in vain.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mull.engines.simulated.text import encode, prompt_text
from mull.errors import EngineError
from mull.rng import derive
from mull.types import Request, Sampling

Piece = tuple[str, Sequence[float] | None]
"""A text and the log-probability of each of its tokens (bytes); ``None`` stands for all zeros."""


@runtime_checkable
class Content(Protocol):
    """Writes what a sample says. Its ``repr`` is its identity in caches and records."""

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        """The rest of the turn of sample ``index``, until the model ends it."""
        ...


@runtime_checkable
class ScoringContent(Content, Protocol):
    """A content model that also knows the probability and the value of a given text."""

    def score(self, prompt: str, assistant: str) -> list[float]:
        """Log-probability of each token of ``assistant`` given ``prompt``."""
        ...

    def value(self, prompt: str, assistant: str) -> float:
        """Probability that the solution so far ends in the right answer, 0..1."""
        ...


@runtime_checkable
class EndingContent(ScoringContent, Protocol):
    """A scoring content model that also knows where its turns end."""

    def end(self, prompt: str, assistant: str) -> float:
        """Log-probability that the turn ends behind ``assistant``."""
        ...


def sampling(request: Request) -> Sampling:
    """The request's sampling; the engine has refused every other decoding before."""
    if not isinstance(request.decoding, Sampling):
        raise EngineError("a content model only samples")  # pragma: no cover - refused before
    return request.decoding


@dataclass(frozen=True)
class Echo:
    """The same text every time, at no cost: measures what is around the engine.

    With ``tokens=(low, high)`` trailing blanks bring every completion to a length drawn uniformly
    from the range (its end token counted), so that a latency model has something to schedule.
    Sampling filters do not touch the length.
    """

    text: str = "answer 1"
    tokens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None:
            low, high = self.tokens
            least = len(encode(self.text)) + 1
            if not least <= low <= high:
                raise ValueError(
                    f"echo.tokens must be a range from at least {least} (text and end), "
                    f"not {self.tokens}"
                )

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        """The text, padded if lengths are asked for."""
        yield self.text, None
        if self.tokens is not None:
            drawn = random.Random(derive(request.seed, index)).randint(*self.tokens)
            yield " " * (drawn - len(encode(self.text)) - 1), None


@dataclass(frozen=True)
class Script:
    """Texts given by hand: for one prompt or for all, sample ``i`` says the ``i``-th of them.

    ``texts`` maps a prompt's plain text to its samples; a plain sequence serves every prompt.
    Samples beyond the last start over. A turn that was begun is continued by the texts that begin
    with it, again by sample index; where there is none the request fails.

    >>> from mull.types import Prompt, Request, Until
    >>> request = Request(Prompt.of("2 + 2"), Until(9), assistant="so ")
    >>> list(Script(["so 4", "5", "so 5"]).write(request, 1))
    [('5', None)]
    """

    texts: Mapping[str, Sequence[str]] | Sequence[str]

    def write(self, request: Request, index: int) -> Iterator[Piece]:
        """The scripted text behind what the assistant has said already."""
        prompt = prompt_text(request.prompt)
        texts = self.texts.get(prompt, ()) if isinstance(self.texts, Mapping) else self.texts
        if isinstance(texts, str) or not texts:
            raise EngineError(
                f"the script has no list of texts for the prompt {prompt[:80]!r}; "
                "give one in Script.texts"
            )
        fitting = [text for text in texts if text.startswith(request.assistant)]
        if not fitting:
            raise EngineError(
                f"no text of the script continues {request.assistant[-80:]!r}; "
                "add one that begins with the whole turn so far"
            )
        yield fitting[index % len(fitting)][len(request.assistant) :], None
