"""The command line: commands in, exit codes out.

0 done · 2 bad usage or config · 3 finished with recorded failures · 130 interrupted: what is kept,
the command says. A message says what was wrong, what was expected and what to do, on one line.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, cast

import typer

from mull import __version__
from mull.cli import (
    arc,
    bench,
    grade,
    listings,
    report,
    run,
    select,
    solve,
    train,
    train_from_run,
    train_lora,
)
from mull.errors import MullError
from mull.report.tables import safe_terminal

USAGE = 2
INTERRUPTED = 130

# Some versions of typer bring their own copy of click: what typer raises is named through typer.
CommandLineError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    name="mull",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("solve")(solve.solve)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("select")(select.select)
app.command("grade")(grade.grade)
app.command("models")(listings.models)
app.command("strategies")(listings.strategies)
app.command("verifiers")(listings.verifiers)
app.command("tasks")(listings.tasks)
app.add_typer(bench.app, name="bench")
train.app.command("prm")(train_from_run.prm)
train.app.command("orm")(train_from_run.orm)
train.app.command("revision")(train_from_run.revision)
train.app.command("lora")(train_lora.lora)
train.app.command("merge")(train_lora.merge)
app.add_typer(train.app, name="train")
app.add_typer(arc.app, name="arc")


@app.callback(invoke_without_command=True)
def mull(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Spend an inference budget on a language model, so that a small one answers like a large."""
    if version:
        typer.echo(f"mull {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    code = call(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _pacify()
    sys.exit(code)


def call(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model's half of a surrogate pair must not end the command that prints it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="mull", standalone_mode=False)
    except CommandLineError as error:
        return _say(_usage(error), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except MullError as error:
        return _say(str(error), USAGE)
    except BrokenPipeError:
        return _pacify()
    except SystemExit as error:
        # typer and rich make an exit of a broken pipe.
        if isinstance(error.__context__, BrokenPipeError):
            return _pacify()
        raise
    except OSError as error:
        place = error.filename if error.filename is not None else "a file"
        return _say(f"{place}: {error.strerror or error}; name a path that can be used", USAGE)
    if code == INTERRUPTED:  # by a run that ended in good order, or by typer
        return _say("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    """What typer says of a command line, and where the command's options are listed."""
    said = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "mull"
    return f"{said.rstrip('.')}; {command} --help lists what is expected"


def _pacify() -> int:
    """The reader of a pipe went away (``mull … | head``): say nothing more to it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(message: str, code: int) -> int:
    line = " ".join(safe_terminal(message).split())
    print(f"mull: {line}", file=sys.stderr)
    return code
