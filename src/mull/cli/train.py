"""`mull train policy`: a task's own solutions → a policy, trained from scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mull.catalog import load_task
from mull.cli import options
from mull.errors import MissingExtraError, UsageError
from mull.tasks.base import GeneratedTask, ProcessTask
from mull.training import CHECKPOINT

VOCABULARY_EXAMPLES = 4000
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")

app = typer.Typer(help="Train what a strategy needs.")


@app.callback(invoke_without_command=True)
def train(context: typer.Context) -> None:
    """Train what a strategy needs."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("policy")
def policy(
    task: Annotated[str, typer.Option(help="A task that makes and solves its own problems.")],
    out: Annotated[str, typer.Option(help="Directory of the model; resumes what it holds.")],
    size: Annotated[str, typer.Option(help="s (0.2M parameters), m (0.8M) or l (2.7M).")] = "s",
    tokens: Annotated[int, typer.Option(help="Training tokens.")] = 8_000_000,
    seed: options.Seed = 0,
    batch_tokens: Annotated[int | None, typer.Option(help="Tokens a step.")] = None,
    precision: Annotated[str | None, typer.Option(help="bfloat16 or float32.")] = None,
    context: Annotated[int, typer.Option(help="Longest text in tokens; longer: left out.")] = 512,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Torch threads; default: torch's.")] = None,
) -> None:
    """Train a policy from scratch on a task's own solutions (Hugging Face layout, bfloat16)."""
    folder = directory(out)
    chosen = load_task(task)
    if not (isinstance(chosen, GeneratedTask) and isinstance(chosen, ProcessTask)):
        raise UsageError(
            f"task {task} does not make its own problems and solutions; expected one that does, "
            "such as words or countdown"
        )
    try:
        from mull.training.policy import TrainPolicy, train_policy
        from mull.training.trained import Origin
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull train", "torch") from error
    from mull.tasks.demonstrations import demonstrations

    config = TrainPolicy(
        size=size, context=context, tokens=tokens, seed=seed, device=device, threads=threads
    )
    if batch_tokens is not None:
        config = replace(config, batch_tokens=batch_tokens)
    if precision is not None:
        config = replace(config, precision=precision)
    texts = (
        example.prompt + example.solution
        for example in islice(demonstrations(chosen), VOCABULARY_EXAMPLES)
    )
    with training_bar(tokens) as on_progress:
        trained = train_policy(
            config,
            demonstrations(chosen),
            texts,
            folder,
            on_progress=on_progress,
            origin=Origin({"task": task}, {"task": task}),
        )
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.loss, trained.folder)


@contextmanager
def training_bar(total: int, of: str = "tokens") -> Iterator[Callable[[Any], None]]:
    """A progress bar over training tokens, or steps; gives what a training calls with progress."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        shown = bar.add_task("encoding", total=total, state="")

        def on_progress(step: Any) -> None:
            state = f"loss {step.loss:.3f} · {step.tokens_per_second:,.0f} tokens/s"
            bar.update(shown, description="training", completed=getattr(step, of), state=state)

        yield on_progress


def say_trained(parameters: int, tokens: int, seconds: float, loss: float, folder: Path) -> None:
    """The line that ends a training."""
    Console(highlight=False, markup=False, soft_wrap=True).print(
        f"{parameters:,} parameters, {tokens:,} tokens in {seconds / 60:.1f} minutes, "
        f"loss {loss:.3f}: {folder}"
    )


def directory(out: str | Path) -> Path:
    """The directory of a model to be written; ``UsageError`` where a file or a model stands there.

    Where there is a checkpoint there is no finished model: the same command goes on from it.
    """
    options.named(str(out))
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory, made where there is none")
    for name in WEIGHTS if not (folder / CHECKPOINT).exists() else ():
        if (folder / name).exists():
            raise UsageError(
                f"--out {out} holds a finished model ({name}), which would be overwritten; name "
                "another directory, or delete this one"
            )
    return folder
