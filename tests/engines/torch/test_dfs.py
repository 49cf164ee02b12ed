"""Threshold search finds all that brute force finds above the threshold, and nothing else."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.engines.torch.test_beam import END, FIVE, VOCAB, table

from mull.budget import Ledger, Meter, Purpose
from mull.engines.torch import load_torch_engine
from mull.errors import EngineError, UnsupportedError
from mull.types import Completion, Prompt, Request, StopReason, ThresholdDFS, Until

torch = pytest.importorskip("torch")
LENGTH = 4
FLAT = (4, 1, 0)


@pytest.fixture
def engine(engines: Callable[..., Any]) -> Any:
    return engines("llama", engine={"slots": 1000}, bos=False, **FIVE)


def search(prompt: tuple[int, ...], threshold: float, n: int = 0, first: int = 0) -> Request:
    decoding = ThresholdDFS(threshold)
    until = Until(max_tokens=LENGTH)
    return Request(
        Prompt(token_ids=prompt), until, n=n or decoding.width, first=first, decoding=decoding
    )


def found(completions: list[Completion]) -> list[Completion]:
    return [c for c in completions if c.stop is not StopReason.EXHAUSTED]


def prompt_of(seed: int) -> tuple[int, ...]:
    return tuple((seed * 7 + k * k + 3) % VOCAB for k in range(2 + seed))


def opened(every: dict[tuple[int, ...], float], floor: float) -> int:
    """How many unfinished prefixes are at least so likely: each one is extended once."""
    mass: dict[tuple[int, ...], float] = {}
    for ids, logprob in every.items():
        for size in range(len(ids)):
            mass[ids[:size]] = mass.get(ids[:size], 0.0) + math.exp(logprob)
    return sum(probability >= math.exp(floor) for probability in mass.values())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("seed", range(6))
def test_the_set_found_equals_brute_force(seed: int, engine: Any, run: Any) -> None:
    prompt = prompt_of(seed)
    every = table(engine, prompt, LENGTH)
    likely, checked = sorted(every.values(), reverse=True), 0
    # Thresholds between two neighbours, so that rounding decides nothing.
    for rank in (0, 1, 2, 5, 12, 40, 150):
        if likely[rank] - likely[rank + 1] < 1e-4:
            continue
        floor = (likely[rank] + likely[rank + 1]) / 2
        threshold = math.exp(floor)
        if 1 / threshold > engine.info.slots:
            break
        checked += 1
        runner = run(engine)
        (completions,) = runner(search(prompt, threshold))
        right = sorted((ids for ids in every if every[ids] >= floor), key=lambda ids: -every[ids])
        assert [c.index for c in completions] == list(range(ThresholdDFS(threshold).width))
        assert {c.token_ids for c in found(completions)} == set(right)
        assert len(right) == rank + 1 <= 1 / threshold
        for c in found(completions):
            assert c.logprob == pytest.approx(every[c.token_ids], abs=1e-4)
            assert c.stop is (StopReason.END if c.token_ids[-1] == END else StopReason.LENGTH)
        sums = [c.logprob for c in found(completions)]
        assert sums == sorted(sums, reverse=True)
        for c in completions[len(right) :]:
            assert (c.stop, c.text, c.token_ids, c.logprob) == (
                StopReason.EXHAUSTED,
                "",
                (),
                None,
            )
        made = sum(c.usage.generated for c in completions)
        assert runner.ledger.total.generated == made == opened(every, floor)
    assert checked >= 2


@pytest.mark.timeout(30)
def test_fewer_asked_for_are_the_likeliest_and_cost_less(engine: Any, run: Any) -> None:
    whole, few = run(engine), run(engine)
    (all_of_them,) = whole(search(FLAT, 0.004))
    assert len(found(all_of_them)) > 10
    for n in (1, 2, 7):
        (best,) = few(search(FLAT, 0.004, n))
        assert [c.token_ids for c in best] == [c.token_ids for c in all_of_them[:n]]
        spent = few.ledger.total.generated
        assert spent <= whole.ledger.total.generated - (n == 1)
        few = run(engine)
    (tail,) = run(engine)(search(FLAT, 0.004, 3, first=2))
    assert [(c.index, c.token_ids) for c in tail] == [
        (c.index, c.token_ids) for c in all_of_them[2:5]
    ]


def test_the_likeliest_completion_of_all_is_found_where_greedy_misses_it(
    engine: Any, run: Any
) -> None:
    for seed in range(8):
        every = table(engine, prompt_of(seed), LENGTH)
        ((best,),) = run(engine)(search(prompt_of(seed), 0.002, 1))
        assert every[best.token_ids] == pytest.approx(max(every.values()), abs=1e-5)


def test_where_nothing_is_likely_enough_nothing_is_found(engine: Any, run: Any) -> None:
    runner = run(engine)
    (completions,) = runner(search(FLAT, 0.9, 3))
    assert [c.stop for c in completions] == [StopReason.EXHAUSTED] * 3
    assert runner.ledger.total.generated == 1


# --- the search alone, on distributions of any shape ----------------------------------------------


def job_of(length: int, n: int) -> Any:
    from mull.engines.torch.jobs import Job

    request = Request(Prompt(token_ids=(0,)), Until(max_tokens=length), n=n)
    return Job(0, (0,), request, length, StopReason.LENGTH, None, 0, None, None)  # type: ignore


def searched(world: Any, threshold: float, length: int, n: int) -> tuple[Any, int]:
    """A search through ``world`` (prefix → log-probabilities [vocab]) and its most open lines."""
    from mull.engines.torch.dfs import Dfs

    is_end = np.zeros(VOCAB, np.bool_)
    is_end[END] = True
    dfs, widest = Dfs(job_of(length, n), ThresholdDFS(threshold), is_end), 0
    while not dfs.over:
        promised = dfs.most
        lines = dfs.open
        parents, tokens = dfs.advance(torch.stack([world(line.ids) for line in lines]))
        assert [line.ids for line in dfs.open] == [
            (*lines[p].ids, t) for p, t in zip(parents, tokens, strict=True)
        ]
        assert len(dfs.open) <= dfs.most or dfs.over
        assert len(dfs.open) <= promised
        assert dfs.most <= promised, "a promise only shrinks"
        widest = max(widest, len(dfs.open))
    return dfs, widest


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sharp=st.sampled_from([0.05, 0.3, 1.0, 10.0]),
    threshold=st.floats(0.004, 1.0),
    length=st.integers(1, 5),
    n=st.integers(1, 40),
)
def test_any_distributions_any_threshold(
    seed: int, sharp: float, threshold: float, length: int, n: int
) -> None:
    known: dict[tuple[int, ...], Any] = {}

    def world(ids: tuple[int, ...]) -> Any:
        if ids not in known:
            draw = np.random.default_rng([seed, *ids]).dirichlet([sharp] * VOCAB)
            known[ids] = torch.log(torch.from_numpy(draw).float() + 1e-20)
        return known[ids]

    every: dict[tuple[int, ...], float] = {}
    stack: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while stack:
        ids, total = stack.pop()
        if len(ids) == length or END in ids:
            every[ids] = total
        elif total >= math.log(threshold) - 1:
            stack += [((*ids, t), total + float(world(ids)[t])) for t in range(VOCAB)]
    assume(all(abs(total - math.log(threshold)) > 1e-4 for total in every.values()))
    right = [ids for ids in every if every[ids] >= math.log(threshold)]
    right.sort(key=lambda ids: (-every[ids], ids))
    dfs, widest = searched(world, threshold, length, n)
    assert [line.ids for line in dfs.finished] == right[:n]
    assert len(right) <= 1 / threshold
    assert widest <= 1 / threshold
    assert [done.index for done in dfs.results(0.0)] == list(range(n))


def test_a_certainty_is_found_at_a_threshold_of_one_whatever_the_rounding() -> None:
    sure = torch.full((VOCAB,), -math.inf)
    sure[1] = -1e-7
    (line,) = searched(lambda ids: sure, 1.0, 3, 4)[0].finished
    assert line.ids == (1, 1, 1)


def test_equal_lines_come_in_the_order_of_their_tokens_and_ties_at_the_end_count() -> None:
    flat = torch.log_softmax(torch.zeros(VOCAB), 0)
    dfs, _ = searched(lambda ids: flat, 0.2, 1, 5)
    assert [line.ids for line in dfs.finished] == [(t,) for t in range(VOCAB)]
    dfs, _ = searched(lambda ids: flat, 0.2, 1, 2)
    assert [line.ids for line in dfs.finished] == [(0,), (1,)]


# --- in the engine --------------------------------------------------------------------------------


@pytest.mark.timeout(30)
def test_searches_run_beside_samples_and_one_another(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2", engine={"slots": 12})
    searches = [
        Request(Prompt.of(text), Until(max_tokens=15), n=4, decoding=ThresholdDFS(0.1))
        for text in ("1+2=", "alpha beta", "3.\n", "cab")
    ]
    samples = [Request(Prompt.of("1+2="), Until(max_tokens=15), n=9, seed=k) for k in range(3)]
    together = run(engine)(*searches, *samples)
    alone = [run(engine)(request)[0] for request in (*searches, *samples)]
    assert [[c.token_ids for c in r] for r in together] == [[c.token_ids for c in r] for r in alone]
    assert engine.batch.state.live == 0


def test_alone_or_in_company_one_row_mode_gives_the_same_bits(
    engines: Callable[..., Any], run: Any
) -> None:
    engine = engines("llama", engine={"slots": 60, "one_row": True}, bos=False, **FIVE)
    requests = [search(prompt_of(seed), 0.05) for seed in range(3)]
    together = run(engine)(*requests)
    alone = [run(engine)(request)[0] for request in requests]
    assert [[(c.token_ids, c.logprobs) for c in r] for r in together] == [
        [(c.token_ids, c.logprobs) for c in r] for r in alone
    ]


def test_it_never_takes_more_rows_than_its_threshold_allows(engine: Any, run: Any) -> None:
    seen: list[int] = []
    step = engine.batch.step

    def watched() -> None:
        step()
        seen.append(engine.batch.state.live)

    engine.batch.step = watched
    try:
        run(engine)(search(FLAT, 0.01))
    finally:
        del engine.batch.step
    assert 1 < max(seen) <= 100


def test_it_honours_stop_strings_and_steps(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2", engine={"slots": 600})
    until = Until(max_tokens=3, stop=("a", "1", "2", "é"), steps=1)
    (completions,) = run(engine)(
        Request(Prompt.of("1+2="), until, n=40, decoding=ThresholdDFS(0.002))
    )
    assert len(found(completions)) > 3
    for c in found(completions):
        assert not any(stop in c.text for stop in until.stop)
        if c.stop is StopReason.STEP:
            assert c.text.endswith("\n")
    assert {c.stop for c in completions} & {StopReason.STOP, StopReason.STEP}


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_a_search_broken_off_frees_its_rows_and_what_it_made_stays_charged(
    end: str, checkpoints: Callable[..., Path]
) -> None:
    fresh = load_torch_engine(
        checkpoints("llama", bos=False, eos_token_id=None, **FIVE),
        dtype="float32",
        device="cpu",
        memory_cap=1 << 28,
        slots=200,
    )
    ledger, made = Ledger(), list[int]()
    request = Request(
        Prompt(token_ids=(3, 1)), Until(max_tokens=200), n=5, decoding=ThresholdDFS(0.005)
    )

    async def read() -> None:
        async for _ in fresh.generate(request, Meter(ledger, Purpose.POLICY, fresh.info)):
            pass

    async def broken_off() -> None:
        step, reached, loop = fresh.batch.step, asyncio.Event(), asyncio.get_running_loop()

        def watched() -> None:
            """Step until three levels are open, then stand still."""
            (job,) = {job for job in fresh.batch.state.job if job} or {None}
            if job is None or job.search is None or len(job.search.open[0].ids) < 3:
                step()
            elif not made:
                made.append(sum(tokens for tokens, _ in job.search.made.by_sample()))
                loop.call_soon_threadsafe(reached.set)

        fresh.batch.step = watched
        task = asyncio.create_task(read())
        await reached.wait()
        if end == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert fresh.batch.state.live == 0
            assert not fresh.batch.queue
            fresh.batch.step = step
            again = Request(Prompt(token_ids=(3, 1)), Until(max_tokens=3), n=200)
            meter = Meter(Ledger(), Purpose.POLICY, fresh.info)
            assert len([c async for c in fresh.generate(again, meter)]) == 200
        await fresh.aclose()
        if end == "closed":
            with pytest.raises(EngineError, match="closed"):
                await task

    asyncio.run(broken_off())
    assert ledger.total.generated == made[0] > 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoding": ThresholdDFS(1e-4)}, "may hold 10000 lines open .* slots or the threshold"),
        ({"decoding": ThresholdDFS(0.5), "deltas": True}, "no deltas"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    changes: dict[str, Any], words: str, engine: Any, run: Any
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        run(engine)(Request(Prompt(token_ids=(3,)), Until(max_tokens=5), **changes))


def test_a_search_that_cannot_fit_its_memory_is_refused(
    checkpoints: Callable[..., Path], run: Any
) -> None:
    small = load_torch_engine(
        checkpoints("qwen2"), dtype="float32", device="cpu", memory_cap=1 << 19, slots=64
    )
    request = Request(Prompt(token_ids=(5,) * 20), Until(200), decoding=ThresholdDFS(1 / 64))
    with pytest.raises(EngineError, match="memory_cap"):
        run(small)(request)
    asyncio.run(small.aclose())
