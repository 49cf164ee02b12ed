"""`mull train prm | orm | revision`: a run's records → a verifier or a revision model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from mull.catalog import load_engine
from mull.catalog.models import model_folder
from mull.cli import options
from mull.cli.train import directory, say_trained, training_bar
from mull.errors import MissingExtraError, UsageError

Run = Annotated[str, typer.Option("--run", help="Directory of a run that holds plain samples.")]
Out = Annotated[str, typer.Option(help="Directory of the model; resumes what it holds.")]
Base = Annotated[
    str | None, typer.Option(help="Model to start from (may be larger); default: the policy.")
]
Tokens = Annotated[int, typer.Option(min=1, help="Training tokens at most.")]
Threads = Annotated[int | None, typer.Option(help="Torch threads; default: torch's.")]


def prm(
    run: Run,
    out: Out,
    base: Base = None,
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
    tokens: Tokens = 4_000_000,
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = None,
) -> None:
    """Train a process reward model: a value at the end of every step."""
    if labels not in ("soft", "hard", "search", "exact"):
        raise UsageError(f"--labels {labels}: expected soft, hard, search or exact")
    _verifier(run, out, base, labels, (rollouts, share), tokens, seed, device, threads)


def orm(
    run: Run,
    out: Out,
    base: Base = None,
    tokens: Tokens = 4_000_000,
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = None,
) -> None:
    """Train an outcome reward model: a value at the end of a solution."""
    _verifier(run, out, base, "outcome", (None, None), tokens, seed, device, threads)


def revision(
    run: Run,
    out: Out,
    base: Base = None,
    pairing: Annotated[
        str, typer.Option(help="nearest (the last wrong attempt is the nearest) or random.")
    ] = "nearest",
    most: Annotated[int, typer.Option(min=1, help="Attempts in context at most.")] = 4,
    keep: Annotated[
        float, typer.Option(min=0, max=1, help="Share of examples that keep a right attempt.")
    ] = 0.0,
    tokens: Tokens = 4_000_000,
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = None,
) -> None:
    """Train a revision model: earlier attempts in context, a right solution to be said."""
    if pairing not in ("nearest", "random"):
        raise UsageError(f"--pairing {pairing}: expected nearest or random")
    folder = directory(out)
    train, samples = _training()
    recorded = samples.read_run(run)
    from mull.training.finetune import FineTune

    start = model_folder(base or recorded.policy.model)
    config = FineTune(start, tokens=tokens, seed=seed, device=device, threads=threads)
    with training_bar(tokens) as on_progress:
        trained = train.train_reviser(
            recorded,
            config,
            folder,
            pairing=pairing,
            most=most,
            keep=keep,
            on_progress=on_progress,
        )
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.loss, trained.folder)


def _verifier(
    run: str,
    out: str,
    base: str | None,
    labels: str,
    rolled: tuple[int | None, float | None],
    tokens: int,
    seed: int,
    device: str,
    threads: int | None,
) -> None:
    folder = directory(out)
    train, samples = _training()
    recorded = samples.read_run(run)
    from mull.training.reward import TrainReward

    policy = model_folder(recorded.policy.model)
    config = TrainReward(
        base=model_folder(base) if base else policy,
        tokens=tokens,
        seed=seed,
        device=device,
        threads=threads,
    )

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
                rollouts=rolled[0],
                share=rolled[1],
                engine=engine,
                on_progress=on_progress,
            )
        finally:
            if engine is not None:
                await engine.aclose()

    with training_bar(tokens) as on_progress:
        trained = asyncio.run(work(on_progress))
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.best, trained.folder)


def _training() -> tuple[Any, Any]:
    try:
        from mull.labels import samples, train
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull train", "torch") from error
    return train, samples
