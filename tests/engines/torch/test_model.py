"""The forward pass says what transformers says, for every family, cached or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mull.types import GREEDY, Prompt, Request, ScoreRequest, Until

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    ("qwen2", {}),
    ("qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("qwen3", {}),
    ("qwen3", {"head_dim": 24, "num_key_value_heads": 4}),
]


def ids_of(seed: int, count: int, vocab: int = 31) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(4, vocab, (count,), generator=generator).tolist())


def reference(path: Path, ids: tuple[int, ...]) -> Any:
    """[tokens - 1] log-probability of each token given those before it, by transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(str(path)).eval()
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].float(), -1)
    return table.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def score(engine: Any, run: Any, prompt: tuple[int, ...], text: tuple[int, ...]) -> Any:
    async def go() -> Any:
        request = ScoreRequest(Prompt(token_ids=prompt), "", text)
        return (await engine.score([request], run(engine).meter()))[0]

    return asyncio.run(go())


@pytest.mark.parametrize(("family", "changes"), CASES)
def test_log_probabilities_equal_those_of_transformers(
    family: str,
    changes: dict[str, Any],
    checkpoints: Callable[..., Path],
    engines: Callable[..., Any],
    run: Any,
) -> None:
    ids = ids_of(1, 90)
    engine = engines(family, **changes)
    got = torch.tensor(score(engine, run, ids[:1], ids[1:]).logprobs)
    assert torch.allclose(got, reference(checkpoints(family, **changes), ids), atol=1e-4)


@pytest.mark.parametrize(("family", "changes"), [CASES[0], CASES[4], CASES[6]])
def test_greedy_tokens_equal_those_of_transformers_generate(
    family: str,
    changes: dict[str, Any],
    checkpoints: Callable[..., Path],
    engines: Callable[..., Any],
    run: Any,
) -> None:
    prompt = ids_of(2, 21)
    path = checkpoints(family, **changes)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(path)).eval()
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=40,
            do_sample=False,
        )
    request = Request(Prompt(token_ids=prompt), Until(max_tokens=40), decoding=GREEDY)
    ((completion,),) = run(engines(family, **changes))(request)
    assert list(completion.token_ids) == out[0, len(prompt) :].tolist()


def test_bfloat16_stays_near_float32(
    checkpoints: Callable[..., Path], engines: Callable[..., Any], run: Any
) -> None:
    ids = ids_of(3, 60)
    engine = engines("qwen2", engine={"dtype": "bfloat16"})
    assert engine.info.dtype == "bfloat16"
    got = torch.tensor(score(engine, run, ids[:1], ids[1:]).logprobs)
    want = reference(checkpoints("qwen2"), ids)
    assert float((got - want).abs().mean()) < 0.05
    assert float((got - want).abs().max()) > 0, "bfloat16 cannot agree to the last bit"


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_28_cached_decoding_equals_full_recompute(
    family: str, engines: Callable[..., Any], run: Any
) -> None:
    engine = engines(family)
    prompt = ids_of(4, 33)
    ((completion,),) = run(engine)(Request(Prompt(token_ids=prompt), Until(max_tokens=50), seed=3))
    with torch.inference_mode():
        from mull.engines.torch.rows import Rows

        rows = Rows(engine.model)
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        size = ids.shape[1]
        rows.reserve(1, size, 0)
        places = torch.arange(size)[None]
        hidden = engine.model.forward(ids, places, rows.keys[:, :1], rows.values[:, :1], size)[0]
        table = torch.log_softmax(engine.model.logits(hidden), -1)
    made = len(completion.token_ids)
    want = table[-made - 1 : -1].gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(completion.logprobs), want, atol=1e-4)


def test_a_sharded_checkpoint_is_the_same_model(
    tmp_path: Path, checkpoints: Callable[..., Path], run: Any
) -> None:
    from mull.engines.torch import load_torch_engine

    whole = checkpoints("qwen2")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(whole))
    model.save_pretrained(str(tmp_path), max_shard_size="20KB")
    (tmp_path / "tokenizer.json").write_bytes((whole / "tokenizer.json").read_bytes())
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids = ids_of(5, 40)
    engine = load_torch_engine(tmp_path, dtype="float32", device="cpu", memory_cap=1 << 26)
    got = torch.tensor(score(engine, run, ids[:1], ids[1:]).logprobs)
    asyncio.run(engine.aclose())
    assert torch.allclose(got, reference(whole, ids), atol=1e-4)
