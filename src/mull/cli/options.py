"""What commands share: options, what they become, JSON that is printed, problems that are said."""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Annotated, Any, Final, TextIO, TypeVar, get_type_hints

import typer

from mull.budget import Budget
from mull.catalog.spec import listed, value_of
from mull.errors import InputError, UsageError
from mull.grades import Grade
from mull.report.tables import safe_terminal
from mull.runs.result import BROKEN
from mull.types import Sampling, encodable

MAX_PROMPT_BYTES = 1 << 20
T = TypeVar("T")
FAILURES: Final = 3
"""The exit code of a command that finished and left something out."""
SHOWN: Final = 20
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

Model = Annotated[str, typer.Option(help="Shipped model, directory, or http://host/v1#model.")]
Task = Annotated[str | None, typer.Option(help="Task; default: the model card's, else text.")]
StrategySpec = Annotated[str, typer.Option(help="Strategy, as in vote or vote(stop=beta).")]
Samples = Annotated[int | None, typer.Option(help="Budget: samples.")]
Tokens = Annotated[int | None, typer.Option(help="Budget: generated tokens.")]
Flops = Annotated[float | None, typer.Option(help="Budget: FLOPs.")]
Seconds = Annotated[float | None, typer.Option(help="Budget: seconds of wall clock.")]
Cost = Annotated[float | None, typer.Option(help="Budget: money, in the engine's price unit.")]
Prices = Annotated[
    str | None,
    typer.Option(
        "--price", help="Money per million new prompt, cached, generated tokens: 1,0.1,2."
    ),
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE of the model's engine, as in slots=8; may be repeated."
    ),
]
Verifiers = Annotated[
    list[str] | None,
    typer.Option("--verifier", help="NAME=SPEC, as in prm=words-s-prm; may be repeated."),
]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", help="ROLE=MODEL, as in judge=words-m; may be repeated."),
]
Seed = Annotated[int, typer.Option(help="Seed; equal seeds give equal samples.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def named(place: str | None) -> str | None:
    """A callback of ``--out``: an empty one, as of an unset variable, is no place to write to."""
    if place is not None and not place.strip():
        raise UsageError("--out is empty; expected a directory, as in --out made")
    return place


def shared(command: Callable[..., T]) -> Callable[..., T]:
    """A command whose first argument is a dataclass: its fields become options of the command.

    Commands that share a dozen options state them once, as the fields of that class.
    """
    first, *own = inspect.signature(command, eval_str=True).parameters.values()
    hints = get_type_hints(first.annotation, include_extras=True)
    fields = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(first.annotation).parameters.items()
    ]

    def run(**given: Any) -> T:
        told = first.annotation(**{each.name: given.pop(each.name) for each in fields})
        return command(told, **given)

    parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in (*fields, *own)]
    update_wrapper(run, command)
    del run.__wrapped__  # type: ignore[attr-defined]  # whose signature is not this one's
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def budget_of(
    samples: int | None,
    tokens: int | None,
    flops: float | None,
    seconds: float | None,
    cost: float | None,
) -> Budget | None:
    """The budget that the options give, ``None`` where none is given."""
    if all(value is None for value in (samples, tokens, flops, seconds, cost)):
        return None
    return Budget(samples=samples, tokens=tokens, flops=flops, seconds=seconds, cost=cost)


def sampling_of(
    temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None
) -> Sampling | None:
    """The sampling that the options give, ``None`` where none is given.

    Out-of-range values are usage errors.
    """
    said = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    try:
        return Sampling(**given) if given else None
    except ValueError as error:
        raise UsageError(str(error)) from error


def engine_options(pairs: list[str] | None, price: str | None) -> dict[str, Any]:
    """The engine's options that ``--option`` and ``--price`` give, read as values of a spec.

    Amounts with commas between are a list; ranges are the engine's business.

    >>> engine_options(["dialect=vllm", "slots=8"], "1,0.1,2")
    {'dialect': 'vllm', 'slots': 8, 'price': (1.0, 0.1, 2.0)}
    """
    given = table_of("--option", pairs)
    found = {name: listed(text) or value_of(text) for name, text in given.items()}
    if price is None:
        return found
    if "price" in found:
        raise UsageError("--price and --option price=… say the same; give one of the two")
    amounts = listed(price)
    if amounts is None or len(amounts) != 3:
        raise UsageError(
            f"--price {price[:80]!r} is not valid; expected three amounts, as in 1,0.1,2: money "
            "per million new prompt, cached prompt and generated tokens"
        )
    return {**found, "price": amounts}


def table_of(option: str, pairs: list[str] | None) -> dict[str, str]:
    """The table that a repeated ``NAME=VALUE`` option gives.

    >>> table_of("--verifier", ["prm=checker(false_positive=0.1)"])
    {'prm': 'checker(false_positive=0.1)'}
    """
    table: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{option} {pair[:80]!r} is not valid; expected NAME=VALUE")
        if name in table:
            raise UsageError(f"{option} gives {name[:80]!r} twice")
        table[name] = value
    return table


def read_text(path: str) -> str:
    """The text of a file (``-``: standard input); ``InputError`` where it cannot be a prompt."""
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path[:200]}: {reason}; expected a readable file") from error
    if len(raw) > MAX_PROMPT_BYTES:
        raise InputError(f"{path}: {len(raw)} bytes; a prompt has at most {MAX_PROMPT_BYTES}")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected UTF-8 text") from error
    if not text.strip():
        raise InputError(f"{path} is empty; expected the text of a problem")
    return text.rstrip("\n")


def checked_text(text: str) -> str:
    """A problem from the command line; ``InputError`` where its bytes were no UTF-8."""
    if not encodable(text):
        raise InputError("the problem is not UTF-8; expected UTF-8 text")
    return text


def print_json(value: Any) -> None:
    """Print a value as one line of strict JSON that a terminal shows and does not obey.

    Numbers that JSON has no word for (infinite, NaN) are ``null``; control characters and marks of
    direction are escaped, so that the line means the same to a parser.
    """
    line = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    print(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line))


def broken(grades: Iterable[Grade]) -> list[str]:
    """A line for each way in which a grader broke: how often, and what it said once.

    >>> from mull.grades import GradeOutcome
    >>> broken([Grade(GradeOutcome.WRONG), Grade(GradeOutcome.GRADER_ERROR, "ValueError: x")])
    ['no verdict: 1 × grader_error, as in: ValueError: x']
    """
    found: dict[str, tuple[int, str]] = {}
    for grade in grades:
        if grade.outcome in BROKEN:
            times, said = found.get(grade.outcome.value, (0, grade.detail))
            found[grade.outcome.value] = (times + 1, said)
    return counted("no verdict", found)


def counted(what: str, found: Mapping[str, tuple[int, str]]) -> list[str]:
    """A line for each name in ``found``: how often it came, and what one of them said."""
    lines = []
    for name, (times, said) in sorted(found.items()):
        example = f", as in: {said}" if said else ""
        lines.append(f"{what}: {times:,} × {name}{example}")
    return lines


def say(problems: Sequence[str], stream: TextIO) -> None:
    """Say each problem on one line, the first ``SHOWN`` of them."""
    for line in problems[:SHOWN]:
        print("mull: " + " ".join(safe_terminal(line).split()), file=stream)
    if len(problems) > SHOWN:
        print(f"mull: … and {len(problems) - SHOWN:,} more", file=stream)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
