"""Laws of a session's books: what was paid for nothing is named by what it was."""

from __future__ import annotations

from mull.budget import Ledger, Purpose
from mull.engines.cache import Lost
from mull.runs.accounts import Accounts
from mull.types import Usage

PROMPT, SEARCH = Usage(prompt=7), Usage(prompt=7, generated=30)


def test_what_was_done_twice_is_named_and_summed() -> None:
    accounts = Accounts()
    for usage, purpose in (
        (PROMPT, Purpose.POLICY),
        (SEARCH, Purpose.POLICY),
        (SEARCH, Purpose.POLICY),
        (PROMPT, Purpose.ADAPTATION),
    ):
        accounts.lost(Lost(Ledger(), purpose, "m", usage, repeated=True))
    assert {row.reason: (row.usage, row.count) for row in accounts.waste()} == {
        "repeated prompt": (PROMPT, 1),
        "repeated search": (SEARCH + SEARCH, 2),
        "repeated training": (PROMPT, 1),
    }
