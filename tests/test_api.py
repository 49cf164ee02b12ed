"""The public face: ten names, one call, and errors that say what to do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.catalog.test_equip import Asks
from tests.strategies.common import TASK, problem
from tests.verifiers.common import Pick

import mull
from mull import api
from mull.catalog.models import MODELS as SHIPPED
from mull.engines.simulated import (
    Fault,
    Faults,
    Latency,
    Script,
    SimulatedEngine,
    StepModel,
    run_virtual,
)
from mull.errors import BudgetError, SpecError, UsageError
from mull.strategies.base import Ended
from mull.strategies.vote import Vote
from mull.types import Problem, Prompt, Until
from mull.verifiers.checker import CheckerVerifier

ENGINE = SimulatedEngine(StepModel())


def test_the_ten_names() -> None:
    assert len(mull.__all__) == 10
    assert all(getattr(mull, name) is not None for name in mull.__all__)
    assert set(mull.__all__) <= set(dir(mull))
    with pytest.raises(AttributeError, match="module 'mull' has no attribute 'slove'; it has Bud"):
        mull.slove  # noqa: B018


def test_one_call_solves() -> None:
    solution = mull.solve("Say it.", "simulated:echo", task=TASK, budget=mull.Budget(samples=4))
    assert (solution.answer, solution.confidence, solution.samples) == ("1", 1.0, 4)
    assert solution.ended is Ended.COMPLETE
    assert solution.spent == solution.ledger.total
    assert solution.spent.generated == sum(c.tokens for c in solution.candidates)


def test_without_a_budget_sixteen_samples_unless_the_strategy_says() -> None:
    found = {
        spec: mull.solve("Say it.", "simulated:echo", strategy=spec).samples
        for spec in ("vote", "best-of-n", "sample", "greedy", "vote(n=3)", "vote(stop=beta)")
    }
    assert found == {
        "vote": 16,
        "best-of-n": 16,
        "sample": 16,
        "greedy": 1,
        "vote(n=3)": 3,
        "vote(stop=beta)": 4,
    }


def test_without_a_budget_parameters_that_say_how_much_are_all_that_counts() -> None:
    engine = SimulatedEngine(StepModel())
    revised = mull.solve(
        problem(), engine, task=TASK,
        strategy="revise(chains=2, length=3, select=majority)", engines={"reviser": engine},
    )  # fmt: skip
    assert revised.samples == 6
    spec = "mcts(simulations=40, verifier=simulated, rollout=true)"
    searched = mull.solve(problem(), engine, task=TASK, strategy=spec)
    assert len(searched.candidates) > 16


@pytest.mark.parametrize("unit", ["samples", "tokens", "total_tokens", "seconds"])
def test_a_budget_in_any_unit_alone_is_enough(unit: str) -> None:
    engine = SimulatedEngine(Script(["answer 7"]), latency=Latency(token_ms=2), slots=4)
    budget = mull.Budget(**{unit: 0.2 if unit == "seconds" else 40})
    stream = api.asolve("Say it.", engine, task=TASK, budget=budget)
    solution = run_virtual(stream)
    assert solution.answer == "7"
    assert solution.ended in (Ended.BUDGET, Ended.COMPLETE)


def test_the_options_reach_the_samples() -> None:
    texts = {
        (seed, temperature): mull.solve(
            problem(success=0.5),
            ENGINE,
            task=TASK,
            strategy=Vote(n=3),
            sampling=mull.Sampling(temperature=temperature),
            seed=seed,
        )
        .candidates[0]
        .text
        for seed in (0, 1)
        for temperature in (0.0, 1.0)
    }
    assert texts[0, 0.0] == texts[1, 0.0]
    assert len({texts[0, 1.0], texts[1, 1.0], texts[0, 0.0]}) == 3
    short = mull.solve(problem(), ENGINE, task=TASK, strategy="greedy", until=Until(5))
    assert short.candidates[0].tokens == 5
    assert short.answer is None


def test_many_prompts_come_back_in_their_order() -> None:
    """Also where ids are given twice, or are those that plain prompts would get."""
    engine = SimulatedEngine(
        Script({text: [f"answer {text}" + "!" * (9 - int(text))] for text in "012345"}),
        latency=Latency(token_ms=0.01),
        slots=3,
    )
    prompts: list[str | Problem] = [Problem("1", Prompt.of("0")), *"123"]
    prompts += [Problem("same", Prompt.of("4")), Problem("same", Prompt.of("5"))]
    seen: list[str | None] = []
    solutions = mull.solve_many(
        prompts,
        engine,
        task=TASK,
        strategy="vote(n=2)",
        on_solution=lambda s: seen.append(s.answer),
    )
    expected = [f"{number}{'!' * (9 - number)}" for number in range(6)]
    assert [s.answer for s in solutions] == expected
    assert sorted(seen, key=str) == sorted(expected)
    assert mull.solve_many([], engine) == []


def test_verifiers_and_engines_by_the_names_that_the_strategy_uses() -> None:
    given = problem(success=0.4)
    checker = mull.solve(
        given, ENGINE, task=TASK, strategy=Pick(8), verifiers={"prm": CheckerVerifier(TASK)}
    )
    named = mull.solve(given, ENGINE, task=TASK, strategy=Pick(8), verifiers={"prm": "checker"})
    assert checker.answer == named.answer == given.answer
    with pytest.raises(SpecError, match="verifier 'prm': no prm for policy"):
        mull.solve(given, ENGINE, task=TASK, strategy=Pick(8))
    with pytest.raises(SpecError, match="verifier 'prm' is used by no strategy"):
        mull.solve(given, ENGINE, task=TASK, strategy="vote(n=2)", verifiers={"prm": "checker"})
    with pytest.raises(SpecError, match="engine 'judge' is used by no strategy"):
        mull.solve(given, ENGINE, task=TASK, strategy="vote(n=2)", engines={"judge": "simulated"})


def test_a_budget_that_an_engine_of_the_strategy_could_never_reach_is_refused() -> None:
    known = SimulatedEngine(StepModel(), parameters=1000)
    with pytest.raises(BudgetError, match="needs the parameters of simulated:simulated:echo"):
        mull.solve(
            problem(),
            known,
            task=TASK,
            strategy=Asks(("policy", "judge")),
            engines={"judge": "simulated:echo"},
            budget=mull.Budget(flops=1e9),
        )


def test_a_named_engine_takes_options_and_a_budget_in_money() -> None:
    solution = mull.solve(
        "Say it.",
        "simulated:echo",
        engine_options={"price": (0.0, 0.0, 1.0), "slots": 2},
        budget=mull.Budget(cost=100e-6),
    )
    assert solution.ended is Ended.BUDGET
    assert solution.spent.cost >= 100e-6
    with pytest.raises(UsageError, match="this one is made already"):
        mull.solve("Say it.", ENGINE, engine_options={"slots": 2})


def test_prompts_are_read_lazily() -> None:
    read = 0

    def prompts() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "Say it."

    async def first() -> None:
        stream = api.asolve_many(prompts(), "simulated:echo", strategy="vote(n=8)")
        async for _ in stream:
            break
        await stream.aclose()

    run_virtual(first())
    assert read < 300


def test_one_id_and_one_seed_give_one_answer_beside_any_others() -> None:
    alone = mull.solve(problem(3, 0.5), ENGINE, task=TASK, strategy="vote(n=5)")
    many = mull.solve_many(
        [problem(i, 0.5) for i in range(6)], ENGINE, task=TASK, strategy="vote(n=5)"
    )
    assert many[3].candidates == alone.candidates


def test_a_named_engine_is_closed_and_a_given_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    named, given = SimulatedEngine(Script(["answer 7"])), SimulatedEngine(Script(["answer 8"]))
    engines = {"mine": named}
    monkeypatch.setattr(api, "load_policy", lambda engine: engines.get(engine, engine))
    again = []
    for engine in ("mine", given):
        mull.solve("Say it.", engine, task=TASK, strategy="greedy")
        held = named if engine == "mine" else given
        again.append(mull.solve("Say it.", held, task=TASK, strategy="greedy").failures)
    assert [len(failures) for failures in again] == [1, 0]
    assert "closed" in again[0][0].message


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": ""}, UsageError, "the prompt is empty"),
        ({"prompt": " \n"}, UsageError, "the prompt is empty"),
        ({"prompt": "a \ud800 b"}, UsageError, "the prompt has half of a surrogate pair"),
        ({"prompt": Problem("0", Prompt.of("\ud800"))}, UsageError, "half of a surrogate pair"),
        ({"strategy": "vot"}, SpecError, "Did you mean 'vote'"),
        ({"task": "sums"}, SpecError, "unknown task 'sums'; valid: "),
        ({"engine": "no-model"}, SpecError, "unknown model 'no-model'"),
        ({"stratgy": "vote"}, SpecError, "unknown option of mull.solve 'stratgy'; .* 'strategy'"),
        ({"strategy": "vote(n=8)", "budget": mull.Budget(samples=4)}, BudgetError, "contradicts"),
        (
            {"prompt": None},
            UsageError,
            "prompt = None is not valid; expected a text or a mull.types.P",
        ),
        ({"prompt": 7}, UsageError, "prompt = 7 is not valid"),
        ({"engine": None}, SpecError, "model None is not valid; expected an engine, or a shipped"),
        ({"strategy": None}, SpecError, r"strategy = None is not valid; .* 'vote\(n=8\)'"),
        ({"task": 3}, SpecError, "task = 3 is not valid; expected a task's name"),
        ({"budget": 4}, UsageError, r"budget = 4 is not valid; .* mull.Budget\(samples=16\)"),
        ({"budget": {"samples": 4}}, UsageError, "budget = {'samples': 4} is not valid"),
        ({"sampling": 0.7}, UsageError, "sampling = 0.7 is not valid; expected sampling, as mull"),
        ({"until": 400}, UsageError, "until = 400 is not valid"),
        ({"seed": "a"}, UsageError, "seed = 'a' is not valid; expected a whole number"),
        ({"seed": 1.5}, UsageError, "seed = 1.5 is not valid"),
        ({"seed": True}, UsageError, "seed = True is not valid"),
        ({"cost_model": "2P"}, UsageError, "cost_model = '2P' is not valid; .*COST_MODELS"),
        ({"engine_options": 4}, UsageError, "engine_options = 4 is not valid"),
        ({"engine_options": {"model": "m"}}, SpecError, "unknown option of the engine .* 'model'"),
        ({"verifiers": "prm"}, UsageError, "verifiers = 'prm' is not valid"),
        ({"strategy": "greedy", "sampling": mull.Sampling()}, UsageError, "draws no samples"),
    ],
)
def test_what_is_wrong_is_said(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    call = {"prompt": "Say it.", "engine": "simulated:echo", **options}
    with pytest.raises(error, match=message):
        mull.solve(**call)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", ["hello", problem(), None, 7])
def test_many_prompts_are_no_single_one(prompts: Any) -> None:
    with pytest.raises(UsageError, match="expected several, as in a list"):
        mull.solve_many(prompts, "simulated:echo")


@pytest.mark.parametrize("wrong", [" ", 7])
def test_a_list_with_a_prompt_that_is_none_is_refused_before_anything_is_spent(wrong: Any) -> None:
    seen: list[api.Solution] = []
    engine = SimulatedEngine(Script(["answer 7"]), slots=2)
    for prompts in (["Say it."] * 30 + [wrong], ("Say it.",) * 30 + (wrong,)):
        with pytest.raises(UsageError, match="prompt"):
            mull.solve_many(prompts, engine, strategy="vote(n=2)", on_solution=seen.append)
    assert seen == []


@pytest.mark.parametrize("error", [UsageError, OSError])
def test_prompts_before_one_that_cannot_be_read_are_finished_first(error: type[Exception]) -> None:
    def prompts() -> Iterator[str]:
        yield from ["Say it."] * 30
        if error is OSError:
            raise OSError("gone")
        yield " "

    seen: list[api.Solution] = []
    engine = SimulatedEngine(Script(["answer 7"]), slots=2)
    with pytest.raises(error, match=r"gone|the prompt is empty"):
        mull.solve_many(prompts(), engine, strategy="vote(n=2)", on_solution=seen.append)
    assert [solution.answer for solution in seen] == ["answer 7"] * 30


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_directory_may_be_a_path() -> None:
    pytest.importorskip("torch")
    model = SHIPPED / "words-s"
    solution = mull.solve("Say it.", model, task="text", strategy="greedy", until=Until(4))
    assert solution.samples == 1
    with pytest.raises(SpecError, match="no such directory"):
        mull.solve("Say it.", Path("no/where"))
    with pytest.raises(UsageError, match="draws no samples"):
        mull.solve("Say it.", ENGINE, strategy="greedy", sampling=mull.Sampling(temperature=2))


def test_samples_are_those_that_came() -> None:
    engine = SimulatedEngine(Script(["answer 7"]), latency=Latency(token_ms=2), slots=4)
    few = run_virtual(
        api.asolve("Say it.", engine, task=TASK, budget=mull.Budget(samples=16, seconds=0.05))
    )
    assert few.ended is Ended.BUDGET
    assert 0 < few.samples == len(few.candidates) < 16
    faulty = SimulatedEngine(Script(["answer 7"]), faults=Faults(rates={Fault.CONNECTION: 0.5}))
    some = mull.solve("Say it.", faulty, task=TASK, strategy="vote(n=16, quorum=0.0)")
    assert some.samples == len(some.candidates) == 16 - len(some.failures) < 16


def test_an_interrupt_says_what_was_spent() -> None:
    def interrupt(solution: api.Solution) -> None:
        signal.raise_signal(signal.SIGINT)

    prompts = ["Say it."] * 3
    with pytest.raises(KeyboardInterrupt) as caught:
        mull.solve_many(prompts, ENGINE, strategy="vote(n=2)", on_solution=interrupt)
    assert isinstance(caught.value, api.Interrupted)
    assert caught.value.spent.generated > 0


def test_inside_a_running_loop_the_error_says_what_to_await() -> None:
    async def cell() -> None:
        with pytest.raises(UsageError, match=r"await mull\.api\.asolve$"):
            mull.solve("Say it.", "simulated:echo")
        with pytest.raises(UsageError, match=r"async for solution in mull\.api\.asolve_many\("):
            mull.solve_many(["Say it."], "simulated:echo")
        assert (await mull.asolve("Say it.", "simulated:echo")).samples == 16
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(cell())
