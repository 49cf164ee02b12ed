"""Spec strings → strategies: the built-in ones, entry points, and users' own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mull.catalog.options import build
from mull.catalog.plugins import attribute, check_instance, entry_points, from_file, is_file
from mull.catalog.spec import parse, unknown
from mull.errors import SpecError
from mull.strategies.base import Strategy

GROUP = "mull.strategies"
BUILTIN: Mapping[str, str] = {
    "ab-mcts": "mull.strategies.ab_mcts:AbMcts",
    "airv": "mull.strategies.airv:Airv",
    "beam": "mull.strategies.beam:Beam",
    "best-of-n": "mull.strategies.best_of_n:BestOfN",
    "budget-forcing": "mull.strategies.budget_forcing:BudgetForcing",
    "confident-vote": "mull.strategies.confident_vote:ConfidentVote",
    "dvts": "mull.strategies.dvts:Dvts",
    "filter-vote": "mull.strategies.filter_vote:FilterVote",
    "greedy": "mull.strategies.single:Greedy",
    "lookahead": "mull.strategies.beam:Lookahead",
    "mcts": "mull.strategies.mcts:Mcts",
    "mixed": "mull.strategies.revise:Mixed",
    "particles": "mull.strategies.particles:Particles",
    "rebase": "mull.strategies.rebase:Rebase",
    "revise": "mull.strategies.revise:Revise",
    "sample": "mull.strategies.single:Sample",
    "self-refine": "mull.strategies.self_refine:SelfRefine",
    "speculative-rejection": "mull.strategies.speculative_rejection:SpeculativeRejection",
    "synthesis": "mull.strategies.synthesis:Synthesis",
    "token-beam": "mull.strategies.token_beam:TokenBeamSearch",
    "token-dfs": "mull.strategies.token_dfs:TokenDfs",
    "tot": "mull.strategies.tot:Tot",
    "ttft": "mull.strategies.ttft:Ttft",
    "vote": "mull.strategies.vote:Vote",
    "weighted-vote": "mull.strategies.weighted_vote:WeightedVote",
}


def strategy_names() -> list[str]:
    """Names that ``load_strategy`` knows, entry points included."""
    return sorted({*BUILTIN, *entry_points(GROUP)})


def strategy_class(name: str) -> type[Any]:
    """The frozen config class behind a name."""
    if name in BUILTIN:
        return cast(type[Any], attribute(BUILTIN[name]))
    found = entry_points(GROUP)
    if name in found:
        return cast(type[Any], found[name].load())
    raise unknown("strategy", name, strategy_names())


def load_strategy(spec: str | Strategy) -> Strategy:
    """A strategy from its spec string, a ``file.py`` that defines ``strategy``, or itself.

    >>> load_strategy("vote(n=8, stop=beta)")
    Vote(n=8, stop='beta', confidence=0.95, flight=8, quorum=0.5)
    """
    if not isinstance(spec, str):
        return _checked(spec, "a spec, as in 'vote(n=8)', or an object that starts searches")
    if is_file(spec):
        found = from_file(spec, "strategy")
        return _checked(found, "an object that starts searches, as in strategy = Vote(n=8)", spec)
    parsed = parse(spec)
    return cast(Strategy, build(parsed.name, strategy_class(parsed.name), parsed.parameters))


def _checked(found: Any, expected: str, path: str = "") -> Strategy:
    """A user's object as a strategy; ``SpecError``, which names the file, where it is none."""
    check_instance("strategy", found, path)
    if not callable(getattr(found, "start", None)):
        place = f"{path}: " if path else ""
        raise SpecError(f"{place}strategy = {found!r:.80} is not valid; expected {expected}")
    return cast(Strategy, found)
