"""Sampling follows the distribution it was given, row by row, whatever shares the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mull.engines.torch.sampler import Settings, sample, uniforms  # noqa: E402


def settings(rows: int, **given: Any) -> Settings:
    """Settings of ``rows`` rows: all the same, each row with its own key."""
    return Settings(
        np.full(rows, given.get("temperature", 1.0), np.float32),
        np.full(rows, given.get("top_k", 0), np.int64),
        np.full(rows, given.get("top_p", 1.0), np.float64),
        np.full(rows, given.get("min_p", 0.0), np.float64),
        np.arange(rows, dtype=np.uint64) * np.uint64(7919) + np.uint64(given.get("seed", 1)),
        np.full(rows, given.get("position", 0), np.uint64),
    )


def allowed(logits: Any, temperature: float, top_k: int, top_p: float, min_p: float) -> Any:
    """The filtered distribution by its definition, one row, float64."""
    weights = torch.softmax(logits.double() / temperature, -1)
    order = torch.argsort(weights, descending=True, stable=True)
    keep = torch.zeros_like(weights, dtype=torch.bool)
    chosen = order[: top_k or len(order)]
    mass, total = 0.0, float(weights[chosen].sum())
    for token in chosen.tolist():
        if mass >= top_p * total and top_p < 1.0:
            break
        keep[token] = True
        mass += float(weights[token])
    keep &= weights >= min_p * weights.max()
    kept = torch.where(keep, weights, 0.0)
    return kept / kept.sum()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.05, "temperature": 1.5},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    ],
)
def test_frequencies_are_the_filtered_probabilities(given: dict[str, Any]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    logits = torch.randn(300) * 2
    draws = 40_000
    tokens, _ = sample(logits.expand(draws, -1), settings(draws, **given))
    full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **given}
    expected = allowed(logits, **full).numpy()
    counts = np.bincount(tokens.numpy(), minlength=300)
    assert counts[expected == 0].sum() == 0, "a token that the filters remove never comes"
    likely = expected * draws >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum()) * draws
    kept = wanted > 0
    result = scipy_stats.chisquare(observed[kept], wanted[kept] * observed.sum() / wanted.sum())
    assert result.pvalue > 1e-4


@pytest.mark.parametrize("equals", [False, True])
def test_a_row_draws_the_same_in_any_company(equals: bool) -> None:
    torch.manual_seed(1)
    logits = torch.randn(48, 1000)
    if equals:
        logits = (logits * 4).round() / 4  # as bfloat16's are, often
    mixed = settings(48)
    mixed.temperature[::3] = 0.7
    mixed.temperature[::5] = 0.0
    mixed.top_k[::4] = 10
    mixed.top_p[::7] = 0.8
    logits[7] = 0.0  # its mass of .8 needs all others to be looked at more widely
    mixed.min_p[1::6] = 0.1
    together, logprobs = sample(logits, mixed)
    for row in range(48):
        one = np.array([row])
        alone, logprob = sample(
            logits[row : row + 1],
            Settings(
                mixed.temperature[one],
                mixed.top_k[one],
                mixed.top_p[one],
                mixed.min_p[one],
                mixed.key[one],
                mixed.position[one],
            ),
        )
        assert int(alone) == int(together[row])
        assert float(logprob) == pytest.approx(float(logprobs[row]), abs=1e-5)


@pytest.mark.parametrize("given", [{}, {"temperature": 0.3}, {"top_k": 3}, {"temperature": 0.0}])
def test_log_probabilities_are_unscaled_and_unfiltered(given: dict[str, Any]) -> None:
    torch.manual_seed(2)
    logits = torch.randn(20, 77) * 3
    tokens, logprobs = sample(logits, settings(20, **given))
    want = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(logprobs, want, atol=1e-5)


def test_temperature_zero_is_the_argmax() -> None:
    torch.manual_seed(3)
    logits = torch.randn(30, 500)
    tokens, _ = sample(logits, settings(30, temperature=0.0))
    assert tokens.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-39, 1e-30, 1e-7])
def test_a_temperature_too_low_to_scale_by_is_greedy(temperature: float) -> None:
    torch.manual_seed(3)
    logits = torch.randn(30, 500)
    tokens, logprobs = sample(logits, settings(30, temperature=temperature))
    assert tokens.tolist() == logits.argmax(-1).tolist()
    assert torch.isfinite(logprobs).all()


@pytest.mark.parametrize("vocab", [1, 2, 127, 128, 129, 1000])
def test_every_vocabulary_size_is_covered_to_its_last_token(vocab: int) -> None:
    logits = torch.full((4000, vocab), 0.0)
    tokens, _ = sample(logits, settings(4000, seed=5))
    assert int(tokens.min()) >= 0
    assert int(tokens.max()) == vocab - 1
    if vocab <= 129:
        assert set(tokens.tolist()) == set(range(vocab))


def test_a_certain_token_is_always_taken_and_an_impossible_one_never() -> None:
    logits = torch.full((2000, 200), float("-inf"))
    logits[:, 150] = 0.0
    tokens, logprobs = sample(logits, settings(2000))
    assert set(tokens.tolist()) == {150}
    assert float(logprobs.abs().max()) == 0.0


def test_what_is_no_number_is_reported_for_its_row_only() -> None:
    logits = torch.zeros(3, 50)
    logits[1, 7] = float("nan")
    _, logprobs = sample(logits, settings(3))
    assert torch.isnan(logprobs).tolist() == [False, True, False]
    # Equal weights at the border of what top-k looks at, beside what is no number.
    wide = torch.zeros(3, 500)
    wide[1, 7] = float("nan")
    _, logprobs = sample(wide, settings(3, top_k=20))
    assert torch.isnan(logprobs).tolist() == [False, True, False]


def test_uniforms_are_uniform_and_differ_by_key_and_position() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    keys = np.arange(20_000, dtype=np.uint64)
    by_key = uniforms(keys, np.zeros(20_000, np.uint64))
    by_position = uniforms(np.zeros(20_000, np.uint64), keys)
    for draws in (by_key, by_position):
        assert 0.0 <= draws.min() < draws.max() < 1.0
        assert scipy_stats.kstest(draws, "uniform").pvalue > 1e-4
    assert abs(float(np.corrcoef(by_key[:-1], by_key[1:])[0, 1])) < 0.03
