"""One row alone: the same bytes at any concurrency. Batched: the same tokens but for rounding."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from mull.types import GREEDY, Completion, Prompt, Request, Sampling, Until

torch = pytest.importorskip("torch")


def prompt(seed: int) -> Prompt:
    rng = random.Random(seed)
    return Prompt(token_ids=tuple(rng.randrange(4, 31) for _ in range(rng.randint(3, 40))))


def requests(count: int, **changes: Any) -> list[Request]:
    given = {"until": Until(max_tokens=24), "n": 2, **changes}
    return [Request(prompt(k % 7), seed=k, **given) for k in range(count)]


def exact(completion: Completion) -> tuple[Any, ...]:
    """Everything but the clock, to the last bit."""
    usage = completion.usage
    return (
        completion.index,
        completion.text,
        completion.token_ids,
        completion.logprobs,
        completion.stop,
        (usage.prompt, usage.cached, usage.generated, usage.flops),
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_27_one_row_mode_is_byte_identical_at_concurrency_1_8_64(
    dtype: str, engines: Callable[..., Any], run: Any
) -> None:
    engine = engines("qwen2", engine={"one_row": True, "dtype": dtype})
    work = requests(20, until=Until(max_tokens=10))

    async def at(limit: int, order: list[int]) -> dict[int, list[tuple[Any, ...]]]:
        gate, runner = asyncio.Semaphore(limit), run(engine)
        found: dict[int, list[tuple[Any, ...]]] = {}

        async def one(k: int) -> None:
            async with gate:
                items = await runner.one(work[k])
            found[k] = sorted(exact(c) for c in items if isinstance(c, Completion))

        await asyncio.gather(*(one(k) for k in order))
        return found

    order = list(range(len(work)))
    first = asyncio.run(at(1, order))
    for limit in (8, 64):
        random.Random(limit).shuffle(order)
        assert asyncio.run(at(limit, order)) == first


@pytest.mark.timeout(60)
def test_batched_float32_rows_are_token_identical_to_one_row(
    engines: Callable[..., Any], run: Any
) -> None:
    work = requests(50, n=4, until=Until(max_tokens=24))
    batched = run(engines("qwen2"))(*work)
    alone = run(engines("qwen2", engine={"one_row": True}))(*work)
    pairs = [
        (a, b)
        for left, right in zip(batched, alone, strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    same = [(a, b) for a, b in pairs if a.token_ids == b.token_ids]
    assert len(same) >= 0.99 * len(pairs)
    for a, b in same:
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.timeout(60)
def test_28_greedy_batches_of_1_4_16_agree(engines: Callable[..., Any], run: Any) -> None:
    work = [Request(prompt(k), Until(max_tokens=24), decoding=GREEDY, seed=k) for k in range(64)]
    by_size = {
        slots: [c for (c,) in run(engines("qwen2", engine={"slots": slots}))(*work)]
        for slots in (1, 4, 16)
    }
    for slots in (4, 16):
        for a, b in zip(by_size[1], by_size[slots], strict=True):
            for x, y, p, q in zip(a.token_ids, b.token_ids, a.logprobs, b.logprobs, strict=False):
                if x != y:
                    # Only a tie within the rounding may fall differently.
                    assert p == pytest.approx(q, abs=1e-4)
                    break
                assert p == pytest.approx(q, abs=1e-4)


def test_27_samples_of_a_flat_model_differ(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("llama", initializer_range=1e-4)
    request = Request(Prompt.of("1+2="), Until(max_tokens=4), n=64, decoding=Sampling())
    (completions,) = run(engine)(request)
    assert len({c.token_ids for c in completions}) >= 60


def test_seeds_give_other_samples_and_equal_seeds_the_same(
    engines: Callable[..., Any], run: Any
) -> None:
    engine = engines("qwen2")

    def texts(seed: int) -> list[str]:
        request = Request(Prompt.of("1+2="), Until(max_tokens=12), n=8, seed=seed)
        return [c.text for c in run(engine)(request)[0]]

    assert texts(1) == texts(1)
    assert not set(texts(1)) & set(texts(2))
