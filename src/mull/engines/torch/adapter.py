"""A LoRA adapter in peft's format → weights with the adapter merged in, one tensor at a time.

``W' = W + s B A`` with ``s = alpha / rank``, or ``alpha / sqrt(rank)`` for rsLoRA (Kalajdzievski
2023, arXiv 2312.03732); DoRA (Liu et al. 2024, arXiv 2402.09353) then gives every row of ``W'`` a
learned length. Computed in float32 whatever the weights are in. Safetensors only; what an adapter
holds beyond that is refused, since half an adapter is another model.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mull.errors import ModelLoadError

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
# Settings that change what an adapter computes and that are not merged here.
_OTHER: Final = (
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "fan_in_fan_out",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "kasa_config",
)
# Ways to begin that leave the base as it is.
_PLAIN: Final = ("gaussian", "eva", "orthogonal")


@dataclass
class Adapter:
    """Low-rank changes by module; ``scale`` is s, ``dora`` whether rows have learned lengths."""

    path: Path
    tensors: dict[str, Tensor]
    scale: float
    rank: int
    dora: bool
    identity: str
    """Its directory's name and a digest of its config and weights."""
    _used: set[str] = field(default_factory=set)

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The tensor ``name`` of the model, [out, in], with what the adapter adds to it.

        Raises:
            ModelLoadError: the adapter's tensors do not fit it.
        """
        module = _PREFIX + name.removesuffix(".weight")
        if f"{module}.lora_A.weight" not in self.tensors:
            return weight
        down = self._take(f"{module}.lora_A.weight", (self.rank, weight.shape[1]))
        up = self._take(f"{module}.lora_B.weight", (weight.shape[0], self.rank))
        whole = weight.float() + self.scale * (up @ down)
        if self.dora:
            length = self._take(f"{module}.lora_magnitude_vector", (weight.shape[0],))
            whole = whole * (length / torch.linalg.vector_norm(whole, dim=1))[:, None]
        return whole

    def check_used(self) -> None:
        """Raise ``ModelLoadError`` for a tensor of the adapter that no tensor of the model took."""
        left = sorted(set(self.tensors) - self._used)
        if left:
            raise ModelLoadError(
                f"{self.path}: {left[0]} has no place in this model ({len(left)} such); expected "
                "low-rank changes of its linear layers: is it an adapter of another model?"
            )

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelLoadError(f"{self.path}: tensor {name} is missing from the adapter")
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"{self.path}: tensor {name} has shape {tuple(tensor.shape)}; expected {shape}: "
                "is it an adapter of another model?"
            )
        self._used.add(name)
        tensor = tensor.float()
        if not bool(torch.isfinite(tensor).all()):
            raise ModelLoadError(f"{self.path}: tensor {name} holds values that are no numbers")
        return tensor


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter and no model."""
    return (path / CONFIG).is_file() and not (path / "config.json").exists()


def read_adapter(path: Path) -> Adapter:
    """The LoRA adapter of a directory.

    Raises:
        ModelLoadError: none there, a pickle, or one that holds more than low-rank changes.
    """
    config = adapter_config(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelLoadError(f"{path}: an adapter of kind {kind!r}; expected LORA")
    more = [name for name in _OTHER if config.get(name)]
    if config.get("init_lora_weights", True) not in (*_PLAIN, True, False):
        more.append("init_lora_weights")  # such as pissa: it changes the base as well
    if config.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise ModelLoadError(
            f"{path}: the adapter uses {', '.join(more)}, which cannot be merged at load: merge it "
            "with peft and load the merged model"
        )
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelLoadError(f"{path / CONFIG} has a missing or bad field: {error}") from error
    try:
        data = (path / WEIGHTS).read_bytes()
        tensors = load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{path / WEIGHTS} cannot be read: {error}") from error
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode() + data, digest_size=8)
    # Some versions write the lengths as a parameter of a module, others as a bare one.
    tensors = {
        name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector"): tensor
        for name, tensor in tensors.items()
    }
    return Adapter(
        path,
        tensors,
        scale,
        rank,
        bool(config.get("use_dora")),
        f"{path.resolve().name}@{digest.hexdigest()}",
    )


def adapter_config(path: Path) -> dict[str, Any]:
    """The config of an adapter's directory; ``ModelLoadError`` unless its weights are safe ones."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{path} is no adapter directory ({CONFIG}: {error}); expected {CONFIG} and {WEIGHTS}, "
            "as peft and mull train lora write them"
        ) from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path / CONFIG} must hold a JSON object")
    if not (path / WEIGHTS).is_file():
        raise ModelLoadError(
            f"{path} holds no {WEIGHTS}; expected the adapter as safetensors, since a pickle can "
            "run code when it is read"
        )
    return config
