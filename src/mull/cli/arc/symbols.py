"""`mull arc symbols`: does a tokenizer read an encoder's symbols as one token each, in context?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mull.cli import options
from mull.tasks.arc.encode import Encoder
from mull.tasks.arc.encoder_spec import encoder_spec, parse_encoder
from mull.tasks.arc.symbols import (
    COSTS,
    SymbolReport,
    check_symbols,
    find_symbols,
    open_tokens,
    symbols_of,
    with_symbols,
)

ENCODER = "GridShapeEncoder(RowNumberEncoder(ReplaceNumberEncoder(MinimalGridEncoder())))"


def symbols(
    tokenizer: Annotated[str, typer.Option(help="A model's folder, or a tokenizer.json.")],
    encoder: Annotated[str, typer.Option(help="Spec of the grid encoder.")] = ENCODER,
    symbols: Annotated[
        str | None, typer.Option(help="Ten symbols for the colours 0..9; default: the encoder's.")
    ] = None,
    find: Annotated[bool, typer.Option(help="Propose ten symbols where these break.")] = True,
    as_json: options.AsJson = False,
) -> int:
    """Check an encoder's symbols by their token ids in context, and find ten that hold."""
    chosen = parse_encoder(encoder)
    if symbols is not None:
        chosen = with_symbols(chosen, symbols)
    tokens = open_tokens(Path(tokenizer))
    given = check_symbols(tokens, chosen)
    if not as_json:
        _print(chosen, given)
    proposed: tuple[Encoder, SymbolReport] | None = None
    # An encoder that writes digits has no symbols to change.
    if find and not given.sound and not symbols_of(chosen).isdigit():
        better = with_symbols(chosen, find_symbols(tokens, chosen))
        proposed = better, check_symbols(tokens, better)
    if as_json:
        other = None if proposed is None else _facts(*proposed)
        options.print_json({**_facts(chosen, given), "proposed": other})
    elif proposed is not None:
        print("\nproposed instead:")
        _print(*proposed)
    return 0 if given.sound else 3


def _facts(encoder: Encoder, report: SymbolReport) -> dict[str, object]:
    return {
        "encoder": encoder_spec(encoder),
        "symbols": report.text,
        "sound": report.sound,
        "contexts": list(report.used),
        "tokens": dict(zip(map(str, COSTS), report.costs, strict=True)),
        "each": [
            {
                "symbol": each.symbol,
                "token": each.token,
                "broken": list(report.broken(each)),
                "broken_elsewhere": [c for c in each.broken if c not in report.used],
                "other_entries": each.elsewhere,
            }
            for each in report.symbols
        ],
    }


def _print(encoder: Encoder, report: SymbolReport) -> None:
    heads = ("colour", "symbol", "token", "breaks here", "would break", "other entries")
    table = Table(*heads, box=None)
    for colour, each in enumerate(report.symbols):
        here = report.broken(each)
        table.add_row(
            str(colour),
            each.symbol,
            "-" if each.token is None else str(each.token),
            ", ".join(here) or "-",
            ", ".join(name for name in each.broken if name not in here) or "-",
            str(each.elsewhere),
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    costs = ", ".join(
        f"{side}x{side} {cost:,}" for side, cost in zip(COSTS, report.costs, strict=True)
    )
    print(f"tokens: {costs}")
    what = "the digits" if symbols_of(encoder).isdigit() else report.text
    verdict = "one token a colour in every context" if report.sound else "NOT sound"
    print(f"{what} with {encoder_spec(encoder)}: {verdict}")
