"""The simulated engine: a content model behind slots that take time. No model, no threads.

What a sample says depends on the request and its index alone; when it is said depends on the
slots. The same requests therefore give the same completions and the same charges in every order,
at every concurrency, on a virtual clock or in real time.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from mull.budget import Meter
from mull.engines.base import check_scorable, check_supported
from mull.engines.simulated.content import Content, EndingContent, ScoringContent
from mull.engines.simulated.draft import Draft, compose
from mull.engines.simulated.faults import ERRORS, Fault, Faults
from mull.engines.simulated.latency import Latency, Slots, SlotStats
from mull.engines.simulated.text import encode, prompt_text
from mull.errors import ContextError, EngineError, UnsupportedError
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


class SimulatedEngine:
    """Runs a content model as if it were a language model.

    ``latency`` and ``slots`` say what time it takes (none by default: then no slot is held and
    nothing waits). ``parameters``, ``layers`` and ``width`` feed the FLOPs model, ``context`` is
    the longest sequence in tokens (0: no limit), ``price`` money per million tokens. With
    ``prefix_cache`` a turn that is continued costs no new prompt tokens, as in an engine whose
    cache holds every branch it made.

    Tokens are bytes. A sample that fails (``faults``) raises its error after all other samples of
    the request have come back, so that the outcome does not depend on timing.

    >>> import asyncio
    >>> from mull.budget import Ledger, Meter, Purpose
    >>> from mull.engines.simulated import Script, SimulatedEngine
    >>> from mull.types import Prompt, Request, Until
    >>> engine = SimulatedEngine(Script(["4", "five"]))
    >>> async def ask():
    ...     request = Request(Prompt.of("2 + 2 ="), Until(max_tokens=16), n=3)
    ...     meter = Meter(Ledger(), Purpose.POLICY, engine.info)
    ...     return [completion.text async for completion in engine.generate(request, meter)]
    >>> asyncio.run(ask())
    ['4', 'five', '4']
    """

    def __init__(
        self,
        content: Content,
        *,
        latency: Latency | None = None,
        slots: int = 64,
        faults: Faults | None = None,
        model: str = "simulated",
        parameters: int = 0,
        layers: int = 0,
        width: int = 0,
        context: int = 0,
        price: tuple[float, float, float] = (0.0, 0.0, 0.0),
        prefix_cache: bool = True,
    ) -> None:
        self.content = content
        self.latency = latency or Latency()
        self.faults = faults
        self.prefix_cache = prefix_cache
        self._slots = Slots(slots)
        self._closed = False
        scores = isinstance(content, ScoringContent)
        says = repr((content, faults))
        self._info = EngineInfo(
            kind="simulated",
            model=model,
            revision=hashlib.blake2b(says.encode(), digest_size=6).hexdigest(),
            tokenizer="bytes",
            parameters=parameters,
            layers=layers,
            width=width,
            context=context,
            slots=slots,
            price=price,
            capabilities=Capabilities(
                chat=True,
                logprobs=True,
                token_ids=True,
                seed=True,
                score=scores,
                values=scores,
                ends=isinstance(content, EndingContent),
                continue_assistant=True,
                deltas=True,
            ),
        )

    @property
    def info(self) -> EngineInfo:
        """Who answers: the revision is a hash of content model and faults."""
        return self._info

    @property
    def stats(self) -> SlotStats:
        """What the slots have done since the engine was made."""
        return self._slots.stats

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yield the completions as they finish; see ``Engine.generate``."""
        self._refuse(request)
        new, total = self._prompt_tokens(request)
        if self.latency.none:
            error: EngineError | None = None
            meter.charge(request.first, prompt=total, cached=total - new)
            for index in range(request.first, request.first + request.n):
                draft, failed, fault = self._draft(request, index, total)
                if fault is Fault.MISSING:
                    continue
                if request.deltas and failed is None:
                    made = 0
                    for delta in deltas(index, draft, self.latency.delta_tokens):
                        count = len(delta.token_ids)
                        meter.charge(index, generated=count, context=total + made)
                        made += count
                        yield delta
                else:
                    meter.charge(index, generated=draft.tokens, context=total)
                self.stats.generated += draft.tokens
                if failed is not None:
                    error = error or failed
                else:
                    yield _completion(index, draft, meter)
            if error is not None:
                raise error
            return
        run = _Run(self, request, meter, new, total)
        try:
            run.submit()
            while (item := await run.next()) is not None:
                yield item
        finally:
            run.close()

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """Exact log-probabilities of given texts, and the probability of success at step ends.

        Where a turn ends is known to content models with ``end`` (``EndingContent``).

        Only for content models that know them (``StepModel``); takes no slot and no time.
        """
        self._open()
        check_scorable(requests, self.info)
        if any(each.pieces for each in requests):
            raise UnsupportedError("the simulator cannot honour: pieces; send them as assistant")
        content = self.content
        if not isinstance(content, ScoringContent):
            raise UnsupportedError(
                f"the content model {type(content).__name__} cannot score text; use StepModel"
            )
        scored = []
        for position, request in enumerate(requests):
            prompt = prompt_text(request.prompt)
            ids = encode(request.assistant)
            if request.assistant_ids is not None and bytes(request.assistant_ids) != ids:
                raise UnsupportedError("assistant_ids are not the bytes of assistant")
            meter.charge(position, prompt=len(encode(prompt)) + len(ids))
            values: list[float] = []
            if request.values:
                at = 0
                while (at := request.assistant.find(request.separator, at)) >= 0:
                    at += len(request.separator)
                    values.append(content.value(prompt, request.assistant[:at]))
                if not request.assistant.endswith(request.separator):
                    values.append(content.value(prompt, request.assistant))
            scored.append(
                Scored(
                    tuple(ids),
                    tuple(content.score(prompt, request.assistant)) if request.logprobs else (),
                    meter.usage(position),
                    tuple(values),
                    end=_end(content, prompt, request),
                )
            )
        return scored

    async def aclose(self) -> None:
        """Refuse requests from now on."""
        self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise EngineError("this engine was closed; make a new one")

    def _refuse(self, request: Request) -> None:
        self._open()
        check_supported(request, self._info)

    def _prompt_tokens(self, request: Request) -> tuple[int, int]:
        """(new, all) tokens in front of the generation."""
        prompt = request.prompt
        ids = prompt.token_ids
        size = len(ids) if ids is not None else len(encode(prompt.plain))
        said = request.assistant_ids
        total = size + (len(said) if said is not None else len(encode(request.assistant)))
        if self._info.context and total >= self._info.context:
            raise ContextError(
                f"prompt and turn so far have {total} tokens; the model's context of "
                f"{self._info.context} leaves none to generate: shorten the prompt"
            )
        return (0 if request.assistant and self.prefix_cache else total), total

    def _draft(
        self, request: Request, index: int, context: int
    ) -> tuple[Draft, EngineError | None, Fault | None]:
        """What sample ``index`` will say, what it will fail with, and its fault."""
        room = self._info.context - context if self._info.context else None
        pieces = self.content.write(request, index)
        draft = compose(pieces, request.until, room, request.logprobs)
        fault = self.faults.of(request.seed, index) if self.faults is not None else None
        if fault is None or fault in (Fault.SLOW, Fault.MISSING):
            return draft, None, fault
        if fault is Fault.EMPTY:
            ended = (0.0,) if request.logprobs else None
            return Draft("", b"", ended, StopReason.END), None, fault
        if fault is Fault.TRUNCATED:
            return draft.cut(draft.tokens // 2, StopReason.LENGTH), None, fault
        if fault is Fault.FILTERED:
            cut = draft.cut(len(draft.ids), StopReason.FILTERED)
            return Draft("", cut.ids, cut.logprobs, StopReason.FILTERED), None, fault
        error = ERRORS[fault](f"simulated fault: sample {index} failed ({fault})")
        return draft.cut(draft.tokens // 2, StopReason.CANCELLED), error, fault


def _end(content: Content, prompt: str, request: ScoreRequest) -> float | None:
    if not request.end or not isinstance(content, EndingContent):
        return None
    return content.end(prompt, request.assistant)


def deltas(index: int, draft: Draft, size: int) -> list[Delta]:
    """A draft in pieces of ``size`` tokens; joined, their texts are the draft's."""
    ids, decoder = draft.token_ids, codecs.getincrementaldecoder("utf-8")("ignore")
    out: list[Delta] = []
    left = len(draft.text)
    for start in range(0, len(ids), size):
        chunk = ids[start : start + size]
        # The stop string's tokens are generated, but its text is not part of the completion.
        text = decoder.decode(bytes(i for i in chunk if i < 256))[:left]
        left -= len(text)
        scores = () if draft.logprobs is None else draft.logprobs[start : start + size]
        out.append(Delta(index, text, chunk, scores))
    return out


def _completion(index: int, draft: Draft, meter: Meter) -> Completion:
    return Completion(
        index,
        draft.text,
        draft.stop,
        meter.usage(index),
        draft.token_ids,
        draft.logprobs,
        draft.stop_string,
    )


class _Run:
    """One request in time: its samples wait for slots, run, and are handed out as they finish."""

    def __init__(
        self, engine: SimulatedEngine, request: Request, meter: Meter, new: int, total: int
    ) -> None:
        self.engine = engine
        self.request = request
        self.meter = meter
        self.new_prompt = new
        self.context = total
        self.prefilled_at: float | None = None
        self.jobs: dict[int, _Sample] = {}
        self.ready: deque[Delta | Completion] = deque()
        self.error: tuple[int, EngineError] | None = None
        self.loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None

    def submit(self) -> None:
        """Queue every sample for a slot, in order of index."""
        first, request = self.request.first, self.request
        self.jobs = {index: _Sample(self, index) for index in range(first, first + request.n)}
        for job in list(self.jobs.values()):
            self.engine._slots.submit(job, request.priority)

    async def next(self) -> Delta | Completion | None:
        """The next delta or completion; ``None`` at the end."""
        while not self.ready and self.jobs:
            self._waiter = self.loop.create_future()
            await self._waiter
        if self.ready:
            return self.ready.popleft()
        if self.error is not None:
            raise self.error[1]
        return None

    def put(self, item: Delta | Completion) -> None:
        """Hand an item out."""
        self.ready.append(item)
        self.wake()

    def wake(self) -> None:
        """Something changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Cancel what is unfinished; what was made until now stays charged."""
        for job in list(self.jobs.values()):
            job.cancel()
        self.jobs.clear()


class _Sample:
    """One completion in its slot."""

    __slots__ = (
        "_base",
        "_charged",
        "_draft",
        "_failed",
        "_fault",
        "_handle",
        "_nominal",
        "_pending",
        "_started",
        "cancelled",
        "index",
        "run",
        "token_s",
    )

    def __init__(self, run: _Run, index: int) -> None:
        self.run = run
        self.index = index
        self.cancelled = False
        self._handle: asyncio.TimerHandle | None = None
        self._charged = 0

    def start(self, now: float) -> None:
        """Take the slot: draw the text, set the timer of its end (or of its next delta)."""
        run, latency = self.run, self.run.engine.latency
        prefill = 0.0
        if run.prefilled_at is None:
            # The samples of a request share its prompt: the first to start pays for it.
            prefill = run.new_prompt * latency.prefill_ms / 1e3
            run.prefilled_at = now + prefill
            run.meter.charge(self.index, prompt=run.context, cached=run.context - run.new_prompt)
        self._draft, self._failed, self._fault = run.engine._draft(
            run.request, self.index, run.context
        )
        slow = run.engine.faults.slowdown if run.engine.faults is not None else 1.0
        self.token_s = latency.token_ms / 1e3 * (slow if self._fault is Fault.SLOW else 1.0)
        self._started = now
        self._base = max(now + latency.request_ms / 1e3, run.prefilled_at)
        # What the slot is charged with does not depend on when the sample ran: a difference of
        # two clock readings would, in its last digits.
        own = max(latency.request_ms / 1e3, prefill)
        self._nominal = own + self._draft.tokens * self.token_s
        self._pending: deque[Delta] = deque()
        if run.request.deltas and self._failed is None and self._fault is not Fault.MISSING:
            self._pending.extend(deltas(self.index, self._draft, latency.delta_tokens))
        self._schedule()

    def cancel(self) -> None:
        """Leave the queue, or leave the slot with the tokens of the time so far charged."""
        if self._handle is None:
            self.run.engine._slots.withdraw(self)
            return
        self._handle.cancel()
        now = self.run.loop.time()
        made = self._draft.tokens
        if self.token_s:
            made = min(made, max(0, int((now - self._base) / self.token_s + 1e-6)))
        self._charge(made - self._charged)
        self._leave(now - self._started)
        self.run.engine.stats.cancelled += 1

    def _schedule(self) -> None:
        tokens = self._draft.tokens
        if self._pending:
            tokens = self._charged + len(self._pending[0].token_ids)
        self._handle = self.run.loop.call_at(self._base + tokens * self.token_s, self._step)

    def _step(self) -> None:
        run = self.run
        if self._pending:
            delta = self._pending.popleft()
            self._charge(len(delta.token_ids))
            run.put(delta)
            self._schedule()
            return
        self._charge(self._draft.tokens - self._charged)
        self._leave(self._nominal)
        run.engine.stats.finished += 1
        del run.jobs[self.index]
        if self._failed is not None:
            if run.error is None or self.index < run.error[0]:
                run.error = (self.index, self._failed)
            run.wake()
        elif self._fault is Fault.MISSING:
            run.wake()
        else:
            run.put(_completion(self.index, self._draft, run.meter))

    def _charge(self, tokens: int) -> None:
        """Charge the next ``tokens`` tokens of this sample."""
        if tokens > 0:
            context = self.run.context + self._charged
            self.run.meter.charge(self.index, generated=tokens, context=context)
            self.run.engine.stats.generated += tokens
            self._charged += tokens

    def _leave(self, held: float) -> None:
        self.run.meter.charge(self.index, seconds=held)
        self.run.engine._slots.release(self._started)
