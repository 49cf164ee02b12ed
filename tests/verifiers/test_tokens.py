"""Public reward models that answer with a token: as their authors' own code computes them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.verifiers.common import branch, meter, scored

from mull.catalog import load_task, load_verifier
from mull.engines.simulated import Script, SimulatedEngine
from mull.engines.torch import load_torch_engine
from mull.errors import SpecError
from mull.types import Branch, EngineInfo, Problem, Prompt
from mull.verifiers.tokens import TokenVerifier

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.engines.torch.conftest import make_checkpoint  # noqa: E402

PROBLEM = Problem("p", Prompt.of("1+2+3="))
STEPS = ("alpha=3\n", "beta beta=4\n", "gamma=7\n")
TEMPLATE = (
    "{% for m in messages %}{{ 'ab' if m['role'] == 'user' else 'bc' }}{{ m['content'] }}"
    "{{ 'stop' }}{% endfor %}{% if add_generation_prompt %}{{ 'bc' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama whose tokenizer has a chat template."""
    path = make_checkpoint(tmp_path_factory.mktemp("tokens") / "tiny", "llama", bos=False)
    settings = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    made = load_torch_engine(folder, dtype="float32", device="cpu", memory_cap=1 << 26)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def logits(folder: Path) -> Callable[[list[int]], Any]:
    """The logits [tokens, vocabulary] of the same checkpoint, by transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder)).eval()

    def of(ids: list[int]) -> Any:
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0]

    return of


def steps(count: int) -> Branch:
    return branch(PROBLEM, *STEPS[:count])


def tagged(engine: Any, **more: Any) -> TokenVerifier:
    return TokenVerifier(engine, tag=".", good="+", bad="=", **more)


def test_step_tag_is_the_softmax_over_two_tokens_at_every_tag(engine: Any, logits: Any) -> None:
    """Math-Shepherd: softmax(logits[:, [good, bad]])[:, 0] where the input is the tag."""
    text = "1+2+3=" + "alpha=3.\nbeta beta=4.\ngamma=7."
    ids = engine.text.encode(text)
    (tag,), (good,), (bad,) = (engine.text.encode(word) for word in ".+=")
    two = logits(ids)[:, [good, bad]].softmax(dim=-1)[:, 0]
    expected = [float(two[at]) for at, token in enumerate(ids) if token == tag]
    assert len(expected) == 3
    cases = {
        "last": expected[-1],
        "min": min(expected),
        "product": math.prod(expected),
        "mean": sum(expected) / 3,
    }
    for aggregate, value in cases.items():
        verifier = tagged(engine, aggregate=aggregate)
        assert scored(verifier, steps(3)) == pytest.approx([value], abs=1e-4)


def test_chat_turns_is_the_softmax_at_the_last_verdict(
    engine: Any, folder: Path, logits: Any
) -> None:
    """RLHFlow: logits[-3, [good, bad]] of the rendered turns, where -2 is the verdict."""
    tokenizer = engine.text.tokenizer
    good, bad = engine.text.encode("+")[0], engine.text.encode("=")[0]
    turns, expected = [], []
    for number, step in enumerate(STEPS):
        said = step.strip() if number else f"1+2+3= {step.strip()}"
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": "+"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = engine.text.encode(text)
        assert ids[-2] == good
        expected.append(float(logits(ids)[-3, [good, bad]].softmax(dim=-1)[0]))
    verifier = TokenVerifier(engine, format="chat-turns", bad="=", aggregate="min")
    found = scored(verifier, *(steps(count) for count in (1, 2, 3)))
    assert found == pytest.approx([min(expected[:count]) for count in (1, 2, 3)], abs=1e-4)


@pytest.mark.parametrize("format", ["step-tag", "chat-turns"])
def test_what_cannot_be_scored_is_nan_and_spoils_no_other(engine: Any, format: Any) -> None:
    verifier = TokenVerifier(engine, format=format, tag=".", good="+", bad="=")
    gauge = meter(verifier)
    long = branch(PROBLEM, "9" * 400 + "\n")
    found = scored(verifier, long, steps(2), Branch.root(PROBLEM), gauge=gauge)
    assert math.isnan(found[0]) and math.isnan(found[2])
    assert [found[1]] == scored(verifier, steps(2))
    assert gauge.samples == (0, 1, 2)
    assert gauge.usage(0).prompt == 0 < gauge.usage(1).prompt


def test_what_was_read_once_is_not_read_again(engine: Any) -> None:
    verifier = tagged(engine, aggregate="min")
    first, second = meter(verifier), meter(verifier)
    fresh = branch(PROBLEM, *STEPS, "delta=9\n")
    scored(verifier, fresh, gauge=first)
    scored(verifier, fresh, gauge=second)
    assert second.total.prompt == second.total.cached > 0


def test_an_engine_that_cannot_is_refused(engine: Any) -> None:
    with pytest.raises(SpecError, match="has no way to score text"):
        TokenVerifier(Blind())
    with pytest.raises(SpecError, match="format is step-tag or chat-turns"):
        TokenVerifier(engine, format="qwen")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="aggregate is last or min"):
        TokenVerifier(engine, aggregate="sum")  # type: ignore[arg-type]


class Blind(SimulatedEngine):
    def __init__(self) -> None:
        super().__init__(Script(["a"]))

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("test", "blind")


def test_the_layout_is_named_in_the_spec(folder: Path) -> None:
    task, policy = load_task("words"), EngineInfo("torch", "m")
    options = "dtype=float32, memory_cap=10000000"
    spec = f'{folder}(format=step-tag, tag=".", bad="=", good="+", aggregate=min, {options})'
    found = load_verifier(spec, task=task, policy=policy)
    assert isinstance(found, TokenVerifier)
    assert (found.tag, found.good, found.bad, found.aggregate) == (".", "+", "=", "min")
    for wrong, said in {
        "format=qwen": "expected value-head or step-tag or chat-turns",
        "format=chat-turns, history=true": "unknown parameter of .* 'history'",
        "aggregate=min": "has no value head",
    }.items():
        with pytest.raises(SpecError, match=said):
            load_verifier(f"{folder}({wrong}, {options})", task=task, policy=policy)
