"""The in-process engine: requests in, completions out, on torch, on this machine.

``load_torch_engine`` is the door; everything else in this room is behind it. Torch itself is
imported when an engine is loaded, so that ``import mull`` stays light.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mull.engines.adapt import Train
from mull.engines.base import check_price
from mull.errors import MissingExtraError

if TYPE_CHECKING:
    from mull.engines.torch.engine import TorchEngine

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]

__all__ = ["load_torch_engine"]


def load_torch_engine(
    path: str | Path,
    *,
    dtype: Dtype = "auto",
    device: Device = "auto",
    slots: int = 64,
    memory_cap: int | None = None,
    one_row: bool = False,
    context: int | None = None,
    name: str | None = None,
    price: tuple[float, float, float] = (0.0, 0.0, 0.0),
    adapter: str | Path | None = None,
    adapted: int = 4,
    trainer: Train | None = None,
) -> TorchEngine:
    """Load a Hugging Face checkpoint directory as an engine.

    Llama, Qwen2 and Qwen3 families; weights from safetensors only, no remote code.

    Args:
        path: directory with ``config.json``, ``*.safetensors`` and a tokenizer.
        dtype: ``auto`` takes bfloat16 where the checkpoint and the processor have it.
        device: ``auto`` takes CUDA where there is one.
        slots: rows that decode side by side.
        memory_cap: bytes for keys and values, rows and prefix tree together; ``None`` takes a
            quarter of the free memory.
        one_row: compute every row alone and reuse nothing across requests, so that completions
            are byte-identical at any concurrency; slow.
        context: a shorter context than the model's own, in tokens.
        name: the model's name in records; the directory's name if ``None``.
        price: money per million (new prompt, cached prompt, generated) tokens.
        adapter: directory of a LoRA adapter in peft's format (rsLoRA and DoRA too), merged into
            the weights as they are read; ``EngineInfo.adapter`` names it and its digest.
        adapted: weights trained on at test time that are held at once; each has keys and values
            of ``memory_cap / adapted`` bytes.
        trainer: what trains the weights on at test time (``mull.training.adapt``); without one, or
            with an ``adapter``, the engine refuses to.

    Raises:
        ModelLoadError: no model there, an unsafe or unsupported one, or a wrong tensor.
        MissingExtraError: torch, transformers or safetensors is not installed.
    """
    try:
        from mull.engines.torch.open import open_engine
    except ImportError as error:
        if getattr(error, "name", None) in ("torch", "transformers", "safetensors", "tokenizers"):
            raise MissingExtraError.of("the torch engine", "torch") from error
        raise
    check_price(price)
    engine = open_engine(
        Path(path),
        dtype=dtype,
        device=device,
        slots=slots,
        memory_cap=memory_cap,
        one_row=one_row,
        context=context,
        name=name,
        adapter=None if adapter is None else Path(adapter),
        adapted=adapted,
        trainer=trainer,
    )
    engine.info = replace(engine.info, price=price)
    return engine
