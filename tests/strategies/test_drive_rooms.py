"""Several engines and verifiers behind one drive: own slots, shared batches, honest rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.strategies import toys
from tests.strategies.common import (
    PRICE,
    TASK,
    Priced,
    Starts,
    idle,
    job,
    one,
    problem,
    rows,
    run,
    tokens,
)

from mull.budget import Budget, Ledger, Meter, Purpose
from mull.engines.simulated import (
    Echo,
    Fault,
    Faults,
    Latency,
    SimulatedEngine,
    StepModel,
    run_virtual,
)
from mull.errors import BudgetError, ContextError, SpecError, UsageError
from mull.strategies.base import (
    Action,
    Ended,
    Failure,
    Generate,
    OrderedSearch,
    Outcome,
    Result,
    Room,
    Start,
)
from mull.strategies.best_of_n import BestOfN
from mull.strategies.drive import Job, drive
from mull.strategies.live import LiveJob
from mull.strategies.single import Greedy
from mull.strategies.vote import Vote
from mull.types import Branch, Completion, Delta, Until, Usage
from mull.verifiers.simulated import SimulatedVerifier


@dataclass
class Judged(OrderedSearch):
    """Two samples, each judged by another engine."""

    verdicts: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.first = self.generate(Branch.root(self.start.problem), Until(99), 2)

    def take(self, outcome: Outcome) -> None:
        assert isinstance(outcome.value, Completion)
        if outcome.action == self.first:
            asked = Branch.root(self.start.problem).child(outcome.value)
            view = replace(asked, view=asked.problem.prompt, steps=())
            self.generate(view, Until(9), engine="judge", purpose=Purpose.JUDGE)
        else:
            self.verdicts.append(outcome.value.text)

    def result(self) -> Result:
        return Result((), (), tuple(Failure("verdict", text) for text in self.verdicts))


def test_two_engines_have_their_own_slots_and_rows() -> None:
    policy = SimulatedEngine(Echo("answer 1"), latency=Latency(5), slots=3, model="p")
    judge = SimulatedEngine(Echo("yes"), latency=Latency(2), slots=2, model="j")
    found = run(
        [job(Starts(Judged), number=i) for i in range(9)], {"policy": policy, "judge": judge}
    )
    for solved in found:
        assert [f.message for f in solved.result.failures] == ["yes", "yes"]
        assert {key: row[3] for key, row in rows(solved).items()} == {
            (Purpose.POLICY, "p"): 2,
            (Purpose.JUDGE, "j"): 2,
        }
    assert policy.stats.max_in_flight == 3
    assert judge.stats.max_in_flight == 2
    assert idle(policy)
    assert idle(judge)


def test_deltas_of_final_work_are_handed_on() -> None:
    pieces: list[tuple[str, str]] = []

    def on_delta(job: Job, action: Generate, delta: Delta) -> None:
        assert action.final
        pieces.append((job.start.problem.id, delta.text))

    engine = SimulatedEngine(StepModel(), latency=Latency(1), slots=2)
    found = run([job(Greedy(), number=i) for i in range(3)], engine, on_delta=on_delta)
    for solved in found:
        id = solved.job.start.problem.id
        joined = "".join(text for name, text in pieces if name == id)
        assert joined == solved.result.candidates[0].text
    assert len(pieces) > 3
    pieces.clear()
    run([job(Vote(n=3))], engine, on_delta=on_delta)
    assert pieces == []


@dataclass
class StepBeam(OrderedSearch):
    """Keeps the best of two steps by the verifier, step after step."""

    ended: Branch | None = None

    def begin(self) -> None:
        self.parent, self.children = Branch.root(self.start.problem), list[Branch]()
        self.generate(self.parent, Until(99, steps=1), 2)

    def take(self, outcome: Outcome) -> None:
        if isinstance(outcome.value, Completion):
            self.children.append(self.parent.child(outcome.value))
            if len(self.children) == 2:
                self.score(self.children)
        elif isinstance(outcome.value, tuple):
            assert len(outcome.value) == len(self.children) == 2
            self.parent = self.children[outcome.value.index(max(outcome.value))]
            self.children = []
            if self.parent.finished:
                self.ended = self.parent
            else:
                self.generate(self.parent, Until(99, steps=1), 2)

    def result(self) -> Result:
        made = () if self.ended is None else (self.start.candidate(self.ended),)
        return Result((), made, tuple(self.failures))


class Batches(SimulatedVerifier):
    """Notes the sizes of its batches."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.sizes: list[int] = []
        self.ids: list[set[str]] = []

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        self.sizes.append(len(branches))
        self.ids.append({branch.problem.id for branch in branches})
        return await super().score(branches, meter)


def test_scores_of_all_problems_travel_together_and_change_nothing() -> None:
    jobs = [job(Starts(StepBeam), number=i, steps=4) for i in range(12)]
    alone = Batches()
    single = [one(j, SimulatedEngine(StepModel()), verifiers={"verifier": alone}) for j in jobs]
    together = Batches(batch_ms=40.0)
    engine = SimulatedEngine(StepModel(), latency=Latency(1), slots=24)
    batched = run(jobs, engine, verifiers={"verifier": together})
    single.sort(key=lambda s: s.job.start.problem.id)
    assert [s.result for s in batched] == [s.result for s in single]
    assert [rows(s) for s in batched] == [rows(s) for s in single]
    assert max(alone.sizes) == 2
    assert max(len(ids) for ids in together.ids) > 4
    assert sum(together.sizes) == sum(alone.sizes)
    assert Purpose.VERIFIER in {purpose for purpose, _ in rows(batched[0])}


class Picky(SimulatedVerifier):
    """Refuses a batch that holds a branch of problem p3."""

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        if any(branch.problem.id == "p3" for branch in branches):
            raise ContextError("this branch is too long")
        return await super().score(branches, meter)


def test_a_branch_that_cannot_be_scored_spoils_no_other_problem() -> None:
    jobs = [job(Starts(StepBeam), number=i) for i in range(6)]
    engine = SimulatedEngine(StepModel(), latency=Latency(1), slots=24)
    picky = Picky(batch_ms=40.0)
    for solved in run(jobs, engine, verifiers={"verifier": picky}):
        spoilt = solved.job.start.problem.id == "p3"
        assert [f.error for f in solved.result.failures] == ["ScoreError"] * spoilt
        assert len(solved.result.candidates) == (not spoilt)


class Lonely(SimulatedVerifier):
    """Generates 200 tokens a branch, and fails wherever it is given more than one."""

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        for index in range(len(branches)):
            meter.charge(index, generated=200)
        if len(branches) > 1:
            raise ContextError("one at a time")
        return [0.5]


@dataclass
class Scorer(OrderedSearch):
    """One sample, and its score."""

    def begin(self) -> None:
        self.root = Branch.root(self.start.problem)
        self.first = self.generate(self.root, Until(99))

    def take(self, outcome: Outcome) -> None:
        if outcome.action == self.first and isinstance(outcome.value, Completion):
            self.score([self.root.child(outcome.value)])

    def result(self) -> Result:
        return Result((), (), (Failure("spent", str(self.spent.generated)),))


def test_what_a_batch_that_failed_has_cost_counts_against_the_budget() -> None:
    engine = SimulatedEngine(Echo("answer 1"), latency=Latency(1), slots=8)
    jobs = [job(Starts(Scorer), number=i) for i in range(8)]
    for solved in run(jobs, engine, verifiers={"verifier": Lonely(batch_ms=40.0)}):
        assert solved.ledger.of(Purpose.FAILED).generated == 200
        assert solved.ledger.of(Purpose.VERIFIER).generated == 200
        assert [f.message for f in solved.result.failures] == [str(solved.ledger.total.generated)]


class Short(SimulatedVerifier):
    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        return (await super().score(branches, meter))[:-1]


def test_a_verifier_that_loses_a_score_has_failed() -> None:
    """Which branch the others belong to cannot be known: none of them is used."""
    engine = SimulatedEngine(StepModel())
    solved = one(job(Starts(StepBeam)), engine, verifiers={"verifier": Short()})
    assert {failure.error for failure in solved.result.failures} == {"ScoreError"}
    assert "gave 1 scores for 2 branches" in solved.result.failures[0].message
    assert not solved.result.candidates
    assert solved.ledger.of(Purpose.FAILED).prompt > 0


class Own(SimulatedVerifier):
    """Gives whatever a user's code may give."""

    def __init__(self, give: Callable[[Sequence[Branch]], object]) -> None:
        super().__init__()
        self.give = give

    async def score(self, branches: Sequence[Branch], meter: Meter) -> list[float]:
        return self.give(branches)  # type: ignore[return-value]  # that is what is tested


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (lambda branches: None, "gave NoneType; expected a list of scores"),
        (lambda branches: (0.5 for _ in branches), "gave generator; expected a list of scores"),
        (lambda branches: [None] * len(branches), "gave nan, which is no score"),
        (lambda branches: ["0.5"] * len(branches), "gave '0.5'; expected a number or None"),
        (lambda branches: [10**400] * len(branches), "int too large"),
        (lambda branches: [1 / 0], "ZeroDivisionError: division by zero"),
    ],
    ids=["nothing", "generator", "no verdicts", "texts", "huge", "raises"],
)
def test_whatever_a_users_verifier_does_is_a_failure_of_its_scores(
    give: Callable[[Sequence[Branch]], object], said: str
) -> None:
    jobs = [job(BestOfN(verifier="prm"), Budget(samples=2), i) for i in range(2)]
    for solved in run(jobs, SimulatedEngine(StepModel()), verifiers={"prm": Own(give)}):
        assert {failure.error for failure in solved.result.failures} == {"ScoreError"}
        assert said in solved.result.failures[0].message


def test_an_error_of_mulls_own_is_no_failure_of_a_score() -> None:
    def refuse(branches: Sequence[Branch]) -> object:
        raise SpecError("this verifier cannot be")

    with pytest.raises(SpecError, match="cannot be"):
        one(
            job(BestOfN(n=2, verifier="prm")),
            SimulatedEngine(StepModel()),
            verifiers={"prm": Own(refuse)},
        )


def test_a_verifier_that_is_not_given_is_named() -> None:
    with pytest.raises(UsageError, match="asks verifier 'verifier', and only"):
        one(job(Starts(StepBeam)), SimulatedEngine(StepModel()))


@pytest.mark.parametrize("budget", [Budget(flops=9e9), Budget(cost=9)], ids=str)
def test_a_limit_that_cannot_count_a_judge_or_a_verifier_is_refused(budget: Budget) -> None:
    sized = SimulatedEngine(StepModel(), parameters=10, price=PRICE)
    judge = SimulatedEngine(Echo("[[9]]"), model="judge")
    with pytest.raises(BudgetError, match="of simulated:judge, unknown so far"):
        one(job(BestOfN(judge="judge"), budget), {"policy": sized, "judge": judge})
    assert not judge.stats.generated
    with pytest.raises(BudgetError, match="of simulated:simulated-verifier, unknown so far"):
        one(job(BestOfN(verifier="prm"), budget), sized, verifiers={"prm": SimulatedVerifier()})
    small = replace(budget, flops=budget.flops and 1.0, cost=budget.cost and 1e-6)
    solved = one(job(BestOfN(verifier="prm"), small), sized, verifiers={"prm": Priced()})
    assert solved.result.ended is Ended.BUDGET


def test_time_is_up_while_the_verifier_works() -> None:
    """The batch in flight is waited for and paid; nothing is charged after the result is out."""
    engine = SimulatedEngine(StepModel(), latency=Latency(1), slots=4)
    verifier = SimulatedVerifier(batch_ms=1000.0)

    async def check() -> None:
        jobs = [job(Starts(StepBeam), Budget(seconds=0.3))]
        async for solved in drive(jobs, {"policy": engine}, {"verifier": verifier}):
            before = rows(solved)
            assert solved.result.ended is Ended.BUDGET
            assert (Purpose.CANCELLED, "simulated-verifier") in before
            await asyncio.sleep(100)
            assert rows(solved) == before

    run_virtual(check())


def test_guesses_are_paid_apart_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beam that speculates in idle slots; alone in one slot it has no room to."""
    monkeypatch.setattr(toys, "STEP", Until(max_tokens=99, steps=1))

    def beam(
        slots: int, speculate: bool = True
    ) -> tuple[list[Result], list[tuple[int, ...]], list[int]]:
        engine = SimulatedEngine(StepModel((12, 60)), latency=Latency(1), slots=slots)
        verifiers = {"verifier": SimulatedVerifier(batch_ms=15.0)}
        starts = [Start(problem(i, steps=4), TASK, speculate=speculate) for i in range(4)]
        strategy = Starts(toys.SpeculativeBeam)
        jobs = [Job(strategy, start) for start in starts]
        found = run(jobs, engine, verifiers=verifiers)
        made = sum(s.ledger.total.generated for s in found)
        assert made == engine.stats.generated
        assert idle(engine)
        policy = [tokens(s.ledger.of(Purpose.POLICY)) for s in found]
        guessed = [s.ledger.of(Purpose.SPECULATIVE).generated for s in found]
        return [s.result for s in found], policy, guessed

    alone, paid_alone, guessed_alone = beam(1)
    wide, paid_wide, guessed_wide = beam(32)
    assert wide == alone
    assert paid_wide == paid_alone
    assert sum(guessed_wide) > sum(guessed_alone)
    assert beam(32, speculate=False) == (alone, paid_alone, [0] * 4)


def test_a_guess_must_leave_room_for_its_prompts_and_scores() -> None:
    """Of 1,000 tokens 20 were generated behind 400 others: 20 more will cost 420 in all."""
    given = job(Vote(n=1), Budget(total_tokens=1000))
    for room, covered in ((20, True), (40, False)):
        live = LiveJob(given, Vote(n=1).start(given.start), Ledger(), 0, 0.0)
        live.open(Generate(0, Branch.root(problem()), Until(room), speculative=True))
        assert not live.affordable(), "nothing is known of what a token costs"
        live.ledger.charge(Purpose.POLICY, "m", Usage(prompt=300, generated=20))
        live.ledger.charge(Purpose.VERIFIER, "v", Usage(prompt=100))
        assert live.affordable() == covered


@dataclass
class Overreaching(toys.Guessing):
    """One sample of two that the budget pays, and a guess of two more that it then wants."""

    def begin(self) -> None:
        self.guess: int | None = None
        self.generate(self.root, self.start.limit)

    def ask(self, room: Room) -> list[Action]:
        actions = super().ask(room)
        if self.guess is None and room.slots:
            self.guess = self.speculate(self.root, self.start.limit, 2, first=1)
        return actions + super().ask(room)

    def take(self, outcome: Outcome) -> None:
        if outcome.action == 0:
            assert self.guess is not None
            self.commit(self.guess)


def test_a_guess_that_is_wanted_counts_as_samples_like_any_other_work() -> None:
    """It may have been told already, so it cannot be refused: the search is at fault."""
    engine = SimulatedEngine(StepModel(), slots=4)
    assert one(job(Starts(Overreaching), Budget(samples=3)), engine).samples == 3
    with pytest.raises(UsageError, match="beyond its budget"):
        one(job(Starts(Overreaching), Budget(samples=2)), engine)
    assert idle(engine)


def test_faults_in_some_samples_leave_the_others_alone() -> None:
    """Each sample's failure is its own: the rest of its request comes back."""
    faults = Faults(rates={Fault.CONNECTION: 0.2, Fault.DEADLINE: 0.1, Fault.ENDPOINT: 0.1})
    engine = SimulatedEngine(StepModel(), faults=faults, latency=Latency(1), slots=16)
    found = run([job(Vote(n=10), number=i) for i in range(20)], engine)
    lost = [[f for f in s.result.failures if f.error != "Quorum"] for s in found]
    came = [len(solved.result.candidates) for solved in found]
    assert all(n + len(failed) == 10 for n, failed in zip(came, lost, strict=True))
    assert 40 < sum(map(len, lost)) < 120
