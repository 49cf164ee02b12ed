"""Where a judge's verdict may stand: the last line of its own text, and nothing else on it.

The one reader for verdicts in words, for verifiers and strategies alike. A line ends at a newline
alone: what else some readers take for a line's end (a carriage return, U+2028 …) can be quoted
from a solution in the middle of a judge's sentence.
"""

from __future__ import annotations

import re

LONGEST = 80
"""A verdict is short; a long line is none, and no pattern should have to find that out."""


def last_line(text: str) -> tuple[str, str]:
    """What stands before the last line that is not blank, and that line without blanks around it.

    >>> last_line("It adds up.\\n  Verdict: yes \\n\\n")
    ('It adds up.\\n', 'Verdict: yes')
    """
    before, newline, last = text.rstrip().rpartition("\n")
    return before + newline, last.strip()


def verdict_on(text: str, pattern: re.Pattern[str]) -> str | None:
    """The verdict on the last line, in lower case: the group of a pattern that is all of it."""
    last = last_line(text)[1]
    found = pattern.fullmatch(last) if len(last) <= LONGEST else None
    return None if found is None else found[1].lower()
