"""Adapted weights are named by what they learnt; engines that have none refuse them typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.held import Holds

from mull.budget import COST_MODELS, Ledger, Meter, Purpose
from mull.engines.adapt import AdaptingEngine, AdaptRecipe, Parts, adapting, weights_name
from mull.engines.cache import Lost, RecordingEngine
from mull.engines.openai import load_openai
from mull.engines.replay import ReplayEngine
from mull.engines.simulated import Echo, SimulatedEngine, StepModel, run_virtual
from mull.engines.spread import SpreadEngine
from mull.errors import EngineError, ReplayMissError, UnsupportedError
from mull.store import Reader, Store
from mull.store.rows import canonical
from mull.store.store import insert
from mull.types import (
    Capabilities,
    Completion,
    Delta,
    EngineInfo,
    Prompt,
    Request,
    Scored,
    ScoreRequest,
    StopReason,
    Until,
    Usage,
)

TEXTS = (Parts((("1+1=", False), ("2;", True))), Parts((("2+2=", False), ("4;", True))))
RECIPE = AdaptRecipe()
NAME = weights_name(TEXTS, RECIPE)
INFO = EngineInfo(
    "torch",
    "m",
    parameters=1000,
    layers=2,
    width=8,
    price=(1.0, 0.0, 0.0),
    capabilities=Capabilities(adapts=True, score=True),
)
REQUEST = Request(Prompt.of("p"), Until(4), weights=NAME)
SCORED = ScoreRequest(Prompt.of("p"), "text", weights=NAME)


class Trained(Holds):
    """An engine that trains at once, says which weights answer, and counts what it holds."""

    def __init__(self, fails: bool = False, hangs: bool = False) -> None:
        super().__init__()
        self.info = INFO
        self.trained = 0
        self.fails, self.hangs = fails, hangs

    async def adapt(self, examples: Sequence[Parts], recipe: AdaptRecipe, meter: Meter) -> str:
        name = weights_name(examples, recipe)
        self.trained += 1
        meter.train(0, tokens=60, texts=2, seconds=1.5)
        if self.fails:
            raise EngineError("no")
        if self.hangs:
            await asyncio.Event().wait()
        return self.hold(name)

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        assert request.weights is None or request.weights in self.held
        for index in range(request.first, request.first + request.n):
            meter.charge(index, generated=1)
            yield Completion(index, str(request.weights), StopReason.END, meter.usage(index))

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        assert all(each.weights in self.held for each in requests)
        return [Scored((), (), Usage()) for _ in requests]

    async def aclose(self) -> None:
        pass


def gauge(model: str = "2P") -> Meter:
    return Meter(Ledger(COST_MODELS[model]), Purpose.ADAPTATION, INFO)


async def texts(engine: AdaptingEngine, request: Request = REQUEST) -> list[str]:
    return [c.text async for c in engine.generate(request, gauge()) if isinstance(c, Completion)]


# Names and cost ------------------------------------------------------------------------------


def test_the_name_is_that_of_the_texts_and_the_recipe() -> None:
    others = [
        weights_name(TEXTS[::-1], RECIPE),
        weights_name(TEXTS[:1], RECIPE),
        weights_name([Parts((("1+1=", True), ("2;", True))), TEXTS[1]], RECIPE),
        weights_name([Parts((("1+1=2", False), (";", True))), TEXTS[1]], RECIPE),
        *(
            weights_name(TEXTS, replace(RECIPE, **{name: 7}))
            for name in ("steps", "batch_tokens", "matrix_rate", "rate", "seed")
        ),
    ]
    assert weights_name(list(TEXTS), AdaptRecipe()) == NAME
    assert len({NAME, *others}) == 1 + len(others)


@given(texts=st.integers(1, 50), each=st.integers(1, 200), more=st.integers(0, 49))
def test_training_costs_three_forward_passes_of_every_text(
    texts: int, each: int, more: int
) -> None:
    tokens = texts * each + min(more, texts - 1)
    plain, attending = gauge("2P"), gauge("2P+4LWc")
    for meter in (plain, attending):
        meter.train(0, tokens=tokens, texts=texts, seconds=2.0)
    assert plain.usage(0).flops == 6.0 * INFO.parameters * tokens
    longer = min(more, texts - 1)
    alone = [gauge("2P+4LWc") for _ in range(2)]
    for meter, length in zip(alone, (each, each + 1), strict=True):
        meter.charge(0, prompt=length)
    forward = (texts - longer) * alone[0].usage(0).flops + longer * alone[1].usage(0).flops
    assert attending.usage(0).flops == pytest.approx(3 * forward)
    usage = plain.ledger.of(Purpose.ADAPTATION)
    assert (usage.prompt, usage.generated, usage.seconds) == (tokens, 0, 2.0)
    assert usage.cost == pytest.approx(3e-6 * tokens)


# Engines that adapt nothing ---------------------------------------------------------------------


def test_engines_that_adapt_nothing_refuse_typed() -> None:
    simulated = SimulatedEngine(StepModel())
    spread = SpreadEngine([Trained(), Trained()])
    endpoint = load_openai("http://127.0.0.1:9/v1#m")
    for engine in (simulated, spread, endpoint):
        assert not engine.info.capabilities.adapts
        with pytest.raises(UnsupportedError, match="adapt"):
            adapting(engine)

    async def ask() -> None:
        for engine in (simulated, endpoint):
            with pytest.raises(UnsupportedError, match="adapted weights"):
                async for _ in engine.generate(REQUEST, gauge()):
                    pass
        with pytest.raises(UnsupportedError, match="adapted weights"):
            await simulated.score([SCORED], gauge())
        await endpoint.aclose()

    asyncio.run(ask())


def test_a_recording_engine_around_one_without_refuses_too(tmp_path: Path) -> None:
    with Store.open(tmp_path, threaded=False) as store:
        engine = RecordingEngine(SimulatedEngine(Echo()), store)
        with pytest.raises(UnsupportedError):
            run_virtual(engine.adapt(TEXTS, RECIPE, gauge()))


# Recorded trainings ----------------------------------------------------------------------------


def recorded(
    tmp_path: Path, inner: Trained, work: object, lost: list[Lost] | None = None
) -> object:
    """Run ``work(engine)`` on a recording engine in ``tmp_path``."""
    with Store.open(tmp_path, threaded=False) as store:
        told = (lambda lost: None) if lost is None else lost.append
        return run_virtual(work(RecordingEngine(inner, store, told)))  # type: ignore[operator]


async def adapt_and_ask(engine: RecordingEngine) -> tuple[Usage, list[str]]:
    meter = gauge()
    name = await engine.adapt(TEXTS, RECIPE, meter)
    try:
        return meter.usage(0), await texts(engine)
    finally:
        engine.release(name)


def test_a_resumed_run_is_charged_and_trains_no_more(tmp_path: Path) -> None:
    first, second = Trained(), Trained()
    before = recorded(tmp_path, first, adapt_and_ask)
    assert first.trained == 1
    assert recorded(tmp_path, second, adapt_and_ask) == before
    assert second.trained == 0
    assert not first.held and not second.held
    replay = ReplayEngine.open(tmp_path)
    assert asyncio.run(adapt_and_ask(replay)) == before  # type: ignore[arg-type]


def test_a_missing_sample_trains_once_and_that_is_told_as_repeated(tmp_path: Path) -> None:
    recorded(tmp_path, Trained(), adapt_and_ask)
    inner, lost = Trained(), list[Lost]()

    async def more(engine: RecordingEngine) -> tuple[Usage, list[str]]:
        meter = gauge()
        name = await engine.adapt(TEXTS, RECIPE, meter)
        await asyncio.gather(*(texts(engine, replace(REQUEST, n=3)) for _ in range(2)))
        await engine.score([SCORED], gauge())
        assert inner.held == {NAME: 1}
        engine.release(name)
        return meter.usage(0), []

    usage, _ = recorded(tmp_path, inner, more, lost)  # type: ignore[misc]
    assert inner.trained == 1
    assert not inner.held
    assert usage.prompt == 60
    assert [(each.repeated, each.purpose, each.usage) for each in lost] == [
        (True, Purpose.ADAPTATION, usage)  # by the same cost model
    ]


def test_equal_trainings_are_one_and_charged_to_each(tmp_path: Path) -> None:
    inner = Trained()

    async def both(engine: RecordingEngine) -> list[int]:
        meters = [gauge(), gauge()]
        names = await asyncio.gather(*(engine.adapt(TEXTS, RECIPE, each) for each in meters))
        engine.release(names[0])
        assert await texts(engine) == [NAME]
        engine.release(names[1])
        return [meter.usage(0).prompt for meter in meters]

    assert recorded(tmp_path, inner, both) == [60, 60]
    assert inner.trained == 1
    assert not inner.held


def test_a_training_that_fails_or_is_closed_is_not_recorded(tmp_path: Path) -> None:
    lost: list[Lost] = []

    async def fail(engine: RecordingEngine) -> None:
        with pytest.raises(EngineError):
            await engine.adapt(TEXTS, RECIPE, gauge())

    async def close(engine: RecordingEngine) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await engine.adapt(TEXTS, RECIPE, gauge())

    for inner, work in ((Trained(fails=True), fail), (Trained(hangs=True), close)):
        recorded(tmp_path, inner, work, lost)
        assert not inner.held
    assert [(each.repeated, each.usage.prompt) for each in lost] == [(False, 60)] * 2
    again = Trained()
    recorded(tmp_path, again, adapt_and_ask)
    assert again.trained == 1


def test_what_was_never_trained_cannot_be_replayed(tmp_path: Path) -> None:
    recorded(tmp_path, Trained(), adapt_and_ask)
    replay = ReplayEngine.open(tmp_path)
    with pytest.raises(ReplayMissError, match="training"):
        asyncio.run(replay.adapt(TEXTS[:1], RECIPE, gauge()))
    asyncio.run(replay.aclose())


def test_weights_that_nobody_holds_are_refused(tmp_path: Path) -> None:
    async def ask(engine: RecordingEngine) -> None:
        with pytest.raises(EngineError, match="not held"):
            await texts(engine)

    recorded(tmp_path, Trained(), ask)


def test_what_an_older_store_says_of_an_engine_is_read(tmp_path: Path) -> None:
    data = json.loads(canonical(INFO))
    data["capabilities"]["adapters"] = data["capabilities"].pop("adapts")
    del data["capabilities"]["ends"]
    with Store.open(tmp_path) as store:
        store.write([insert("engines", (canonical(list(INFO.identity)), canonical(data)))])
    with Reader(tmp_path) as reader:
        assert reader.engine() == INFO
