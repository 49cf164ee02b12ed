# ruff: noqa: S106  (special tokens are no passwords)
"""Tiny random checkpoints of each family, made once a session in a temporary directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mull.budget import Ledger, Meter, Purpose
from mull.engines.torch import load_torch_engine
from mull.types import Completion, Delta, Request

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
# These load on first use, slowly: here no test's time limit runs.
for lazy in ("AutoModelForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"):
    getattr(transformers, lazy)
import_module("mull.engines.torch.open")

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "\n", " ", ".", "=", "+"]
WORDS += [str(n) for n in range(10)]
WORDS += ["alpha", "beta", "gamma", "delta", "ab", "bc", "cab", "stop", "st", "op", "é", "\n\n"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_tokenizer(path: Path, bos: bool = False, vocab: list[str] | None = None) -> None:
    """A word-level tokenizer whose text is the concatenation of its tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    words = vocab or WORDS
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>")
    )
    longest = sorted((w for w in words if not w.startswith("<")), key=len, reverse=True)
    pattern = "|".join(escape(word) for word in longest)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", words.index("<s>"))]
        )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    fast.save_pretrained(str(path))


def escape(word: str) -> str:
    return "".join("\\" + c if c in ".+*?()[]{}|^$\\" else c for c in word)


def config_of(family: str, **changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        **changes,
    }
    classes = {
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }
    if family == "qwen3":
        sizes.setdefault("head_dim", 16)
    return classes[family](**sizes)


def make_checkpoint(path: Path, family: str = "qwen2", seed: int = 0, **changes: Any) -> Path:
    """A random checkpoint with a tokenizer; biases and norms random too, so that they matter."""
    save = changes.pop("save", {})
    bos = changes.pop("bos", family == "llama")
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config_of(family, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    path.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(str(path), **save)
    save_tokenizer(path, bos=bos)
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoints("llama", tie_word_embeddings=True)``: a directory, made once for each call."""
    made: dict[str, Path] = {}

    def get(family: str = "qwen2", **changes: Any) -> Path:
        key = repr((family, sorted(changes.items(), key=str)))
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp(family), family, **changes)
        return made[key]

    return get


@pytest.fixture(scope="session")
def engines(checkpoints: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    """``engines(family, engine={...}, **checkpoint)``: a float32 engine, shared by the session."""
    made: dict[str, Any] = {}

    def get(family: str = "qwen2", engine: dict[str, Any] | None = None, **changes: Any) -> Any:
        options = {"dtype": "float32", "device": "cpu", "memory_cap": 1 << 28, **(engine or {})}
        key = repr((family, sorted(options.items()), sorted(changes.items(), key=str)))
        if key not in made:
            made[key] = load_torch_engine(checkpoints(family, **changes), **options)
        return made[key]

    yield get
    for each in made.values():
        asyncio.run(each.aclose())


class Run:
    """Requests through an engine on a fresh event loop, with their meters."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.ledger = Ledger()
        self.meters: list[Meter] = []

    def meter(self) -> Meter:
        self.meters.append(Meter(self.ledger, Purpose.POLICY, self.engine.info))
        return self.meters[-1]

    async def one(self, request: Request) -> list[Delta | Completion]:
        return [item async for item in self.engine.generate(request, self.meter())]

    def __call__(self, *requests: Request) -> list[list[Completion]]:
        """Completions of requests that run together, each request's by sample index."""

        async def all_of_them() -> list[list[Delta | Completion]]:
            return await asyncio.gather(*(self.one(request) for request in requests))

        return [
            sorted((c for c in each if isinstance(c, Completion)), key=lambda c: c.index)
            for each in asyncio.run(all_of_them())
        ]


@pytest.fixture
def run() -> Callable[[Any], Run]:
    return Run
