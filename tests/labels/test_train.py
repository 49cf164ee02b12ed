"""A run's records to a verifier and a reviser that name their policy and answer to the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mull.budget import Meter
from mull.catalog.models import model_folder
from mull.engines.base import Engine
from mull.engines.simulated import Echo, SimulatedEngine
from mull.engines.torch import load_torch_engine
from mull.errors import InputError
from mull.labels.known import FILE
from mull.labels.samples import Recorded
from mull.labels.train import hold_out, train_reviser, train_verifier
from mull.training.finetune import FineTune
from mull.training.journal import Progress
from mull.training.reward import TrainReward
from mull.types import Completion, Delta, Request

pytestmark = pytest.mark.timeout(90)
POLICY = model_folder("words-s")


def test_whole_problems_are_held_out(recorded: Recorded) -> None:
    train, held = hold_out(recorded.problems(), recorded.directory)
    ids = [{samples[0].problem.id for samples in side} for side in (train, held)]
    assert not ids[0] & ids[1]
    assert held
    assert len(train) + len(held) == sum(1 for _ in recorded.problems())
    with pytest.raises(InputError, match="a tenth can be held out"):
        hold_out(list(recorded.problems())[:1], recorded.directory)


@pytest.mark.parametrize(
    ("labels", "kind"), [("exact", "prm"), ("outcome", "orm"), ("soft", "prm")]
)
def test_a_verifier_is_trained_and_says_what_it_belongs_to(
    recorded: Recorded, tmp_path: Path, labels: str, kind: str
) -> None:
    engine = load_torch_engine(POLICY, dtype="float32") if labels == "soft" else None

    async def work() -> None:
        config = TrainReward(base=POLICY, tokens=4000, checks=2, threads=1)
        await train_verifier(
            recorded,
            config,
            tmp_path,
            POLICY,
            labels=labels,  # type: ignore[arg-type]
            rollouts=2 if engine else None,
            engine=engine,
        )
        if engine is not None:
            await engine.aclose()

    asyncio.run(work())
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["kind"] == kind
    assert card["policy"] == {"model": "words-s", "revision": recorded.policy.revision}
    assert card["base"] == "words-s"
    trained = load_torch_engine(tmp_path)
    assert trained.info.capabilities.values
    asyncio.run(trained.aclose())


class Away(SimulatedEngine):
    """A policy that answers no more."""

    def generate(self, request: Request, meter: Meter) -> AsyncIterator[Delta | Completion]:
        raise AssertionError("asked again")


def test_a_killed_training_has_paid_for_its_rollouts(recorded: Recorded, tmp_path: Path) -> None:
    config = TrainReward(base=POLICY, tokens=4000, checks=2, threads=1)

    def train(engine: Engine, on_progress: Callable[[Progress], None]) -> None:
        work = train_verifier(
            recorded, config, tmp_path, POLICY, rollouts=1, engine=engine, on_progress=on_progress
        )
        asyncio.run(work)

    def cut(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SimulatedEngine(Echo()), cut)
    assert (tmp_path / FILE).exists()
    train(Away(Echo()), lambda progress: None)
    assert not (tmp_path / FILE).exists()
    facts = json.loads((tmp_path / "trained.json").read_text())["labelling"]
    assert facts["tokens"] > 0
    assert facts["unknown"] == 0


def test_a_reviser_is_a_policy_with_a_longer_context(recorded: Recorded, tmp_path: Path) -> None:
    config = FineTune(POLICY, tokens=3000, checks=1, context=768, threads=1)
    tuned = train_reviser(recorded, config, tmp_path)
    assert len(tuned.validation) >= 1
    card = json.loads((tmp_path / "card.json").read_text())
    assert (card["kind"], card["policy"]["model"]) == ("reviser", "words-s")
    engine = load_torch_engine(tmp_path)
    assert engine.info.context == 768
    asyncio.run(engine.aclose())
