"""LoRA adapters with peft: put on a model, read, written, merged into it.

LoRA: Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (2312.03732); DoRA: Liu et al.
2024 (2402.09353); 4-bit base weights: Dettmers et al. 2023 (QLoRA, 2305.14314).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mull.engines.torch.adapter import WEIGHTS, adapter_config
from mull.engines.torch.config import is_grid_model
from mull.engines.torch.load import weight_files
from mull.errors import ConfigError, MissingExtraError, ModelLoadError
from mull.fileio import write_atomic
from mull.training.device import check_device
from mull.training.trained import write_card

Precision = Literal["float32", "bfloat16"]
ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR: Final = "all-linear"
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class LoraShape:
    """What is trained: low-rank changes of some linear layers.

    The change is scaled by ``alpha / rank``, with ``rs_lora`` by ``alpha / sqrt(rank)``. ``dora``
    learns the lengths of the weights' rows beside their directions. ``targets`` are names of
    modules, or the one name ``all-linear`` (all but the output head).
    """

    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ATTENTION
    rs_lora: bool = True
    dora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"train: rank must be at least 1, not {self.rank}")
        if not self.alpha > 0:
            raise ConfigError(f"train: alpha must be positive, not {self.alpha}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"train: dropout must lie in [0, 1), not {self.dropout}")
        if not self.targets or (ALL_LINEAR in self.targets and len(self.targets) > 1):
            raise ConfigError(
                f"train: targets must be names of modules, or {ALL_LINEAR} alone, not "
                f"{', '.join(self.targets) or 'none'}"
            )


def base_model(folder: Path, precision: Precision, device: str, four_bit: bool = False) -> Any:
    """A causal language model in ``transformers``, safetensors only, no remote code.

    Raises:
        ConfigError: no such device, or ``four_bit`` without a CUDA device.
        MissingExtraError: ``four_bit`` without bitsandbytes.
        ModelLoadError: no such model.
    """
    from transformers import AutoModelForCausalLM

    check_device(device)
    options: dict[str, Any] = {"dtype": getattr(torch, precision)}
    if four_bit:
        options["quantization_config"] = _four_bit(device)
        options["device_map"] = {"": device}
    weight_files(folder)  # unsafe or missing weights are the first thing to hear of
    if is_grid_model(folder):
        raise ModelLoadError(
            f"{folder}: a grid model is none of transformers' own; mull arc adapt trains it further"
        )
    try:
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise ModelLoadError(
            f"{folder}: transformers cannot load it ({reason[0] if reason else error!r}); expected "
            "the checkpoint of a causal language model"
        ) from error
    return model if four_bit else model.to(device)


def with_adapter(model: Any, base: Path, shape: LoraShape, seed: int) -> Any:
    """The model with a fresh adapter, which changes nothing yet; only the adapter is trainable."""
    peft = _peft()
    targets = ALL_LINEAR if shape.targets == (ALL_LINEAR,) else list(shape.targets)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=targets,
        use_rslora=shape.rs_lora,
        use_dora=shape.dora,
    )
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            linear = {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, nn.Linear)
            }
            raise ConfigError(
                f"train: targets {', '.join(shape.targets)} cannot be adapted ({error}); the "
                f"model's linear layers are: {', '.join(sorted(linear))}"
            ) from error


def load_adapter(model: Any, folder: Path, trainable: bool) -> Any:
    """The model with an adapter from a directory; ``ModelLoadError`` where it does not fit."""
    peft = _peft()
    adapter_config(folder)
    try:
        with _quiet():
            return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise ModelLoadError(
            f"{folder}: the adapter does not fit the model ({reason[0] if reason else error!r})"
        ) from error


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as peft does: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = _peft().get_peft_model_state_dict(
        model, save_embedding_layers=False
    )
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    config = model.peft_config["default"]
    before, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = before
    write_atomic(folder / WEIGHTS, save(whole, {"format": "pt"}))


def merge(base: Path, adapter: Path, folder: Path, device: str = "cpu") -> None:
    """Write the base model with the adapter merged in, as a model that anything can load.

    Merged in float32, written in the base's own precision with the base's tokenizer.

    Raises:
        ModelLoadError: base or adapter cannot be read, or the two do not fit.
        ConfigError: the folder is the base's or the adapter's own.
    """
    if folder.resolve() in (base.resolve(), adapter.resolve()):
        raise ConfigError(f"{folder} is what is merged; expected another directory for the result")
    settings = adapter_config(adapter)
    model = base_model(base, "float32", device)
    kind = _dtype_of(base)
    with _quiet():
        merged = load_adapter(model, adapter, trainable=False).merge_and_unload(safe_merge=True)
        folder.mkdir(parents=True, exist_ok=True)
        card = {
            "kind": "policy",
            **(_task_of(adapter) or _task_of(base)),
            "base": base.resolve().name,
            "adapter": adapter.resolve().name,
            "rank": settings.get("r"),
        }
        write_card(folder, card)
        with TemporaryDirectory(dir=folder) as made:
            merged.to(kind).save_pretrained(made)
            for name in TOKENIZER_FILES:
                if (base / name).is_file():
                    shutil.copyfile(base / name, Path(made, name))
            # Weights last, and the index of their files behind them: they say that it is whole.
            for file in sorted(Path(made).iterdir(), key=lambda f: ("safetensors" in f.name, f)):
                file.replace(folder / file.name)


def recompute(model: Any) -> None:
    """Keep fewer activations of a model, and compute them a second time in the backward pass."""
    # Its new name in transformers 5; the old one is on its way out.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def _task_of(folder: Path) -> dict[str, str]:
    """The task on a model's or an adapter's card, where it has a card that names one."""
    try:
        task = json.loads((folder / "card.json").read_text(encoding="utf-8")).get("task")
    except (OSError, ValueError, AttributeError):  # models from elsewhere have none
        return {}
    return {"task": task} if isinstance(task, str) else {}


def _dtype_of(base: Path) -> torch.dtype:
    """The precision that a checkpoint says it has."""
    raw = json.loads((base / "config.json").read_text(encoding="utf-8"))
    name = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    kind = getattr(torch, name, None)
    return kind if isinstance(kind, torch.dtype) else torch.float32


def _four_bit(device: str) -> Any:
    if not device.startswith("cuda"):
        raise ConfigError(
            f"train: 4-bit weights need a CUDA device, not {device}: leave four_bit out"
        )
    try:
        import bitsandbytes  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "4-bit weights need an optional dependency: pip install bitsandbytes"
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError.of("mull train lora", "torch") from error
    return peft


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars, and without its warning of a name that peft still uses."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
