"""A checkpoint's ``config.json`` → the numbers that the forward pass needs, or a refusal.

Four families share one shape: pre-norm, rotary positions, grouped-query attention, gated MLP.
What differs is a bias (Qwen2), a norm on queries and keys (Qwen3), the rotary scaling (Llama 3) and
what a position is (Mull's own grid models: grid, row and column, ``places.py``).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mull.engines.torch.places import Marks, axes_and_rates
from mull.errors import ModelLoadError

PROCESS_REWARD = "Qwen2ForProcessRewardModel"
"""The one architecture whose own code is known and left aside: a Qwen2 with a head of two layers
(Qwen2.5-Math-PRM)."""
GRID = "mull_grid"
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", GRID: "Mull grid"}
ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder. ``width`` is heads × head_dim, which need not be ``hidden`` (Qwen3)."""

    family: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    eps: float
    context: int
    tied: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: str
    eos: tuple[int, ...]
    frequencies: tuple[float, ...]
    """Rotary inverse frequencies [head_dim / 2], scaling applied."""
    marks: Marks | None = None
    """Of a grid model: the tokens by which the others' places are known."""

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def parameters(self) -> int:
        """Weights that multiply: all matrices with the output head, without the lookup table."""
        kv = 2 * self.kv_heads * self.head_dim
        attention = self.hidden * (self.width + kv) + self.width * self.hidden
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + (
            self.hidden * self.vocab
        )


def is_grid_model(path: Path) -> bool:
    """Whether ``config.json`` of a checkpoint directory names Mull's own family of grid models."""
    return _object(path, "config.json").get("model_type") == GRID


def read_config(path: Path, context: int | None = None) -> ModelConfig:
    """Read ``config.json`` (and ``generation_config.json``) of a checkpoint directory.

    Raises:
        ModelLoadError: it is no model directory, asks for remote code, or is of another family.
    """
    raw = _object(path, "config.json")
    if "auto_map" in raw and raw.get("architectures") != [PROCESS_REWARD]:
        raise ModelLoadError(
            f"{path}: config.json asks for remote code (auto_map); Mull runs none: "
            "convert the checkpoint to a plain Llama, Qwen2 or Qwen3 layout"
        )
    family = str(raw.get("model_type", ""))
    if family not in FAMILIES:
        raise ModelLoadError(
            f"{path}: model_type {family!r} is not supported by the torch engine; "
            f"expected one of {', '.join(FAMILIES)}: use another engine (vLLM) for it"
        )
    if raw.get("quantization_config"):
        raise ModelLoadError(
            f"{path}: quantised weights are not supported: load a plain checkpoint"
        )
    activation = raw.get("hidden_act", "silu")
    if activation != "silu":
        raise ModelLoadError(f"{path}: hidden_act {activation!r} is not supported, only 'silu'")
    try:
        return _shape(path, raw, family, context)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, ModelLoadError):
            raise
        raise ModelLoadError(f"{path}: config.json has a missing or bad field: {error}") from error


def _shape(path: Path, raw: dict[str, Any], family: str, context: int | None) -> ModelConfig:
    heads, hidden = int(raw["num_attention_heads"]), int(raw["hidden_size"])
    head_dim = int(raw.get("head_dim") or hidden // heads)
    limit = int(raw["max_position_embeddings"])
    if raw.get("use_sliding_window") and raw.get("sliding_window"):
        # Inside the window full attention is exact; beyond it we would compute another model.
        limit = min(limit, int(raw["sliding_window"]))
    if context is not None:
        if not 1 <= context <= limit:
            raise ModelLoadError(f"{path}: context must lie in 1..{limit}, not {context}")
        limit = context
    llama_bias = bool(raw.get("attention_bias", False)) and family != "qwen2"
    marks = Marks(**raw["grid_marks"]) if family == GRID else None
    rates = _frequencies(path, raw, head_dim)
    return ModelConfig(
        family=family,
        vocab=int(raw["vocab_size"]),
        hidden=hidden,
        layers=int(raw["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(raw.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        intermediate=int(raw["intermediate_size"]),
        eps=float(raw.get("rms_norm_eps", 1e-6)),
        context=limit,
        tied=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2" or llama_bias,
        output_bias=llama_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
        eos=_eos(path, raw),
        frequencies=rates if marks is None else tuple(axes_and_rates(head_dim)[1].tolist()),
        marks=marks,
    )


def _object(path: Path, name: str) -> dict[str, Any]:
    try:
        raw = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelLoadError(
            f"{path} is no model directory ({name}: {reason}); expected a Hugging Face "
            "checkpoint: config.json, *.safetensors, tokenizer.json"
        ) from error
    except json.JSONDecodeError as error:
        raise ModelLoadError(f"{path / name} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ModelLoadError(f"{path / name} must hold a JSON object")
    return raw


def _eos(path: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    """End tokens of both configs: chat models name theirs only in the generation config."""
    found: set[int] = set()
    sources = [raw]
    if (path / "generation_config.json").exists():
        sources.append(_object(path, "generation_config.json"))
    for source in sources:
        value = source.get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        found.update(int(token) for token in ids)
    return tuple(sorted(found))


def _frequencies(path: Path, raw: dict[str, Any], head_dim: int) -> tuple[float, ...]:
    """Inverse frequencies; Llama 3 scaling after Meta's reference (arXiv 2407.21783, 3.4)."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = str(rope.get("rope_type") or rope.get("type") or "default")
    if kind not in ROPE_TYPES:
        raise ModelLoadError(
            f"{path}: rotary scaling {kind!r} is not supported; expected {', '.join(ROPE_TYPES)}"
        )
    if float(rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))) != 1.0:
        raise ModelLoadError(f"{path}: partial rotary embeddings are not supported")
    theta = float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0)
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if kind == "default":
        return tuple(plain)
    factor = float(rope["factor"])
    if kind == "linear":
        return tuple(value / factor for value in plain)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original = float(rope["original_max_position_embeddings"])
    scaled = []
    for value in plain:
        wavelength = 2 * math.pi / value
        if wavelength < original / high:
            scaled.append(value)
        elif wavelength > original / low:
            scaled.append(value / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * value / factor + smooth * value)
    return tuple(scaled)
