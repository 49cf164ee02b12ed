"""Laws of every level search: timing, slots, guesses and failures change neither result nor ledger.

The permuting driver of ``test_contract`` finishes work in any order, on any number of slots; the
worlds here say the same things often (so that paths merge), fail, and score badly.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.common import TASK, Priced, idle, job, one, problem, rows
from tests.strategies.test_contract import (
    MANY_SLOTS,
    ONE_SLOT,
    SEEDS,
    SLOTS,
    Driver,
    Job,
    ToyTask,
    World,
)

from mull.budget import Budget, Meter, Purpose
from mull.catalog import load_strategy
from mull.engines.simulated import Fault, Faults, Latency, Script, SimulatedEngine, StepModel
from mull.errors import BudgetError, EngineConnectionError, SpecError
from mull.grades import Unanswered
from mull.strategies.base import Ended, Failure, Generate, Result, Room, Start
from mull.strategies.drive import Job as DriveJob
from mull.strategies.drive import Solved
from mull.strategies.levels import LevelSearch
from mull.strategies.levels_lane import IN_DOUBT
from mull.strategies.levels_rule import LOWEST, requests, softmax
from mull.trees import Fate
from mull.types import Branch, Completion, EngineInfo, StopReason, Until, Usage
from mull.verifiers.simulated import SimulatedVerifier

SPECS = [
    "beam(keep=2, branch=3, verifier=verifier)",
    "beam(keep=3, branch=2, finished=bank, verifier=verifier)",
    "beam(keep=2, branch=2, finished=compete, verifier=verifier, merge=false)",
    "lookahead(keep=2, branch=2, k=1, verifier=verifier)",
    "dvts(trees=3, branch=2, verifier=verifier)",
    "rebase(n=6, verifier=verifier)",
    "rebase(n=5, rounding=ceil, balance=0.3, verifier=verifier, select=best)",
    "particles(n=5, verifier=verifier)",
    "particles(n=5, mode=odds, verifier=verifier, select=majority, merge=false)",
    "particles(n=4, mode=product, iterations=3, verifier=verifier)",
]


@dataclass(frozen=True)
class Repetitive(World):
    """Says few different things; a twelfth of the samples fails, as of the scores."""

    def complete(self, work: Generate, index: int) -> Completion | Failure:
        made = super().complete(work, index)
        if isinstance(made, Failure) or made.stop is not StopReason.STEP:
            return made
        return replace(made, text=f"step {len(made.text) % 2}{int(made.text[5:]) % 3}\n")

    def score(self, branch: Branch) -> float:
        draw = self.draw(branch, 1, "verifier")
        if draw.random() < 1 / 12:
            return math.nan
        return round(draw.random(), 1)


class Forgetful(Driver):
    """Work that was cancelled may be asked for again; all other work only once."""

    def _drop(self, job: Job) -> None:
        super()._drop(job)
        work = job.work
        if isinstance(work, Generate):
            self.asked.discard((work.engine, work.branch.key, job.index))
        else:
            for branch in work.branches:
                self.asked.discard((work.verifier, branch.key, job.index))


def begin(spec: str, budget: Budget | None = None, speculate: bool = True) -> LevelSearch:
    task = ToyTask()
    start = Start(task.problem("how many?"), task, budget, speculate=speculate)
    search = load_strategy(spec).start(start)
    assert isinstance(search, LevelSearch)
    return search


def solve(
    spec: str, world: int, slots: dict[str, int], schedule: int, speculate: bool = True
) -> tuple[Result, Forgetful]:
    driver = Forgetful(Repetitive(world), slots, random.Random(schedule))
    return driver.run(begin(spec, speculate=speculate)), driver


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=8, deadline=None)
@given(world=st.integers(0, 60), slots=SLOTS, schedule=SEEDS)
def test_timing_slots_and_guesses_change_neither_result_nor_ledger(
    spec: str, world: int, slots: dict[str, int], schedule: int
) -> None:
    expected, alone = solve(spec, world, ONE_SLOT, 0, speculate=False)
    result, driver = solve(spec, world, slots, schedule)
    assert result == expected
    assert driver.committed() == alone.committed()
    assert alone.ledger.of(Purpose.SPECULATIVE, Purpose.CANCELLED) == Usage()
    for run in (driver, alone):
        assert run.ledger.total.tokens == run.made


@pytest.mark.parametrize("spec", SPECS)
def test_most_worlds_have_an_answer_and_right_guesses(spec: str) -> None:
    """The law above would hold for a search that gives up at once, or never guesses."""
    runs = [solve(spec, world, MANY_SLOTS, world) for world in range(20)]
    assert sum(result.answer is not None for result, _ in runs) >= 16
    assert sum(driver.commits for _, driver in runs) > 0
    assert any(driver.ledger.of(Purpose.SPECULATIVE).tokens for _, driver in runs)


@pytest.mark.parametrize("spec", SPECS)
def test_a_search_that_must_not_guess_asks_for_no_step_and_no_score_ahead(spec: str) -> None:
    for world in range(20):
        _, driver = solve(spec, world, MANY_SLOTS, world, speculate=False)
        assert driver.commits == 0
        assert driver.ledger.of(Purpose.SPECULATIVE) == Usage()


# On the real driver ---------------------------------------------------------------------------

DRIVEN = [spec.replace("verifier=verifier", "verifier=prm") for spec in SPECS]


def paths(spec: str) -> int:
    """The samples that a strategy of this file costs."""
    strategy = load_strategy(spec)
    search = strategy.start(Start(TASK.problem("x"), TASK))
    assert isinstance(search, LevelSearch)
    return sum(rule.n for rule in search.rules) * (search.lookahead + 1) * search.rounds


@pytest.mark.parametrize("spec", DRIVEN)
@settings(max_examples=4, deadline=None)
@given(data=st.data(), slots=st.integers(1, 30), token_ms=st.floats(0.1, 20.0))
def test_every_unit_of_budget_is_kept_and_nothing_depends_on_the_slots(
    spec: str, data: st.DataObject, slots: int, token_ms: float
) -> None:
    unit = data.draw(st.sampled_from(["samples", "tokens", "total_tokens", "flops", "cost"]))
    most = {"tokens": 3000, "total_tokens": 5000, "flops": 1e5, "cost": 5e-3}
    if unit == "samples":
        budget = Budget(samples=paths(spec))
    else:
        share = data.draw(st.floats(0.01, 1.0))
        budget = Budget(**{unit: max(1, int(most[unit] * share)) if most[unit] > 1 else share / 99})
    faults = Faults(rates={Fault.CONNECTION: 0.05, Fault.EMPTY: 0.05, Fault.SLOW: 0.1})

    def engine(count: int) -> SimulatedEngine:
        model = StepModel(tokens=(18, 40))
        latency = Latency(token_ms)
        return SimulatedEngine(
            model,
            latency=latency,
            slots=count,
            faults=faults,
            parameters=10,
            price=(1.0, 0.5, 2.0),
        )

    solved, engines = [], [engine(1), engine(slots)]
    for each in engines:
        prm = {"prm": Priced(batch_ms=3.0, parameters=5)}
        solved.append(one(job(load_strategy(spec), budget, success=0.8), each, verifiers=prm))
    alone, crowd = solved
    assert crowd.result == alone.result
    assert ordinary(crowd) == ordinary(alone)
    assert crowd.samples == alone.samples
    assert idle(engines[1])
    for run, each in zip(solved, engines, strict=True):
        policy = [u for _, m, u, _ in run.ledger.rows() if m == each.info.model]
        assert sum(u.generated for u in policy) == each.stats.generated
        assert run.result.ended is not Ended.UNFINISHED
        if budget.samples is not None:
            assert run.samples <= budget.samples


def ordinary(solved: Solved) -> dict[object, object]:
    """The ledger without what depends on timing by its nature."""
    loose = (Purpose.SPECULATIVE, Purpose.CANCELLED)
    return {key: value for key, value in rows(solved).items() if key[0] not in loose}


@pytest.mark.parametrize("spec", DRIVEN)
def test_a_limit_in_tokens_ends_the_search_within_one_level_and_one_finish_of_it(
    spec: str,
) -> None:
    strategy = load_strategy(spec)
    search = strategy.start(Start(TASK.problem("x"), TASK))
    assert isinstance(search, LevelSearch)
    model = StepModel(tokens=(20, 20))
    prm = {"prm": SimulatedVerifier()}
    given = job(strategy, Budget(tokens=200), success=0.9, steps=30)
    solved = one(given, SimulatedEngine(model), verifiers=prm)
    level = sum(rule.n for rule in search.rules) * 20 * (search.lookahead + 1)
    most = 200 + level + 20 * len(search.rules) + TASK.until.max_tokens
    assert 200 <= solved.ledger.total.generated < most
    assert solved.result.ended is Ended.BUDGET
    assert solved.result.answer is None
    assert {c.unanswered for c in solved.result.candidates} == {Unanswered.TRUNCATED}


@pytest.mark.parametrize("spec", DRIVEN)
def test_seconds_end_the_search_with_what_it_has(spec: str) -> None:
    engine = SimulatedEngine(StepModel(tokens=(20, 30)), latency=Latency(token_ms=5.0), slots=8)
    prm = {"prm": SimulatedVerifier(batch_ms=5.0)}
    solved = one(job(load_strategy(spec), Budget(seconds=0.9)), engine, verifiers=prm)
    assert solved.seconds <= 0.9 + 1e-9
    assert solved.result.ended in (Ended.BUDGET, Ended.COMPLETE)
    assert solved.ledger.total.generated == engine.stats.generated
    assert idle(engine)


@pytest.mark.parametrize("spec", DRIVEN)
def test_what_a_search_out_of_time_selects_from_stands_in_its_tree(spec: str) -> None:
    """Paths that ended before their turn in the level came are candidates too."""
    for number, seconds in product(range(8), (0.7, 0.9, 1.2)):
        engine = SimulatedEngine(StepModel(tokens=(5, 60)), latency=Latency(token_ms=5.0), slots=3)
        prm = {"prm": SimulatedVerifier(batch_ms=5.0)}
        timed = job(load_strategy(spec), Budget(seconds=seconds), number)
        result = one(timed, engine, verifiers=prm).result
        ends = {node.key for node in result.tree if node.fate is Fate.FINISHED}
        assert {candidate.key for candidate in result.candidates} == ends
        keys = [node.key for node in result.tree]
        assert keys == sorted(set(keys))
        assert {key[:-1] for key in keys} <= {(), *keys}


# Bad input --------------------------------------------------------------------------------------


class Odd:
    """A verifier that gives ``score`` for the branches that ``when`` names, .5 for the others."""

    info = EngineInfo("toy", "odd")
    policy = ()

    def __init__(self, score: float | None, when: Callable[[Branch], bool]) -> None:
        self.odd, self.when = score, when

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        found = []
        for branch in branches:
            if self.when(branch) and self.odd is None:
                raise EngineConnectionError("reset")
            found.append(0.5 if not self.when(branch) or self.odd is None else self.odd)
        return found


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
@pytest.mark.parametrize("spec", DRIVEN)
def test_without_any_score_the_plain_majority_answers(spec: str, score: float | None) -> None:
    engine = SimulatedEngine(StepModel())
    solved = one(
        job(load_strategy(spec), success=0.9), engine, verifiers={"prm": Odd(score, lambda _: True)}
    )
    result = solved.result
    assert result.answer is not None
    assert {failure.error for failure in result.failures} == {"ScoreError"}
    assert not any("prm" in candidate.scores for candidate in result.candidates)
    assert {node.score for node in result.tree} == {None}


@pytest.mark.parametrize("spec", DRIVEN)
def test_what_has_no_score_has_no_say(spec: str) -> None:
    """Candidates of which the verifier says nothing do not vote beside those it has scored."""
    engine = SimulatedEngine(StepModel())
    odd = Odd(math.nan, lambda branch: branch.finished and branch.key[-1] > 0)
    solved = one(job(load_strategy(spec), success=0.6), engine, verifiers={"prm": odd})
    result = solved.result
    scored = {c.answer for c in result.candidates if "prm" in c.scores}
    if scored and "majority" not in spec:
        assert result.answer in scored


@pytest.mark.parametrize("spec", DRIVEN)
def test_an_engine_that_always_fails_ends_the_search_without_an_answer(spec: str) -> None:
    engine = SimulatedEngine(StepModel(), faults=Faults(rates={Fault.CONNECTION: 1.0}))
    solved = one(job(load_strategy(spec)), engine, verifiers={"prm": SimulatedVerifier()})
    assert solved.result.answer is None
    assert solved.result.failures
    assert {node.fate for node in solved.result.tree} == {Fate.FAILED}
    assert solved.ledger.total.generated == engine.stats.generated


@pytest.mark.parametrize("spec", DRIVEN)
def test_steps_that_never_end_are_cut_and_said_to_be(spec: str) -> None:
    """At ``max_steps``, and at the task's limit of tokens, whichever comes first."""
    strategy = load_strategy(spec.replace("verifier=prm", "verifier=prm, max_steps=4"))
    engine = SimulatedEngine(StepModel(tokens=(20, 20)))
    for limit, depth in ((10_000, 4), (50, 3)):
        start = Start(problem(0, 0.9, 50), TASK, until=Until(max_tokens=limit))
        solved = one(DriveJob(strategy, start), engine, verifiers={"prm": SimulatedVerifier()})
        assert solved.result.answer is None
        assert solved.result.candidates
        assert {c.unanswered for c in solved.result.candidates} == {Unanswered.TRUNCATED}
        assert {c.stop for c in solved.result.candidates} == {StopReason.LENGTH}
        assert max(len(node.key) for node in solved.result.tree) == depth


# What is recorded -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", DRIVEN)
def test_the_tree_holds_every_path_that_was_wanted(spec: str) -> None:
    search = load_strategy(spec).start(Start(TASK.problem("x"), TASK))
    assert isinstance(search, LevelSearch)
    engine = SimulatedEngine(StepModel())
    prm = {"prm": SimulatedVerifier()}
    solved = one(job(load_strategy(spec), success=0.7), engine, verifiers=prm)
    tree = {node.key: node for node in solved.result.tree}
    assert list(tree) == sorted(tree)
    assert all(key[:-1] in tree for key in tree if len(key) > 1)
    assert {c.key for c in solved.result.candidates} == {
        key for key, node in tree.items() if node.fate is Fate.FINISHED
    }
    kept = {key[:-1] for key in tree if len(key) > 1}
    assert kept == {key for key, node in tree.items() if node.fate is Fate.KEPT}
    if search.rounds == 1:
        assert sum(node.visits for key, node in tree.items() if len(key) == 1) == sum(
            rule.n for rule in search.rules
        )
    for candidate in solved.result.candidates:
        steps = [tree[candidate.key[:at]].text for at in range(1, len(candidate.key) + 1)]
        assert "".join(steps) == candidate.text


class Generating(SimulatedVerifier):
    """Writes ``DEAR`` tokens about each branch before it gives its score."""

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        scores = await super().score(branches, meter)
        for index in range(len(branches)):
            meter.charge(index, generated=DEAR)
        return scores


DEAR = 500


@pytest.mark.parametrize("spec", ["beam", "beam(merge=false)", "rebase", "particles", "lookahead"])
def test_a_verifier_that_generates_is_asked_only_what_the_budget_pays(spec: str) -> None:
    paths, limit, results = 64, 3000, []
    times = 2 if spec == "lookahead" else 1
    for slots, batch_ms in ((1, 0.0), (16, 3.0), (64, 40.0)):
        engine = SimulatedEngine(StepModel(), slots=slots, latency=Latency(token_ms=2))
        given = job(load_strategy(spec), Budget(samples=paths * times, tokens=limit), steps=5)
        solved = one(given, engine, verifiers={"prm": Generating(batch_ms=batch_ms)})
        spent = solved.ledger.of(Purpose.VERIFIER, Purpose.LOOKAHEAD, Purpose.POLICY).generated
        level = paths * 61  # the steps of a level are one request
        assert spent <= limit + level + (IN_DOUBT + 1) * (DEAR + 61)
        assert solved.ledger.of(Purpose.SPECULATIVE, Purpose.CANCELLED).generated <= 2 * level
        results.append((solved.result, solved.ledger.of(Purpose.VERIFIER).generated))
    assert results[0] == results[1] == results[2]
    assert {f.error for f in results[0][0].failures} <= {"BudgetError"}


@pytest.mark.parametrize("tokens", [2400, 2760, 3120])
@pytest.mark.parametrize("number", range(3))
def test_a_guessed_score_of_a_path_that_the_budget_leaves_unjudged_changes_nothing(
    tokens: int, number: int
) -> None:
    found = []
    for slots, speculate in ((64, True), (1, False)):
        faults = Faults(rates={Fault.EMPTY: 0.1, Fault.FILTERED: 0.1})
        engine = SimulatedEngine(StepModel(), slots=slots, latency=Latency(2), faults=faults)
        budget = Budget(samples=64, total_tokens=tokens)
        given = job(load_strategy("lookahead"), budget, number, success=0.8, steps=2)
        given = replace(given, start=replace(given.start, speculate=speculate))
        found.append(one(given, engine, verifiers={"prm": SimulatedVerifier()}))
    assert found[0].result == found[1].result
    assert ordinary(found[0]) == ordinary(found[1])


def test_equal_texts_are_scored_once_and_share_their_children() -> None:
    """Four paths that say the same are one node; without merging they are four."""
    prm = SimulatedVerifier()
    for merge, nodes in ((True, 1), (False, 4)):
        spec = f"beam(keep=4, branch=1, merge={str(merge).lower()})"
        engine = SimulatedEngine(Script(["a\nb\nanswer 7"]))
        solved = one(job(load_strategy(spec)), engine, verifiers={"prm": prm})
        at = Counter(len(node.key) for node in solved.result.tree)
        assert at == {1: nodes, 2: nodes, 3: nodes}
        scores = sum(n for p, _, _, n in solved.ledger.rows() if p is Purpose.VERIFIER)
        assert scores == len(solved.result.tree)
        assert solved.result.confidence == 1.0


# The rules' common tools ------------------------------------------------------------------------


@given(children=st.integers(0, 40), unit=st.integers(1, 9))
def test_requests_ask_for_every_child_once(children: int, unit: int) -> None:
    asked = [first + i for first, count in requests(children, unit) for i in range(count)]
    assert asked == list(range(children))


@given(scores=st.lists(st.floats(0, 1) | st.just(LOWEST), min_size=1), t=st.floats(1e-3, 1e3))
def test_a_softmax_is_a_share_in_the_order_of_the_scores(scores: list[float], t: float) -> None:
    shares = softmax(scores, t)
    assert sum(shares) == pytest.approx(1.0)
    for (a, x), (b, y) in zip(
        zip(scores, shares, strict=True), list(zip(scores, shares, strict=True))[1:], strict=False
    ):
        assert (a <= b) == (x <= y) or x == y or a == b


@pytest.mark.parametrize(
    "spec",
    [
        "beam(select=first)",
        "beam(max_steps=0)",
        "beam(keep=0)",
        "beam(finished=never)",
        "lookahead(k=-1)",
        "dvts(trees=0)",
        "rebase(balance=0)",
        "rebase(rounding=floor)",
        "particles(mode=last)",
        "particles(threshold=2)",
        "particles(iterations=0)",
    ],
)
def test_parameters_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(SpecError):
        load_strategy(spec)


@pytest.mark.parametrize(
    ("spec", "samples"),
    [
        ("beam(keep=2, branch=4)", 9),
        ("beam(branch=5)", 4),
        ("lookahead(k=3)", 3),
        ("dvts(trees=3, branch=2)", 7),
        ("rebase(n=5)", 6),
        ("particles(n=4, iterations=2)", 4),
        ("particles(iterations=4)", 3),
        ("particles(iterations=3)", 16),
    ],
)
def test_numbers_that_contradict_the_budget_are_refused(spec: str, samples: int) -> None:
    with pytest.raises(BudgetError):
        load_strategy(spec).start(Start(TASK.problem("x"), TASK, Budget(samples=samples)))


def test_a_result_does_not_need_a_single_outcome() -> None:
    for spec in SPECS:
        search = begin(spec)
        assert search.result().answer is None
        search.ask(Room(1))
        assert search.result().candidates == ()
        assert search.result().ended is Ended.UNFINISHED
        assert not search.done
