"""A run's records → a trained reward or revision model in a folder, with what it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from mull.engines.base import Engine
from mull.errors import InputError
from mull.fileio import write_atomic
from mull.labels.revisions import Pairing, revision_examples
from mull.labels.samples import Recorded, Sample
from mull.labels.steps import Kind, Labeller, distinct
from mull.rng import derive
from mull.training.data import Example
from mull.training.finetune import FineTune, FineTuned, fine_tune
from mull.training.loop import Progress
from mull.training.reward import TrainedReward, TrainReward, train_reward
from mull.types import EngineInfo

VALIDATION = 0.1
"""Share of the problems held out: whole problems, so that no prompt is on both sides."""

OnProgress = Callable[[Progress], None]


def hold_out(recorded: Recorded, seed: int = 0) -> tuple[list[list[Sample]], list[list[Sample]]]:
    """The samples of a run by problem: those to train on, and a tenth held out by a hash."""
    train: list[list[Sample]] = []
    held: list[list[Sample]] = []
    for samples in recorded.problems():
        if samples:
            draw = derive(seed, "held out", samples[0].problem.id) % 1000
            (held if draw < 1000 * VALIDATION else train).append(list(samples))
    if not train or not held:
        raise InputError(
            f"{recorded.directory} holds samples of {len(train) + len(held)} problems; "
            "expected at least some dozens, so that a tenth can be held out"
        )
    return train, held


async def train_verifier(
    recorded: Recorded,
    config: TrainReward,
    folder: Path,
    tokenizer: Path,
    *,
    labels: Kind = "soft",
    rollouts: int | None = None,
    share: float | None = None,
    engine: Engine | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> TrainedReward:
    """Label a run's samples, train a reward model on them and write it with its origin.

    ``tokenizer`` is the folder of the policy's tokenizer; ``engine`` makes the ``rollouts``, of a
    ``share`` of the samples (see ``Labeller``, whose errors are raised before anything is read).
    """
    labeller = Labeller(labels, recorded.task, engine, rollouts, seed=config.seed, share=share)
    train, held = hold_out(recorded, config.seed)
    # An outcome model is asked about unanswered texts too; a process model learns nothing of them.
    answered = labels != "outcome"
    examples = await labeller.label([s for each in train for s in distinct(each, answered)])
    validation = await labeller.label([s for each in held for s in distinct(each, answered)])
    trained = train_reward(config, examples, validation, tokenizer, folder, on_progress=on_progress)
    facts = {**asdict(trained), "labels": labels, "labelling": labeller.facts}
    write_origin(folder, "orm" if labels == "outcome" else "prm", recorded, facts)
    return trained


def train_reviser(
    recorded: Recorded,
    config: FineTune,
    folder: Path,
    *,
    pairing: Pairing = "nearest",
    most: int = 4,
    per_problem: int | None = 4,
    keep: float = 0.0,
    on_progress: OnProgress = lambda progress: None,
) -> FineTuned:
    """Pair a run's samples, train the policy to revise, and write it with its origin.

    ``pairing``, ``most``, ``per_problem`` and ``keep`` are those of ``revision_examples``.
    """
    train, held = hold_out(recorded, config.seed)

    def pairs(groups: Sequence[Sequence[Sample]]) -> list[Example]:
        return [
            example
            for samples in groups
            for example in revision_examples(
                samples,
                pairing=pairing,
                most=most,
                per_problem=per_problem,
                keep=keep,
                seed=config.seed,
            )
        ]

    trained = fine_tune(config, pairs(train), pairs(held), folder, on_progress=on_progress)
    facts = {**asdict(trained), "pairing": pairing, "most": most, "keep": keep}
    write_origin(folder, "reviser", recorded, facts)
    return trained


def write_origin(
    folder: Path,
    kind: Literal["prm", "orm", "reviser"],
    recorded: Recorded,
    facts: dict[str, Any],
) -> None:
    """``trained.json`` and a ``card.json`` that names the policy this belongs to."""
    policy = belongs_to(recorded.policy)
    facts = {**facts, "folder": folder.name, "task": recorded.task.name}
    card = {
        "name": folder.name,
        "kind": kind,
        "task": recorded.task.name,
        "policy": policy,
        "base": facts["config"].get("base"),
        "parameters": facts["parameters"],
        "tokens": facts["tokens"],
        "recipe": facts["config"],
    }
    write_atomic(folder / "trained.json", json.dumps(facts, indent=1, default=str) + "\n")
    write_atomic(folder / "card.json", json.dumps(card, indent=1, default=str) + "\n")


def belongs_to(policy: EngineInfo) -> dict[str, str]:
    """What names a policy on a card."""
    return {"model": policy.model, "revision": policy.revision}
