"""Reliability test 27: the same seed gives the same records, whatever the timing.

The records of whole runs are compared as bytes: at 1, 8 and 64 slots, with completions that come in
shuffled order, and after a run was broken off and resumed. On the simulated engine as they are; on
the torch engine's one-row mode without the seconds that samples took, which no seed decides.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.runs.world import Steps, engine, exported, small

from mull.budget import Meter
from mull.engines.base import Engine
from mull.engines.simulated import Fault, Faults
from mull.grades import Extraction
from mull.runs.run import run
from mull.store import canonical
from mull.types import Completion, Delta, EngineInfo, Problem, Request, Scored, ScoreRequest, Until

CONFIG = {
    "problems": 5,
    "samples": 6,
    "strategies": ["vote", "vote(stop=beta)", "best-of-n", "greedy"],
    "temperatures": [0.7, 1.0],
}
SLOTS = (1, 8, 64)


class Shuffled:
    """An engine whose completions come late and in another order."""

    def __init__(self, inner: Engine, seed: int) -> None:
        self.inner = inner
        self.chance = random.Random(seed)

    @property
    def info(self) -> EngineInfo:
        return self.inner.info

    async def generate(
        self, request: Request, meter: Meter
    ) -> AsyncGenerator[Delta | Completion, None]:
        async with aclosing(self.inner.generate(request, meter)) as stream:  # type: ignore[type-var]
            made = [item async for item in stream]
        self.chance.shuffle(made)
        for item in made:
            await asyncio.sleep(self.chance.uniform(0, 0.01))
            yield item

    async def score(self, requests: Sequence[ScoreRequest], meter: Meter) -> list[Scored]:
        return await self.inner.score(requests, meter)

    async def aclose(self) -> None:
        await self.inner.aclose()


class BrokenOffError(Exception):
    """Raised by the test in the middle of a run."""


def broken_off(directory: Path, after: int, config: Any, **options: Any) -> None:
    """Run until ``after`` results are told, then break off."""
    count = 0

    def on_progress(_: object) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        run(config, directory, on_progress=on_progress, **options)


def simulated(slots: int) -> Engine:
    # Samples that end early or empty are records like others; failed ones are tried again.
    return engine(slots=slots, faults=Faults(rates={Fault.TRUNCATED: 0.1, Fault.EMPTY: 0.1}))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_simulated_engine_gives_the_same_bytes(tmp_path: Path) -> None:
    config, options = small(**CONFIG), {"task": Steps(), "virtual": True}
    found = {}
    for slots in SLOTS:
        summary = run(config, tmp_path / f"{slots}", engine=simulated(slots), **options)
        assert summary.exit_code == 0
        found[f"{slots} slots"] = exported(tmp_path / f"{slots}")
        shuffled = Shuffled(simulated(slots), slots)
        run(config, tmp_path / f"shuffled-{slots}", engine=shuffled, **options)
        found[f"{slots} slots, shuffled"] = exported(tmp_path / f"shuffled-{slots}")
        resumed = tmp_path / f"resumed-{slots}"
        for after in (3, 18):
            broken_off(resumed, after, config, engine=simulated(slots), **options)
        # Resumed at another concurrency than it was begun with.
        run(config, resumed, engine=Shuffled(simulated(9), slots), **options)
        found[f"{slots} slots, resumed"] = exported(resumed)
    first = found["1 slots"]
    assert len(first) > 20_000
    assert [name for name, records in found.items() if records != first] == []


def test_another_seed_gives_other_records(tmp_path: Path) -> None:
    for seed in (0, 1):
        config = small(problems=4, seeds=[seed])
        run(config, tmp_path / f"{seed}", engine=engine(), task=Steps(), virtual=True)
    texts = [
        {candidate["text"] for record in results(tmp_path / f"{seed}") for candidate in record}
        for seed in (0, 1)
    ]
    assert len(texts[0] & texts[1]) < 0.2 * len(texts[0])


def results(directory: Path) -> list[list[dict[str, Any]]]:
    """The candidates of every result."""
    rows = [json.loads(line) for line in exported(directory).splitlines()]
    return [row["result"]["candidates"] for row in rows if "result" in row]


def test_64_samples_at_temperature_1_differ(tmp_path: Path) -> None:
    config = small(problems=1, samples=64, strategies=["vote"])
    run(config, tmp_path, engine=engine(), task=Steps(), virtual=True)
    ((*candidates,),) = results(tmp_path)
    assert len({candidate["text"] for candidate in candidates}) >= 60


SHORT = Until(max_tokens=12)

# The torch engine ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Letters(Steps):
    """Problems that a tiny random model can read; its last three characters are the answer."""

    until: Until = SHORT

    def problems(self, split: str, count: int, seed: int = 0) -> Any:
        return (self.problem(f"{k}+{k + 1}=", str(k)) for k in range(count))

    def extract(self, problem: Problem, text: str) -> Extraction:
        return Extraction(text[-3:] or "nothing")


def timeless(directory: Path) -> bytes:
    """The records without seconds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strip(each) for name, each in value.items() if name != "seconds"}
        return [strip(each) for each in value] if isinstance(value, list) else value

    rows = exported(directory).splitlines()
    return b"\n".join(canonical(strip(json.loads(row))) for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_torch_engines_one_row_mode_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.engines.torch.conftest import make_checkpoint

    from mull.engines.torch import load_torch_engine

    path = make_checkpoint(tmp_path / "model", "llama")
    config = small(
        model=str(path),
        problems=4,
        samples=6,
        strategies=["vote", "best-of-n", "greedy"],
    )

    def one_row(slots: int) -> Engine:
        return load_torch_engine(path, dtype="float32", device="cpu", slots=slots, one_row=True)

    def records(name: str, made: Engine, resume: bool = False) -> bytes:
        place = tmp_path / name
        try:
            if resume:
                broken_off(place, 5, config, engine=made, task=Letters())
            assert run(config, place, engine=made, task=Letters()).exit_code == 0
        finally:
            asyncio.run(made.aclose())
        return timeless(place)

    found = {}
    for slots in SLOTS:
        found[f"{slots} slots"] = records(f"{slots}", one_row(slots))
    found["shuffled"] = records("shuffled", Shuffled(one_row(8), 1))
    found["resumed"] = records("resumed", Shuffled(one_row(8), 2), resume=True)
    first = found["1 slots"]
    assert len({c["text"] for record in results(tmp_path / "1") for c in record}) > 15
    assert [name for name, each in found.items() if each != first] == []


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_64_samples_of_a_flat_torch_model_differ(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.engines.torch.conftest import make_checkpoint

    path = make_checkpoint(tmp_path / "model", "llama", initializer_range=1e-4)
    options = {"one_row": True, "device": "cpu", "dtype": "float32", "slots": 8}
    config = small(
        model=str(path), problems=1, samples=64, strategies=["vote"], engine=options, max_tokens=4
    )
    assert run(config, tmp_path / "run", task=Letters()).exit_code == 0
    ((*candidates,),) = results(tmp_path / "run")
    assert len({candidate["text"] for candidate in candidates}) >= 60
