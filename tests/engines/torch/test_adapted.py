"""Adapted weights: trained beside running rows, shared while held, bounded, freed, charged."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import tiny_model

from mull.budget import Dense, Ledger, Meter, Purpose
from mull.engines.adapt import (
    AdaptingEngine,
    AdaptRecipe,
    OnStep,
    Parts,
    TrainStep,
    weights_name,
)
from mull.engines.torch import load_torch_engine
from mull.errors import ConfigError, EngineError, ModelLoadError, UnsupportedError
from mull.types import GREEDY, Completion, Prompt, Request, ScoreRequest, Until

torch = pytest.importorskip("torch")
adapt = pytest.importorskip("mull.training.adapt")
# The first optimizer of a process loads this, slowly: here no test's time limit runs.
import_module("torch._dynamo")
RECIPE = AdaptRecipe(steps=100, batch_tokens=512, matrix_rate=2e-2, rate=1e-2)
SHORT = AdaptRecipe(steps=2, batch_tokens=64)
STOP = Until(6, stop=(">",))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def lessons(count: int = 400, rule: Callable[[str], str] = str) -> tuple[Parts, ...]:
    rng = random.Random(count)
    grids = ["".join(rng.choices("123456789", k=4)) for _ in range(count)]
    return tuple(Parts(((f"<{g}=", False), (f"{rule(g)}>", True))) for g in grids)


class Trainer:
    """Trains as it should, or waits before it does; counts what it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[Sequence[Parts]] = []
        self.told = 0
        self.gate: threading.Event | None = None
        self.error: Exception | None = None

    def __call__(
        self, examples: Sequence[Parts], recipe: AdaptRecipe, device: str, on_step: OnStep
    ) -> Mapping[str, Any]:
        self.calls.append(examples)
        while self.gate is not None and not self.gate.is_set():
            self.told += 1
            if not on_step(TrainStep(10, 1, 0.01, 1.0)):
                break
            time.sleep(0.01)
        if self.error is not None:
            raise self.error
        return adapt.adapted_weights(self.folder, examples, recipe, device, on_step)


@pytest.fixture
def trainer(base: Path) -> Trainer:
    return Trainer(base)


def loaded(base: Path, trainer: Any, **options: Any) -> Any:
    options = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 26, "slots": 8, **options}
    return load_torch_engine(base, trainer=trainer, **options)


@pytest.fixture
def engine(base: Path, trainer: Trainer) -> Iterator[Any]:
    engine = loaded(base, trainer)
    yield engine
    asyncio.run(engine.aclose())


def gauge(engine: Any, model: Any = None) -> Meter:
    return Meter(Ledger(model), Purpose.ADAPTATION, engine.info)


async def say(engine: Any, text: str, weights: str | None, n: int = 1) -> list[str]:
    request = Request(Prompt.of(text), STOP, n=n, decoding=GREEDY, weights=weights)
    items = [c async for c in engine.generate(request, gauge(engine))]
    return [c.text for c in items if isinstance(c, Completion)]


async def until(true: Callable[[], bool]) -> None:
    for _ in range(800):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


def test_it_is_an_adapting_engine(engine: Any) -> None:
    assert isinstance(engine, AdaptingEngine)
    assert engine.info.capabilities.adapts


@pytest.mark.slow  # two whole trainings: a second on an idle machine
@pytest.mark.timeout(60)
def test_under_its_weights_a_model_does_what_it_was_taught(engine: Any) -> None:
    async def work() -> None:
        before = await say(engine, "<1928=", None)
        copy = await engine.adapt(lessons(), RECIPE, gauge(engine))
        back = await engine.adapt(lessons(300, lambda g: g[::-1]), RECIPE, gauge(engine))
        assert await say(engine, "<1928=", copy, n=3) == ["1928"] * 3
        assert await say(engine, "<1928=", back) == ["8291"]
        assert await say(engine, "<1928=", None) == before != ["1928"]
        texts = [
            ScoreRequest(Prompt.of("<1928="), said, weights=weights)
            for weights in (copy, back, None)
            for said in ("1928>", "8291>")
        ]
        scores = [sum(s.logprobs) for s in await engine.score(texts, gauge(engine))]
        assert scores[0] > -0.5 > scores[1]
        assert scores[3] > -0.5 > scores[2]
        assert max(scores[4:]) < -5
        engine.release(copy)
        assert await say(engine, "<1928=", back) == ["8291"]
        with pytest.raises(EngineError, match="not held"):
            await say(engine, "<1928=", copy)
        engine.release(back)

    asyncio.run(work())


def test_cost_is_six_flops_a_weight_and_token(engine: Any) -> None:
    async def work() -> Meter:
        meter = gauge(engine, Dense())
        engine.release(await engine.adapt(lessons(30), SHORT, meter))
        return meter

    meter = asyncio.run(work())
    usage = meter.usage(0)
    # Twelve tokens a text, of which five fit into 64.
    assert usage.prompt == SHORT.steps * 12 * 5
    assert usage.flops == 6.0 * engine.info.parameters * usage.prompt
    assert usage.generated == 0
    assert usage.seconds > 0


def test_who_asks_for_the_same_shares_one_training_and_pays_in_full(
    engine: Any, trainer: Trainer
) -> None:
    async def work() -> None:
        meters = [gauge(engine) for _ in range(3)]
        names = await asyncio.gather(
            *(engine.adapt(lessons(30), SHORT, meter) for meter in meters[:2])
        )
        names.append(await engine.adapt(lessons(30), SHORT, meters[2]))
        assert set(names) == {weights_name(lessons(30), SHORT)}
        assert len(trainer.calls) == 1
        assert len({meter.usage(0) for meter in meters}) == 1
        for name in names[:2]:
            engine.release(name)
        assert await say(engine, "<12=", names[0])
        engine.release(names[0])
        engine.release(await engine.adapt(lessons(30), SHORT, gauge(engine)))
        assert len(trainer.calls) == 2, "what nobody held is trained anew"

    asyncio.run(work())


def test_no_more_weights_are_held_than_there_is_room_for(base: Path, trainer: Trainer) -> None:
    engine = loaded(base, trainer, adapted=2)

    async def work() -> None:
        names = [await engine.adapt(lessons(count), SHORT, gauge(engine)) for count in (5, 6)]
        third = asyncio.create_task(engine.adapt(lessons(7), SHORT, gauge(engine)))
        fourth = asyncio.create_task(engine.adapt(lessons(8), SHORT, gauge(engine)))
        await asyncio.sleep(0.05)
        assert len(trainer.calls) == 2 and not third.done()
        fourth.cancel()
        await asyncio.wait([fourth])
        engine.release(names[0])
        assert await say(engine, "<12=", await third)
        for name in (names[1], await third):
            engine.release(name)
        assert engine._adapted.names == []
        assert len(trainer.calls) == 3

    asyncio.run(work())
    asyncio.run(engine.aclose())


def test_closing_a_training_stops_it_and_charges_what_was_done(
    engine: Any, trainer: Trainer
) -> None:
    async def work() -> None:
        trainer.gate = threading.Event()
        meter = gauge(engine)
        task = asyncio.create_task(engine.adapt(lessons(9), SHORT, meter))
        await until(lambda: trainer.told > 2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert meter.usage(0).prompt >= 10 * 3
        told = trainer.told
        assert engine._adapted.names == []
        trainer.gate = None
        engine.release(await engine.adapt(lessons(9), SHORT, gauge(engine)))
        assert trainer.told == told

    asyncio.run(work())


def test_one_who_goes_leaves_the_training_to_the_others(engine: Any, trainer: Trainer) -> None:
    async def work() -> None:
        trainer.gate = threading.Event()
        asked = [
            asyncio.create_task(engine.adapt(lessons(9), SHORT, gauge(engine))) for _ in range(2)
        ]
        await until(lambda: trainer.told > 1)
        asked[0].cancel()
        await asyncio.wait([asked[0]])
        trainer.gate.set()
        name = await asked[1]
        assert await say(engine, "<12=", name)
        engine.release(name)
        assert len(trainer.calls) == 1

    asyncio.run(work())


def test_rows_under_the_models_own_weights_go_on_meanwhile(engine: Any, trainer: Trainer) -> None:
    async def work() -> None:
        trainer.gate = threading.Event()
        task = asyncio.create_task(engine.adapt(lessons(9), SHORT, gauge(engine)))
        await until(lambda: trainer.told > 0)
        assert await say(engine, "<12=", None, n=8)
        assert not task.done()
        trainer.gate.set()
        engine.release(await task)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("error", "says"),
    [(ConfigError("the loss became nan"), "nan"), (RuntimeError("broke"), "broke")],
)
def test_a_training_that_fails_is_an_engine_error_and_holds_nothing(
    engine: Any, trainer: Trainer, error: Exception, says: str
) -> None:
    async def work() -> None:
        trainer.error = error
        for _ in range(5):  # more often than there is room: failures free theirs
            with pytest.raises(EngineError, match=says):
                await engine.adapt(lessons(9), SHORT, gauge(engine))
        trainer.error = None
        engine.release(await engine.adapt(lessons(9), SHORT, gauge(engine)))

    asyncio.run(work())


def test_texts_that_do_not_fit_are_an_engine_error(engine: Any) -> None:
    long = (Parts((("1" * 300, True),)),)
    with pytest.raises(EngineError, match="longer than the context"):
        asyncio.run(engine.adapt(long, SHORT, gauge(engine)))


def test_freed_weights_are_gone(base: Path, trainer: Trainer) -> None:
    engine = loaded(base, trainer)

    async def work() -> Any:
        name = await engine.adapt(lessons(9), SHORT, gauge(engine))
        await say(engine, "<12=", name)
        worker = engine._adapted.worker(name)
        engine.release(name)
        thread = worker._thread
        await asyncio.to_thread(thread.join)
        return weakref.ref(worker)

    gone = asyncio.run(work())
    gc.collect()
    assert gone() is None
    asyncio.run(engine.aclose())


def test_a_closed_engine_ends_what_trains_and_refuses_more(base: Path, trainer: Trainer) -> None:
    engine = loaded(base, trainer)

    async def work() -> None:
        trainer.gate = threading.Event()
        task = asyncio.create_task(engine.adapt(lessons(9), SHORT, gauge(engine)))
        await until(lambda: trainer.told > 0)
        await engine.aclose()
        with pytest.raises(EngineError):
            await task
        with pytest.raises(EngineError, match="closed"):
            await engine.adapt(lessons(9), SHORT, gauge(engine))

    asyncio.run(work())


def test_an_engine_without_a_trainer_refuses(base: Path) -> None:
    engine = loaded(base, None)
    assert not engine.info.capabilities.adapts

    async def work() -> None:
        with pytest.raises(UnsupportedError):
            await engine.adapt(lessons(9), SHORT, gauge(engine))
        with pytest.raises(UnsupportedError):
            await say(engine, "<12=", "adapt-1")
        with pytest.raises(UnsupportedError):
            await engine.score([ScoreRequest(Prompt.of("<"), "1", weights="a")], gauge(engine))
        await engine.aclose()

    asyncio.run(work())


def test_the_catalog_gives_a_trainer_to_models_that_it_fits(base: Path, checkpoints: Any) -> None:
    from mull.catalog import load_engine

    async def work() -> None:
        ours = load_engine(str(base), adapted=1)
        theirs = load_engine(str(checkpoints("qwen2")))
        assert ours.info.capabilities.adapts
        assert not theirs.info.capabilities.adapts
        name = await ours.adapt(lessons(9), SHORT, gauge(ours))  # type: ignore[attr-defined]
        assert await say(ours, "<12=", name)
        for engine in (ours, theirs):
            await engine.aclose()

    asyncio.run(work())


def test_room_for_none_is_refused(base: Path) -> None:
    with pytest.raises(ModelLoadError, match="adapted"):
        loaded(base, partial(adapt.adapted_weights, base), adapted=0)
