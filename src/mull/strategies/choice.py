"""The final choice of a search over steps, and which scores it can be made by.

Beam, lookahead, DVTS, REBASE, particles and the searches that grow a tree choose alike: among the
paths that ended, each of which stands for as many as say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from mull.errors import SpecError
from mull.grades import Unanswered
from mull.selection import Best, Selection, Selector, Weighted
from mull.strategies.base import Failure, Start, Value
from mull.strategies.scored import score_of
from mull.types import Branch, Candidate, StopReason

Select = Literal["weighted", "best", "majority"]
SELECTS: tuple[Select, ...] = ("weighted", "best", "majority")


def check_select(name: str, select: str) -> None:
    """Raise ``SpecError`` for a selection that there is not."""
    if select not in SELECTS:
        raise SpecError(f"{name}(select={select!r}): select is weighted, best or majority")


def path_score(
    verifier: str, value: Value, select: Select, bounded: bool = False
) -> float | Failure:
    """A verifier's score of a path as search and choice can count with it, or why there is none.

    ``bounded``: the search counts with scores in 0..1, whatever chooses. Else ``weighted`` sums
    them up, so they must not be negative, and ``best`` and ``majority`` take any finite number.

    >>> path_score("prm", (-2.0,), "best"), path_score("prm", (-2.0,), "weighted").error
    (-2.0, 'ScoreError')
    """
    score = score_of(verifier, value)
    if isinstance(score, Failure):
        return score
    if bounded and not 0.0 <= score <= 1.0:
        return Failure(
            "ScoreError",
            f"verifier {verifier!r} gave {score:g}, and this search counts with scores in 0..1: "
            "use a verifier that gives probabilities, or a search that only ranks, as beam does",
        )
    if select == "weighted" and score < 0.0:
        return Failure(
            "ScoreError",
            f"verifier {verifier!r} gave {score:g}, and select=weighted sums scores that are not "
            "negative: use select=best or majority, which take any number",
        )
    return score


def path_candidate(
    start: Start, branch: Branch, verifier: str, score: float | None, capped: bool
) -> Candidate:
    """The candidate of a path that ended, with its score.

    ``capped``: the model had not ended it, its last step or token did.
    """
    made = start.candidate(branch)
    if score is not None:
        made = replace(made, scores={**made.scores, verifier: score})
    if capped:
        missing = made.unanswered and Unanswered.TRUNCATED
        made = replace(made, stop=StopReason.LENGTH, unanswered=missing)
    return made


def choose(
    select: Select,
    verifier: str,
    candidates: Sequence[Candidate],
    votes: Mapping[tuple[int, ...], int],
    start: Start,
) -> Selection:
    """The answer among paths that ended; the plain vote where no answered one has a score.

    ``votes`` are how many equal paths each candidate stands for, by its key. Each of them has a
    voice, so it makes no difference whether equal paths were merged.
    """
    scored = any(c.answer is not None and verifier in c.scores for c in candidates)
    how: Selector = start.majority
    if scored and select != "majority":
        how = Best(verifier) if select == "best" else Weighted(verifier)
    paths = [at for at, c in enumerate(candidates) for _ in range(votes[c.key])]
    found = how([candidates[at] for at in paths], start.same)
    ranking = tuple(
        replace(group, members=tuple(dict.fromkeys(paths[i] for i in group.members)))
        for group in found.ranking
    )
    answered = sum(candidate.answer is not None for candidate in candidates)
    return replace(
        found,
        index=None if found.index is None else paths[found.index],
        ranking=ranking,
        n_answered=answered,
        left_out=answered - sum(len(group.members) for group in ranking),
    )
