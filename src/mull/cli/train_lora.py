"""`mull train lora | merge`: texts or puzzles and any causal model → an adapter; its merging."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mull.catalog.models import model_folder
from mull.cli import options
from mull.cli.train import directory, say_trained, training_bar
from mull.errors import InputError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from mull.training.dialogue import TrainingText
    from mull.training.stream import Stream

Texts = Annotated[list[str] | None, typer.Option(help="jsonl: prompts and answers, or chats.")]
Puzzles = Annotated[list[str] | None, typer.Option(help="File or folder of puzzles.")]
Held = Annotated[
    str | None,
    typer.Option(help="Texts (or puzzles) to validate on: others than those trained on."),
]
Generate = Annotated[int, typer.Option(min=0, help="Validation texts to answer at every check.")]
Loss = Annotated[str, typer.Option(help="answer; turns (of a chat); outputs (of demonstrations).")]
Own = Annotated[
    float, typer.Option(help="Probability of a change to a puzzle's inputs or outputs alone.")
]
NMinus1 = Annotated[bool, typer.Option("--n-minus-1", help="Learn none of the test pairs.")]
Fit = Annotated[
    bool, typer.Option("--fit/--skip", help="Leave out train pairs of what is too long, or it.")
]
Schedule = Annotated[str, typer.Option(help="linear, constant, cosine, cosine-restarts or cyclic.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", help="Module, or all-linear; default: attention.")
]
RsLora = Annotated[bool | None, typer.Option(help="Scale by the root of the rank; default.")]
Dora = Annotated[bool | None, typer.Option(help="Learn the lengths of the rows too.")]
Start = Annotated[str | None, typer.Option(help="Adapter to go on from, its shape kept.")]
FourBit = Annotated[bool, typer.Option("--four-bit", help="Base weights in 4 bits; GPU only.")]
Recompute = Annotated[bool, typer.Option("--recompute", help="Gradient checkpointing.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the adapter of every check.")]
Threads = Annotated[int | None, typer.Option(help="Torch threads; default: torch's.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]


def lora(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Directory of a Hugging Face causal model.")],
    out: Annotated[str, typer.Option(help="Directory of the adapter; resumes what it holds.")],
    data: Texts = None,
    arc: Puzzles = None,
    validation: Held = None,
    generate: Generate = 0,
    loss: Loss = "answer",
    format: Annotated[str, typer.Option(help="How puzzles are written.")] = "marked",
    layout: Annotated[str, typer.Option(help="Chat around puzzles: short or long.")] = "short",
    own: Own = 0.5,
    n_minus_1: NMinus1 = False,
    fit: Fit = True,
    steps: Annotated[int, typer.Option(help="Updates.")] = 1000,
    batch: Annotated[int, typer.Option(help="Texts an update.")] = 16,
    micro: Annotated[int, typer.Option(help="Texts a forward pass.")] = 1,
    max_length: Annotated[int, typer.Option(help="Longest text, in tokens.")] = 4096,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-4,
    schedule: Schedule = "linear",
    warmup: Annotated[float, typer.Option(help="Share of the training, or cycle, to rise.")] = 0.05,
    cycles: Annotated[int, typer.Option(help="Cycles of the last two schedules.")] = 1,
    weight_decay: Annotated[float, typer.Option(help="AdamW's decay.")] = 0.0,
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = 1.0,
    rank: Annotated[int | None, typer.Option(help="Default 32.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Default 64.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Default 0.1.")] = None,
    targets: Targets = None,
    rs_lora: RsLora = None,
    dora: Dora = None,
    start: Start = None,
    precision: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "float32",
    four_bit: FourBit = False,
    recompute: Recompute = False,
    every: Annotated[int, typer.Option(help="Updates between checks.")] = 50,
    keep: Keep = False,
    merged: Annotated[str | None, typer.Option(help="Write the merged model here too.")] = None,
    seed: options.Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> int:
    """Train a LoRA adapter (peft) on any causal language model."""
    if bool(data) == bool(arc):
        raise UsageError("expected --data files or --arc puzzles: one kind of texts to train on")
    if generate and not validation:
        raise UsageError("--generate answers validation texts: give --validation")
    folder = directory(out)
    merge_into = None if merged is None else directory(merged)
    training, texts = _training()
    config = _config(training, context.params)
    encoder = texts.Encoder.of(config.base)
    stream: Stream | list[TrainingText]
    task, problems = "", list[str]()
    if arc:
        written = _Written(format, layout, loss, encoder, max_length if fit else None)
        stream = written.stream(arc, own, n_minus_1, seed)
        held = written.validation(validation)
        task, problems = written.task, written.problems
    else:
        stream = _dialogues(data or [], loss)
        held = _dialogues([validation], "answer") if validation else []
    measure = _measure(config, held[:generate], encoder) if generate else None
    with training_bar(steps, of="step") as shown:
        trained = training.train_lora(
            config,
            stream,
            folder,
            validation=held,
            measure=measure,
            encoder=encoder,
            task=task,
            on_progress=shown,
        )
    say_trained(trained.parameters, trained.tokens, trained.seconds, trained.loss, folder)
    _plot(folder)
    if merge_into is not None:
        training.merge(config.base, folder, merge_into, device)
        _say(f"merged: {merge_into}")
    options.say(problems, sys.stderr)
    return options.FAILURES if problems else 0


def merge(
    model: Annotated[str, typer.Option(help="Directory of the model that was adapted.")],
    adapter: Annotated[str, typer.Option(help="Directory of the adapter.")],
    out: Annotated[str, typer.Option(help="Directory of the merged model.")],
    device: Device = "cpu",
) -> None:
    """Merge an adapter into its model, for engines that take whole models."""
    folder = directory(out)
    training, _ = _training()
    training.merge(model_folder(model), Path(adapter), folder, device)
    _say(f"merged: {folder}")


class _Written:
    """Puzzles from files, written as texts of one kind.

    ``problems`` names those that are left out: the rest goes on, and is an error where it is none.
    """

    def __init__(
        self, format: str, layout: str, loss: str, encoder: Any, longest: int | None
    ) -> None:
        from mull.tasks.arc.writing import writing

        if loss not in ("answer", "outputs"):
            raise UsageError(f"--loss {loss}: puzzles have answer or outputs")
        if layout not in ("short", "long"):
            raise UsageError(f"--layout {layout}: expected short or long")
        self.writing = writing(format, layout)
        self.loss: Any = loss
        self.problems: list[str] = []
        quote = "'" if '"' in format else '"'
        self.task = f"arc(format={quote}{format}{quote}, layout={layout})"
        self.fits = None if longest is None else lambda text: len(encoder(text)) <= longest

    def stream(self, paths: Sequence[str], own: float, n_minus_1: bool, seed: int) -> Stream:
        """Augmented training texts without end."""
        from mull.tasks.arc import data
        from mull.tasks.arc.augment import Recipe
        from mull.tasks.arc.data import Pool
        from mull.tasks.arc.grids import Puzzle
        from mull.tasks.arc.stream import ArcStream

        wrong: list[InputError] = []
        sources: list[Puzzle | Pool] = []
        for each in (each for path in paths for each in data.read(path, wrong.append)):
            if isinstance(each, Puzzle) and n_minus_1 and len(each.train) < 2:
                wrong.append(InputError(f"{each.id}: train: a single pair, none to ask for"))
            elif isinstance(each, Puzzle) and n_minus_1:
                sources += data.n_minus_1([each])
            elif isinstance(each, Puzzle) and not any(pair.output for pair in each.test):
                wrong.append(InputError(f"{each.id}: test: no pair has an output to learn"))
            else:
                sources.append(each)
        if wrong and not sources:
            raise wrong[0]
        self.problems += map(str, wrong)
        return ArcStream(tuple(sources), self.writing, self.loss, Recipe(own=own), self.fits, seed)

    def validation(self, path: str | None) -> list[TrainingText]:
        """Every test pair with a known output, as it stands."""
        if path is None:
            return []
        from mull.tasks.arc.data import readable
        from mull.tasks.arc.stream import texts_of

        puzzles, wrong = readable(path)
        self.problems += map(str, wrong)
        held = texts_of(puzzles, self.writing, self.fits)
        if not held:
            raise InputError(f"{path}: no test pair has an output to validate on")
        return held


def _dialogues(paths: Sequence[str], loss: str) -> list[TrainingText]:
    from mull.tasks.dialogues import read_dialogues

    if loss not in ("answer", "turns"):
        raise UsageError(f"--loss {loss}: chats have answer or turns")
    return [chat for path in paths for chat in read_dialogues(path, loss == "turns")]


def _config(training: Any, given: Mapping[str, Any]) -> Any:
    """The training's config of the command's options, which have the names of its fields."""
    named = {**given, "targets": tuple(given["targets"] or ()) or None}
    shape = {f.name: named[f.name] for f in fields(training.LoraShape)}
    shape = {name: value for name, value in shape.items() if value is not None}
    whole = {f.name: given[f.name] for f in fields(training.TrainLora) if f.name in given}
    whole["start"] = None if given["start"] is None else Path(given["start"])
    return training.TrainLora(
        base=model_folder(given["model"]),
        shape=training.LoraShape(**shape) if shape else None,
        **whole,
    )


def _measure(config: Any, held: Sequence[TrainingText], encoder: Any) -> Any:
    from mull.training.generation import ExactAnswers

    return ExactAnswers(config.base, tuple(held), encoder, config.device)


def _training() -> tuple[Any, Any]:
    try:
        from mull.training import dialogue, lora
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("mull train lora", "torch") from error
    return lora, dialogue


def _plot(folder: Path) -> None:
    """The training's figure, where there is something to draw it with."""
    from mull.report.training import write_training_plot

    try:
        _say(f"plot: {write_training_plot(folder)}")
    except MissingExtraError as error:
        _say(f"no plot: {error}")


def _say(line: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(line)
