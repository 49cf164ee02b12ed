"""Where a training computes, checked before anything is read."""

from __future__ import annotations

import re

import torch

from mull.errors import ConfigError


def check_device(device: str) -> None:
    """Raise ``ConfigError`` unless torch can train on ``device``: ``cpu``, ``cuda`` or ``cuda:N``.

    >>> check_device("tpu")
    Traceback (most recent call last):
    mull.errors.ConfigError: train: device must be cpu, cuda or cuda:N, not 'tpu'
    """
    if re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise ConfigError(f"train: device must be cpu, cuda or cuda:N, not {device!r}")
    kind, _, number = device.partition(":")
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= seen:
        raise ConfigError(
            f"train: device {device} was asked for, but torch sees {seen or 'none'}: use device=cpu"
        )
