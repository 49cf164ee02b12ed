"""`mull train prm | orm | revision`: a run's records → a verifier or a revision model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mull.catalog import load_engine
from mull.catalog.models import model_folder
from mull.cli import options
from mull.cli.train import directory, say_trained, training_bar
from mull.errors import MissingExtraError, SpecError, UsageError

WITH_ATTEMPTS = 1024
"""Tokens of the longest text where attempts stand in context."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every training from a run is told."""

    run: Annotated[str, typer.Option(help="Directory of a run of the policy.")]
    out: Annotated[str, typer.Option(help="Directory of the model; resumes what it holds.")]
    base: Annotated[
        str | None, typer.Option(help="Model to start from (may be larger); default: the policy.")
    ] = None
    tokens: Annotated[int, typer.Option(min=1, help="Training tokens at most.")] = 4_000_000
    seed: options.Seed = 0
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 2048
    matrix_rate: Annotated[
        float | None, typer.Option(help="Peak rate of the matrices (Muon); default: the size's.")
    ] = None
    rate: Annotated[
        float | None, typer.Option(help="Peak rate of the rest (AdamW); default: the size's.")
    ] = None
    precision: Annotated[str, typer.Option(help="float32 or bfloat16 (autocast).")] = "float32"
    context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Longest text in tokens; default: the base's, 1024 with attempts in it."
        ),
    ] = None
    checks: Annotated[int, typer.Option(min=1, help="Held-out losses that are taken.")] = 20
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu"
    threads: Annotated[int | None, typer.Option(help="Torch threads; default: torch's.")] = None

    def options(self) -> dict[str, Any]:
        """Those that the training's config takes, as far as they are given."""
        taken = {n: v for n, v in vars(self).items() if n not in ("run", "out") and v is not None}
        return taken | {"base": model_folder(self.base)} if self.base else taken


@dataclass(frozen=True, kw_only=True)
class RewardTraining(Training):
    """What the training of a reward model is told besides."""

    patience: Annotated[
        int, typer.Option(min=1, help="Checks without a better loss that end the training.")
    ] = 4
    logprobs: Annotated[
        bool,
        typer.Option(help="Read how likely the solution is beside the hidden state."),
    ] = True


@options.shared
def prm(
    given: RewardTraining,
    labels: Annotated[
        str, typer.Option(help="soft or hard (rollouts), search (bisection), exact (checker).")
    ] = "soft",
    rollouts: Annotated[
        int | None, typer.Option(min=1, help="Rollouts a step; default: 8.")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Share of the samples that is rolled out; default: all."
        ),
    ] = None,
) -> None:
    """Train a process reward model: a value at the end of every step."""
    if labels not in ("soft", "hard", "search", "exact"):
        raise UsageError(f"--labels {labels}: expected soft, hard, search or exact")
    _verifier(given, labels, rollouts, share)


@options.shared
def orm(
    given: RewardTraining,
    history: Annotated[
        bool, typer.Option("--history", help="Learn recorded chains, earlier attempts in context.")
    ] = False,
) -> None:
    """Train an outcome reward model: a value at the end of a solution."""
    if history and given.context is None:
        given = replace(given, context=WITH_ATTEMPTS)
    _verifier(given, "outcome", history=history)


@options.shared
def revision(
    given: Training,
    source: Annotated[
        str, typer.Option(help="samples (parallel ones, paired) or turns (recorded chains).")
    ] = "samples",
    pairing: Annotated[
        str | None,
        typer.Option(help="nearest (default: the last wrong attempt is the nearest) or random."),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Attempts in context at most.")] = 4,
    keep: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of examples that keep a right attempt; default: 0."),
    ] = None,
) -> None:
    """Train a revision model: earlier attempts in context, a right solution to be said."""
    folder = directory(given.out)
    train, samples = _training()
    train.check_source(source, pairing, keep)
    recorded = samples.read_run(given.run)
    from mull.training.finetune import FineTune

    start = {"base": _weights(recorded)}
    config = FineTune(**(start | given.options()))
    with training_bar(given.tokens) as on_progress:
        trained = train.train_reviser(
            recorded,
            config,
            folder,
            source=source,
            pairing=pairing,
            most=most,
            keep=keep,
            on_progress=on_progress,
        )
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.loss, trained.folder)


def _verifier(
    given: RewardTraining,
    labels: str,
    rollouts: int | None = None,
    share: float | None = None,
    history: bool = False,
) -> None:
    folder = directory(given.out)
    train, samples = _training()
    from mull.labels.steps import check_rule

    check_rule(labels, rollouts, share)  # type: ignore[arg-type]  # prm has looked at it
    recorded = samples.read_run(given.run)
    from mull.training.reward import TrainReward

    policy = _weights(recorded)
    config = TrainReward(**({"base": policy} | given.options()))

    async def work(on_progress: Any) -> Any:
        needs_engine = labels not in ("exact", "outcome")
        engine = load_engine(str(policy), slots=128) if needs_engine else None
        try:
            return await train.train_verifier(
                recorded,
                config,
                folder,
                policy,
                labels=labels,
                rollouts=rollouts,
                share=share,
                history=history,
                engine=engine,
                on_progress=on_progress,
            )
        finally:
            if engine is not None:
                await engine.aclose()

    with training_bar(given.tokens) as on_progress:
        trained = asyncio.run(work(on_progress))
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.best, trained.folder)


def _weights(recorded: Any) -> Path:
    """The directory of the policy that a run was of."""
    model = recorded.policy.model
    try:
        return model_folder(model)
    except SpecError as error:
        raise UsageError(
            f"{recorded.directory}: the policy of this run, {recorded.policy.kind}:{model}, has no "
            "weights here to train on; expected the run of a shipped model (mull models lists "
            "them), or of a directory as it is called from here"
        ) from error


def _training() -> tuple[Any, Any]:
    try:
        from mull.labels import samples, train
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull train", "torch") from error
    return train, samples
