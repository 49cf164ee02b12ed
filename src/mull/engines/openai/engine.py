"""Any OpenAI-compatible endpoint as an engine: samples out of requests, exactly n of them.

What endpoints do with ``n`` is not trusted: missing choices are asked for again, extra ones are
dropped and counted, indices are checked. Every generated token that the endpoint reported is
charged; what it could not report (cancelled, failed) is estimated and flagged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mull.budget import Meter, Purpose
from mull.engines.base import check_supported
from mull.engines.limit import AdaptiveLimit
from mull.engines.openai.calls import Calls, OnLost, Stats
from mull.engines.openai.endpoint import Endpoint, Secret
from mull.engines.openai.settle import Ending, Gate, ending, estimate, share_out, stops_of
from mull.engines.openai.transport import Attempt, Transport
from mull.engines.openai.wire import Ask, Choice, Tokens, route
from mull.errors import (
    AuthError,
    ContextError,
    EngineError,
    NotFoundError,
    ProtocolError,
    SpecError,
    UnsupportedError,
)
from mull.rng import derive
from mull.types import (
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
)

T = TypeVar("T")

_FATAL = (AuthError, NotFoundError, ContextError, UnsupportedError)
"""Errors that every other sample of the request would meet as well."""


class OpenAIEngine:
    """Samples from an endpoint; made by ``load_openai``.

    ``info`` carries what the user knows about the model behind the endpoint: ``parameters``,
    ``layers`` and ``width`` for FLOPs, ``context``, ``price``. ``stats`` counts what the endpoint
    did besides answering; ``limit`` is the adaptive number of requests in flight.
    """

    def __init__(self, endpoint: Endpoint, info: EngineInfo, key: Secret | None = None) -> None:
        self.endpoint = endpoint
        self.limit = AdaptiveLimit(start=endpoint.start, most=info.slots)
        self._info = info
        self._transport = Transport(endpoint, key)
        self._calls = Calls(endpoint, self._transport, self.limit)
        self._alone = endpoint.seeds
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.endpoint.url}#{self.endpoint.model})"

    @property
    def info(self) -> EngineInfo:
        """Who answers, as far as is known."""
        return self._info

    @property
    def stats(self) -> Stats:
        """Retries, refusals, ignored ``n`` and the like, since the engine was made."""
        return self._calls.stats

    def notes(self) -> tuple[str, ...]:
        """What the endpoint did besides answering, a line each; see ``engines.base.notes_of``."""
        place = f"{self.endpoint.url}#{self.endpoint.model}"
        return tuple(f"{place}: {note}" for note in self.stats.notes())

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yield the completions as they arrive; see ``Engine.generate``."""
        if self._closed:
            raise EngineError("this engine was closed; make a new one")
        check_supported(request, self._info)
        route(request.prompt, self.endpoint)
        run = _Run(self, request, meter)
        try:
            run.start()
            while (item := await run.next()) is not None:
                yield item
        finally:
            await run.close()

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """Refused: the protocol has no dependable way to score given text."""
        raise UnsupportedError(
            f"{self!r} cannot score given text; use an in-process engine for that"
        )

    async def probe(self) -> EngineInfo:
        """Ask for the list of models: is ours served, and how long is its context?

        Raises ``SpecError`` naming the models that are served; typed engine errors otherwise.
        """
        try:
            async with asyncio.timeout(min(30.0, self.endpoint.deadline_s)):
                answer = await self._transport.get("/models")
        except Attempt as attempt:
            raise attempt.error from None
        rows = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ProtocolError(f"{self.endpoint.url}/models gave no list of models")
        models: dict[str, Any] = {str(r.get("id")): r for r in rows if isinstance(r, dict)}
        if self.endpoint.model not in models:
            raise SpecError(
                f"{self.endpoint.url} does not serve {self.endpoint.model!r}; "
                f"it serves: {', '.join(sorted(models)[:20]) or 'nothing'}"
            )
        length = models[self.endpoint.model].get("max_model_len")
        if not self._info.context and type(length) is int and length > 0:
            self._info = replace(self._info, context=length)
        return self._info

    async def aclose(self) -> None:
        """Close the connections; the engine refuses requests from now on."""
        self._closed = True
        await self._transport.aclose()


def information(
    endpoint: Endpoint,
    *,
    revision: str,
    parameters: int,
    layers: int,
    width: int,
    context: int,
    slots: int,
    price: tuple[float, float, float],
) -> EngineInfo:
    """The engine's info: capabilities follow from the endpoint's options."""
    chat = endpoint.api != "completions"
    goes_on = endpoint.continues_chat != "none"
    return EngineInfo(
        kind="openai",
        model=endpoint.model,
        revision=revision,
        template=endpoint.api,
        url=endpoint.url,
        parameters=parameters,
        layers=layers,
        width=width,
        context=context,
        slots=slots,
        price=price,
        capabilities=Capabilities(
            chat=chat,
            logprobs=endpoint.logprobs,
            token_ids=endpoint.token_ids,
            seed=endpoint.seeds,
            continue_assistant=endpoint.api != "chat" or goes_on,
            continue_chat=endpoint.api == "completions" or goes_on,
            deltas=True,
            shares_prompt=not endpoint.seeds,
        ),
    )


@dataclass(slots=True)
class _Line:
    """One sample while it is made, possibly of several requests (one a step)."""

    index: int
    gate: Gate
    text: str = ""
    ids: tuple[int, ...] | None = ()
    logprobs: tuple[float, ...] | None = ()
    steps: int = 0
    generated: int = 0


class _Run:
    """One request: groups of samples are asked for side by side, and handed out as they come."""

    def __init__(self, engine: OpenAIEngine, request: Request, meter: Meter) -> None:
        self.engine = engine
        self.request = request
        self.meter = meter
        self.waste = Meter(meter.ledger, Purpose.RETRY, meter.info)
        self.ready: deque[Delta | Completion] = deque()
        self.errors: dict[int, EngineError] = {}
        self.fatal: EngineError | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Ask for every sample: alone where each has its own seed, else many in one request."""
        request = self.request
        indices = range(request.first, request.first + request.n)
        several = request.until.steps is not None and request.until.steps > 1
        size = 1 if self.engine._alone or several else self.engine.endpoint.max_n
        for start in range(0, request.n, size):
            self._spawn(list(indices[start : start + size]))

    async def next(self) -> Delta | Completion | None:
        """The next item; ``None`` at the end; the error of the first failed sample behind it."""
        while not self.ready and self.tasks and self.fatal is None:
            self._changed.clear()
            await self._changed.wait()
        if self.ready:
            return self.ready.popleft()
        if self.fatal is not None:
            raise self.fatal
        if self.errors:
            raise self.errors[min(self.errors)]
        return None

    async def close(self) -> None:
        """Cancel what is unfinished: connections close, and what it has cost is charged."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, indices: list[int]) -> None:
        task = asyncio.get_running_loop().create_task(self._group(indices))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nothing but a bug of ours comes this way; it must not vanish with the task.
            self.fatal = EngineError(f"internal error: {error!r}")
        self._changed.set()

    async def _group(self, indices: list[int]) -> None:
        try:
            lines = [_Line(index, Gate(stops_of(self.request.until))) for index in indices]
            await self._fill(lines)
        except EngineError as error:
            self.errors[indices[0]] = error
            if isinstance(error, _FATAL):
                self.fatal = error

    async def _fill(self, lines: list[_Line]) -> None:
        """Bring every line to its end: one request, then what it left open, line by line."""
        while True:
            ask = self._ask(lines)
            started = asyncio.get_running_loop().time()
            on_piece = self._piece(lines) if self.request.deltas else None
            on_lost = self._lost(lines)
            choices, tokens = await self.engine._calls.send(ask, on_piece, on_lost)
            seconds = asyncio.get_running_loop().time() - started
            kept = self._match(choices, len(lines))
            if not kept:
                on_lost(sum(share_out(choices, None)[0]) if tokens is None else tokens, False)
                raise ProtocolError("the endpoint answered without a usable choice")
            self._charge(lines, choices, kept, tokens, seconds)
            unfinished = []
            for place, line in enumerate(lines):
                if place not in kept:
                    self._spawn([line.index])
                elif not self._advance(line, kept[place], ask.tokens, tokens, len(choices)):
                    unfinished.append(line)
            if not unfinished:
                return
            # Only a line of several steps goes on, and it is alone in its group.
            lines = unfinished

    def _ask(self, lines: list[_Line]) -> Ask:
        request, until, first = self.request, self.request.until, lines[0]
        limit = min(until.max_tokens, until.tokens or until.max_tokens) - first.generated
        said = request.assistant_ids
        ids = (*said, *first.ids) if said is not None and first.ids is not None else None
        seed = None
        if self.engine.endpoint.seeds:
            seed = derive(request.seed, first.index, first.steps) % 2**31
        return Ask(
            request,
            request.assistant + first.text,
            ids,
            len(lines),
            limit,
            stops_of(until),
            seed,
            request.deltas or self.engine.endpoint.stream,
        )

    def _match(self, choices: list[Choice], n: int) -> dict[int, Choice]:
        """One choice a place; repeated and surplus indices are dropped, never counted twice."""
        stats = self.engine.stats
        if n == len(choices) == 1:
            return {0: choices[0]}
        kept: dict[int, Choice] = {}
        for choice in choices:
            if choice.index >= n or choice.index in kept:
                stats.extra += 1
                continue
            kept[choice.index] = choice
        if 0 < len(kept) < n:
            stats.n_ignored += 1
            # It will not do better next time: from now on every sample is asked for alone.
            self.engine._alone = True
        return kept

    def _charge(
        self,
        lines: list[_Line],
        choices: list[Choice],
        kept: dict[int, Choice],
        tokens: Tokens | None,
        seconds: float,
    ) -> None:
        """Charge what the answer cost: the prompt to the first sample, dropped choices as waste."""
        request = self.request
        shares, guessed = share_out(choices, tokens)
        if tokens is None:
            self.engine.stats.no_usage += 1
        prompt = self._prompt(lines) if tokens is None else tokens.prompt
        cached = 0 if tokens is None else tokens.cached
        first = lines[min(kept)].index
        self.meter.charge(first, prompt=prompt, cached=cached, estimated=tokens is None)
        places = {id(choice): lines[place] for place, choice in kept.items()}
        for choice, share in zip(choices, shares, strict=True):
            line = places.get(id(choice))
            meter = self.meter if line is not None else self.waste
            index = line.index if line is not None else request.first
            meter.charge(index, generated=share, context=prompt, estimated=guessed)
            if line is not None:
                line.generated += share
                self.meter.charge(line.index, seconds=seconds)

    def _advance(
        self, line: _Line, choice: Choice, limit: int, tokens: Tokens | None, answered: int
    ) -> bool:
        """Add a generation to its line; hand the completion out if it is the last one."""
        until, stats = self.request.until, self.engine.stats
        if choice.reasoned and not choice.text:
            stats.reasoned_only += 1
        counted = None
        if tokens is not None and answered == 1:
            counted = tokens.generated
        elif not choice.reasoned:
            counted = len(choice.token_ids or choice.logprobs or ()) or None
        end = ending(choice, until, limit, counted)
        stats.stop_ignored += end.cut
        line.text += end.text
        line.ids = _joined(line.ids, choice.token_ids)
        line.logprobs = _joined(line.logprobs, choice.logprobs)
        line.steps += end.stop is StopReason.STEP
        more = end.stop is StopReason.STEP and line.steps < (until.steps or 1)
        if more and line.generated >= until.max_tokens:
            end, more = replace(end, stop=StopReason.LENGTH), False
        self._close_deltas(line, end)
        if more:
            line.gate = Gate(stops_of(until))
            return False
        self.ready.append(
            Completion(
                line.index,
                line.text,
                end.stop,
                self.meter.usage(line.index),
                line.ids if self.engine.endpoint.token_ids else None,
                line.logprobs if self.request.logprobs else None,
                end.stop_string,
            )
        )
        self._changed.set()
        return True

    def _piece(self, lines: list[_Line]) -> Any:
        def on_piece(
            place: int, text: str, logprobs: tuple[float, ...], ids: tuple[int, ...]
        ) -> None:
            if place >= len(lines):
                return
            shown = lines[place].gate.push(text)
            if shown or ids or logprobs:
                self.ready.append(Delta(lines[place].index, shown, ids, logprobs))
                self._changed.set()

        return on_piece

    def _close_deltas(self, line: _Line, end: Ending) -> None:
        """Show what the gate held back, and the separator that was put back."""
        if not self.request.deltas:
            return
        text = "" if end.cut else line.gate.flush()
        if end.stop is StopReason.STEP:
            text += self.request.until.separator
        if text:
            self.ready.append(Delta(line.index, text))

    def _lost(self, lines: list[_Line]) -> OnLost:
        def on_lost(cost: Tokens | int, cancelled: bool) -> None:
            meter = self.meter if cancelled else self.waste
            index, unsure = lines[0].index, isinstance(cost, int)
            lost = Tokens(self._prompt(lines), 0, cost) if isinstance(cost, int) else cost
            meter.charge(index, prompt=lost.prompt, cached=lost.cached, estimated=unsure)
            meter.charge(index, generated=lost.generated, context=lost.prompt, estimated=unsure)

        return on_lost

    def _prompt(self, lines: list[_Line]) -> int:
        """Prompt tokens of a request that nobody counted."""
        prompt = self.request.prompt
        said = estimate(self.request.assistant + lines[0].text)
        if prompt.token_ids is not None:
            return len(prompt.token_ids) + said
        return estimate(prompt.plain) + said


def _joined(a: tuple[T, ...] | None, b: tuple[T, ...] | None) -> tuple[T, ...] | None:
    return None if a is None or b is None else a + b
