"""Token beam search finds what brute force finds, and costs what it made."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from mull.errors import EngineError
from mull.types import Prompt, Request, StopReason, TokenBeam, Until

torch = pytest.importorskip("torch")
VOCAB, END = 5, 2
FIVE = {"vocab_size": VOCAB, "initializer_range": 0.5}


@pytest.fixture
def engine(engines: Callable[..., Any]) -> Any:
    return engines("llama", engine={"slots": 700}, bos=False, **FIVE)


def table(engine: Any, prompt: tuple[int, ...], length: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every sequence that ends with END or has ``length`` tokens."""
    from mull.engines.torch.rows import Rows

    found: dict[tuple[int, ...], float] = {}
    with torch.inference_mode():
        rows = Rows(engine.model)
        every = list(itertools.product(range(VOCAB), repeat=length))
        size = len(prompt) + length
        count = len(every)
        rows.reserve(count, size, 0)
        ids = torch.tensor([[*prompt, *each] for each in every])
        places = torch.arange(size).expand(len(every), -1)
        hidden = engine.model.forward(
            ids, places, rows.keys[:, :count], rows.values[:, :count], size
        )
        logprobs = torch.log_softmax(engine.model.logits(hidden[:, len(prompt) - 1 : -1]), -1)
    for each, rows_of in zip(every, logprobs, strict=True):
        cut = each.index(END) + 1 if END in each else length
        found[each[:cut]] = float(sum(rows_of[i, t] for i, t in enumerate(each[:cut])))
    return found


@pytest.mark.timeout(30)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_28_an_exhaustive_beam_equals_brute_force(
    seed: int, penalty: float, engine: Any, run: Any
) -> None:
    prompt = tuple((seed * 7 + k * k + 3) % VOCAB for k in range(6))
    every = table(engine, prompt, 4)
    ranked = sorted(every, key=lambda ids: -every[ids] / len(ids) ** penalty)
    request = Request(
        Prompt(token_ids=prompt),
        Until(max_tokens=4),
        n=10,
        decoding=TokenBeam(width=625, length_penalty=penalty),
    )
    (completions,) = run(engine)(request)
    assert [c.token_ids for c in completions] == ranked[:10]
    for c in completions:
        assert sum(c.logprobs) == pytest.approx(every[c.token_ids], abs=1e-4)
        assert c.stop is (StopReason.END if c.token_ids[-1] == END else StopReason.LENGTH)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_a_narrow_beam_equals_a_beam_written_plainly(width: int, engine: Any, run: Any) -> None:
    prompt, length = (3, 1, 4, 0), 5
    every = table(engine, prompt, length)

    def logprob(ids: tuple[int, ...]) -> float:
        """Of a prefix: the sum over everything that begins with it."""
        own = [v for k, v in every.items() if k[: len(ids)] == ids]
        return float(torch.logsumexp(torch.tensor(own, dtype=torch.float64), 0))

    live, finished = [()], []
    while live:
        grown = sorted(
            ((*ids, t) for ids in live for t in range(VOCAB)), key=lambda ids: -logprob(ids)
        )[: 2 * width]
        live = []
        for ids in grown:
            if len(live) == width:
                break
            (finished if ids[-1] == END or len(ids) == length else live).append(ids)
    best = sorted(finished, key=lambda ids: -logprob(ids))[0]
    request = Request(
        Prompt(token_ids=prompt), Until(max_tokens=length), decoding=TokenBeam(width=width)
    )
    ((completion,),) = run(engine)(request)
    assert completion.token_ids == best


@pytest.mark.timeout(30)
def test_beams_run_beside_samples_and_one_another(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2", engine={"slots": 12})
    beams = [
        Request(Prompt.of(text), Until(max_tokens=15), n=2, decoding=TokenBeam(4))
        for text in ("1+2=", "alpha beta", "3.\n")
    ]
    samples = [Request(Prompt.of("1+2="), Until(max_tokens=15), n=9, seed=k) for k in range(3)]
    together = run(engine)(*beams, *samples)
    alone = [run(engine)(request)[0] for request in (*beams, *samples)]
    assert [[c.token_ids for c in r] for r in together] == [[c.token_ids for c in r] for r in alone]


def test_a_beam_honours_stop_strings_and_steps(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2")
    until = Until(max_tokens=30, stop=("a", "1", "2", "é"), steps=1)
    request = Request(Prompt.of("1+2="), until, n=6, decoding=TokenBeam(6))
    (completions,) = run(engine)(request)
    for c in completions:
        assert not any(stop in c.text for stop in until.stop)
        if c.stop is StopReason.STEP:
            assert c.text.endswith("\n")
    assert {c.stop for c in completions} & {StopReason.STOP, StopReason.STEP}


def test_a_beam_charges_every_token_it_made(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2", eos_token_id=None)
    runner = run(engine)
    request = Request(Prompt.of("1+2="), Until(max_tokens=10), n=2, decoding=TokenBeam(4))
    (completions,) = runner(request)
    # One hypothesis is extended first, then four, nine times.
    assert runner.ledger.total.generated == 1 + 4 * 9
    assert sum(c.usage.generated for c in completions) == 1 + 4 * 9
    scores = [sum(c.logprobs) for c in completions]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("n", [1, 2])
def test_the_flops_of_a_search_are_those_of_its_lines_at_their_depths(
    width: int, n: int, engines: Callable[..., Any], run: Any
) -> None:
    engine, depth = engines("qwen2", eos_token_id=None), 24
    runner = run(engine)
    runner(Request(Prompt.of("1+2="), Until(max_tokens=depth), n=n, decoding=TokenBeam(width)))
    spent, model, info = runner.ledger.total, runner.ledger.cost_model, engine.info
    prompt = model.flops(info, spent.prompt, 0)
    lines = spent.generated / depth
    # No line is longer than the search is deep; those that ended sooner are shorter still.
    assert spent.flops - prompt <= 1.02 * lines * model.flops(info, depth, spent.prompt)
    assert spent.flops - prompt >= model.flops(info, 1, spent.prompt) * spent.generated


def test_ranks_asked_for_apart_are_the_same_search(engine: Any, run: Any) -> None:
    def request(first: int, n: int) -> Request:
        until = Until(max_tokens=6)
        return Request(Prompt(token_ids=(3, 1)), until, n=n, first=first, decoding=TokenBeam(4))

    (whole,) = run(engine)(request(0, 4))
    (head,), (tail,) = run(engine)(request(0, 2)), run(engine)(request(2, 2))
    assert [c.token_ids for c in whole] == [c.token_ids for c in [*head, *tail]]
    assert [c.index for c in tail] == [2, 3]


def test_more_hypotheses_than_there_are_is_an_error_and_no_wait(engine: Any, run: Any) -> None:
    request = Request(
        Prompt(token_ids=(3,)), Until(max_tokens=1), n=VOCAB + 1, decoding=TokenBeam(VOCAB + 1)
    )
    with pytest.raises(EngineError, match="found 5 hypotheses in all"):
        run(engine)(request)
