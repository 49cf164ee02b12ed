"""A trainer's state ↔ one safetensors file: tensors by path, counters as JSON in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

_WEIGHTS = ("model", "best")


def pack(state: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint: tensors of ``model``, of ``best`` if it is there (the best weights
    so far) and of ``optimizers``; other entries are counters.
    """
    tensors = {
        f"{kind}.{name}": weight
        for kind in _WEIGHTS
        for name, weight in state.get(kind, {}).items()
    }
    for which, slots in enumerate(state["optimizers"]):
        for weight, values in slots.items():
            for name, value in values.items():
                tensors[f"optimizers.{which}.{weight}.{name}"] = value
    counters = {
        name: value for name, value in state.items() if name not in (*_WEIGHTS, "optimizers")
    }
    contiguous = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    return save(
        contiguous, {"counters": json.dumps(counters), "optimizers": str(len(state["optimizers"]))}
    )


def unpack(path: Path) -> dict[str, Any]:
    """The state in a checkpoint; ``SafetensorError`` or ``KeyError`` where it is none."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        state: dict[str, Any] = json.loads(header["counters"])
        state.update({kind: {} for kind in _WEIGHTS})
        state["optimizers"] = [{} for _ in range(int(header["optimizers"]))]
        for key in file.keys():  # noqa: SIM118 (not a dict)
            kind, _, name = key.partition(".")
            if kind in _WEIGHTS:
                state[kind][name] = file.get_tensor(key)
            else:
                which, weight, value = name.split(".", 2)
                slots = state["optimizers"][int(which)]
                slots.setdefault(int(weight), {})[value] = file.get_tensor(key)
    return state
