"""Candidates in, one answer out: votes, best-of-n, filters. Pure functions, no chance anywhere.

Answers are grouped by an equality that the caller injects (a task's, bound to one problem), never
by raw string alone. Every function sorts the candidates by key first, so the order in which they
arrive cannot matter. Ties are broken by rule: votes, then the group's mean log-probability where
every voter has one, then the earliest key. Nothing here knows engines, tasks or grades.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol

from mull.errors import InputError, SpecError
from mull.types import EMPTY, Candidate, Json

Same = Callable[[str, str], bool]
"""Whether two answers mean the same; reflexive and symmetric (it need not be transitive)."""
Score = str | Callable[[Candidate], float | None]
"""A name in ``Candidate.scores``, or a function of the candidate; higher is better."""

EDGE = 1e-6
"""How near to 0 and 1 a probability may come before its logit is taken."""
NEUTRAL = 0.5
"""The score that speaks neither for nor against its answer, where ``logit`` is told no other."""


def logit(score: float) -> float:
    """Log-odds of a probability in nats, clipped to 1e-6 .. 1 - 1e-6.

    >>> logit(0.5)
    0.0
    """
    clipped = min(max(score, EDGE), 1 - EDGE)
    return math.log(clipped / (1 - clipped))


TRANSFORMS: Mapping[str, Callable[[float], float]] = {
    "identity": lambda x: x,
    "exp": lambda x: math.exp(x) if x < 709 else math.inf,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    "logit": logit,
}
WEIGHABLE = (
    "finite scores from 0 are weights; log-probabilities need transform=exp, logits "
    "transform=sigmoid, and transform=logit needs probabilities"
)
MAX_FIELD_DEPTH = 32


def exact(a: str, b: str) -> bool:
    """The equality of strings: what is left where no task says better."""
    return a == b


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates whose answers mean the same.

    ``answer`` is the answer of the first member by key; ``members`` are positions in the caller's
    list, in key order; ``weight`` is what the groups were ranked by (votes, summed weight, or the
    best score).
    """

    answer: str
    votes: int
    weight: float
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """One answer, or none, and how it came about.

    ``index`` is the position of the candidate that represents the answer (``None`` without one);
    ``confidence`` its share of the vote in 0..1 (of the weighted vote where there are weights);
    ``ranking`` all groups, best first; ``n_answered`` how many candidates had an answer;
    ``left_out`` how many of those had no say (no score, or filtered); ``fields`` the share of the
    vote by JSON pointer in a per-field vote.
    """

    answer: str | None
    index: int | None
    confidence: float
    ranking: tuple[Group, ...]
    n_answered: int
    left_out: int = 0
    fields: Mapping[str, float] = field(default_factory=lambda: EMPTY)


NOTHING = Selection(None, None, 0.0, (), 0)


def group(candidates: Sequence[Candidate], same: Same = exact) -> tuple[tuple[int, ...], ...]:
    """Positions of the answered candidates, grouped by equality, groups and members in key order.

    A candidate joins the first group (by key) whose first member's answer is the same as its own;
    members are never chained through one another, so an equality that is not transitive cannot
    merge answers that differ. Equal strings share a group without asking; each other distinct
    string costs at most one comparison a group.

    >>> c = [Candidate((i,), "", a) for i, a in enumerate(("1/2", "0.5", None, "3"))]
    >>> group(c, lambda a, b: {a, b} <= {"1/2", "0.5"} or a == b)
    ((0, 1), (3,))
    """
    found: list[tuple[str, list[int]]] = []
    known: dict[str, list[int]] = {}
    for position in _by_key(candidates):
        answer = candidates[position].answer
        if answer is None:
            continue
        members = known.get(answer)
        if members is None:
            for first, others in found:
                if same(first, answer):
                    members = others
                    break
            else:
                members = []
                found.append((answer, members))
            known[answer] = members
        members.append(position)
    return tuple(tuple(members) for _, members in found)


def tie_keys(voters: Sequence[Sequence[float | None]]) -> list[tuple[int, float, int]]:
    """How groups of equal weight are ordered, one key a group, smallest first: the rule for ties.

    ``voters`` holds each voter's mean log-probability by group, ``None`` where it has none; groups
    in order of their earliest voter. More votes go first, then the higher mean of a group's mean
    log-probabilities where *every* voter has one, then the earliest group.

    >>> tie_keys([[-3.0], [-2.0, -1.0], [-1.0, -1.0]])
    [(-1, 3.0, 0), (-2, 1.5, 1), (-2, 1.0, 2)]
    >>> tie_keys([[-3.0], [None, -1.0]])
    [(-1, 0.0, 0), (-2, 0.0, 1)]
    """
    keys = []
    known = not any(each is None for group in voters for each in group)
    for rank, group in enumerate(voters):
        # fsum: the correctly rounded sum, the same in any order.
        mean = math.fsum(each or 0.0 for each in group) / len(group) if known else 0.0
        keys.append((-len(group), 0.0 - mean, rank))
    return keys


def majority(candidates: Sequence[Candidate], same: Same = exact) -> Selection:
    """The answer that most candidates give (self-consistency; Wang et al. 2022, arXiv 2203.11171).

    A tie goes to the group with the higher summed mean log-probability where every answered
    candidate has ``scores["mean_logprob"]``, else to the group with the earliest key. The
    representative is the group's most likely candidate by the same rule.

    >>> majority([Candidate((i,), "", a) for i, a in enumerate("7797")]).answer
    '7'
    """
    return _vote(candidates, dict.fromkeys(_answered(candidates), 1.0), same)


def weight_of(score: float, transform: str = "identity", neutral: float = NEUTRAL) -> float | None:
    """The weight of a score in a weighted vote; ``None`` where the transform makes none of it.

    ``identity``, ``exp`` (of log-probabilities) and ``sigmoid`` (of logits) give finite weights
    from 0. ``logit`` takes a probability p and gives logit(p) - logit(``neutral``), in nats: a
    log-likelihood ratio, negative where the score speaks against its answer.

    >>> weight_of(-1.0) is None, weight_of(0.5, "logit", neutral=0.5), weight_of(7.0, "logit")
    (True, 0.0, None)
    """
    weight = TRANSFORMS[transform](score)
    if transform == "logit":
        return weight - math.log(neutral / (1 - neutral)) if 0.0 <= score <= 1.0 else None
    return weight if 0.0 <= weight < math.inf else None


def weighted(
    candidates: Sequence[Candidate],
    score: Score,
    same: Same = exact,
    transform: str = "identity",
    neutral: float = NEUTRAL,
) -> Selection:
    """The answer with the largest summed weight (weighted best-of-n; Li et al. 2022, DIVERSE).

    The weight of a candidate is ``weight_of`` its score; under ``exp``, and where their sum would
    overflow, all are divided by the largest, which changes no share. Under ``logit`` an answer can
    lose by its scores: three that speak against it are worse than one. Then ``confidence`` is the
    share of the weights above 0, or of the plain vote where no answer has one. A candidate without
    a finite score has no say and is counted in ``left_out``; ``InputError`` if that leaves nobody,
    or for a score that is no weight. Ties: more votes, then as in ``majority``; so equal weights
    from 0 give the majority.

    >>> c = [Candidate((i,), "", a, scores={"prm": s}) for i, (a, s) in
    ...      enumerate([("7", 0.2), ("7", 0.3), ("9", 0.4)])]
    >>> weighted(c, "prm").answer, weighted(c, "prm", transform="logit").answer
    ('7', '9')
    """
    _check_transform(transform, neutral)
    weights: dict[int, float] = {}
    scores = _scored(candidates, score)
    for position, value in scores.items():
        weight = weight_of(value, transform, neutral)
        if weight is None:
            raise InputError(
                f"candidate {candidates[position].key} has the score {value:g}, of which "
                f"transform={transform} makes no weight: {WEIGHABLE}"
            )
        weights[position] = weight
    largest = max((scores if transform == "exp" else weights).values(), default=0.0)
    if transform == "exp":  # before small weights become 0
        weights = {i: math.exp(value - largest) for i, value in scores.items()}
    elif math.isinf(2 * len(weights) * largest):  # twice: sums are rounded
        weights = {i: weight / largest for i, weight in weights.items()}
    return _vote(candidates, weights, same)


def borda(
    candidates: Sequence[Candidate], score: Score, same: Same = exact, power: float = 0.5
) -> Selection:
    """The answer with the most Borda votes: candidates vote by their rank, not by their score.

    The one of rank r of the N that have an answer and a finite score, rank 1 the highest, weighs
    v(r) = (N - r + 1)^``power``, here divided by N^``power`` so that no weight exceeds 1 (Kang et
    al. 2025, arXiv 2502.18581, with self-certainty as the score). Candidates of equal score share
    what their ranks weigh. ``power`` 0 is the majority of them; the larger it is, the more the best
    candidate decides alone. Any change of the scores that keeps their order changes nothing.
    ``ValueError`` for a power that is no finite number from 0; else as ``weighted``, ties too.

    >>> c = [Candidate((i,), "", a, scores={"sc": s}) for i, (a, s) in
    ...      enumerate([("7", 9.0), ("7", 8.0), ("9", 20.0)])]
    >>> borda(c, "sc").answer, borda(c, "sc", power=5).answer
    ('7', '9')
    """
    if not 0.0 <= power < math.inf:
        raise ValueError(f"the power of a Borda vote is a finite number from 0, not {power}")
    scores = _scored(candidates, score)
    n, ordered = len(scores), sorted(scores.values())
    weights = {}
    for position, value in scores.items():
        alike = range(bisect_left(ordered, value), bisect_right(ordered, value))
        weights[position] = math.fsum(((i + 1) / n) ** power for i in alike) / len(alike)
    return _vote(candidates, weights, same)


def best(
    candidates: Sequence[Candidate],
    score: Score,
    same: Same = exact,
    ties: Literal["votes", "first"] = "votes",
) -> Selection:
    """The answer of the single best candidate (best-of-n; Cobbe et al. 2021, arXiv 2110.14168).

    Groups are ranked by their best score; ``confidence`` is the share of the plain vote that the
    chosen answer has, since a score is no vote. Candidates without a finite score are left out as
    in ``weighted``. Ties: more votes, then as in ``majority``; or, with ``ties="first"``, the
    candidate with the earliest key.
    """
    scores = _scored(candidates, score)
    return _vote(candidates, scores, same, rank_by_best=True, first=ties == "first")


def at_least(score: Score, threshold: float) -> Callable[[Candidate], bool]:
    """A filter: keep a candidate whose score reaches the threshold; without a score, drop it."""

    def keep(candidate: Candidate) -> bool:
        value = _value(candidate, score)
        return value is not None and value >= threshold

    return keep


def filtered(
    candidates: Sequence[Candidate],
    keep: Callable[[Candidate], bool],
    same: Same = exact,
    then: Callable[[Sequence[Candidate], Same], Selection] = majority,
) -> Selection:
    """Vote among the candidates that ``keep`` approves; if none survives, among all.

    Filter-Vote of Chen et al. 2024 (arXiv 2403.02419). ``then`` is the selection among the
    survivors: ``majority``, or any selector, e.g. ``Weighted("prm")`` for a filtered weighted
    vote. ``left_out`` counts the answered candidates that had no say.
    """
    answered = _answered(candidates)
    kept = [i for i in answered if keep(candidates[i])] or answered
    if not kept:
        return NOTHING
    inner = then([candidates[i] for i in kept], same)
    ranking = tuple(
        Group(g.answer, g.votes, g.weight, tuple(kept[i] for i in g.members)) for g in inner.ranking
    )
    index = None if inner.index is None else kept[inner.index]
    left_out = inner.left_out + len(answered) - len(kept)
    return Selection(
        inner.answer, index, inner.confidence, ranking, len(answered), left_out, inner.fields
    )


def vote_fields(candidates: Sequence[Candidate], same: Same = exact) -> Selection:
    """A majority vote field by field, for answers that are JSON texts.

    Objects are voted member by member, down to ``MAX_FIELD_DEPTH``; arrays and scalars are voted
    whole, compared by ``same`` on their canonical JSON text. A member that most objects lack is
    left out, with the share of those that lack it. The composed answer (sorted keys, no blanks) may
    be one that no candidate gave; the representative is the candidate that agrees with it on most
    fields. ``confidence`` is the smallest share, since the answer is right only if every field is.
    ``InputError`` if an answer is no JSON.

    >>> answers = ('{"a":1,"b":2}', '{"a":1,"b":3}', '{"a":4,"b":3}')
    >>> vote_fields([Candidate((i,), "", a) for i, a in enumerate(answers)]).answer
    '{"a":1,"b":3}'
    """
    order = [i for i in _by_key(candidates) if candidates[i].answer is not None]
    if not order:
        return NOTHING
    values = {i: _parse(candidates[i]) for i in order}
    ballot = _Ballot(candidates, same)
    composed = ballot.merge(values, "", 0)
    liked = _likelihoods(candidates, order)
    _, index = min(
        enumerate(order),
        key=lambda pair: (-ballot.agreed[pair[1]], -liked.get(pair[1], 0.0), pair[0]),
    )
    shares, whole = ballot.shares, majority(candidates, same)
    return Selection(
        _dump(composed), index, min(shares.values()), whole.ranking, len(order), fields=shares
    )


class Selector(Protocol):
    """A selection with its parameters: a frozen value that is called with candidates."""

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection: ...


@dataclass(frozen=True, slots=True)
class Majority:
    """Most votes."""

    name: ClassVar[str] = "majority"

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return majority(candidates, same)


@dataclass(frozen=True, slots=True)
class Weighted:
    """Largest summed weight, by a named score; ``neutral`` (default 0.5) goes with ``logit``."""

    score: str
    transform: str = "identity"
    neutral: float | None = None
    name: ClassVar[str] = "weighted"

    def __post_init__(self) -> None:
        _check_transform(self.transform, NEUTRAL if self.neutral is None else self.neutral)
        if self.neutral is not None and self.transform != "logit":
            raise SpecError(f"a neutral score ({self.neutral:g}) needs transform=logit")

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        neutral = NEUTRAL if self.neutral is None else self.neutral
        return weighted(candidates, self.score, same, self.transform, neutral)


@dataclass(frozen=True, slots=True)
class Borda:
    """Most Borda votes, by the ranks that a named score gives."""

    score: str
    power: float = 0.5
    name: ClassVar[str] = "borda"

    def __post_init__(self) -> None:
        # `not (a <= x < b)`: NaN must fail too.
        if not 0.0 <= self.power < math.inf:
            raise SpecError(f"borda(power={self.power}): power is a finite number from 0")

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return borda(candidates, self.score, same, self.power)


@dataclass(frozen=True, slots=True)
class Best:
    """Best single candidate, by a named score."""

    score: str = "mean_logprob"
    name: ClassVar[str] = "best"

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return best(candidates, self.score, same)


@dataclass(frozen=True, slots=True)
class FilterVote:
    """Most votes among the candidates whose named score reaches a threshold; if none, among all.

    ``InputError`` where no answered candidate has a finite score of that name.
    """

    score: str
    threshold: float = 0.5
    name: ClassVar[str] = "filter-vote"

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        _scored(candidates, self.score)
        return filtered(candidates, at_least(self.score, self.threshold), same)


@dataclass(frozen=True, slots=True)
class PerField:
    """Most votes, field by field of a JSON answer."""

    name: ClassVar[str] = "per-field"

    def __call__(self, candidates: Sequence[Candidate], same: Same = exact) -> Selection:
        return vote_fields(candidates, same)


SELECTORS: Mapping[str, Callable[..., Selector]] = {
    kind.name: kind for kind in (Majority, Weighted, Best, Borda, FilterVote, PerField)
}
"""Selection names for ``mull select``, configs and reports; each is a frozen dataclass."""


def selector(name: str, **parameters: Any) -> Selector:
    """The selection of that name; ``SpecError`` lists the valid names and parameters.

    >>> selector("best", score="prm")
    Best(score='prm')
    """
    kind: Any = SELECTORS.get(name)
    if kind is None:
        raise SpecError(f"no selection is called {name!r}; there are: {', '.join(SELECTORS)}")
    known = {f.name: f for f in fields(kind)}
    wrong = sorted(set(parameters) - set(known))
    missing = [n for n, f in known.items() if f.default is MISSING and n not in parameters]
    if wrong or missing:
        problem = f"has no parameter {wrong[0]!r}" if wrong else f"needs {missing[0]!r}"
        raise SpecError(f"selection {name} {problem}; its parameters: {', '.join(known) or 'none'}")
    made: Selector = kind(**parameters)
    return made


def _by_key(candidates: Sequence[Candidate]) -> list[int]:
    return sorted(range(len(candidates)), key=lambda i: candidates[i].key)


def _answered(candidates: Sequence[Candidate]) -> list[int]:
    return [i for i, candidate in enumerate(candidates) if candidate.answer is not None]


def _value(candidate: Candidate, score: Score) -> float | None:
    value = candidate.scores.get(score) if isinstance(score, str) else score(candidate)
    return value if value is not None and math.isfinite(value) else None


def _scored(candidates: Sequence[Candidate], score: Score) -> dict[int, float]:
    """Finite scores of the answered candidates, by position."""
    answered = _answered(candidates)
    values = {i: _value(candidates[i], score) for i in answered}
    found = {i: value for i, value in values.items() if value is not None}
    if answered and not found:
        there = sorted({name for i in answered for name in candidates[i].scores})
        raise InputError(
            f"no candidate has a finite score {score if isinstance(score, str) else 'by function'}"
            f"; the scores at hand: {', '.join(there) or 'none'}"
        )
    return found


def _check_transform(name: str, neutral: float) -> None:
    if name not in TRANSFORMS:
        raise SpecError(f"no transform is called {name!r}; there are: {', '.join(TRANSFORMS)}")
    if not 0.0 < neutral < 1.0:
        raise SpecError(f"neutral={neutral:g}: a neutral score is above 0 and below 1")


def _likelihoods(candidates: Sequence[Candidate], voters: Sequence[int]) -> dict[int, float]:
    """Mean log-probabilities by position; empty unless every voter has a finite one."""
    found: dict[int, float] = {}
    for i in voters:
        value = _value(candidates[i], "mean_logprob")
        if value is None:
            return {}
        found[i] = value
    return found


def _vote(
    candidates: Sequence[Candidate],
    weights: Mapping[int, float],
    same: Same,
    rank_by_best: bool = False,
    first: bool = False,
) -> Selection:
    """Group the voters (the keys of ``weights``), rank the groups, pick a representative.

    ``first`` lets the earliest key among the heaviest break ties, instead of votes and likelihood.
    """
    voters = sorted(weights)
    n_answered = len(_answered(candidates))
    if not voters:
        return NOTHING
    liked = {} if first else _likelihoods(candidates, voters)
    found = group([candidates[i] for i in voters], same)
    ties = tie_keys([[liked.get(voters[i]) for i in members] for members in found])
    ranked: list[tuple[tuple[float, ...], Group]] = []
    for members, tie in zip(found, ties, strict=True):
        positions = tuple(voters[i] for i in members)
        own = [weights[i] for i in positions]
        weight = max(own) if rank_by_best else math.fsum(own)
        answer = candidates[positions[0]].answer or ""
        order: tuple[float, ...] = (-weight, *tie)
        if first:
            order = (-weight, *candidates[positions[own.index(weight)]].key)
        ranked.append((order, Group(answer, len(positions), weight, positions)))
    ranked.sort(key=lambda pair: pair[0])
    groups = tuple(made for _, made in ranked)
    winner = groups[0]
    _, index = min(
        enumerate(winner.members),
        key=lambda pair: (-weights[pair[1]], -liked.get(pair[1], 0.0), pair[0]),
    )
    # What speaks against the others is no share: weights below 0 are left out of it.
    total = 0.0 if rank_by_best else math.fsum(max(0.0, made.weight) for made in groups)
    confidence = winner.weight / total if total > 0 else winner.votes / len(voters)
    answer_of = candidates[index].answer
    return Selection(answer_of, index, confidence, groups, n_answered, n_answered - len(voters))


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


def _dump(value: Json) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _parse(candidate: Candidate) -> Json:
    try:
        value: Json = json.loads(candidate.answer or "", parse_constant=_refuse_constant)
        _dump(value)  # what cannot be written again cannot be an answer
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"a per-field vote needs JSON answers; the answer of candidate {candidate.key} is "
            f"none ({type(error).__name__}): use the selection majority"
        ) from None
    return value


class _Ballot:
    """The state of one per-field vote: shares by JSON pointer, agreements by candidate."""

    def __init__(self, candidates: Sequence[Candidate], same: Same) -> None:
        self.candidates = candidates
        self.same = same
        self.voters = len(_answered(candidates))
        self.shares: dict[str, float] = {}
        self.agreed: dict[int, int] = dict.fromkeys(range(len(candidates)), 0)

    def merge(self, values: Mapping[int, Json], path: str, depth: int) -> Json:
        objects = {i: value for i, value in values.items() if isinstance(value, dict)}
        if depth >= MAX_FIELD_DEPTH or 2 * len(objects) <= len(values):
            return self._leaf(values, path)
        merged: dict[str, Json] = {}
        for name in sorted({name for value in objects.values() for name in value}):
            having = {i: value[name] for i, value in objects.items() if name in value}
            pointer = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if 2 * len(having) > len(objects):
                merged[name] = self.merge(having, pointer, depth + 1)
            else:  # leaving it out is a vote too
                self._count(pointer, [i for i in objects if i not in having])
        if not merged:
            self._count(path, objects)
        return merged

    def _leaf(self, values: Mapping[int, Json], path: str) -> Json:
        positions = list(values)
        ballots = [
            Candidate(c.key, "", _dump(values[i]), scores=c.scores)
            for i in positions
            for c in (self.candidates[i],)
        ]
        chosen = majority(ballots, self.same)
        self._count(path, [positions[member] for member in chosen.ranking[0].members])
        return values[positions[chosen.index or 0]]

    def _count(self, path: str, agreeing: Collection[int]) -> None:
        # The share is of all voters: who left the field out did not vote for its value.
        self.shares[path] = len(agreeing) / self.voters
        for position in agreeing:
            self.agreed[position] += 1
