"""A data file → problems; a completion → an answer → a grade.

The names of the built-in tasks and where their classes live; nothing is imported until one is
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BUILTIN: Mapping[str, str] = MappingProxyType(
    {
        "arc": "mull.tasks.arc.task:ArcTask",
        "words": "mull.tasks.words:WordsTask",
        "countdown": "mull.tasks.countdown:CountdownTask",
        "gsm8k": "mull.tasks.gsm8k:Gsm8k",
        "math": "mull.tasks.maths.task:Math",
        "text": "mull.tasks.text:Text",
        "choice": "mull.tasks.choice:Choice",
        "json": "mull.tasks.json_object:JsonObject",
    }
)
"""Task name → ``module:class``; every class is a frozen dataclass of its options."""
