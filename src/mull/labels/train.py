"""A run's records → a trained reward or revision model in a folder, with what it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from mull.engines.base import Engine
from mull.errors import InputError, UsageError
from mull.labels.chains import Turns, read_chains
from mull.labels.revisions import Pairing, likeliest, revision_examples, turn_examples
from mull.labels.samples import Recorded, Sample
from mull.labels.steps import Kind, Labeller, distinct
from mull.rng import derive
from mull.training.data import Example
from mull.training.finetune import FineTune, FineTuned, fine_tune
from mull.training.journal import OnProgress
from mull.training.options import TrainingOptions
from mull.training.reward import TrainedReward, TrainReward, train_reward
from mull.training.trained import Origin
from mull.types import EngineInfo

VALIDATION = 0.1
"""Share of the problems held out: whole problems, so that no prompt is on both sides."""

Of = TypeVar("Of", Sample, Turns)
Source = Literal["samples", "turns"]
SOURCES: tuple[Source, ...] = ("samples", "turns")


def hold_out(
    groups: Iterable[Sequence[Of]], directory: Path, seed: int = 0
) -> tuple[list[Sequence[Of]], list[Sequence[Of]]]:
    """Samples, or chains of them, by problem: those to train on, and a tenth held out by a hash.

    Raises ``InputError`` that names the run's ``directory`` where one side would be empty.
    """
    train: list[Sequence[Of]] = []
    held: list[Sequence[Of]] = []
    for group in groups:
        if group:
            first = group[0]
            problem = (first if isinstance(first, Sample) else first[0]).problem
            draw = derive(seed, "held out", problem.id) % 1000
            (held if draw < 1000 * VALIDATION else train).append(group)
    if not train or not held:
        raise InputError(
            f"{directory} holds samples of {len(train) + len(held)} problems; "
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
    history: bool = False,
    engine: Engine | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> TrainedReward:
    """Label a run's samples, train a reward model on them and write it with its origin.

    ``tokenizer`` is the folder of the policy's tokenizer; ``engine`` makes the ``rollouts``, of a
    ``share`` of the samples (see ``Labeller``, whose errors are raised before anything is read).
    With ``history`` it learns the attempts of recorded chains, each behind those that it saw, and
    its card says so; labels are then ``outcome`` ones. A killed training goes on from ``folder``,
    the rollouts that it has paid for included.
    """
    if history and labels != "outcome":
        raise UsageError(f"history: labels={labels} are of texts without one; expected outcome")
    labeller = Labeller(
        labels,
        recorded.task,
        engine,
        rollouts,
        seed=config.seed,
        share=share,
        folder=folder,
    )
    groups: Iterable[Sequence[Sample]] = recorded.problems()
    if history:
        groups = [[s for chain in chains for s in chain] for chains in read_chains(recorded)]
    train, held = hold_out(groups, recorded.directory, config.seed)
    # An outcome model is asked about unanswered texts too; a process model learns nothing of them.
    answered = labels != "outcome"
    examples = await labeller.label([s for each in train for s in distinct(each, answered)])
    validation = await labeller.label([s for each in held for s in distinct(each, answered)])
    facts = {"labels": labels, "labelling": labeller.facts, "history": history}
    trained = train_reward(
        config,
        examples,
        validation,
        tokenizer,
        folder,
        on_progress=on_progress,
        origin=origin_of("orm" if labels == "outcome" else "prm", recorded, config, facts),
    )
    labeller.forget()
    return trained


def check_source(source: str, pairing: str | None, keep: float | None) -> None:
    """``UsageError`` for a source that there is not, and for what says nothing to it."""
    if source not in SOURCES:
        raise UsageError(f"source {source!r}: expected one of {', '.join(SOURCES)}")
    if pairing not in (None, "nearest", "random"):
        raise UsageError(f"pairing {pairing!r}: expected nearest or random")
    for name, value in (("pairing", pairing), ("keep", keep)):
        if source == "turns" and value is not None:
            raise UsageError(
                f"{name}={value}: source=turns takes the attempts as they were made; leave it out"
            )


def train_reviser(
    recorded: Recorded,
    config: FineTune,
    folder: Path,
    *,
    source: Source = "samples",
    pairing: Pairing | None = None,
    most: int = 4,
    per_problem: int | None = 4,
    keep: float | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> FineTuned:
    """Make examples of a run's attempts, train the policy to revise, write it with its origin.

    ``source`` is ``samples`` (``revision_examples``: parallel samples, with ``pairing``, by default
    ``nearest``, and ``keep``, by default 0) or ``turns`` (``turn_examples``: recorded chains).
    """
    check_source(source, pairing, keep)
    facts: dict[str, Any] = {"source": source, "most": most}
    bounds: dict[str, Any] = {"most": most, "per_problem": per_problem, "seed": config.seed}
    if source == "turns":
        train, held = _from_turns(recorded, bounds)
    else:
        how = {"pairing": pairing or "nearest", "keep": keep or 0.0}
        train, held = _from_samples(recorded, bounds | how)
        facts |= how
    origin = origin_of("reviser", recorded, config, facts)
    return fine_tune(config, train, held, folder, on_progress=on_progress, origin=origin)


Sides = tuple[list[Example], list[Example]]


def _from_samples(recorded: Recorded, how: Mapping[str, Any]) -> Sides:
    """Examples of parallel samples: to train on, and held out."""
    train, held = hold_out(recorded.problems(), recorded.directory, how["seed"])

    def examples(side: Sequence[Sequence[Sample]]) -> list[Example]:
        return [each for samples in side for each in revision_examples(samples, **how)]

    return examples(train), examples(held)


def _from_turns(recorded: Recorded, how: Mapping[str, Any]) -> Sides:
    """Examples of recorded chains; the likeliest right attempt of the problem continues those that
    never come right.
    """
    plain = {samples[0].problem.id: samples for samples in recorded.problems() if samples}

    def examples(side: Sequence[Sequence[Turns]]) -> list[Example]:
        found: list[Example] = []
        for chains in side:
            others = plain.get(chains[0][0].problem.id, ())
            best = likeliest([*(sample for chain in chains for sample in chain), *others])
            found += turn_examples(chains, best=best, **how)
        return found

    train, held = hold_out(read_chains(recorded), recorded.directory, how["seed"])
    return examples(train), examples(held)


def origin_of(
    kind: Literal["prm", "orm", "reviser"],
    recorded: Recorded,
    config: TrainingOptions,
    facts: Mapping[str, Any],
) -> Origin:
    """A card that names the policy which the model belongs to, and a record with these facts."""
    task = recorded.task.name
    card = {
        "kind": kind,
        "task": task,
        "policy": belongs_to(recorded.policy),
        "base": config.facts()["base"],
        **({"history": True} if facts.get("history") else {}),
    }
    return Origin(card, {**facts, "task": task})


def belongs_to(policy: EngineInfo) -> dict[str, str]:
    """What names a policy on a card."""
    return {"model": policy.model, "revision": policy.revision}
