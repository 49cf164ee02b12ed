"""The claims of the literature that the study decides, as data, and the table of their verdicts.

Numbers are those of the reproduction protocol (the literature's check list). A claim whose cells
are missing says "not run".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study_chains import CHAIN, MIXED, by_turn, flips, interior_ratio, never_last
from study_rules import (
    Finding,
    Rows,
    Rule,
    beats,
    beats_at_cost,
    best_by_rollouts,
    cheaper,
    crosses,
    nothing_helps,
    over_optimised,
    ranks_inside,
    rises,
    sums,
)

from mull.report.verdicts import NOT_DETECTED, holm

WEIGHTED, BEST = "weighted-vote", "best-of-n(verifier=prm)"
LEAST, PRODUCT = "weighted-vote(verifier=prm-min)", "weighted-vote(verifier=prm-product)"
BY_ORM, BEST_BY_ORM = "weighted-vote(verifier=orm)", "best-of-n(verifier=orm)"
CHECKED, BEAM_CHECKED = "weighted-vote(verifier=checker)", "beam(verifier=checker)"
PLAIN_REBASE = "rebase(select=majority)"
SIZES = (4, 16, 64)
EASY, MIDDLE, HARD = (0, 1), (2, 3), (4,)


@dataclass(frozen=True)
class Claim:
    """One claim, and the rule that decides it."""

    id: str
    says: str
    rule: Rule


def law(path: str) -> Rule:
    """Decided by an exact test of the algorithm, not by a measurement."""
    return lambda families: [Finding("", f"`{path}`", "holds (tests)")]


CLAIMS = (
    Claim("C6", "REBASE divides its budget as written", law("tests/strategies/test_rebase.py")),
    Claim("C7", "REBASE beats the weighted vote", beats_at_cost("rebase", WEIGHTED, 16, 64)),
    Claim("C7", "REBASE beats MCTS", beats_at_cost("rebase", "mcts", 16, 64)),
    Claim("C9", "a smaller policy is cheaper at equal error (vote)", cheaper("vote")),
    Claim("C10", "REBASE ends higher than sampling", beats("rebase", WEIGHTED, 64)),
    Claim(
        "C10",
        "and still climbs faster",
        sums(
            "16 → 64", (1, "rebase", 64), (-1, "rebase", 16), (-1, WEIGHTED, 64), (1, WEIGHTED, 16)
        ),
    ),
    Claim("C11", "the weighted vote beats the vote", beats(WEIGHTED, "vote", *SIZES)),
    Claim(
        "C11",
        "by less under REBASE",
        sums("16", (1, WEIGHTED, 16), (-1, "vote", 16), (-1, "rebase", 16), (1, PLAIN_REBASE, 16)),
    ),
    Claim("C12", "a PRM of rollouts ranks inside problems, AUC above .8", ranks_inside),
    Claim("C12", "and its best of n beats the vote", best_by_rollouts),
    Claim("C12", "best of n by exact labels beats the vote", beats(BEST, "vote", 16)),
    Claim("C13", "the last step beats the least", beats(WEIGHTED, LEAST, 16, 64)),
    Claim("C13", "the last step beats the product", beats(WEIGHTED, PRODUCT, 16, 64)),
    Claim("C14", "weighted beats the single best", beats(WEIGHTED, BEST, *SIZES)),
    Claim(
        "C14",
        "an ORM's best of n declines with n",
        sums("16 → 64, lost", (1, BEST_BY_ORM, 16), (-1, BEST_BY_ORM, 64)),
    ),
    Claim("C15", "the PRM beats the ORM", beats(WEIGHTED, BY_ORM, 4, 64)),
    Claim(
        "C15",
        "and the gap grows",
        sums("4 → 64", (1, WEIGHTED, 64), (-1, BY_ORM, 64), (-1, WEIGHTED, 4), (1, BY_ORM, 4)),
    ),
    Claim("C16", "beam beats the weighted vote", beats("beam", WEIGHTED, 4, 16)),
    Claim("C16", "the same at equal FLOPs", beats_at_cost("beam", WEIGHTED, *SIZES)),
    Claim("C17", "sampling is ahead of beam at 64", beats(WEIGHTED, "beam", 64)),
    Claim("C17", "it overtakes beam inside the grid", crosses("beam", WEIGHTED, SIZES)),
    Claim("C17", "not with an exact checker: beam leads", beats(BEAM_CHECKED, CHECKED, 16, 64)),
    Claim(
        "C18",
        "lookahead 1 is worse at equal N, its rollouts counted",
        beats("beam", "lookahead(k=1)", 16, 64),
    ),
    Claim(
        "C18",
        "lookahead 3 is worse at equal N, its rollouts counted",
        beats("beam", "lookahead(k=3)", 16, 64),
    ),
    Claim("C19", "beam falls while its scores rise", over_optimised("beam", 16, 64)),
    Claim("C20", "easy (fifths 1, 2 of the levels): best of n improves", rises(BEST, SIZES, EASY)),
    Claim("C20", "easy: beam degrades", rises("beam", SIZES, EASY, -1.0)),
    Claim(
        "C20",
        "middle (3, 4): beam beats best of n",
        sums("16", (1, "beam", 16), (-1, BEST, 16), bins=MIDDLE),
    ),
    Claim("C20", "hardest (5): nothing helps", nothing_helps(("beam", BEST, WEIGHTED), 64, HARD)),
    Claim("C22", "attempts of a chain get better", by_turn(1, 4)),
    Claim("C22", "beyond the turns that were trained", by_turn(4, 16)),
    Claim("C23", "a chain makes right answers wrong", flips),
    Claim("C23", "the best of a chain beats its last", never_last),
    Claim("C24", "a chain beats samples (verifier)", beats(CHAIN, WEIGHTED, *SIZES)),
    Claim(
        "C24", "a chain beats samples (majority)", beats("revise(select=majority)", "vote", *SIZES)
    ),
    Claim(
        "C24", "half chain, half samples beats samples", beats(MIXED.format(1), WEIGHTED, *SIZES)
    ),
    Claim("C25", "a ratio between the ends is best", interior_ratio(16)),
    Claim("C28", "best of n beats one sample", beats(BEST, "sample", *SIZES)),
    Claim("control", "an exact checker lifts the search", beats(BEAM_CHECKED, "beam", *SIZES)),
)


def claims_table(families: Mapping[str, Rows]) -> list[str]:
    """Each claim's findings with their verdicts, in Markdown.

    ``families`` are rows by family of policies, those that the study is about first. A verdict that
    does not survive Holm's rule over the whole table says so.
    """
    found = [(claim, claim.rule(families)) for claim in CLAIMS]
    tested = [f.p for _, findings in found for f in findings if f.p is not None]
    adjusted = iter(holm(tested))
    lines = ["| claim | | at N | found | verdict |", "|---|---|---|---|---|"]
    before = ""
    for claim, findings in found:
        number, before = claim.id if claim.id != before else "", claim.id
        if not findings:
            lines.append(f"| {number} | {claim.says} | | | not run |")
        for at, finding in enumerate(findings):
            said = finding.verdict
            if finding.p is not None and next(adjusted) > 0.05 and said != NOT_DETECTED:
                said += ", not by Holm"
            head = f"| {number} | {claim.says}" if at == 0 else "| | "
            lines.append(f"{head} | {finding.where} | {finding.shown} | {said} |")
    return lines
