"""Given texts are scored as they were generated, and never encoded twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mull.catalog.models import model_folder
from mull.engines.torch import load_torch_engine
from mull.errors import ContextError, EngineError, UnsupportedError
from mull.types import Prompt, Request, Scored, ScoreRequest, Until

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from tests.engines.torch.conftest import make_checkpoint  # noqa: E402

TEXT = "1+2=alpha beta.\n3+4="


def score(engine: Any, run: Any, *requests: ScoreRequest) -> list[Scored]:
    async def go() -> list[Scored]:
        return list(await engine.score(requests, run(engine).meter()))

    return asyncio.run(go())


@pytest.fixture
def judge(checkpoints: Callable[..., Path], tmp_path: Path) -> Any:
    """A checkpoint with a value head."""
    target = tmp_path / "judge"
    shutil.copytree(checkpoints("qwen2"), target)
    tensors = load_file(str(target / "model.safetensors"))
    torch.manual_seed(0)
    tensors["value_head.weight"] = torch.randn(1, 32)
    tensors["value_head.bias"] = torch.randn(1)
    save_file(tensors, str(target / "model.safetensors"))
    engine = load_torch_engine(target, dtype="float32", device="cpu", memory_cap=1 << 26)
    yield engine
    asyncio.run(engine.aclose())


def test_a_text_scores_as_it_was_generated(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2")
    (made,) = run(engine)(Request(Prompt.of(TEXT), Until(max_tokens=30), n=20, seed=2))
    scored = score(engine, run, *(ScoreRequest(Prompt.of(TEXT), c.text, c.token_ids) for c in made))
    for completion, result in zip(made, scored, strict=True):
        assert result.token_ids == completion.token_ids
        assert result.logprobs == pytest.approx(completion.logprobs, abs=1e-4)


def test_text_without_ids_is_tokenised_behind_its_prompt(
    engines: Callable[..., Any], run: Any
) -> None:
    engine = engines("qwen2")
    (result,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), "7.\n"))
    assert result.token_ids == tuple(engine.text.encode("7.\n"))


def test_scores_are_the_same_in_any_company(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen3")
    texts = ["7", "7.\n8", "alpha" * 30, "", "beta", "7.\n9", "3+3=6.\n" * 8]
    requests = [ScoreRequest(Prompt.of(TEXT), text) for text in texts]
    together = score(engine, run, *requests)
    alone = [
        score(engines("qwen3", engine={"one_row": True}), run, request)[0] for request in requests
    ]
    for a, b in zip(together, alone, strict=True):
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_what_is_known_of_a_text_is_kept_while_rows_grow_for_its_company(run: Any) -> None:
    ids = torch.randint(5, 70, (90,), generator=torch.Generator().manual_seed(0)).tolist()

    def text(start: int, end: int) -> ScoreRequest:
        return ScoreRequest(
            Prompt(token_ids=tuple(ids[start : start + 4])), "x", tuple(ids[start + 4 : end])
        )

    # Rows hold 64 tokens: 62 are not too many, but 28 new ones behind 49 known ones are.
    batched, alone = (
        load_torch_engine(model_folder("words-s"), one_row=row) for row in (False, True)
    )
    score(batched, run, text(0, 50))
    together = score(batched, run, text(0, 62), text(62, 90))
    again = score(batched, run, text(0, 62))
    wanted = [score(alone, run, each)[0] for each in (text(0, 62), text(62, 90), text(0, 62))]
    for found, expected in zip([*together, *again], wanted, strict=True):
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_a_text_that_memory_cannot_hold_fails_alone(
    checkpoints: Callable[..., Path], run: Any
) -> None:
    engine = load_torch_engine(checkpoints("qwen3"), dtype="float32", memory_cap=1 << 15)
    requests = [
        ScoreRequest(Prompt(token_ids=(4,)), "x", (5,) * length) for length in (200, 4, 5, 6)
    ]

    async def go() -> list[Any]:
        asked = [engine.score([request], run(engine).meter()) for request in requests]
        return await asyncio.gather(*asked, return_exceptions=True)

    large, *small = asyncio.run(go())
    assert isinstance(large, EngineError)
    assert "raise it" in str(large)
    assert [len(found[0].logprobs) for found in small] == [4, 5, 6]


def test_a_step_scored_once_is_not_encoded_again(judge: Any, run: Any) -> None:
    steps = ["7.\n", "alpha.\n", "8+1=9.\n"]
    prompt = len(judge.text.prompt(Prompt.of(TEXT)))
    spent, encoded = [], []
    for count in range(1, 4):
        request = ScoreRequest(Prompt.of(TEXT), "".join(steps[:count]), values=True)
        (result,) = score(judge, run, request)
        assert len(result.values) == count
        spent.append(result.usage.prompt - result.usage.cached)
        encoded.append(len(result.token_ids))
    assert spent[0] == prompt + encoded[0]
    assert spent[1:] == [encoded[1] - encoded[0], encoded[2] - encoded[1]]
    (again,) = score(judge, run, request)
    assert again.usage.cached == again.usage.prompt
    assert again.values == result.values
    assert again.logprobs == result.logprobs


def test_values_are_the_heads_reading_at_step_ends(judge: Any, run: Any) -> None:
    text = "7.\nalpha.\n8"
    (result,) = score(judge, run, ScoreRequest(Prompt.of(TEXT), text, values=True))
    ids = judge.text.prompt(Prompt.of(TEXT), text)
    with torch.inference_mode():
        from mull.engines.torch.rows import Rows

        rows = Rows(judge.model)
        rows.reserve(1, len(ids), 0)
        hidden = judge.model.forward(
            torch.tensor([ids]),
            torch.arange(len(ids))[None],
            rows.keys[:, :1],
            rows.values[:, :1],
            len(ids),
        )[0]
        values = torch.sigmoid(judge.model.value_head(hidden.float())[:, 0]).tolist()
    newline = judge.text.encode("\n")[0]
    given = len(judge.text.prompt(Prompt.of(TEXT)))
    ends = [k for k in range(given, len(ids)) if ids[k] == newline or k == len(ids) - 1]
    assert len(ends) == 3
    assert result.values == pytest.approx([values[k] for k in ends], abs=1e-5)
    assert all(0 < value < 1 for value in result.values)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``reader(one_row=…)``: engines whose value head reads log-probabilities too."""
    path = make_checkpoint(tmp_path / "reader", "llama")
    tensors = load_file(str(path / "model.safetensors"))
    torch.manual_seed(1)
    tensors["value_head.weight"] = torch.randn(1, 32)
    tensors["value_head.bias"] = torch.tensor([2.0])
    tensors["value_head.logprob_weight"] = torch.tensor([0.25])
    save_file(tensors, str(path / "model.safetensors"))
    made = []

    def get(**options: Any) -> Any:
        made.append(load_torch_engine(path, dtype="float32", memory_cap=1 << 26, **options))
        return made[-1]

    yield get
    for engine in made:
        asyncio.run(engine.aclose())


def test_a_head_may_read_how_likely_the_text_is_up_to_each_end(
    reader: Callable[..., Any], run: Any
) -> None:
    text = "7.\nalpha.\n8"
    engine = reader()
    (both,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), text, values=True))
    newline, ids = engine.text.encode("\n")[0], engine.text.encode(text)
    ends = [k for k, token in enumerate(ids) if token == newline or k == len(ids) - 1]
    engine.model.value_head = replace(engine.model.value_head, logprob_weight=0.0)
    (alone,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), text, values=True))
    head = torch.logit(torch.tensor(alone.values))
    added = torch.logit(torch.tensor(both.values)) - head
    likely = 0.25 * torch.tensor(both.logprobs).cumsum(0)[ends]
    torch.testing.assert_close(added, likely, atol=1e-4, rtol=1e-4)
    assert likely.abs().min() > 0.1


def test_such_a_head_reads_step_by_step_what_it_reads_at_once(
    reader: Callable[..., Any], run: Any
) -> None:
    """Every token is encoded once, and a text's beginning may be another's prompt."""
    engine, whole = reader(), reader(one_row=True)
    texts = ["7.\n", "7.\nalpha.\n", "7.\nalpha.\n8", "7.\nbeta.\n", "7.\nbeta.\n9\n"]
    spent = 0
    for text in texts:
        asked = ScoreRequest(Prompt.of(TEXT), text, values=True, logprobs=False)
        (said,), (expected,) = score(engine, run, asked), score(whole, run, asked)
        assert said.values == pytest.approx(expected.values, abs=1e-5)
        spent += said.usage.prompt - said.usage.cached
    new = len(engine.text.prompt(Prompt.of(TEXT)))
    new += sum(len(engine.text.encode(t)) for t in ("7.\n", "alpha.\n", "8", "beta.\n", "9\n"))
    assert spent == new
    longer = ScoreRequest(Prompt.of(TEXT + texts[0]), "alpha.\n", values=True, logprobs=False)
    (said,), (expected,) = score(engine, run, longer), score(whole, run, longer)
    assert said.values == pytest.approx(expected.values, abs=1e-5)
    (earlier,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), texts[1], values=True))
    assert abs(said.values[0] - earlier.values[1]) > 1e-3


def test_values_are_read_in_float32_whatever_the_trunk_is_in(
    judge: Any, run: Any, tmp_path: Path
) -> None:
    """Read in bfloat16 a value has 8 bits, and the candidates of a problem tie."""
    engine = load_torch_engine(
        tmp_path / "judge", dtype="bfloat16", device="cpu", memory_cap=1 << 26
    )
    requests = [ScoreRequest(Prompt.of(TEXT), f"{n}.\n", values=True) for n in range(9)]
    logits = torch.logit(torch.tensor([each.values[0] for each in score(engine, run, *requests)]))
    coarse = logits.bfloat16().float()
    assert not torch.allclose(logits, coarse, rtol=1e-4, atol=0)
    asyncio.run(engine.aclose())


def test_sixteen_candidates_of_one_prompt_encode_it_once(judge: Any, run: Any) -> None:
    prompt = Prompt.of(TEXT * 3)
    requests = [ScoreRequest(prompt, f"{k % 10}.\n{k // 10}", values=True) for k in range(16)]
    results = score(judge, run, *requests)
    total = sum(r.usage.prompt - r.usage.cached for r in results)
    size = len(judge.text.prompt(prompt))
    assert total <= size + sum(len(r.token_ids) + 1 for r in results)


def test_scoring_runs_beside_generation(judge: Any, run: Any) -> None:
    async def go() -> tuple[Any, list[Scored]]:
        request = Request(Prompt.of(TEXT), Until(max_tokens=60), n=8, seed=1)
        texts = [ScoreRequest(Prompt.of("1+"), str(k) * 9, values=True) for k in range(10)]
        runner = run(judge)
        return await asyncio.gather(runner.one(request), judge.score(texts, runner.meter()))

    made, scored = asyncio.run(go())
    alone = run(judge)(Request(Prompt.of(TEXT), Until(max_tokens=60), n=8, seed=1))[0]
    assert sorted(c.token_ids for c in made) == sorted(c.token_ids for c in alone)
    assert len(scored) == 10


def certainty_of(folder: Path, prompt: tuple[int, ...], text: tuple[int, ...]) -> list[float]:
    """KL(uniform || p) before each token of a text, by its sum over the vocabulary."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *text]])).logits[0]
    known = torch.softmax(logits[len(prompt) - 1 : -1], dim=-1)
    uniform = 1 / known.shape[-1]
    found: list[float] = (uniform * torch.log(uniform / known)).sum(dim=-1).tolist()
    return found


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("logprobs", [False, True])
def test_certainty_is_the_divergence_from_uniform_before_each_token(
    engines: Callable[..., Any],
    checkpoints: Callable[..., Path],
    run: Any,
    one_row: bool,
    logprobs: bool,
) -> None:
    engine = engines("qwen2", engine={"one_row": one_row})
    texts = ["7.\nalpha.\n8", "7.\n", "beta" * 40, ""]
    asked = [ScoreRequest(Prompt.of(TEXT), t, logprobs=logprobs, certainty=True) for t in texts]
    plain = score(engine, run, *(ScoreRequest(Prompt.of(TEXT), text) for text in texts))
    prompt = engine.text.prompt(Prompt.of(TEXT))
    for result, other in zip(score(engine, run, *asked), plain, strict=True):
        direct = certainty_of(checkpoints("qwen2"), prompt, result.token_ids)
        assert result.certainty == pytest.approx(direct, abs=1e-4)
        assert all(value >= 0 for value in result.certainty)
        assert other.certainty is None
        wanted = other.logprobs if logprobs else ()
        assert result.logprobs == pytest.approx(wanted, abs=1e-4)


def test_certainty_of_a_text_that_grows_is_that_of_the_whole(
    checkpoints: Callable[..., Path], run: Any
) -> None:
    """Each call reads the text anew, and the prompt never again but for its last token."""
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 26}
    engine = load_torch_engine(checkpoints("qwen3"), **options)
    steps, prompt = ["7.\n", "alpha.\n", "8+1=9.\n"], len(engine.text.prompt(Prompt.of(TEXT)))
    grown = []
    for count in (1, 2, 3, 3):
        request = ScoreRequest(Prompt.of(TEXT), "".join(steps[:count]), certainty=True)
        grown += score(engine, run, request)
    whole = grown[-1].certainty
    for result in grown:
        assert result.certainty == pytest.approx(whole[: len(result.token_ids)], abs=1e-4)
    assert [each.usage.cached for each in grown] == [0, *[prompt - 1] * 3]
    asyncio.run(engine.aclose())


def test_a_model_that_prefers_nothing_is_certain_of_nothing(
    checkpoints: Callable[..., Path], tmp_path: Path, run: Any
) -> None:
    from safetensors.torch import load_file, save_file

    target = tmp_path / "flat"
    shutil.copytree(checkpoints("qwen2", tie_word_embeddings=False), target)
    tensors = load_file(str(target / "model.safetensors"))
    tensors["lm_head.weight"] = torch.zeros_like(tensors["lm_head.weight"])
    save_file(tensors, str(target / "model.safetensors"))
    engine = load_torch_engine(target, dtype="bfloat16", device="cpu", memory_cap=1 << 26)
    (result,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), "7.\n8", certainty=True))
    assert result.certainty == pytest.approx([0.0] * 4, abs=1e-6)
    asyncio.run(engine.aclose())


def end_of(checkpoint: Path, prompt: Any, text: Any, ends: list[int]) -> float:
    """log of the end tokens' probability behind a text, by the library's own model."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        last = model(torch.tensor([[*prompt, *text]])).logits[0, -1].double()
    return float(torch.logsumexp(torch.log_softmax(last, dim=-1)[ends], dim=0))


@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("logprobs", [False, True])
def test_the_end_is_as_likely_as_all_end_tokens_behind_the_text(
    engines: Callable[..., Any],
    checkpoints: Callable[..., Path],
    run: Any,
    one_row: bool,
    logprobs: bool,
) -> None:
    """Whatever of the text was read before, and in whatever company."""
    engine = engines("qwen2", engine={"one_row": one_row})
    ends = [int(token) for token in engine.batch.is_end.nonzero()[0]]
    texts = ["7.\nalpha.\n8", "7.\n", "beta" * 40, "", "7.\n"]
    plain = score(engine, run, *(ScoreRequest(Prompt.of(TEXT), text) for text in texts))
    asked = [ScoreRequest(Prompt.of(TEXT), t, logprobs=logprobs, end=True) for t in texts]
    prompt = engine.text.prompt(Prompt.of(TEXT))
    for _ in range(2):
        for result, other in zip(score(engine, run, *asked), plain, strict=True):
            direct = end_of(checkpoints("qwen2"), prompt, result.token_ids, ends)
            assert result.end == pytest.approx(direct, abs=1e-4)
            assert other.end is None
            assert result.logprobs == pytest.approx(other.logprobs if logprobs else (), abs=1e-4)


def test_the_end_of_a_text_that_is_known_costs_two_tokens_at_most(
    checkpoints: Callable[..., Path], run: Any
) -> None:
    engine = load_torch_engine(
        checkpoints("qwen3"), dtype="float32", device="cpu", memory_cap=1 << 26
    )
    for end in (False, True):
        (result,) = score(engine, run, ScoreRequest(Prompt.of(TEXT), "7.\nalpha", end=end))
    assert result.usage.prompt - result.usage.cached <= 2
    asyncio.run(engine.aclose())


def test_what_cannot_be_scored_is_refused(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2")
    with pytest.raises(UnsupportedError, match="no value head"):
        score(engine, run, ScoreRequest(Prompt.of(TEXT), "7", values=True))
    with pytest.raises(ContextError, match="longer than the context of 256"):
        score(engine, run, ScoreRequest(Prompt.of(TEXT), "7" * 300))
    with pytest.raises(EngineError, match="prompt is empty"):
        score(engine, run, ScoreRequest(Prompt.of(""), "7"))


def test_30_a_text_of_exactly_the_context_is_scored(engines: Callable[..., Any], run: Any) -> None:
    engine = engines("qwen2")
    texts = [(5,) * 250, (6,) * 255, (7,) * 20]
    requests = [ScoreRequest(Prompt(token_ids=(4,)), "", ids) for ids in texts]
    assert [len(r.logprobs) for r in score(engine, run, *requests)] == [250, 255, 20]
