"""`mull arc adapt`: puzzles and a model → the model trained on what the puzzles demonstrate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Annotated

import typer

from mull.catalog.models import model_card, model_folder
from mull.cli import options
from mull.cli.arc import solving
from mull.cli.arc.shared import Puzzles, puzzles_of
from mull.cli.arc.solving import task_of, task_spec
from mull.cli.train import directory, say_trained, training_bar
from mull.engines.adapt import AdaptRecipe, TrainStep
from mull.errors import MissingExtraError, UnsupportedError
from mull.tasks.arc.adapt import pooled

SWITCHES = ("format", "characters", "geometry", "colours", "order")
"""Options of the task that a training is told; they have its names."""


def adapt(
    context: typer.Context,
    puzzles: Puzzles,
    model: Annotated[str, typer.Option(help="A model of mull train, by name or directory.")],
    out: Annotated[str, typer.Option(help="Directory of the model, or of group-0 …")],
    groups: Annotated[int, typer.Option(min=1, help="Groups, each a model of its own.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps a group.")] = 320,
    examples: Annotated[int, typer.Option(min=1, help="Texts a puzzle.")] = 64,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 4096,
    matrix_rate: Annotated[float, typer.Option(help="Peak rate of the layers' matrices.")] = 1e-3,
    rate: Annotated[float, typer.Option(help="Peak rate of everything else.")] = 5e-4,
    format: solving.Format = None,
    characters: solving.Characters = None,
    geometry: solving.Geometry = None,
    colours: solving.Colours = None,
    order: solving.Order = None,
    seed: options.Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> int:
    """Fine-tune a model at test time on all puzzles' demonstrations, never on a test output."""
    start = model_folder(model)
    folders = (
        [directory(out)]
        if groups == 1
        else [directory(directory(out) / f"group-{number}") for number in range(groups)]
    )
    try:
        from mull.training.adapt import adapt_model, trainable
        from mull.training.trained import write_card
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull arc adapt", "torch") from error
    if not trainable(start):
        raise UnsupportedError(
            f"{start} is no model of the shape that mull train policy writes, the only one whose "
            "weights are trained on here: name one of those"
        )
    recipe = AdaptRecipe(steps, batch_tokens, matrix_rate, rate, seed)
    asked, problems = puzzles_of(puzzles)
    said = {name: context.params[name] for name in SWITCHES}
    task = task_of(model_card(model), **said)
    parts = pooled(asked, task, examples, seed, groups)
    problems += [
        f"{puzzle.id}: train: a single pair, which no other one teaches; left out"
        for puzzle in asked
        if len(puzzle.train) < 2
    ]
    for into, group in zip(folders, parts, strict=True):
        steps_done: list[TrainStep] = []
        with training_bar(steps * batch_tokens) as on_progress:

            def on_step(step: TrainStep, done: list[TrainStep] = steps_done) -> bool:
                done.append(step)
                on_progress(_progress(done))
                return True

            made = adapt_model(start, group.texts, recipe, into, device=device, on_step=on_step)
        end, parameters = _progress(steps_done), made.shape.parameters
        facts = {
            "puzzles": group.puzzles,
            "texts": len(group.texts),
            "tokens": end.tokens,
            # Forward and backward pass: two and four FLOPs a parameter and token.
            "flops": 6 * parameters * end.tokens,
            "loss": end.loss,
            **asdict(recipe),
        }
        # Last of all: a group is there when its card is.
        card = {"task": task_spec(task, ("format",)), "base": model, "adapted": facts}
        write_card(into, card)
        say_trained(parameters, end.tokens, end.seconds, end.loss, into)
    options.say(problems, sys.stderr)
    return options.FAILURES if problems else 0


@dataclass(frozen=True, slots=True)
class _Progress:
    """What a training bar shows."""

    tokens: int
    seconds: float
    loss: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def _progress(done: Sequence[TrainStep]) -> _Progress:
    tokens, seconds = sum(step.tokens for step in done), sum(step.seconds for step in done)
    return _Progress(tokens, seconds, round(fmean(step.loss for step in done[-10:]), 5))
