"""The engine's face: requests in, deltas and completions out, on any event loop."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from mull.budget import Meter
from mull.engines.adapt import AdaptRecipe, Parts, cannot_adapt
from mull.engines.base import check_scorable, check_supported
from mull.engines.torch.adapted import AdaptedWeights
from mull.engines.torch.batch import Batch
from mull.engines.torch.inbox import Inbox
from mull.engines.torch.jobs import (
    Event,
    Failed,
    Ids,
    Job,
    ScoredText,
    ScoreJob,
)
from mull.engines.torch.stop import WATCHES_KEPT, Watch
from mull.engines.torch.text import Text
from mull.engines.torch.worker import Worker
from mull.errors import ContextError, EngineError, UnsupportedError
from mull.types import (
    Completion,
    Delta,
    EngineInfo,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
)


class TorchEngine:
    """A model in this process. Made by ``load_torch_engine``; see ``mull.engines.base.Engine``.

    A branch that is extended later (``Request.assistant_ids``) finds its keys and values in the
    prefix tree; the tokens found there are reported as ``Usage.cached``.
    """

    def __init__(
        self, batch: Batch, text: Text, info: EngineInfo, adapted: AdaptedWeights | None = None
    ) -> None:
        self.info = info
        self.text = text
        self.model = batch.model
        self.batch = batch
        self._worker = Worker(batch)
        self._adapted = adapted
        self._numbers = itertools.count()
        self._watches: dict[tuple[tuple[str, ...], str | None], Watch] = {}
        # A dropped engine ends its thread; the thread holds the worker, never the engine.
        self._finalizer = weakref.finalize(self, _close, self._worker, adapted)

    # --- Engine protocol -----------------------------------------------------------------------

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Yield each completion as it finishes; see ``Engine.generate``.

        Raises:
            ContextError: the prompt leaves no room for a token; nothing is ever cut.
            UnsupportedError: a parameter that this model or decoding cannot honour.
            EngineError: the engine is closed, or the model's output is no number.
        """
        job, inbox = self._job(request, meter)
        left = request.n
        worker = self._of(request.weights)
        worker.submit(job)
        try:
            while left:
                for item in await inbox.get():
                    if isinstance(item, Completion):
                        left -= 1
                    yield item
        finally:
            if left and not inbox.ended:
                if not worker.closed:
                    worker.cancel(job)
                await asyncio.shield(inbox.closed)

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        """Log-probabilities and values of given texts; see ``Engine.score``.

        Values are the value head's reading, through a sigmoid (0..1), at the last token of every
        step: the token that completes the separator, and the text's last token. Certainty is that
        of the model's whole output, softmax at T=1, padded entries of its vocabulary included; the
        end's probability is that of all its end tokens together.

        Raises:
            ContextError: a text is longer than the context.
            UnsupportedError: values asked of a checkpoint without a value head, the end of one
                without an end token.
        """
        self._check_open()
        check_scorable(requests, self.info)
        loop = asyncio.get_running_loop()
        jobs, done = dict[Worker, list[ScoreJob]](), list[asyncio.Future[Scored]]()
        for number, request in enumerate(requests):
            future: asyncio.Future[Scored] = loop.create_future()
            own = jobs.setdefault(self._of(request.weights), [])
            own.append(self._score_job(request, number, meter, future))
            done.append(future)
        for worker, own in jobs.items():
            worker.score(own)
        try:
            return list(await asyncio.gather(*done))
        finally:
            for worker, own in jobs.items():
                left = [job for job in own if not job.over]
                if left and not worker.closed:
                    worker.withdraw(left)

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        """Train a copy of the weights on; see ``AdaptingEngine.adapt``.

        Raises:
            UnsupportedError: the engine was loaded without a trainer.
            EngineError: nothing to train on, or the training failed.
        """
        self._check_open()
        return await self._held().acquire(examples, recipe, meter)

    async def ready(self, weights: str) -> None:
        """Held weights are ready; ``EngineError`` for any others."""
        self._held().worker(weights)

    def release(self, weights: str) -> None:
        """Give one hold back; with the last one the adapted weights go."""
        if self._adapted is not None:
            self._adapted.release(weights)

    def forget(self) -> None:
        """Empty the prefix trees: what is asked from here on is computed, and charged, anew."""
        self._check_open()
        self._worker.forget()
        if self._adapted is not None:
            self._adapted.forget()

    async def aclose(self) -> None:
        """Stop the model's thread; what runs ends with ``EngineError``."""
        await asyncio.to_thread(_close, self._worker, self._adapted)

    # --- requests ------------------------------------------------------------------------------

    def _job(self, request: Request, meter: Meter) -> tuple[Job, Inbox]:
        self._check_open()
        self._check_head()
        check_supported(request, self.info)
        self._check_search(request)
        ids = self._ids(request)
        limit, at_limit = _limit(request.until, self.info.context - len(ids), len(ids), self.info)
        watch = self._watch(request.until)
        loop = asyncio.get_running_loop()
        inbox = Inbox(self.text, request, ids, meter, watch, loop)
        job = Job(
            number=next(self._numbers),
            ids=ids,
            request=request,
            limit=limit,
            at_limit=at_limit,
            watch=watch,
            table=0,
            loop=loop,
            deliver=inbox.deliver,
            waiting=deque(range(request.first, request.first + request.n)),
        )
        return job, inbox

    def _check_open(self) -> None:
        if self._worker.closed:
            raise EngineError("the engine is closed: load it again")

    def _check_head(self) -> None:
        if not self.info.capabilities.score:
            raise UnsupportedError(
                f"{self.info.model} has no output head (tensor lm_head.weight): it gives values at "
                "step ends, and neither text nor log-probabilities"
            )

    def _ids(self, request: Request) -> Ids:
        if request.assistant_ids is None:
            ids = self.text.prompt(request.prompt, request.assistant)
        else:
            ids = self.text.prompt(request.prompt) + request.assistant_ids
            wrong = [t for t in request.assistant_ids if not 0 <= t < self.text.vocab]
            if wrong:
                raise EngineError(
                    f"assistant_ids hold {wrong[0]}, outside the vocabulary of {self.text.vocab}"
                )
        if not ids:
            raise EngineError("the prompt is empty: the model needs at least one token")
        return ids

    def _check_search(self, request: Request) -> None:
        decoding = request.decoding
        if isinstance(decoding, ThresholdDFS):
            if decoding.width > self.info.slots:
                raise UnsupportedError(
                    f"a search at threshold {decoding.threshold:g} may hold {decoding.width} lines "
                    f"open and needs as many slots; the engine has {self.info.slots}: raise "
                    "its option slots or the threshold"
                )
            if request.deltas:
                raise UnsupportedError("a threshold search gives whole texts: ask for no deltas")
        if not isinstance(decoding, TokenBeam):
            return
        if request.first + request.n > decoding.width:
            raise UnsupportedError(
                f"token beam of width {decoding.width} cannot give n = "
                f"{request.first + request.n} hypotheses: raise the width or lower n"
            )
        if decoding.width > self.info.slots:
            raise UnsupportedError(
                f"token beam of width {decoding.width} needs as many slots; "
                f"the engine has {self.info.slots}: raise its option slots, or narrow the beam"
            )
        if request.deltas:
            raise UnsupportedError("token beam gives whole hypotheses: ask for no deltas")

    def _watch(self, until: Until) -> Watch | None:
        if not until.stop and until.steps is None:
            return None
        return self._watches_of(until.stop, until.separator if until.steps is not None else None)

    def _watches_of(self, stops: tuple[str, ...], separator: str | None) -> Watch:
        key = (stops, separator)
        watch = self._watches.pop(key, None) or Watch(self.text, *key)
        self._watches[key] = watch  # the last asked for stands last
        if len(self._watches) > WATCHES_KEPT:
            del self._watches[next(iter(self._watches))]
        return watch

    def _of(self, weights: str | None) -> Worker:
        """What answers under adapted weights, or under the model's own."""
        if weights is None:
            return self._worker
        return self._held().worker(weights)

    def _held(self) -> AdaptedWeights:
        if self._adapted is None:
            raise cannot_adapt(self.info)
        return self._adapted

    def _pieces(self, request: ScoreRequest) -> list[Ids]:
        """The tokens of each piece by itself."""
        if request.assistant or request.assistant_ids is not None:
            raise EngineError("pieces stand in place of assistant: score one of the two")
        # A piece that is a special token alone is one: some reward models end steps so.
        found = [tuple(self.text.piece(piece)) for piece in request.pieces]
        if not all(found):
            raise EngineError("a piece without a token has no value: leave empty pieces out")
        return found

    def _score_job(
        self, request: ScoreRequest, number: int, meter: Meter, future: asyncio.Future[Scored]
    ) -> ScoreJob:
        if request.values and not self.info.capabilities.values:
            raise UnsupportedError(
                f"{self.info.model} has no value head (value_head.weight or score.weight): "
                "score without values, or load a model trained with one"
            )
        if request.logprobs or request.certainty or request.end:
            self._check_head()
        prompt = self.text.prompt(request.prompt)
        apart: tuple[int, ...] = ()
        if request.pieces:
            ids, given = prompt, len(prompt)
            for piece in self._pieces(request):
                ids += piece
                apart += (len(ids) - 1,)
        elif request.assistant_ids is not None:
            ids, given = prompt + request.assistant_ids, len(prompt)
        else:
            ids = self.text.prompt(request.prompt, request.assistant)
            given = next(
                (at for at, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b),
                min(len(prompt), len(ids)),
            )
        if given == 0:
            raise EngineError("the prompt is empty: the first token would have no probability")
        if len(ids) > self.info.context:
            raise ContextError(
                f"a text of {len(ids)} tokens is longer than the context of {self.info.context}"
            )
        ends = apart if request.values else ()
        if request.values and not request.pieces:
            watch = self._watches_of((), request.separator)
            ends = tuple(given + end for end in watch.step_ends(ids[given:], ids[:given]))

        def deliver(events: list[Event]) -> None:
            for event in events:
                if isinstance(event, ScoredText):
                    meter.charge(
                        number, prompt=event.total, cached=event.cached, seconds=event.seconds
                    )
                    usage = meter.usage(number)
                    scored = Scored(
                        ids[given:],
                        event.logprobs,
                        usage,
                        event.values,
                        event.certainty,
                        event.end,
                    )
                    if not future.done():
                        future.set_result(scored)
                elif isinstance(event, Failed) and not future.done():
                    future.set_exception(event.error)

        return ScoreJob(ids, given, request, ends, asyncio.get_running_loop(), deliver)


def _close(worker: Worker, adapted: AdaptedWeights | None) -> None:
    if adapted is not None:
        adapted.close()
    worker.close()


def _limit(until: Until, room: int, prompt: int, info: EngineInfo) -> tuple[int, StopReason]:
    """How many tokens may be made, and what it means to reach that many."""
    if room < 1:
        raise ContextError(
            f"a prompt of {prompt} tokens leaves no room in the context of {info.context}; "
            f"expected at most {info.context - 1}: shorten it (nothing is cut in silence)"
        )
    if until.tokens is not None and until.tokens <= min(until.max_tokens, room):
        return until.tokens, StopReason.TOKENS
    if until.max_tokens <= room:
        return until.max_tokens, StopReason.LENGTH
    return room, StopReason.CONTEXT
