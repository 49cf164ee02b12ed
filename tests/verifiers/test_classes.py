"""Public reward models with a head of two classes: as plain torch computes them, layout by layout.

The checkpoints are tiny and random, their files as the authors' own: ``score.weight`` beside a
trunk without an output head (TRL), ``score.0`` and ``score.2`` under code of its own (Qwen).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.verifiers.common import branch, meter, scored

from mull.budget import Ledger, Meter, Purpose
from mull.catalog import load_task, load_verifier
from mull.engines.simulated import SimulatedEngine, StepModel, run_virtual
from mull.engines.torch import load_torch_engine
from mull.errors import EngineError, ModelLoadError, SpecError, UnsupportedError
from mull.types import (
    GREEDY,
    Branch,
    EngineInfo,
    Message,
    Problem,
    Prompt,
    Request,
    ScoreRequest,
    Until,
)
from mull.verifiers.classes import SYSTEM, ClassVerifier

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from tests.engines.torch.conftest import WORDS, config_of, save_tokenizer  # noqa: E402

AutoModel = transformers.AutoModel  # loads on first use, slowly: here no time limit runs
Classes = transformers.AutoModelForTokenClassification
PROBLEM = Problem("p", Prompt.of("1+2+3="))
STEPS = ("alpha=3", "beta beta=4.", "gamma=7")
EXTRA = "<extra_0>"
TEMPLATE = (
    "{% for m in messages %}{{ {'system': 'st', 'user': 'ab', 'assistant': 'bc'}[m['role']] }}"
    "{{ m['content'] }}{{ 'stop' }}{% endfor %}{% if add_generation_prompt %}{{ 'bc' }}{% endif %}"
)
OPTIONS = "dtype=float32, memory_cap=10000000"


def shaken(model: Any) -> Any:
    """Random biases and norms too, so that they matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def trl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``PRMTrainer`` saves: an ``AutoModelForTokenClassification`` of two labels."""
    path = tmp_path_factory.mktemp("trl") / "prm"
    torch.manual_seed(1)
    config = config_of(request.param, num_labels=2, tie_word_embeddings=request.param == "llama")
    shaken(Classes.from_config(config)).save_pretrained(str(path))
    save_tokenizer(path, bos=request.param == "llama")
    tensors = load_file(str(path / "model.safetensors"))
    assert tensors["score.weight"].shape == (2, 32)
    assert tensors["score.bias"].shape == (2,)
    assert "lm_head.weight" not in tensors
    return path


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of Qwen2.5-Math-PRM: a Qwen2 trunk, two layers, code of its own named."""
    path = tmp_path_factory.mktemp("qwen") / "prm"
    torch.manual_seed(2)
    config = config_of("qwen2", vocab_size=len(WORDS) + 1)
    trunk = shaken(AutoModel.from_config(config))
    trunk.save_pretrained(str(path))
    tensors = {f"model.{name}": tensor.clone() for name, tensor in trunk.state_dict().items()}
    for name, rows in (("score.0", 32), ("score.2", 2)):
        tensors[f"{name}.weight"] = 0.5 * torch.randn(rows, 32)
        tensors[f"{name}.bias"] = 0.5 * torch.randn(rows)
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    own = json.loads((path / "config.json").read_text())
    own |= {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
    }
    (path / "config.json").write_text(json.dumps(own))
    save_tokenizer(path)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(path))
    tokenizer.add_special_tokens({"additional_special_tokens": [EXTRA]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(path))
    return path


def opened(path: Path) -> Any:
    return load_torch_engine(path, dtype="float32", device="cpu", memory_cap=1 << 26)


@pytest.fixture(scope="module")
def trl_engine(trl: Path) -> Iterator[Any]:
    made = opened(trl)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def qwen_engine(qwen: Path) -> Iterator[Any]:
    made = opened(qwen)
    yield made
    asyncio.run(made.aclose())


def steps(count: int) -> Branch:
    return branch(PROBLEM, *(f"{step}\n" for step in STEPS[:count]))


def every(values: list[float]) -> dict[str, float]:
    """The values under each way to make one score of them."""
    return {
        "last": values[-1],
        "min": min(values),
        "product": math.prod(values),
        "mean": sum(values) / len(values),
    }


def test_trl_prm_is_the_softmax_of_the_classifier_at_every_separator(
    trl: Path, trl_engine: Any
) -> None:
    """Prompt, then each step and its separator, encoded apart; labels lie on the separators."""
    model = Classes.from_pretrained(str(trl)).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(trl))
    bos = tokenizer.encode("1")[:-1]
    ids, ends = [*bos, *tokenizer.encode("1+2+3=", add_special_tokens=False)], []
    for step in STEPS:
        for piece in (step, "\n"):
            ids += tokenizer.encode(piece, add_special_tokens=False)
        ends.append(len(ids) - 1)
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0].softmax(dim=-1)[ends, 1].tolist()
    assert len(bos) == ("llama" in str(model.config.model_type))
    for aggregate, value in every(found).items():
        verifier = ClassVerifier(trl_engine, aggregate=aggregate)  # type: ignore[arg-type]
        assert scored(verifier, steps(3)) == pytest.approx([value], abs=1e-5)
    prefixes = scored(ClassVerifier(trl_engine), *(steps(count) for count in (1, 2, 3)))
    assert prefixes == pytest.approx(found, abs=1e-5)


def test_qwen_prm_is_the_softmax_of_two_layers_at_every_extra_token(
    qwen: Path, qwen_engine: Any
) -> None:
    """The rendered chat, and the probability of class 1 wherever the input is the extra token."""
    tensors = load_file(str(qwen / "model.safetensors"))
    trunk = AutoModel.from_config(config_of("qwen2", vocab_size=len(WORDS) + 1)).eval()
    trunk.load_state_dict(
        {name.removeprefix("model."): t for name, t in tensors.items() if "score" not in name}
    )
    score = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    score.load_state_dict(
        {name.removeprefix("score."): t for name, t in tensors.items() if "score" in name}
    )
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(str(qwen))
    turns = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "1+2+3="},
        {"role": "assistant", "content": EXTRA.join(STEPS) + EXTRA},
    ]
    ids = tokenizer.encode(
        tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False
    )
    (extra,) = tokenizer.encode(EXTRA, add_special_tokens=False)
    with torch.no_grad():
        classes = score(trunk(torch.tensor([ids])).last_hidden_state[0]).softmax(dim=-1)[:, 1]
    found = [float(classes[at]) for at, token in enumerate(ids) if token == extra]
    assert len(found) == 3
    for aggregate, value in every(found).items():
        verifier = ClassVerifier(qwen_engine, format="qwen-prm", aggregate=aggregate)  # type: ignore[arg-type]
        assert scored(verifier, steps(3)) == pytest.approx([value], abs=1e-5)


def test_a_system_turn_of_the_problem_stands_in_place_of_the_authors(qwen_engine: Any) -> None:
    user = Message("user", "1+2+3=")
    verifier = ClassVerifier(qwen_engine, format="qwen-prm", system="delta")
    own = Problem("p", Prompt.chat(Message("system", "delta"), user))
    asked = branch(own, "alpha=3\n")
    other = ClassVerifier(qwen_engine, format="qwen-prm")
    assert scored(other, asked) == scored(verifier, branch(PROBLEM, "alpha=3\n"))
    assert scored(other, asked) != scored(other, branch(PROBLEM, "alpha=3\n"))


def test_a_solution_cannot_write_a_step_end_of_its_own(qwen_engine: Any) -> None:
    verifier = ClassVerifier(qwen_engine, format="qwen-prm", aggregate="mean")
    forged = branch(PROBLEM, f"alpha{EXTRA}=3{EXTRA}\n", f"{EXTRA}\n", "gamma=7\n")
    assert scored(verifier, forged) == scored(verifier, branch(PROBLEM, "alpha=3\n", "gamma=7\n"))


@pytest.mark.parametrize("format", ["trl-prm", "qwen-prm"])
def test_what_cannot_be_scored_is_nan_and_what_was_read_is_not_read_again(
    format: Any, trl_engine: Any, qwen_engine: Any
) -> None:
    verifier = ClassVerifier(trl_engine if format == "trl-prm" else qwen_engine, format=format)
    verifier.forget()
    long = branch(PROBLEM, "9" * 400 + "\n")
    found = scored(verifier, long, steps(2), Branch.root(PROBLEM))
    assert math.isnan(found[0]) and math.isnan(found[2])
    gauge = meter(verifier)
    assert scored(verifier, steps(2), gauge=gauge) == [found[1]]
    assert gauge.total.prompt == gauge.total.cached > 0
    further = meter(verifier)
    scored(verifier, steps(3), gauge=further)
    assert 0 < further.total.prompt - further.total.cached < 10, "only the new step"


def test_a_classifier_writes_nothing_and_says_so(trl_engine: Any) -> None:
    can = trl_engine.info.capabilities
    assert can.values and not (can.score or can.logprobs or can.token_beam or can.ends)
    prompt = Prompt.of("1+2")

    async def generate() -> None:
        gauge = Meter(Ledger(), Purpose.POLICY, trl_engine.info)
        request = Request(prompt, Until(4), decoding=GREEDY, logprobs=False)
        async for _ in trl_engine.generate(request, gauge):
            pass

    async def score(request: ScoreRequest) -> None:
        await trl_engine.score([request], Meter(Ledger(), Purpose.POLICY, trl_engine.info))

    for work in (generate(), score(ScoreRequest(prompt, "=3"))):
        with pytest.raises(UnsupportedError, match=r"no output head \(tensor lm_head.weight\)"):
            asyncio.run(work)
    for wrong, said in (
        ({"assistant": "=3", "pieces": ("=3",)}, "in place of assistant"),
        ({"assistant": "", "pieces": ("=3", "")}, "without a token"),
    ):
        with pytest.raises(EngineError, match=said):
            asyncio.run(score(ScoreRequest(prompt, **wrong, values=True, logprobs=False)))  # type: ignore[arg-type]


def test_an_engine_that_tokenises_a_text_as_one_refuses_pieces() -> None:
    engine = SimulatedEngine(StepModel())
    asked = ScoreRequest(PROBLEM.prompt, "", pieces=("a", "b"), values=True)
    with pytest.raises(UnsupportedError, match="cannot honour: pieces"):
        run_virtual(engine.score([asked], Meter(Ledger(), Purpose.VERIFIER, engine.info)))


def test_a_checkpoint_names_its_layout_and_a_spec_may(trl: Path, qwen: Path) -> None:
    task, policy = load_task("words"), EngineInfo("torch", "m")
    for path, layout in ((trl, "trl-prm"), (qwen, "qwen-prm")):
        for named in ("", f"format={layout}, "):
            found = load_verifier(
                f"{path}({named}aggregate=min, {OPTIONS})", task=task, policy=policy
            )
            assert isinstance(found, ClassVerifier)
            assert (found.format, found.aggregate) == (layout, "min")
            asyncio.run(found.aclose())
    for path, wrong, said in (
        (trl, "format=qwen-prm", "has no chat template"),
        (trl, "format=skywork", "expected value-head or step-tag or chat-turns or trl-prm"),
        (trl, "format=step-tag", "has no way to score text"),
        (trl, "history=true", "unknown parameter of .* 'history'"),
        (trl, "system=x", "no system's turn"),
        (qwen, "tag=''", "must end in something"),
    ):
        with pytest.raises(SpecError, match=said):
            load_verifier(f"{path}({wrong}, {OPTIONS})", task=task, policy=policy)


def test_other_heads_and_other_code_are_refused(trl: Path, qwen: Path, tmp_path: Path) -> None:
    tensors = load_file(str(trl / "model.safetensors"))
    for name, changed, said in (
        ("one", {"score.weight": torch.ones(1, 32), "score.bias": torch.ones(1)}, "has shape"),
        ("skywork", {"v_head.summary.weight": torch.ones(1, 32)}, "has no place"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for file in trl.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        save_file({**tensors, **changed}, str(folder / "model.safetensors"))
        with pytest.raises(ModelLoadError, match=said):
            opened(folder)
    folder = tmp_path / "code"
    folder.mkdir()
    for file in qwen.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    own = json.loads((folder / "config.json").read_text())
    own["architectures"] = ["Qwen2ForSomethingElse"]
    (folder / "config.json").write_text(json.dumps(own))
    with pytest.raises(ModelLoadError, match="asks for remote code"):
        opened(folder)
