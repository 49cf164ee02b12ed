"""A checkpoint directory → a model and its tokenizer, safetensors only, nothing executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mull.engines.torch.adapter import Adapter
from mull.engines.torch.config import ModelConfig
from mull.engines.torch.model import Layer, Linear, Model, ValueHead
from mull.engines.torch.places import SIDE
from mull.errors import ModelLoadError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
CLASSES = ("score.weight", "score.2.weight")
"""Heads of two classes: of token classification, and of Qwen2.5-Math-PRM (two layers)."""
WHOLE_HASH = 1 << 30
CHUNK = 1 << 20


class Weights:
    """The tensors of one or many safetensors files, each read once and checked for its shape."""

    def __init__(
        self,
        path: Path,
        dtype: torch.dtype,
        device: torch.device,
        adapter: Adapter | None = None,
    ) -> None:
        self.path, self.dtype, self.device, self.adapter = path, dtype, device, adapter
        self._file: dict[str, Path] = {}
        for file in weight_files(path):
            try:
                with safe_open(str(file), framework="pt") as handle:
                    self._file.update(dict.fromkeys(handle.keys(), file))
            except (SafetensorError, OSError) as error:
                raise ModelLoadError(f"{file} is no readable safetensors file: {error}") from error
        self.left = {name for name in self._file if not name.endswith("rotary_emb.inv_freq")}

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor ``name`` in the engine's dtype; its shape and its values are checked."""
        if name not in self:
            raise ModelLoadError(f"{self.path}: tensor {name} is missing from the checkpoint")
        tensor = self._read(name)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"{self.path}: tensor {name} has shape {tuple(tensor.shape)}; "
                f"config.json says {shape}"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelLoadError(f"{self.path}: tensor {name} holds values that are no numbers")
        self.left.discard(name)
        if self.adapter is not None:
            tensor = self.adapter.merged(name, tensor)
        return tensor.to(device=self.device, dtype=self.dtype)

    def _read(self, name: str) -> Tensor:
        with safe_open(str(self._file[name]), framework="pt") as handle:
            tensor: Tensor = handle.get_tensor(name)
        return tensor

    def fused(self, names: list[tuple[str, int]], *inner: int) -> Tensor:
        """Tensors stacked along their first axis."""
        return torch.cat([self.take(name, rows, *inner) for name, rows in names])


class TrainedWeights(Weights):
    """The tensors of a checkpoint that were trained on: ``trained`` by name, what lacks as it was.

    A tied output head is the embedding, whatever the checkpoint says besides.
    """

    def __init__(
        self, path: Path, dtype: torch.dtype, device: torch.device, trained: Mapping[str, Tensor]
    ) -> None:
        super().__init__(path, dtype, device)
        self._trained = trained
        strange = sorted(set(trained) - set(self._file))
        if strange:
            raise ModelLoadError(f"{path}: {strange[0]} was trained and is no tensor of it")

    def _read(self, name: str) -> Tensor:
        trained = self._trained.get(name)
        return super()._read(name) if trained is None else trained


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a directory, by its index where it has one.

    Raises:
        ModelLoadError: there are none, only pickles, or the index names a file elsewhere.
    """
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelLoadError(f"{index} is no safetensors index: {error}") from error
        for name in names:
            if not isinstance(name, str) or Path(name).name != name:
                raise ModelLoadError(f"{index} names a file outside its directory: {name!r}")
            if not (path / name).is_file():
                raise ModelLoadError(f"{path}: shard {name} is missing")
        return sorted(path / name for name in names)
    files = sorted(path.glob("*.safetensors"))
    if files:
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickles:
        raise ModelLoadError(
            f"{path} holds a pickle checkpoint ({pickles[0]}), which can run code when it is read; "
            "Mull loads safetensors only: convert it with save_pretrained(safe_serialization=True)"
        )
    raise ModelLoadError(f"{path} holds no *.safetensors weights")


def load_model(
    path: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    adapter: Adapter | None = None,
) -> Model:
    """Read and fuse the weights; refuse a checkpoint with a tensor too few or too many.

    An ``adapter`` is merged into them, and refused where a part of it has no place in the model.
    """
    model = model_of(Weights(path, dtype, device, adapter), config)
    if adapter is not None:
        adapter.check_used()
    return model


def model_of(weights: Weights, config: ModelConfig) -> Model:
    """The model of these weights; there must be a place for each."""
    path = weights.path
    hidden, vocab = config.hidden, config.vocab
    embedding = weights.take("model.embed_tokens.weight", vocab, hidden)
    place_embedding = None
    if config.marks is not None:
        place_embedding = weights.take("model.embed_places.weight", 2 * SIDE, hidden)
    layers = [_layer(weights, config, number) for number in range(config.layers)]
    norm = weights.take("model.norm.weight", hidden)
    head = None
    if any(name in weights for name in CLASSES) and "lm_head.weight" not in weights:
        pass  # a classifier: its embedding, tied or not, writes nothing
    elif config.tied:
        head = Linear(embedding)
        weights.left.discard("lm_head.weight")
    else:
        head = Linear(weights.take("lm_head.weight", vocab, hidden))
    value_head = _value_head(weights, hidden)
    if weights.left:
        raise ModelLoadError(
            f"{path}: tensor {min(weights.left)} has no place in a {config.family} model "
            f"({len(weights.left)} such): merge adapters and remove extra heads before loading"
        )
    return Model(config, embedding, layers, norm, head, value_head, place_embedding)


def _value_head(weights: Weights, hidden: int) -> ValueHead | None:
    """The head that gives values, in any of three layouts; ``None`` without one.

    Of two classes (wrong, right) the softmax of the second is the sigmoid of their difference. In
    float32 whatever the trunk is in: a bfloat16 reading has 8 bits, and scores would tie.
    """

    def linear(name: str, rows: int) -> tuple[Tensor, Tensor | None]:
        bias = f"{name}.bias"
        given = weights.take(bias, rows).float() if bias in weights else None
        return weights.take(f"{name}.weight", rows, hidden).float(), given

    def difference(name: str) -> Linear:
        weight, bias = linear(name, 2)
        return Linear(weight[1:] - weight[:1], None if bias is None else bias[1:] - bias[:1])

    if "value_head.weight" in weights:
        reads = "value_head.logprob_weight"
        nat = weights.take(reads, 1).item() if reads in weights else 0.0
        return ValueHead(Linear(*linear("value_head", 1)), logprob_weight=nat)
    if "score.weight" in weights:
        return ValueHead(difference("score"))
    if "score.2.weight" in weights:
        return ValueHead(difference("score.2"), Linear(*linear("score.0", hidden)))
    return None


def _layer(weights: Weights, c: ModelConfig, number: int) -> Layer:
    base = f"model.layers.{number}."
    attention, mlp = base + "self_attn.", base + "mlp."
    kv = c.kv_heads * c.head_dim
    rows = [("q_proj", c.width), ("k_proj", kv), ("v_proj", kv)]
    both = [("gate_proj", c.intermediate), ("up_proj", c.intermediate)]

    def linear(root: str, parts: list[tuple[str, int]], inner: int, bias: bool) -> Linear:
        weight = weights.fused([(f"{root}{name}.weight", n) for name, n in parts], inner)
        if not bias:
            return Linear(weight)
        return Linear(weight, weights.fused([(f"{root}{name}.bias", n) for name, n in parts]))

    return Layer(
        qkv=linear(attention, rows, c.hidden, c.qkv_bias),
        out=linear(attention, [("o_proj", c.hidden)], c.width, c.output_bias),
        gate_up=linear(mlp, both, c.hidden, c.mlp_bias),
        down=linear(mlp, [("down_proj", c.hidden)], c.intermediate, c.mlp_bias),
        norm_in=weights.take(base + "input_layernorm.weight", c.hidden),
        norm_mid=weights.take(base + "post_attention_layernorm.weight", c.hidden),
        norm_q=weights.take(attention + "q_norm.weight", c.head_dim) if c.qk_norm else None,
        norm_k=weights.take(attention + "k_norm.weight", c.head_dim) if c.qk_norm else None,
    )


def load_tokenizer(path: Path) -> Any:
    """The tokenizer beside the weights, through transformers, without remote code."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = path / "tokenizer_config.json"
    if settings.exists():
        try:
            remote = "auto_map" in json.loads(settings.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{settings} cannot be read: {error}") from error
        if remote:
            raise ModelLoadError(f"{path}: the tokenizer asks for remote code (auto_map)")
    if not any((path / name).is_file() for name in VOCABULARIES):
        # transformers would make an empty tokenizer and say nothing.
        raise ModelLoadError(f"{path} holds no tokenizer; expected tokenizer.json")
    # tokenizer.json says everything; the class that a model type maps to may rebuild it otherwise.
    exact = (path / "tokenizer.json").is_file()
    factory = PreTrainedTokenizerFast if exact else AutoTokenizer
    try:
        return factory.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises whatever its parsers raise
        reason = str(error).strip().splitlines()
        raise ModelLoadError(
            f"{path}: no tokenizer could be loaded ({reason[0] if reason else error!r}); "
            "expected tokenizer.json beside the weights"
        ) from error


def revision(path: Path) -> str:
    """A digest of config and weights; of evenly spaced chunks for files above 1 GiB."""
    digest = hashlib.blake2b(digest_size=8)
    for file in [path / "config.json", *weight_files(path)]:
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as handle:
        if size <= WHOLE_HASH:
            while chunk := handle.read(CHUNK):
                yield chunk
            return
        for number in range(256):
            handle.seek(number * (size - CHUNK) // 255)
            yield handle.read(CHUNK)
