"""`mull solve`: one prompt, one answer, and what it cost."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from mull.api import Interrupted, Solution, resolve_task
from mull.api import solve as solve_prompt
from mull.budget import known
from mull.cli import options
from mull.errors import UnsupportedError, UsageError
from mull.report.tables import safe_terminal
from mull.types import Usage


def solve(
    text: Annotated[str | None, typer.Argument(help="The problem.")] = None,
    *,
    file: Annotated[str | None, typer.Option(help="Read the problem from a file, - for stdin.")] = (
        None
    ),
    model: options.Model,
    task: options.Task = None,
    strategy: options.StrategySpec = "vote",
    samples: options.Samples = None,
    tokens: options.Tokens = None,
    flops: options.Flops = None,
    seconds: options.Seconds = None,
    cost: options.Cost = None,
    price: options.Prices = None,
    option: options.EngineOptions = None,
    verifier: options.Verifiers = None,
    engine: options.Engines = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; default: 1.", show_default=False)
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off.")] = None,
    min_p: Annotated[float | None, typer.Option(help="0 is off.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest solution, in tokens.")] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    trace: Annotated[bool, typer.Option(help="Show every candidate.")] = False,
) -> int:
    """Spend a budget on one prompt and print the best answer."""
    if (text is None) == (file is None):
        raise UsageError("give the problem either as text or by --file, not both and not neither")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"--max-tokens must be at least 1, not {max_tokens}")
    budget = options.budget_of(samples, tokens, flops, seconds, cost)
    family = resolve_task(task, model)
    until = None if max_tokens is None else replace(family.until, max_tokens=max_tokens)
    solution = _solved(
        options.read_text(file) if file is not None else options.checked_text(text or ""),
        model,
        task=family,
        strategy=strategy,
        budget=budget,
        sampling=options.sampling_of(temperature, top_k, top_p, min_p),
        until=until,
        seed=seed,
        engine_options=options.engine_options(option, price),
        engines=options.table_of("--engine", engine),
        verifiers=options.table_of("--verifier", verifier),
    )
    _refuse_what_cannot_be(solution)
    if as_json:
        options.print_json(as_dict(solution, trace))
    else:
        _print(solution, trace)
    for unit, much in (budget.over(solution.spent) if budget else {}).items():
        said = f"over the budget by {much:,.6g} {unit}: what was in flight was finished"
        print(f"mull: {said}", file=sys.stderr)
    options.say(solution.notes, sys.stderr)
    return 3 if solution.failures else 0


def _solved(*arguments: Any, **given: Any) -> Solution:
    """As ``mull.solve``; Ctrl-C says what was spent, for nothing else of it is kept."""
    try:
        return solve_prompt(*arguments, **given)
    except Interrupted as error:
        print(f"mull: spent {_tokens(error.spent)}; nothing is kept", file=sys.stderr)
        raise


def _refuse_what_cannot_be(solution: Solution) -> None:
    """Nothing came, for the engine cannot do what was asked: bad usage rather than bad luck."""
    failures = solution.failures
    if solution.candidates or not failures:
        return
    if all(failure.error == UnsupportedError.__name__ for failure in failures):
        raise UnsupportedError(failures[0].message)


def as_dict(solution: Solution, trace: bool) -> dict[str, Any]:
    """A solution as JSON values."""
    spent = solution.spent
    out: dict[str, Any] = {
        "answer": solution.answer,
        "confidence": round(solution.confidence, 4),
        "ended": solution.ended.value,
        "samples": solution.samples,
        "seconds": round(solution.seconds, 3),
        "spent": {
            "prompt_tokens": spent.prompt,
            "cached_tokens": spent.cached,
            "generated_tokens": spent.generated,
            "flops": _known(solution, "flops"),
            "slot_seconds": round(spent.seconds, 3),
            "cost": _known(solution, "cost"),
            "estimated": spent.estimated,
        },
        "failures": [{"error": f.error, "message": f.message} for f in solution.failures],
    }
    if trace:
        out["candidates"] = [
            {
                "answer": c.answer,
                "unanswered": c.unanswered.value if c.unanswered else None,
                "stop": c.stop.value,
                "tokens": c.tokens,
                "scores": dict(c.scores),
                "text": c.text,
            }
            for c in solution.candidates
        ]
    return out


def _known(solution: Solution, unit: Literal["flops", "cost"]) -> float | None:
    """FLOPs or money of all that was done; ``None`` where nobody knows a part of it."""
    return known(unit, [usage for _, _, usage, _ in solution.ledger.rows()])


def _tokens(spent: Usage) -> str:
    guessed = " (partly estimated: the endpoint did not say)" if spent.estimated else ""
    return f"{spent.generated:,} tokens generated, {spent.prompt - spent.cached:,} read{guessed}"


def _flops(solution: Solution) -> str:
    found, some = _known(solution, "flops"), solution.spent.flops
    if found is None:
        return f"at least {some:.3g} FLOPs" if some else "FLOPs unknown"
    return f"{found:.3g} FLOPs"


def _print(solution: Solution, trace: bool) -> None:
    console = Console(highlight=False, markup=False)
    say = partial(console.print, soft_wrap=True)  # a line break in an answer would be part of it
    answer = "no answer" if solution.answer is None else safe_terminal(solution.answer)
    say(answer, style="bold")
    spent = solution.spent
    money = f"cost {spent.cost:.4g} · " if spent.cost else ""
    say(
        f"confidence {solution.confidence:.2f} · {solution.samples} samples · "
        f"{_tokens(spent)} · {_flops(solution)} · {money}{solution.seconds:.2f} s · "
        f"{solution.ended.value}",
        style="dim",
    )
    if solution.answer is None:
        why = Counter(str(each.unanswered) for each in solution.candidates if each.unanswered)
        for reason, count in why.most_common():
            say(f"unanswered: {count} × {reason}", style="dim")
    for error, count in Counter(failure.error for failure in solution.failures).most_common():
        said = Counter(each.message for each in solution.failures if each.error == error)
        (message, _), *others = said.most_common()
        more = f" (and {len(others)} more, worded otherwise)" if others else ""
        say(f"failed: {count} × {error}: {safe_terminal(message)}{more}", style="red")
    if trace:
        given = {name for candidate in solution.candidates for name in candidate.scores}
        verifiers = sorted(given - {"logprob", "mean_logprob"})
        names = ["mean_logprob", *verifiers]
        heads = map(safe_terminal, verifiers)
        table = Table("answer", "log-prob a token", *heads, "tokens", "stop", "text")
        for candidate in solution.candidates:
            scores = [candidate.scores.get(name) for name in names]
            table.add_row(
                safe_terminal(candidate.answer or f"({candidate.unanswered})"),
                *("" if score is None else f"{score:.3f}" for score in scores),
                str(candidate.tokens),
                candidate.stop.value,
                safe_terminal(candidate.text),
            )
        console.print(table)
