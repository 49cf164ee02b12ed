"""What the report's browser shows of each problem, cut to a size that a browser can hold.

Numbers of every candidate are kept. Of the texts, all are kept while a run is small; above that,
one example for each of the largest answer groups, each cut at a length. What was left out is
counted and said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mull.report.data import ProblemResult, Sample

ALL_TEXTS = 3_000_000
"""Characters of candidate text up to which every text is embedded."""

SOME_TEXTS = 12_000_000
"""Characters of example text that a report holds at most."""

TEXT_LIMIT = 4_000
ANSWER_LIMIT = 300
GROUP_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One problem as the browser shows it: JSON values.

    ``examples`` are the positions of one candidate for each of the largest groups, largest first.
    """

    n: int
    payload: dict[str, Any]
    examples: tuple[int, ...]


@dataclass(slots=True)
class TextBudget:
    """Makes entries, and keeps their texts within what a report may hold.

    Call ``entry`` for each problem of all cells, then ``settle`` once. ``picture`` gives what is to
    be painted of a problem, if anything is.
    """

    all_texts: int = ALL_TEXTS
    some_texts: int = SOME_TEXTS
    picture: Callable[[ProblemResult], dict[str, Any] | None] | None = None
    remark: str = ""
    _entries: list[Entry] = field(default_factory=list)
    _characters: int = 0
    _cut: int = 0

    def entry(self, problem: ProblemResult) -> Entry:
        """A problem's entry."""
        samples = problem.samples
        names = sorted({name for sample in samples for name in sample.scores})
        groups, examples = _groups(samples)
        self._characters += sum(len(sample.text) for sample in samples)
        few = self._characters > self.all_texts
        payload = {
            "id": _short(problem.id),
            "level": problem.level,
            "prompt": self._shorten(problem.prompt),
            "gold": _short(problem.gold),
            "answer": _short(problem.answer),
            "correct": problem.correct,
            "confidence": _number(problem.confidence),
            "failure": _short(problem.failure),
            "groups": groups,
            "scores": names,
            "rows": [_row(sample, names) for sample in samples],
            "texts": {
                str(i): self._shorten(samples[i].text)
                for i in (examples if few else range(len(samples)))
            },
        }
        painted = self.picture(problem) if self.picture is not None else None
        if painted is not None:
            payload["grids"] = painted
        made = Entry(len(samples), payload, examples)
        self._entries.append(made)
        return made

    def settle(self) -> None:
        """Drop the texts for which there is no room, and say so in ``remark``."""
        candidates = sum(entry.n for entry in self._entries)
        if self._characters > self.all_texts:
            share = self.some_texts // max(len(self._entries), 1)
            for entry in self._entries:
                _trim(entry, share)
        shown = sum(len(entry.payload["texts"]) for entry in self._entries)
        parts = []
        if shown < candidates:
            parts.append(
                f"{shown:,} of {candidates:,} candidate texts are in this page: one example for "
                "each of a problem's largest answer groups"
            )
        if self._cut:
            parts.append(f"{self._cut:,} long texts are cut")
        self.remark = "; ".join(parts) + (". The run's store has all." if parts else "")

    def _shorten(self, text: str) -> str:
        if len(text) <= TEXT_LIMIT:
            return text
        self._cut += 1
        return f"{text[:TEXT_LIMIT]}\n… {len(text) - TEXT_LIMIT:,} more characters"


def _groups(samples: Sequence[Sample]) -> tuple[list[list[Any]], tuple[int, ...]]:
    """Answer groups [number, answer, votes, verdict], largest first, none last; the examples."""
    members: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        members.setdefault(sample.group, []).append(i)
    order = sorted(members, key=lambda g: (g < 0, -len(members[g]), g))
    groups, examples = [], []
    for rank, number in enumerate(order):
        positions = members[number]
        first = samples[positions[0]]
        groups.append([number, _short(first.answer), len(positions), first.correct])
        if rank < GROUP_LIMIT or number < 0:
            examples.append(min(positions, key=lambda i: (-_likelihood(samples[i]), i)))
    return groups, tuple(examples)


def _row(sample: Sample, names: Sequence[str]) -> list[Any]:
    """Group, verdict, how it ended, generated tokens, then the scores."""
    how = sample.unanswered or sample.stop
    row: list[Any] = [sample.group, sample.correct, how, sample.usage.generated]
    return row + [_number(sample.scores.get(name)) for name in names]


def _trim(entry: Entry, room: int) -> None:
    """Keep the examples, largest groups first, as long as there is room; the first one always."""
    texts: dict[str, str] = entry.payload["texts"]
    kept: dict[str, str] = {}
    for i in entry.examples:
        text = texts[str(i)]
        if not kept or len(text) <= room:
            kept[str(i)] = text
            room -= len(text)
    entry.payload["texts"] = kept


def _likelihood(sample: Sample) -> float:
    value = sample.scores.get("mean_logprob", -math.inf)
    return value if math.isfinite(value) else -math.inf


def _number(value: float | None) -> float | None:
    """A number for the page: four significant digits, and null for what JSON cannot say."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _short(answer: str | None) -> str | None:
    if answer is None or len(answer) <= ANSWER_LIMIT:
        return answer
    return f"{answer[:ANSWER_LIMIT]}…"
