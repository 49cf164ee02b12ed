"""A run's config: TOML in, a frozen value out, and one line for whatever is wrong with it.

Knows fields and their ranges; what a name stands for is the catalog's business.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from mull.budget import COST_MODELS, UNITS, Budget, is_amount
from mull.errors import BudgetError, ConfigError
from mull.types import Sampling


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Wholes = Annotated[tuple[int, ...], BeforeValidator(_listed)]
Price = Annotated[
    tuple[float, float, float], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]
Option = bool | int | float | str | Price
Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]


class Config(BaseModel):
    """What is run: a model on a task, by strategies, with a budget a problem.

    Every combination of strategy, budget, temperature and seed is a cell of the run. A single
    value may stand for a list of one. Samples are shared by all cells: ``vote`` and ``sample``
    with 64 samples, and every n below, cost the tokens of 64 samples once.

    >>> Config(name="demo", task="words", model="words-s", strategies=["vote"], samples=8).samples
    (8,)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(description='a name for the run, as in "words-vote"', min_length=1)
    task: str = Field(description='a task\'s name, as in "words"', min_length=1)
    model: str = Field(description="a model's name, directory or URL", min_length=1)
    strategies: Texts = Field(
        description='a list of strategies, as in ["sample", "vote"]', min_length=1
    )
    file: str | None = Field(None, description="the path of a file of problems", min_length=1)
    split: str | None = Field(None, description='a split of the task, as in "test"', min_length=1)
    problems: int | None = Field(None, description="a number of problems, at least 1", ge=1)
    skip: int = Field(0, description="a number of problems to leave out first, 0 or more", ge=0)
    samples: Wholes | None = Field(
        None, description="a whole number of samples, 1 or more, or a list of them"
    )
    tokens: Wholes | None = Field(
        None, description="a whole number of tokens, 1 or more, or a list of them"
    )
    total_tokens: Wholes | None = Field(
        None, description="a whole number of tokens, 1 or more, or a list of them"
    )
    flops: Numbers | None = Field(None, description="a number of FLOPs above 0, or a list of them")
    seconds: Numbers | None = Field(
        None, description="a number of seconds above 0, or a list of them"
    )
    cost: Numbers | None = Field(None, description="an amount of money above 0, or a list of them")
    temperatures: Numbers = Field(
        (1.0,), description="a list of numbers in 0..100, as in [0.7, 1.0]", min_length=1
    )
    top_k: int = Field(0, description="a whole number, 0 for off", ge=0)
    top_p: float = Field(1.0, description="a number in (0, 1], 1 for off", gt=0, le=1)
    min_p: float = Field(0.0, description="a number in [0, 1], 0 for off", ge=0, le=1)
    max_tokens: int | None = Field(None, description="a number of tokens, at least 1", ge=1)
    seeds: Wholes = Field(
        (0,), description="a list of whole numbers, as in [0, 1, 2]", min_length=1
    )
    cost_model: str = Field("2P+4LWc", description=f"one of {', '.join(COST_MODELS)}")
    speculate: bool = Field(
        True, description="true or false: whether searches over steps guess ahead in idle slots"
    )
    engine: dict[str, Option] = Field(
        default_factory=dict, description="a table of the engine's own options, as in slots = 32"
    )
    engines: dict[str, str | dict[str, Option]] = Field(
        default_factory=dict,
        description='a table of the other models that strategies ask, as in judge = "words-m", '
        'or judge = {model = "words-m", slots = 8}',
    )
    verifiers: dict[str, str] = Field(
        default_factory=dict,
        description='a table of verifiers by name, as in prm = "words-s-prm(aggregate=min)"',
    )

    @field_validator("cost_model")
    @classmethod
    def _known_cost_model(cls, value: str) -> str:
        if value not in COST_MODELS:
            raise ValueError(value)
        return value

    @field_validator("temperatures")
    @classmethod
    def _temperatures(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            Sampling(temperature=value)
        return values

    @field_validator("samples", "tokens", "total_tokens", "flops", "seconds", "cost")
    @classmethod
    def _amounts(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is not None and not (values and all(map(is_amount, values))):
            raise ValueError(values)
        return values

    @field_validator("strategies", "temperatures", "seeds", *UNITS)
    @classmethod
    def _distinct(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError("twice")
        return values

    @property
    def budgets(self) -> tuple[Budget | None, ...]:
        """The budgets to run; ``(None,)`` where the strategies say themselves what they take.

        One unit may list several values and is swept; the others hold in every cell.
        """
        given = {unit: getattr(self, unit) for unit in UNITS if getattr(self, unit) is not None}
        swept = [unit for unit, values in given.items() if len(values) > 1]
        if len(swept) > 1:
            raise ConfigError(
                f"{' and '.join(swept)} both list several values; one unit of budget is swept, "
                "the others have one value"
            )
        if not given:
            return (None,)
        along = swept[0] if swept else next(iter(given))
        fixed = {unit: values[0] for unit, values in given.items() if unit != along}
        try:
            return tuple(Budget(**{along: value}, **fixed) for value in given[along])
        except BudgetError as error:
            raise ConfigError(str(error)) from error

    @property
    def portable(self) -> dict[str, Any]:
        """The fields as JSON values, paths without their folders: what a run is recognised by.

        What the paths hold is recognised by content (problems, task file, engine identity).
        Empty tables, ``skip = 0`` and ``speculate = true`` are left out, so that records of before
        they were there still are those of the same run.
        """
        fields = self.model_dump(mode="json")
        for name in ("file", "task", "model"):
            fields[name] = _nameless(fields[name])
        if not fields["skip"]:
            del fields["skip"]
        if fields["speculate"]:
            del fields["speculate"]
        for table in ("engines", "verifiers"):
            named = fields.pop(table)
            if named:
                fields[table] = {name: _nameless(value) for name, value in named.items()}
        return fields

    def sampling(self, temperature: float) -> Sampling:
        """The sampling of a cell."""
        return Sampling(temperature, self.top_k, self.top_p, self.min_p)


def make_config(fields: dict[str, Any], source: str = "config") -> Config:
    """A config from its fields; ``ConfigError`` names the first field that is wrong, in one line.

    >>> make_config({"name": "x", "task": "words", "model": "m", "stategies": ["vote"]})
    Traceback (most recent call last):
    mull.errors.ConfigError: config: unknown field 'stategies'; did you mean 'strategies'? ...
    """
    unknown = [name for name in fields if name not in Config.model_fields]
    if unknown:
        valid = list(Config.model_fields)
        close = difflib.get_close_matches(unknown[0], valid, 1)
        guess = f" did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{source}: unknown field {unknown[0]!r};{guess} the fields are {', '.join(valid)}"
        )
    try:
        config = Config(**fields)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None
    try:
        _ = config.budgets
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    return config


def load_config(path: str | Path) -> Config:
    """Read a TOML file; ``file`` in it is taken relative to the config's own folder.

    Raises ``ConfigError``: unreadable, no TOML, or a field that is unknown, missing or out of
    range.
    """
    source = Path(path)
    try:
        fields = tomllib.loads(source.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{source}: {error.strerror}; expected the path of a TOML file with a run's config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f'{source}: no TOML: {error}; expected lines like task = "words"'
        ) from error
    for name in ("file", "task", "model"):
        fields = _beside(source.parent, fields, name)
    for table in ("engines", "verifiers"):
        named = fields.get(table)
        if isinstance(named, dict):
            for name, value in named.items():
                if isinstance(value, dict):
                    named[name] = _beside(source.parent, value, "model")
                else:
                    named[name] = _beside(source.parent, named, name)[name]
    return make_config(fields, str(source))


def _beside(folder: Path, fields: dict[str, Any], name: str) -> dict[str, Any]:
    """A relative path in the config that exists beside it is meant; names stay names."""
    value = fields.get(name)
    if not isinstance(value, str) or not value or "://" in value or "\x00" in value:
        return fields
    place, bracket, parameters = value.partition("(")
    path = folder / place
    looks_like_path = name == "file" or "/" in place or place.endswith(".py")
    if looks_like_path and not Path(place).is_absolute() and path.exists():
        return {**fields, name: f"{path.resolve()}{bracket}{parameters}"}
    return fields


def _nameless(value: Any) -> Any:
    """A path, alone, before parameters or as a table's model, without its folders."""
    if isinstance(value, dict):
        return {**value, "model": _nameless(value["model"])} if "model" in value else value
    if not isinstance(value, str) or "://" in value:
        return value
    place, bracket, parameters = value.partition("(")
    exists = "\x00" not in place and len(place) < 4096 and Path(place).exists()
    return f"{Path(place).name}{bracket}{parameters}" if place and exists else value


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = Config.model_fields[str(first["loc"][0])]
    name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    if first["type"] == "missing":
        return f"{name} is missing; expected {field.description}"
    if "twice" in str(first.get("ctx", {}).get("error", "")):
        return f"{name} lists a value twice; each is run once"
    shown = repr(first["input"])
    return f"{name} = {shown[:80]} is not valid; expected {field.description}"
