"""The one finish that a search owes its user: an answer, where the budget pays for a whole path.

A search over steps can spend all that it has on beginnings. So, while nothing has finished, it
keeps back what it takes to bring one path to its end: as many tokens again as the best path has.
Once no more than that is left (or nothing, for a round may overrun) the best path is written to its
end, and only then is the budget over. What a search spends is therefore at most its budget, what
was in flight when that was reached, and one finish, which the task's limit bounds.
"""

from __future__ import annotations

from dataclasses import replace

from mull.budget import Budget
from mull.types import Usage


def projected(spent: Usage, tokens: int) -> Usage:
    """What is spent once so many more tokens are generated.

    Each costs new prompt tokens (its scores are among them), FLOPs and money as a generated token
    has until now; so some must have been generated.

    >>> ahead = projected(Usage(prompt=50, cached=10, generated=20, cost=4.0), 10)
    >>> ahead.generated, ahead.prompt - ahead.cached, ahead.cost
    (30, 60, 6.0)
    """
    scale = 1 + tokens / spent.generated
    return replace(
        spent,
        generated=spent.generated + tokens,
        prompt=spent.cached + round((spent.prompt - spent.cached) * scale),
        flops=spent.flops * scale,
        cost=spent.cost * scale,
    )


def finish_is_due(budget: Budget | None, spent: Usage, tokens: int) -> bool:
    """Whether what is left covers no more than the finish of a path that has ``tokens`` tokens.

    That is taken to be as many again (``projected``). Seconds are the driver's clock, which no
    search sees.

    >>> budget = Budget(tokens=100)
    >>> [finish_is_due(budget, Usage(generated=made), 30) for made in (60, 80, 120)]
    [False, True, True]
    """
    if budget is None or not budget.metered or not spent.generated:
        return False
    return budget.exhausted(projected(spent, tokens))
