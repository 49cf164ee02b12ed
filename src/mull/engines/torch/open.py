"""A checkpoint directory and the caller's options → a running engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mull.engines.adapt import Train
from mull.engines.torch.adapted import AdaptedWeights
from mull.engines.torch.adapter import is_adapter, read_adapter
from mull.engines.torch.batch import Batch
from mull.engines.torch.config import ModelConfig, read_config
from mull.engines.torch.engine import TorchEngine
from mull.engines.torch.load import (
    TrainedWeights,
    load_model,
    load_tokenizer,
    model_of,
    revision,
    weight_files,
)
from mull.engines.torch.model import Model
from mull.engines.torch.text import Text
from mull.errors import ModelLoadError
from mull.types import Capabilities, EngineInfo


def open_engine(
    path: Path,
    *,
    dtype: str,
    device: str,
    slots: int,
    memory_cap: int | None,
    one_row: bool,
    context: int | None,
    name: str | None,
    adapter: Path | None = None,
    adapted: int = 4,
    trainer: Train | None = None,
) -> TorchEngine:
    """See ``mull.engines.torch.load_torch_engine``."""
    if slots < 1:
        raise ModelLoadError(f"slots must be at least 1, not {slots}")
    if memory_cap is not None and memory_cap < 1:
        raise ModelLoadError(f"memory_cap must be a positive number of bytes, not {memory_cap}")
    if is_adapter(path):
        raise ModelLoadError(
            f"{path} holds an adapter, which is no model by itself: load the model that it was "
            "trained on with adapter=this directory, or merge the two (mull train merge)"
        )
    if adapted < 1:
        raise ModelLoadError(f"adapted must be at least 1, not {adapted}")
    if adapter is not None:
        trainer = None  # it trains the model's own weights, without what was merged into them
    config = read_config(path, context)
    weight_files(path)  # unsafe or missing weights are the first thing to hear of
    place = _device(device)
    kind = _dtype(dtype, config, place)
    added = None if adapter is None else read_adapter(adapter)
    text = Text(load_tokenizer(path), config.vocab)
    model = load_model(path, config, kind, place, added)
    writes = model.head is not None
    if not writes:
        trainer = None  # it trains on what a model writes
    eos = set(config.eos) | ({text.eos} if text.eos is not None else set())
    cap = memory_cap or _memory(place)

    def batch_of(model: Model, cap: int) -> Batch:
        ends = sorted(eos)
        return Batch(model, eos=ends, slots=slots, memory_cap=cap, one_row=one_row)

    def build(trained: Mapping[str, Tensor]) -> Batch:
        weights = TrainedWeights(path, kind, place, trained)
        return batch_of(model_of(weights, config), max(1, cap // adapted))

    info = EngineInfo(
        kind="torch-one-row" if one_row else "torch",
        model=name or path.resolve().name,
        revision=revision(path),
        tokenizer=text.digest,
        template=text.template_digest,
        adapter="" if added is None else added.identity,
        dtype=str(kind).removeprefix("torch."),
        parameters=config.parameters - (0 if writes else config.hidden * config.vocab),
        layers=config.layers,
        width=config.width,
        context=config.context,
        slots=slots,
        capabilities=Capabilities(
            chat=bool(text.template),
            logprobs=writes,
            token_ids=True,
            seed=True,
            score=writes,
            values=model.value_head is not None,
            token_beam=writes,
            threshold_dfs=writes,
            deltas=writes,
            adapts=trainer is not None,
            certainty=writes,
            ends=writes and bool(eos),
        ),
    )
    held = None if trainer is None else AdaptedWeights(trainer, build, str(place), adapted)
    return TorchEngine(batch_of(model, cap), text, info, held)


def _device(device: str) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ModelLoadError(f"device must be auto, cpu or cuda, not {device!r}")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError("device cuda was asked for, but torch sees none: use device=cpu")
    return torch.device(device)


def _dtype(dtype: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    if dtype not in ("auto", "float32", "bfloat16"):
        raise ModelLoadError(f"dtype must be auto, float32 or bfloat16, not {dtype!r}")
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    # Without the instruction, bfloat16 products are emulated and slower than float32 ones.
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast and config.dtype != "float32" else torch.float32


def _memory(device: torch.device) -> int:
    """A quarter of the memory that is free now, at least 64 MiB."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(free // 4, 64 << 20)
