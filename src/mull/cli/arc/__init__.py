"""`mull arc`: puzzles of coloured grids; one file a command."""

from __future__ import annotations

import typer

from mull.cli.arc import adapt, combine, evaluate, external, score, solve, symbols, vote

app = typer.Typer(help="ARC: puzzles of coloured grids.")


@app.callback(invoke_without_command=True)
def arc(context: typer.Context) -> None:
    """ARC: puzzles of coloured grids."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("solve")(solve.solve)
app.command("evaluate")(evaluate.evaluate)
app.command("adapt")(adapt.adapt)
app.command("symbols")(symbols.symbols)
app.command("score")(score.score)
app.command("vote")(vote.vote)
app.command("combine")(combine.combine)
app.command("concatenate")(combine.concatenate)
app.command("external")(external.external)
