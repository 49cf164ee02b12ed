"""What travels: the values that pass from room to room.

A problem becomes a branch, a branch a request, a request completions, a finished branch a
candidate. Nothing here knows an engine, a task or a strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from mull.grades import Unanswered

Json = None | bool | int | float | str | list[Any] | dict[str, Any]
Role = Literal["system", "user", "assistant"]
EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn."""

    role: Role
    content: str


def encodable(text: str) -> bool:
    r"""Whether a text has bytes in UTF-8: no half of a surrogate pair, which no tokenizer takes.

    >>> encodable("a b"), encodable("a \ud800 b")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, in exactly one of three forms.

    ``messages`` are rendered by the engine's chat template; ``text`` is used as it stands;
    ``token_ids`` skip the tokenizer. An engine that has no template takes ``text``, and takes a
    lone user message as text.

    >>> Prompt.of("2 + 2 =").text
    '2 + 2 ='
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given = (bool(self.messages), self.text is not None, self.token_ids is not None)
        if sum(given) != 1:
            raise ValueError(
                "a prompt has exactly one of messages, text, token_ids; "
                f"{sum(given)} were given: use Prompt.of(text) or Prompt.chat(messages)"
            )

    @classmethod
    def of(cls, text: str) -> Prompt:
        """A plain text prompt."""
        return cls(text=text)

    @classmethod
    def chat(cls, *messages: Message) -> Prompt:
        """A chat prompt."""
        return cls(messages=messages)

    @property
    def plain(self) -> str:
        """The prompt for a human reader: message contents joined by blank lines."""
        if self.text is not None:
            return self.text
        if self.token_ids is not None:
            return " ".join(map(str, self.token_ids))
        return "\n\n".join(message.content for message in self.messages)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to answer.

    ``answer`` is the gold answer in the task's canonical text, ``None`` where there is none;
    ``meta`` carries the task's own facts (``level``, ``contexts``, ``choices`` …) as JSON values;
    ``opening`` is what the assistant's turn begins with before the model writes.
    """

    id: str
    prompt: Prompt
    answer: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    opening: str = ""


class StopReason(StrEnum):
    """Why a generation ended. Closed; truncation is never ``stop``."""

    END = "end"
    """The model ended its turn (end-of-sequence token, or the endpoint's "stop")."""
    STOP = "stop"
    """A stop string of the request was met; it is not part of the text."""
    STEP = "step"
    """The steps asked for are complete; the separator is part of the text."""
    TOKENS = "tokens"
    """The chunk of tokens asked for (``Until.tokens``) is complete."""
    LENGTH = "length"
    """``Until.max_tokens`` was reached: the text is truncated."""
    CONTEXT = "context"
    """The model's context is full: the text is truncated."""
    CANCELLED = "cancelled"
    """The caller closed the request."""
    FILTERED = "filtered"
    """The endpoint withheld the text (content filter)."""
    EXHAUSTED = "exhausted"
    """A threshold search found no completion of this rank: there is no text."""

    @property
    def truncated(self) -> bool:
        """Whether the text was cut before the model finished it."""
        return self in (StopReason.LENGTH, StopReason.CONTEXT)

    @property
    def finished(self) -> bool:
        """Whether nothing can follow: only a step or a chunk may be continued."""
        return self not in (StopReason.STEP, StopReason.TOKENS)


@dataclass(frozen=True, slots=True)
class Until:
    """When a generation ends, besides the model's own end.

    ``steps`` pieces closed by ``separator``, ``tokens`` generated in this request, a ``stop``
    string (not part of the text), or ``max_tokens`` in this request (truncation).
    """

    max_tokens: int
    steps: int | None = None
    tokens: int | None = None
    separator: str = "\n"
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_tokens", "steps", "tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"until.{name} must be at least 1, not {value}")
        if not self.separator or "" in self.stop:
            raise ValueError("until.separator and until.stop strings must not be empty")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Independent sampling: temperature, then top-k, top-p, min-p, in that order.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch a filter off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        # `not (a <= x <= b)` rather than `x < a or x > b`: NaN must fail too.
        if not 0.0 <= self.temperature <= 100.0:
            raise ValueError(f"temperature must lie in 0..100, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p must lie in [0, 1], not {self.min_p}")


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class TokenBeam:
    """Beam search over tokens by cumulative log-probability; ``n`` best hypotheses come back.

    ``length_penalty`` p ranks finished hypotheses by logprob / length**p (0: plain sum).
    """

    width: int
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"token-beam width must be at least 1, not {self.width}")


@dataclass(frozen=True, slots=True)
class ThresholdDFS:
    """Every completion (tokens up to the request's end) of probability ``threshold`` or more.

    The ``n`` likeliest come back in order; an index that has none ends ``StopReason.EXHAUSTED``.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"threshold must be a probability in (0, 1], not {self.threshold}")

    @property
    def width(self) -> int:
        """The most completions, and the most open lines at once: 1 / threshold, rounded down."""
        return int(min(1.0 / self.threshold + 1e-9, 1e18))  # 1 / 1e-310 is infinite


Decoding = Sampling | TokenBeam | ThresholdDFS


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, ``n`` completions. A value: nothing is configured on an engine in between.

    Sample ``i`` of ``first .. first + n - 1`` draws from its own stream ``derive(seed, i)``, so a
    request may be split or resumed and every sample stays the same. ``assistant`` is the text of
    the turn so far; ``assistant_ids`` its exact tokens where the same engine made them.
    ``weights`` names adapted weights; ``priority`` orders waiting requests (lower runs first).
    """

    prompt: Prompt
    until: Until
    assistant: str = ""
    assistant_ids: tuple[int, ...] | None = None
    n: int = 1
    first: int = 0
    decoding: Decoding = Sampling()
    seed: int = 0
    weights: str | None = None
    priority: int = 0
    deltas: bool = False
    logprobs: bool = True

    def __post_init__(self) -> None:
        if self.n < 1 or self.first < 0:
            raise ValueError(f"a request needs n >= 1 and first >= 0, not {self.n}, {self.first}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. ``cached`` counts the prompt tokens that were not computed again.

    The prompt is charged on a request's first completion, where the engine shares it. ``seconds``
    that a slot was held; ``flops`` by the ledger's cost model; ``estimated``: no engine could say.
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    cost: float = 0.0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.generated + other.generated,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.cost + other.cost,
            self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        """Tokens computed: new prompt tokens and generated tokens."""
        return self.prompt - self.cached + self.generated


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of sample ``index`` as it is made; only when ``Request.deltas``."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One generation as the engine returned it.

    ``index`` is the sample index; ``text`` holds neither prompt nor stop string. ``token_ids`` and
    ``logprobs`` (of the chosen tokens, natural log, under the unscaled distribution T=1) have one
    entry a generated token, the end token included, or are ``None`` where the engine cannot say.
    """

    index: int
    text: str
    stop: StopReason
    usage: Usage
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    stop_string: str | None = None

    @property
    def logprob(self) -> float | None:
        """Cumulative log-probability, ``None`` where the engine gave none."""
        return None if self.logprobs is None else sum(self.logprobs)

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token, ``None`` where the engine gave none."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Text to score under the model: log-probabilities of ``assistant`` given ``prompt``.

    With ``values`` the value head is read at every step end; without ``logprobs`` an engine may
    save what they cost. ``weights`` as in ``Request``. ``certainty`` asks how far from uniform the
    distribution of each token was, ``end`` how likely the turn ends behind the text. ``pieces`` in
    place of ``assistant`` are tokenised one by one, and values are read at their last tokens.
    """

    prompt: Prompt
    assistant: str
    assistant_ids: tuple[int, ...] | None = None
    separator: str = "\n"
    values: bool = False
    logprobs: bool = True
    weights: str | None = None
    certainty: bool = False
    end: bool = False
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities [tokens of assistant] and, if asked, values [steps of assistant].

    ``certainty`` [tokens of assistant], if asked: KL(uniform || next-token distribution) before
    each token, in nats, 0 or more; ``None`` where it was not asked. ``end``, if asked: the
    log-probability that the turn ends behind the text, by any of the model's end tokens.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    usage: Usage
    values: tuple[float, ...] = ()
    certainty: tuple[float, ...] | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can honour; what it cannot, it refuses with ``UnsupportedError``."""

    chat: bool = False
    logprobs: bool = False
    token_ids: bool = False
    seed: bool = False
    score: bool = False
    values: bool = False
    token_beam: bool = False
    threshold_dfs: bool = False
    continue_assistant: bool = True
    continue_chat: bool = True
    """``continue_assistant`` holds behind chat messages too, and not only behind a text."""
    deltas: bool = False
    adapts: bool = False
    certainty: bool = False
    ends: bool = False
    """Tells how likely a turn is to end behind a given text (``ScoreRequest.end``)."""
    shares_prompt: bool = True
    """The samples of one request pay for its prompt once, with the first of them."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Who answers. The identity goes into every cache key and record.

    ``parameters`` (non-embedding-lookup weights that multiply), ``layers`` and ``width`` feed the
    FLOPs model; ``0`` means unknown and FLOPs are then not reported. ``slots`` is how many
    completions run side by side; ``context`` the longest sequence in tokens, ``0`` if unknown.
    ``price`` is money per million (new prompt, cached prompt, generated) tokens.
    """

    kind: str
    model: str
    revision: str = ""
    tokenizer: str = ""
    template: str = ""
    adapter: str = ""
    url: str = ""
    dtype: str = ""
    parameters: int = 0
    layers: int = 0
    width: int = 0
    context: int = 0
    slots: int = 1
    price: tuple[float, float, float] = (0.0, 0.0, 0.0)
    capabilities: Capabilities = Capabilities()

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two engines give different text; slots and price do not."""
        return (
            self.kind,
            self.model,
            self.revision,
            self.tokenizer,
            self.template,
            self.adapter,
            self.url,
            self.dtype,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One generated piece of a branch, as its completion gave it; ``tokens`` is its length."""

    text: str
    stop: StopReason
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    tokens: int = 0

    @classmethod
    def of(cls, completion: Completion) -> Step:
        """The step that a completion adds to its branch."""
        ids = completion.token_ids
        tokens = completion.usage.generated if ids is None else len(ids)
        return cls(completion.text, completion.stop, ids, completion.logprobs, tokens)


AGAIN = "That may be wrong. Look at it once more and solve the problem again."


@dataclass(frozen=True, slots=True)
class Attempt:
    """An earlier solution shown in context: what was tried, and what was said about it."""

    text: str
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of thought: the problem as it sees it, earlier attempts, the steps so far.

    ``key`` is the parent's key and the child's index: it gives the seed and the order. A branch is
    a value; ``child`` and ``revision`` make new ones. ``weights`` names the adapted weights that
    continue it and judge it, ``None`` for the policy's own. ``opening`` as in ``Problem``.
    """

    problem: Problem
    view: Prompt
    key: tuple[int, ...] = ()
    history: tuple[Attempt, ...] = ()
    steps: tuple[Step, ...] = ()
    weights: str | None = None
    opening: str = ""

    @classmethod
    def root(cls, problem: Problem) -> Branch:
        """The branch that has seen nothing but the problem."""
        return cls(problem, problem.prompt, opening=problem.opening)

    @property
    def prompt(self) -> Prompt:
        """The view with the earlier attempts behind it, oldest first.

        Chat prompts get one assistant turn an attempt, answered by its feedback; text prompts get
        the attempts as text, each closed by a blank line. ``ValueError`` for attempts behind token
        ids, whose text nobody here knows.
        """
        if not self.history:
            return self.view
        if self.view.token_ids is not None:
            raise ValueError(
                f"problem {self.problem.id}: an earlier attempt is shown behind messages or text, "
                "and its prompt is token ids: give the problem as Prompt.of(text) or Prompt.chat("
                "messages), or use a strategy that revises nothing, as vote"
            )
        if self.view.messages:
            turns = [
                turn
                for attempt in self.history
                for turn in (
                    Message("assistant", attempt.text),
                    Message("user", attempt.feedback or AGAIN),
                )
            ]
            return Prompt.chat(*self.view.messages, *turns)
        shown = [text for past in self.history for text in (past.text, past.feedback) if text]
        return Prompt.of("\n\n".join([self.view.plain, *shown]) + "\n\n")

    @property
    def text(self) -> str:
        """The assistant's turn so far."""
        return self.opening + self.said

    @property
    def said(self) -> str:
        """What the model wrote of the turn: the steps, without the opening."""
        return "".join(step.text for step in self.steps)

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The exact tokens so far, ``None`` if any step has none, or the turn has an opening."""
        if self.opening or any(step.token_ids is None for step in self.steps):
            return None
        return tuple(id for step in self.steps for id in step.token_ids or ())

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return sum(step.tokens for step in self.steps)

    @property
    def depth(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @property
    def finished(self) -> bool:
        """Whether the last step ended the solution."""
        return bool(self.steps) and self.steps[-1].stop.finished

    def child(self, completion: Completion) -> Branch:
        """This branch with the completion as its next step; the child index is the sample's."""
        return replace(
            self, key=(*self.key, completion.index), steps=(*self.steps, Step.of(completion))
        )

    def revision(self, feedback: str = "") -> Branch:
        """A fresh attempt that sees this finished branch as the latest in its history."""
        seen = (*self.history, Attempt(self.text, feedback))
        return replace(self, key=(*self.key, -1), history=seen, steps=())


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished branch with what was read from it.

    ``text`` is what the model said, without the problem's opening; ``scores`` holds one number a
    scorer (``mean_logprob``, ``logprob``, a verifier's name); ``tokens`` counts the generated
    tokens of the whole branch.
    """

    key: tuple[int, ...]
    text: str
    answer: str | None
    unanswered: Unanswered | None = None
    stop: StopReason = StopReason.END
    tokens: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
