"""A grid model's engine says what the model that was trained says, however its work is cut up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_model import tiny_model

from mull.engines.adapt import AdaptRecipe, Parts
from mull.engines.torch import load_torch_engine
from mull.engines.torch.places import Marks, origin, walk
from mull.errors import ModelLoadError
from mull.tasks.arc.compact import CHARACTERS
from mull.training.adapt import adapted, trainable
from mull.training.model import Llama, load_model, save_model
from mull.training.tokenizer import build_tokenizer
from mull.types import (
    Completion,
    Decoding,
    Prompt,
    Request,
    Sampling,
    ScoreRequest,
    StopReason,
    ThresholdDFS,
    TokenBeam,
    Until,
)

import_module("torch._dynamo")  # the first optimizer of a process loads this, slowly
MARKS = Marks(begin=13, turn=14, close=15, line=12)
TOKENIZER = build_tokenizer([CHARACTERS])
PROMPTS = ("<12\n34=43\n21><56\n70=", "<12\n34=43\n21><56\n70=07\n65><1=", "<8=")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid model whose places matter: its weights are large."""
    folder = tiny_model(tmp_path_factory.mktemp("grids"), grids=True)
    model = load_model(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj.bias" not in name:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
                weight.copy_((weight + 0.2 * noise).bfloat16().float())
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module", params=[{}, {"slots": 3}, {"slots": 1}])
def engine(folder: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    options = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 26, "slots": 8}
    engine = load_torch_engine(folder, **{**options, **request.param})
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def trained(folder: Path) -> Llama:
    return load_model(folder)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text).ids)


def said(model: Llama, prompt: tuple[int, ...], ids: tuple[int, ...]) -> list[float]:
    """Log-probability of each token, by the model that was trained, all at once."""
    with torch.no_grad():
        table = torch.log_softmax(model(torch.tensor([prompt + ids])), -1)[0]
    places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
    return [float(table[at, token]) for at, token in zip(places, ids, strict=True)]


def ask(text: str, decoding: Decoding, n: int = 1, tokens: int = 12) -> Request:
    return Request(
        Prompt(token_ids=ids_of(text)), Until(max_tokens=tokens), n=n, seed=3, decoding=decoding
    )


@given(st.lists(st.integers(0, 17), min_size=1, max_size=60), st.data())
def test_a_text_in_pieces_has_the_places_of_the_whole(ids: list[int], data: st.DataObject) -> None:
    whole = walk(torch.tensor([ids]), origin(1), MARKS)
    before, at, parts = origin(1), 0, []
    while at < len(ids):
        size = data.draw(st.integers(1, len(ids) - at))
        parts.append(walk(torch.tensor([ids[at : at + size]]), before, MARKS))
        before, at = parts[-1][:, -1], at + size
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_a_cell_has_the_place_that_its_grid_gives_it() -> None:
    ids = [1, 13, 5, 6, 12, 7, 8, 14, 5, 15, 13, 9, 14]
    places = walk(torch.tensor([ids]), origin(1), MARKS)[0].tolist()
    assert places[0] == [0, 0, 0]
    assert places[2:7] == [[1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2]]
    assert places[7:10] == [[2, 0, 0], [2, 0, 1], [2, 0, 0]]
    assert places[10:] == [[3, 0, 0], [3, 0, 1], [4, 0, 0]]


@pytest.mark.timeout(30)
def test_samples_that_run_together_have_the_trained_models_probabilities(
    engine: Any, run: Callable[..., Any], trained: Llama
) -> None:
    for again in range(2):  # the second time prompts come from the cache
        found = run(engine)(*(ask(text, Sampling(temperature=1.0), n=5) for text in PROMPTS))
        for text, completions in zip(PROMPTS, found, strict=True):
            for each in completions:
                expected = said(trained, ids_of(text), each.token_ids)
                assert each.logprobs == pytest.approx(expected, abs=2e-4), (again, text)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("decoding", [TokenBeam(width=4), ThresholdDFS(0.005)])
def test_searches_have_the_trained_models_probabilities(
    decoding: Decoding, folder: Path, run: Callable[..., Any], trained: Llama
) -> None:
    engine = load_torch_engine(folder, dtype="float32", device="cpu", slots=512)
    request = ask(PROMPTS[0], decoding, n=4, tokens=6)
    ids = ids_of(PROMPTS[0])
    found: list[Completion] = run(engine)(request, ask(PROMPTS[2], Sampling(), n=3))[0]
    kept = [each for each in found if each.stop is not StopReason.EXHAUSTED]
    assert len(kept) > 1
    for each in kept:
        assert each.logprobs == pytest.approx(said(trained, ids, each.token_ids), abs=2e-4)
    asyncio.run(engine.aclose())


def test_scores_are_the_trained_models(
    engine: Any, run: Callable[..., Any], trained: Llama
) -> None:
    text = "07\n65>"
    request = ScoreRequest(Prompt(token_ids=ids_of(PROMPTS[0])), text)

    async def go() -> Any:
        return (await engine.score([request], run(engine).meter()))[0]

    ids = ids_of(PROMPTS[0])
    scored = asyncio.run(go())
    assert scored.logprobs == pytest.approx(said(trained, ids, scored.token_ids), abs=2e-4)


def test_places_matter(trained: Llama) -> None:
    """The same cells in rows of another width are another text."""
    with torch.no_grad():
        ids = torch.tensor([[1, 13, 4, 5, 6, 7, 14]])
        plain = trained(ids)[0, -1]
        trained.model.embed_places.weight.mul_(-1)
        changed = trained(ids)[0, -1]
        trained.model.embed_places.weight.mul_(-1)
    assert not torch.allclose(plain, changed, atol=1e-3)


def test_a_grid_model_is_trained_on_at_test_time(folder: Path) -> None:
    assert trainable(folder)
    texts = [Parts((("<12=", False), ("21>", True)))] * 4
    tuned = adapted(folder, texts, AdaptRecipe(steps=2, batch_tokens=64))
    assert not torch.equal(
        tuned.model.embed_places.weight, load_model(folder).model.embed_places.weight
    )


def test_marks_must_be_there(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        text = file.read_bytes()
        if file.name == "config.json":
            text = text.replace(b'"grid_marks"', b'"other"')
        (tmp_path / file.name).write_bytes(text)
    with pytest.raises(ModelLoadError, match="grid_marks"):
        load_torch_engine(tmp_path)
