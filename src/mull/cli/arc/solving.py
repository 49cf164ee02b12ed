"""What `mull arc solve` and `mull arc evaluate` are told alike, and the run that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, cast

import typer

from mull.catalog import load_task
from mull.catalog.spec import parse
from mull.catalog.strategies import load_strategy, strategy_class
from mull.cli import options
from mull.errors import UsageError
from mull.report.arc import viewed
from mull.runs import Config, make_config
from mull.strategies.airv import VERIFIER
from mull.strategies.judge import JUDGE
from mull.strategies.needs import needs_of
from mull.tasks.arc.given import settings
from mull.tasks.arc.task import ArcTask

LADDER = ("greedy", "airv", "airv(rank=views)", "airv(rank=views, threshold={})")
"""The steps of ``--compare``: one answer, the vote, its answers by experts, all likely ones so."""

Format = Annotated[
    str | None, typer.Option(help="How puzzles are written; default: the model card's.")
]
Characters = Annotated[
    int | None, typer.Option(help="Longest text of a puzzle; train pairs beyond it are left out.")
]
Geometry = Annotated[
    bool | None, typer.Option(help="Turn and mirror the grids; default: the model card's.")
]
Colours = Annotated[
    bool | None, typer.Option(help="Rename the colours; default: the model card's.")
]
Order = Annotated[
    bool | None, typer.Option(help="Reorder the train pairs; default: the model card's.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solving:
    """How puzzles are asked and what is spent on them; each field is an option of the commands."""

    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy; may be repeated. Default: airv.")
    ] = None
    views: Annotated[int, typer.Option(min=1, help="Views of each puzzle.")] = 8
    rank: Annotated[
        str | None, typer.Option(help="vote; views: product of experts; verify, select: a judge.")
    ] = None
    judge: Annotated[
        str | None, typer.Option(help="The model that judges, for --rank verify or select.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(help="All answers of this probability, instead of samples.")
    ] = None
    experts: Annotated[
        int, typer.Option(min=1, help="Views that a product of experts judges by.")
    ] = 8
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Run greedy, vote, product of experts, threshold search."),
    ] = False
    temperature: Annotated[
        list[float] | None, typer.Option(help="0 is greedy; may be repeated. Default: 0.")
    ] = None
    format: Format = None
    layout: Annotated[str | None, typer.Option(help="Chat around puzzles: short or long.")] = None
    characters: Characters = None
    geometry: Geometry = None
    colours: Colours = None
    order: Order = None
    strict: Annotated[
        bool | None,
        typer.Option(help="Refuse answers that contradict the shape or rows they state."),
    ] = None
    copies: Annotated[bool | None, typer.Option(help="Let an answer repeat the test input.")] = None
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None
    slots: Annotated[int | None, typer.Option(min=1, help="Prompts at once; default: 64.")] = None
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first puzzles.")] = None
    seed: options.Seed = 0

    def task(self, card: Mapping[str, Any] | None) -> ArcTask:
        """The task as a model's card has it, with what the command line says instead."""
        return task_of(card, **{each.name: getattr(self, each.name) for each in fields(ArcTask)})

    def config(
        self, name: str, puzzles: str, model: str, task: ArcTask, adapter: str | None = None
    ) -> Config:
        """The run's config; ``adapter`` is merged into the model as it is loaded."""
        chosen = self._strategies()
        # Where a strategy asks for its verifier, it is told how many views judge.
        needed = any(VERIFIER in needs_of(load_strategy(spec)).verifiers for spec in chosen)
        engine = {"slots": self.slots, "device": self.device, "adapter": adapter}
        return make_config(
            {
                "name": name,
                "task": task_spec(task),
                "model": model,
                "file": puzzles,
                "strategies": chosen,
                "temperatures": self.temperature or [0.0],
                "seeds": self.seed,
                "engine": {key: value for key, value in engine.items() if value is not None},
                **(
                    {"verifiers": {VERIFIER: f"{VERIFIER}(views={self.experts})"}} if needed else {}
                ),
                **({"engines": {JUDGE: self.judge}} if self.judge is not None else {}),
            },
            "arc",
        )

    def _strategies(self) -> list[str]:
        """Specs of strategies that know how many samples they take."""
        given: Sequence[str] = self.strategy or ()
        threshold = self.threshold
        if self.compare:
            if self.rank is not None:
                raise UsageError("--compare runs every rank itself: leave out --rank")
            given = [*(step.format(threshold or 0.1) for step in LADDER), *given]
            threshold = None
        made = (_spec(s, self.views, self.rank, threshold) for s in given or ["airv"])
        return list(dict.fromkeys(made))


def task_of(card: Mapping[str, Any] | None, **said: Any) -> ArcTask:
    """The task as a model's card has it, with the options that are ``said`` (not ``None``).

    Raises ``SpecError`` or ``ConfigError`` for an option's bad value.
    """
    named = str((card or {}).get("task", ArcTask.name))
    base = load_task(named if named.partition("(")[0] == ArcTask.name else ArcTask.name)
    options = settings(cast(ArcTask, base))
    options |= {name: value for name, value in said.items() if value is not None}
    return cast(ArcTask, load_task(_written(ArcTask.name, _changed(options))))


def task_spec(task: ArcTask, always: Sequence[str] = ()) -> str:
    """The spec of a task: the options that are not their defaults, and those ``always`` said.

    >>> task_spec(ArcTask(geometry=False), ("format",))
    'arc(format=marked, geometry=false)'
    """
    return _written(ArcTask.name, _changed(settings(task), always))


def _changed(options: Mapping[str, Any], always: Sequence[str] = ()) -> dict[str, Any]:
    default = settings(ArcTask())
    return {k: v for k, v in options.items() if k in always or v != default[k]}


def _spec(text: str, views: int, rank: str | None, threshold: float | None) -> str:
    """A spec with the number of samples that so many views take, where it does not say one."""
    if text.partition("(")[0].endswith(".py"):
        return text
    spec = parse(text)
    made = strategy_class(spec.name)
    parameters = dict(spec.parameters)
    known = {each.name for each in fields(made)}
    if {"rank", "threshold"} <= known:
        parameters |= {} if rank is None else {"rank": rank, **parameters}
        parameters |= {} if threshold is None else {"threshold": threshold, **parameters}
    if "n" in known and "n" not in parameters:
        # The strategy itself says what a view costs, once it has been checked.
        seen = viewed(load_strategy(_written(spec.name, parameters)))
        parameters = {"n": views * (seen.width if seen else 1), **parameters}
    return _written(spec.name, parameters)


def _written(name: str, parameters: Mapping[str, Any]) -> str:
    """The spec string of a name and its parameters.

    >>> _written("airv", {"n": 8, "rank": "views"})
    'airv(n=8, rank=views)'
    """
    words = {True: "true", False: "false", None: "none"}

    def word(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return words[value]
        plain = not isinstance(value, str) or value.replace("-", "").replace("_", "").isalnum()
        quote = "'" if '"' in str(value) else '"'
        return str(value) if plain else f"{quote}{value}{quote}"

    inside = ", ".join(f"{key}={word(value)}" for key, value in parameters.items())
    return f"{name}({inside})" if inside else name
