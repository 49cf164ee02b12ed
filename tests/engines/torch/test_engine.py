"""Requests join, fork, stop, stream and leave as the engine contract says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.patience import PATIENCE

from mull.budget import Meter
from mull.engines.base import Engine
from mull.engines.torch import load_torch_engine
from mull.errors import ContextError, EngineError, UnsupportedError
from mull.types import (
    GREEDY,
    Completion,
    Delta,
    Message,
    Prompt,
    Request,
    Sampling,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
    Usage,
)

pytest.importorskip("torch")
TEXT = "1+2=alpha beta.\n3+4="


@pytest.fixture
def engine(engines: Callable[..., Any]) -> Any:
    return engines("qwen2")


@pytest.fixture
def fresh(checkpoints: Callable[..., Path]) -> Any:
    """An engine that no other test has warmed."""
    engine = load_torch_engine(
        checkpoints("qwen2"), dtype="float32", device="cpu", memory_cap=1 << 26, slots=8
    )
    yield engine
    asyncio.run(engine.aclose())


def test_it_is_an_engine(engine: Any) -> None:
    assert isinstance(engine, Engine)


def test_every_sample_comes_back_once_with_what_it_cost(engine: Any, run: Any) -> None:
    runner = run(engine)
    requests = [
        Request(Prompt.of(TEXT * k), Until(max_tokens=5 * k), n=k, first=k, seed=k)
        for k in range(1, 8)
    ]
    for request, completions in zip(requests, runner(*requests), strict=True):
        assert [c.index for c in completions] == list(range(request.first, 2 * request.first))
        for c in completions:
            assert c.stop in (StopReason.END, StopReason.LENGTH)
            assert c.usage.generated == len(c.token_ids or ()) == len(c.logprobs or ())
            assert (c.usage.prompt > 0) == (c.index == request.first), "one prompt a request"
    assert runner.ledger.total.generated == sum(m.total.generated for m in runner.meters)


def test_text_is_the_decoded_tokens_without_the_end_token(engine: Any, run: Any) -> None:
    (completions,) = run(engine)(Request(Prompt.of(TEXT), Until(max_tokens=40), n=20, seed=1))
    assert {c.stop for c in completions} == {StopReason.END, StopReason.LENGTH}
    for c in completions:
        assert c.text == engine.text.decode([t for t in c.token_ids if t != 2])
        assert (c.token_ids[-1] == 2) == (c.stop is StopReason.END)


def test_a_prompt_is_computed_once_for_its_forks_and_known_the_next_time(
    fresh: Any, run: Any
) -> None:
    request = Request(Prompt.of(TEXT), Until(max_tokens=3), n=30)
    first, second = run(fresh), run(fresh)
    first(request)
    second(request)
    tokens = len(fresh.text.prompt(request.prompt))
    assert (first.ledger.total.prompt, first.ledger.total.cached) == (tokens, 0)
    assert (second.ledger.total.prompt, second.ledger.total.cached) == (tokens, tokens - 1)


def test_prompts_that_arrive_together_share_their_common_part(fresh: Any, run: Any) -> None:
    runner = run(fresh)
    shared = TEXT * 4
    runner(*(Request(Prompt.of(shared + str(k)), Until(max_tokens=2)) for k in range(6)))
    total = runner.ledger.total
    assert total.cached >= 4 * len(fresh.text.encode(shared))


def test_a_branch_extended_later_finds_its_cache_and_says_so(fresh: Any, run: Any) -> None:
    runner = run(fresh)
    ids = fresh.text.prompt(Prompt.of(TEXT))
    until = Until(max_tokens=60, tokens=7)
    ((chunk,),) = runner(Request(Prompt.of(TEXT), until, decoding=GREEDY))
    assert chunk.stop is StopReason.TOKENS
    again = Request(Prompt.of(TEXT), until, assistant_ids=chunk.token_ids, decoding=GREEDY)
    ((more,),) = runner(again)
    assert more.usage.prompt == len(ids) + 7
    assert more.usage.cached == len(ids) + 6, "all but the one token that was never fed"
    ((whole,),) = runner(Request(Prompt.of(TEXT), Until(max_tokens=14), decoding=GREEDY))
    assert chunk.token_ids + more.token_ids == whole.token_ids
    ((by_text,),) = runner(Request(Prompt.of(TEXT), until, assistant=chunk.text, decoding=GREEDY))
    assert by_text.token_ids == more.token_ids


def test_samples_split_over_requests_stay_the_same(engine: Any, run: Any) -> None:
    def request(first: int, n: int) -> Request:
        return Request(Prompt.of(TEXT), Until(max_tokens=20), n=n, first=first, seed=9)

    (whole,) = run(engine)(request(0, 12))
    parts = run(engine)(request(0, 5), request(5, 4), request(9, 3))
    assert [c.token_ids for c in whole] == [c.token_ids for part in parts for c in part]
    assert len({c.token_ids for c in whole}) > 6


def test_more_samples_than_slots_all_come_back(fresh: Any, run: Any) -> None:
    (completions,) = run(fresh)(Request(Prompt.of(TEXT), Until(max_tokens=9), n=50, seed=2))
    assert [c.index for c in completions] == list(range(50))
    assert fresh.info.slots == 8


def test_lower_priority_numbers_run_first(fresh: Any) -> None:
    order: list[int] = []

    async def one(priority: int) -> None:
        request = Request(Prompt.of(TEXT), Until(max_tokens=6), n=8, priority=priority, seed=1)
        async for _ in fresh.generate(request, meter_of(fresh)):
            pass
        order.append(priority)

    async def go() -> None:
        await asyncio.gather(*(one(p) for p in (0, 3, 2, 1)))

    asyncio.run(go())
    assert order == [0, 1, 2, 3]


def meter_of(engine: Any) -> Meter:
    from mull.budget import Ledger, Purpose

    return Meter(Ledger(), Purpose.POLICY, engine.info)


# --- until ---------------------------------------------------------------------------------------


def test_steps_end_with_their_separator(engine: Any, run: Any) -> None:
    until = Until(max_tokens=60, steps=2, separator="\n")
    (completions,) = run(engine)(Request(Prompt.of(TEXT), until, n=30, seed=4))
    steps = [c for c in completions if c.stop is StopReason.STEP]
    assert steps
    for c in steps:
        assert c.text.count("\n") >= 2
        last = engine.text.decode(c.token_ids[-1:])
        assert "\n" in last
        assert c.text[: -len(last)].count("\n") < 2, "it ends with the token that completes it"
    for c in completions:
        if c.stop is not StopReason.STEP:
            assert c.text.count("\n") < 2


@pytest.mark.parametrize("stops", [("stop",), ("ab", "bc"), (".=", "op."), ("a", "é4")])
def test_a_stop_string_ends_the_text_and_is_not_in_it(
    stops: tuple[str, ...], engine: Any, run: Any
) -> None:
    free = Request(Prompt.of(TEXT), Until(max_tokens=50), n=30, seed=6)
    held = Request(Prompt.of(TEXT), Until(max_tokens=50, stop=stops), n=30, seed=6)
    (whole,), (cut,) = run(engine)(free), run(engine)(held)
    assert any(c.stop is StopReason.STOP for c in cut)
    for a, b in zip(whole, cut, strict=True):
        ends = [a.text.find(s) + len(s) for s in stops if s in a.text]
        if not ends:
            assert (a.text, a.stop) == (b.text, b.stop)
            continue
        assert b.stop is StopReason.STOP
        assert b.stop_string in stops
        assert a.text.startswith(b.text + b.stop_string)
        assert len(b.text + b.stop_string) == min(ends)
        assert not any(s in b.text for s in stops)
        assert a.token_ids[: len(b.token_ids)] == b.token_ids


def test_any_number_of_stop_strings_is_served_and_few_are_kept(
    engine: Any, fresh: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"stop{number}" for number in range(9)]
    requests = [
        Request(Prompt.of(TEXT), Until(max_tokens=30, stop=(text, "\n")), n=2, seed=6)
        for text in [*texts, *texts]
    ]
    wanted = [[c.text for c in made] for made in run(engine)(*requests)]
    for place in ("engine", "batch"):
        monkeypatch.setattr(f"mull.engines.torch.{place}.WATCHES_KEPT", 3)
    # Nine different ones at once: none may lose its table to another.
    assert [[c.text for c in made] for made in run(fresh)(*requests)] == wanted
    assert [[c.text for c in run(fresh)(request)[0]] for request in requests] == wanted
    tables = len(fresh.batch._watches)
    assert run(fresh)(*requests)
    assert (len(fresh._watches), len(fresh.batch._watches)) == (3, tables)


@pytest.mark.parametrize(
    ("until", "reason", "count"),
    [
        (Until(max_tokens=5), StopReason.LENGTH, 5),
        (Until(max_tokens=9, tokens=5), StopReason.TOKENS, 5),
        (Until(max_tokens=5, tokens=5), StopReason.TOKENS, 5),
        (Until(max_tokens=5, tokens=9), StopReason.LENGTH, 5),
        (Until(max_tokens=1), StopReason.LENGTH, 1),
    ],
)
def test_token_limits_end_with_their_own_reason(
    until: Until, reason: StopReason, count: int, engine: Any, run: Any
) -> None:
    (completions,) = run(engine)(Request(Prompt.of(TEXT), until, n=12, seed=8))
    assert {len(c.token_ids) for c in completions if c.stop is reason} == {count}
    assert {c.stop for c in completions} <= {reason, StopReason.END}


def test_30_over_long_is_a_typed_outcome_and_never_a_cut(engine: Any, run: Any) -> None:
    limit = engine.info.context
    assert limit == 256

    def request(size: int) -> Request:
        return Request(Prompt(token_ids=(5,) * size), Until(max_tokens=40), n=6, seed=1)

    (roomy,) = run(engine)(request(limit - 20))
    assert {c.stop for c in roomy} <= {StopReason.CONTEXT, StopReason.END}
    full = [c for c in roomy if c.stop is StopReason.CONTEXT]
    assert full
    assert {len(c.token_ids) for c in full} == {20}
    assert StopReason.CONTEXT.truncated
    (last,) = run(engine)(request(limit - 1))
    assert {len(c.token_ids) for c in last} == {1}
    for size in (limit, limit + 1, 10 * limit):
        with pytest.raises(ContextError, match=f"{size} tokens .*context of {limit}"):
            run(engine)(request(size))


# --- deltas --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [(), ("ab", "stop.")])
def test_deltas_join_to_the_completion(stop: tuple[str, ...], engine: Any, run: Any) -> None:
    request = Request(Prompt.of(TEXT), Until(max_tokens=40, stop=stop), n=8, seed=3, deltas=True)
    runner = run(engine)
    items = asyncio.run(runner.one(request))
    plain = runner(Request(Prompt.of(TEXT), Until(max_tokens=40, stop=stop), n=8, seed=3))[0]
    for want in plain:
        mine = [i for i in items if i.index == want.index]
        deltas = [d for d in mine if isinstance(d, Delta)]
        assert isinstance(mine[-1], Completion)
        assert mine[-1].text == want.text
        assert "".join(d.text for d in deltas) == want.text
        assert sum((d.token_ids for d in deltas), ()) == want.token_ids
        assert sum((d.logprobs for d in deltas), ()) == pytest.approx(want.logprobs, abs=1e-5)
        assert len(deltas) > 1 or len(want.token_ids) < 4


def test_without_deltas_none_come(engine: Any, run: Any) -> None:
    items = asyncio.run(run(engine).one(Request(Prompt.of(TEXT), Until(max_tokens=5), n=3)))
    assert all(isinstance(item, Completion) for item in items)


def test_log_probabilities_that_nobody_wants_do_not_travel(engine: Any, run: Any) -> None:
    request = Request(Prompt.of(TEXT), Until(max_tokens=5), logprobs=False)
    ((completion,),) = run(engine)(request)
    assert completion.logprobs is None


# --- leaving -------------------------------------------------------------------------------------


def test_closing_the_iterator_frees_its_slots_and_charges_what_was_made(fresh: Any) -> None:
    meter = meter_of(fresh)
    tokens = len(fresh.text.prompt(Prompt.of(TEXT)))

    async def go() -> Usage:
        request = Request(
            Prompt.of(TEXT), Until(max_tokens=200), n=8, seed=1, deltas=True, decoding=Sampling(0.1)
        )
        stream = fresh.generate(request, meter)
        seen = 0
        async for item in stream:
            seen += len(item.token_ids or ())
            if seen > 20:
                break
        await stream.aclose()
        assert fresh.batch.state.live == 0
        assert not fresh.batch.queue
        at_close = meter.total
        await asyncio.sleep(0.05)
        assert meter.total == at_close, "nothing is charged after the close"
        assert at_close.generated >= seen
        return at_close

    spent = asyncio.run(go())
    assert spent.prompt == tokens
    assert spent.generated < 8 * 200


def test_a_cancelled_task_frees_its_slots_too(fresh: Any) -> None:
    meter = meter_of(fresh)

    async def consume() -> None:
        request = Request(Prompt.of(TEXT), Until(max_tokens=200), n=8, decoding=Sampling(0.1))
        async for _ in fresh.generate(request, meter):
            pass

    async def go() -> None:
        task = asyncio.create_task(consume())
        for _ in range(1000):
            if meter.total.prompt:
                break
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(100):
            if not fresh.batch.busy:
                break
            await asyncio.sleep(0.01)
        assert not fresh.batch.busy

    asyncio.run(go())


def stand_still_until(true: Callable[[], bool]) -> None:
    """Block the loop while the model's thread goes on."""
    for _ in range(400):
        time.sleep(0.005)
        if true():
            return


def test_a_task_cancelled_when_all_was_made_and_nothing_read_yet_ends(fresh: Any) -> None:
    meter = meter_of(fresh)

    async def go() -> None:
        request = Request(Prompt.of(TEXT), Until(max_tokens=4))
        task = asyncio.ensure_future(anext(fresh.generate(request, meter)))
        await asyncio.sleep(0)  # the request is handed over
        stand_still_until(lambda: not fresh._worker._jobs and fresh._worker._commands.empty())
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        assert done, "a cancelled request waits for an end that was told before"

    asyncio.run(go())
    assert meter.total.generated == 4


def test_a_request_cancelled_in_the_queue_costs_nothing(fresh: Any) -> None:
    waits = meter_of(fresh)

    async def go() -> None:
        runs = fresh.generate(
            Request(Prompt.of(TEXT), Until(max_tokens=200), n=8, deltas=True), meter_of(fresh)
        )
        await anext(runs)
        task = asyncio.ensure_future(
            anext(fresh.generate(Request(Prompt.of("1+1="), Until(max_tokens=9)), waits))
        )
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runs.aclose()

    asyncio.run(go())
    assert waits.total == Usage()


def test_event_loops_in_sequence_share_one_engine(fresh: Any, run: Any) -> None:
    request = Request(Prompt.of(TEXT), Until(max_tokens=8), n=3, seed=5)
    results = [run(fresh)(request) for _ in range(4)]
    assert all([c.token_ids for c in r[0]] == [c.token_ids for c in results[0][0]] for r in results)


def test_an_abandoned_loop_does_not_hold_its_slots(fresh: Any, run: Any) -> None:
    async def abandon() -> None:
        request = Request(Prompt.of(TEXT), Until(max_tokens=200), n=8, decoding=Sampling(0.1))
        task = asyncio.ensure_future(anext(fresh.generate(request, meter_of(fresh))))
        await asyncio.sleep(0.01)
        task.get_loop().call_soon(task.cancel)

    asyncio.run(abandon())
    (after,) = run(fresh)(Request(Prompt.of(TEXT), Until(max_tokens=4), n=8))
    assert len(after) == 8


def test_the_event_loop_stays_live_while_the_model_runs(fresh: Any) -> None:
    async def go() -> list[float]:
        request = Request(Prompt.of(TEXT), Until(max_tokens=150), n=8, decoding=Sampling(0.1))
        loop, gaps = asyncio.get_running_loop(), []

        async def tick() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.001)
                gaps.append(loop.time() - before)

        ticker = asyncio.create_task(tick())
        async for _ in fresh.generate(request, meter_of(fresh)):
            pass
        ticker.cancel()
        return gaps

    gaps = sorted(asyncio.run(go()))
    assert len(gaps) >= 10
    assert gaps[len(gaps) // 2] < 0.05


def test_a_closed_engine_refuses_and_ends_what_runs(checkpoints: Callable[..., Path]) -> None:
    engine = load_torch_engine(checkpoints("qwen2"), dtype="float32", memory_cap=1 << 26)

    async def go() -> None:
        request = Request(Prompt.of(TEXT), Until(max_tokens=220), n=8, deltas=True)
        stream = engine.generate(request, meter_of(engine))
        await anext(stream)
        await engine.aclose()
        with pytest.raises(EngineError, match="closed while the request ran"):
            async for _ in stream:
                pass
        with pytest.raises(EngineError, match="engine is closed"):
            await anext(engine.generate(request, meter_of(engine)))
        with pytest.raises(EngineError, match="engine is closed"):
            await engine.score([], meter_of(engine))
        await engine.aclose()

    asyncio.run(go())


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "x"}, "adapted weights"),
        ({"prompt": Prompt.chat(Message("system", "a"), Message("user", "b"))}, "chat"),
        ({"decoding": TokenBeam(2), "n": 3}, "width 2 cannot give n = 3"),
        ({"decoding": TokenBeam(1000)}, "as many slots"),
        ({"decoding": TokenBeam(2), "deltas": True}, "no deltas"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    changes: dict[str, Any], words: str, engine: Any, run: Any
) -> None:
    request = Request(**{"prompt": Prompt.of(TEXT), "until": Until(max_tokens=5), **changes})
    with pytest.raises(UnsupportedError, match=words):
        run(engine)(request)


def test_prompts_that_are_no_tokens_are_refused(engine: Any, run: Any) -> None:
    for prompt in (Prompt(token_ids=(999,)), Prompt(token_ids=(-1,)), Prompt.of("")):
        with pytest.raises(EngineError):
            run(engine)(Request(prompt, Until(max_tokens=5)))


# --- memory --------------------------------------------------------------------------------------


def test_the_memory_cap_holds_rows_and_tree_together(
    checkpoints: Callable[..., Path], run: Any
) -> None:
    cap = 1 << 19
    engine = load_torch_engine(
        checkpoints("qwen2"), dtype="float32", device="cpu", memory_cap=cap, slots=64
    )
    requests = [
        Request(Prompt(token_ids=(4 + k,) * (20 + 9 * k)), Until(max_tokens=30), n=9, seed=k)
        for k in range(12)
    ]
    seen: list[int] = []
    step = engine.batch.step

    def watched() -> None:
        step()
        seen.append(engine.batch.rows.bytes + engine.batch.tree.bytes)

    engine.batch.step = watched  # type: ignore[method-assign]
    results = run(engine)(*requests)
    assert [len(r) for r in results] == [9] * 12
    assert 0 < max(seen) <= cap
    too_big = Request(Prompt(token_ids=(5,) * 20), Until(max_tokens=200), decoding=TokenBeam(64))
    with pytest.raises(EngineError, match="memory_cap"):
        run(engine)(too_big)
    asyncio.run(engine.aclose())


@given(seed=st.integers(0, 10_000))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.timeout(60)
def test_any_mixture_of_requests_gives_each_its_own_result(
    seed: int, engines: Callable[..., Any], run: Any
) -> None:
    import random

    rng = random.Random(seed)
    engine = engines("qwen2", engine={"slots": 5})

    def request(k: int) -> Request:
        until = rng.choice(
            [
                Until(max_tokens=rng.randint(1, 20)),
                Until(max_tokens=20, steps=1),
                Until(max_tokens=20, tokens=rng.randint(1, 9)),
                Until(max_tokens=20, stop=("ab", "=.")),
            ]
        )
        how = [Sampling(), Sampling(0.5, 5, 0.9), GREEDY, TokenBeam(3), ThresholdDFS(0.2)]
        decoding = rng.choice(how)
        text = rng.choice([TEXT, "1", TEXT * 3, "alpha", TEXT + "gamma"])
        return Request(
            Prompt.of(text),
            until,
            n=rng.randint(1, 3 if isinstance(decoding, TokenBeam) else 7),
            decoding=decoding,
            seed=k,
            priority=rng.randint(0, 2),
        )

    requests = [request(k) for k in range(rng.randint(2, 7))]
    together = run(engine)(*requests)
    alone = [run(engine)(r)[0] for r in requests]
    for a, b in zip(together, alone, strict=True):
        assert [(c.index, c.text, c.stop, c.token_ids) for c in a] == [
            (c.index, c.text, c.stop, c.token_ids) for c in b
        ]
    assert engine.batch.state.live == 0
