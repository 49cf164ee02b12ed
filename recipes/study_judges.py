"""The study's verifiers side by side: a ladder of their quality, and one in another's place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from study_rules import cells

from mull.report.cells import CellRow
from mull.report.compare import accuracy, difference

Rows = Sequence[CellRow]

PRM, HEAD, ORM, ORM_HEAD = "prm", "head", "orm", "orm-head"
LADDER = (
    (ORM_HEAD, "outcome reward model, hidden state alone"),
    (HEAD, "process reward model, hidden state alone"),
    (ORM, "outcome reward model"),
    (PRM, "process reward model"),
    ("likelihood", "likelihood of the next larger policy"),
    ("checker-30", "exact, but 30 % of its verdicts are turned around"),
    ("checker-10", "exact, but 10 % are"),
    ("checker-exploit", "exact, but it likes 2 % of what is wrong best"),
    ("checker", "exact"),
)
"""Verifiers by the names of the configs, those that were trained first."""
NAMES_ITS_VERIFIER = ("best-of-n", "mixed", "revise")
"""Strategies that take no verifier by themselves; the others take the policy's PRM."""
PLACES = {HEAD: PRM, ORM_HEAD: ORM}
"""Ordinary reward models, by whom they stand in for."""


def with_heads_alone(rows: Rows) -> list[CellRow]:
    """Rows named as they would be were the ordinary reward models the policy's own, whose rows are
    left out.
    """
    kept: list[CellRow] = []
    for row in rows:
        if any(_is(name, own) for name in row.models for own in PLACES.values()):
            continue
        spec, models = row.strategy, dict(row.models)
        for judge, own in PLACES.items():
            spec = _renamed(spec, judge, own)
            models = {
                name.replace(judge, own, 1) if _is(name, judge) else name: who
                for name, who in models.items()
            }
        kept.append(replace(row, strategy=spec, models=models))
    return kept


def _is(name: str, judge: str) -> bool:
    """Whether a verifier is this one, in whatever reading (``prm``, ``prm-min``)."""
    return name == judge or (name.startswith(f"{judge}-") and name not in PLACES)


def _renamed(spec: str, judge: str, own: str) -> str:
    """A strategy's spec with one verifier in another's place, unnamed where it is by itself.

    >>> _renamed("rebase(balance=0.1, verifier=head)", "head", "prm")
    'rebase(balance=0.1)'
    >>> _renamed("weighted-vote(verifier=head-min)", "head", "prm")
    'weighted-vote(verifier=prm-min)'
    """
    if not re.search(rf"verifier={judge}\b", spec):
        return spec
    by_itself = own == PRM and not spec.startswith(NAMES_ITS_VERIFIER)
    if by_itself and f"verifier={judge}-" not in spec:
        return spec.replace(f", verifier={judge}", "").replace(f"(verifier={judge})", "")
    return spec.replace(f"verifier={judge}", f"verifier={own}")


def ladder(rows: Rows) -> list[str]:
    """Vote and beam by the verifier's quality, on the problems that all of them were run on."""
    specs = {
        name: [s if name == PRM else f"{s}(verifier={name})" for s in ("weighted-vote", "beam")]
        for name, _ in LADDER
    }
    units = {name: {row.unit for row in rows if row.strategy in own} for name, own in specs.items()}
    known = [name for name in specs if units[name]]
    if "likelihood" not in known:
        return []
    shared = set.intersection(*(units[name] for name in known))
    same = [row for row in rows if row.unit in shared]
    counts = (16, 64)
    heads = [f"{what}, N = {n}" for what in ("weighted vote", "beam") for n in counts]
    heads += [f"beam - weighted vote, {n}" for n in counts]
    lines = [
        "",
        f"By the verifier, on the {sum({r.unit: r.problems for r in same}.values()):,} problems "
        "that all were run on:",
        "",
        "| verifier | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for name, label in LADDER:
        found = {(s, n): cells(same, s, n) for s in specs[name] for n in counts}
        vote, beam = specs[name]
        shown = [accuracy(own).percent() if own else "" for own in found.values()]
        gaps = [difference(found[beam, n], found[vote, n]) for n in counts]
        shown += ["" if gap is None else gap.percent() for gap in gaps]
        if any(shown):
            lines.append(f"| {label} | " + " | ".join(shown) + " |")
    return lines
